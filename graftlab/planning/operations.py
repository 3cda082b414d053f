"""The floating-point operations of a run's training before it, counted as `runs.costs` counts them after."""

from typing import TYPE_CHECKING

from graftlab.planning import fakes, memory, quantized, sizes
from graftlab.planning.forecast import quiet
from graftlab.runs import attachment, costs, material
from graftlab.seeds import mix
from graftlab.training import config as training_config
from graftlab.training import devices
from graftlab.training.order import Order
from graftlab.training.parallel.processes import Processes

if TYPE_CHECKING:
    from graftlab.runfile import RunFile


def training_flops(file: "RunFile") -> float | None:
    """Return the operations of all steps of a run: those of its first step's examples, on a model without
    weights, times the steps. None where the data cannot be read without a download.

    Raises:
        GraftlabError: the run would be refused for it before its first step.
    """
    data = sizes.read(file)
    if isinstance(data, str):
        return None
    training = file.training
    accelerator = devices.accelerator(training.precision)
    backbone = material.backbone(file, data.problem, meta=True)
    with quiet():
        backbone = quantized.prepared(file, backbone)
        task = material.bind(file, data, backbone)
        order = Order.of(
            task, training.batch_size, mix(file.seed, "order"), training.group_by_length
        )
        indices = costs.counted(task, order, training.micro_batch_size or training.batch_size)
        planned = memory.planned(file)
        with fakes.on_meta():
            attached = attachment.attach(planned, backbone, task, None, Processes())
        fake = fakes.mode()
        fakes.imitate(attached.model, accelerator.device, fake)
        with fake, fakes.Rehearsal(), accelerator.autocast():
            flops = costs.step_flops(attached.model.eval(), task, indices, accelerator)
    steps = training_config.num_steps(training, task.size("train"))
    return flops / len(indices) * training.batch_size * steps
