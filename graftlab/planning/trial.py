"""How long a step takes: a few of them, really, with the model that is to be trained."""

import time
from typing import TYPE_CHECKING, TypedDict

import torch

from graftlab.planning.rehearsal import build_loop
from graftlab.runs import attachment, material
from graftlab.training.parallel.processes import Processes

if TYPE_CHECKING:
    from accelerate import Accelerator

    from graftlab.contracts import Data
    from graftlab.runfile import RunFile

STEPS = 2  # that are timed, after one that is not


class Probe(TypedDict):
    """What real steps have shown."""

    seconds_per_step: float
    seconds: float
    """Of all steps of the run, without evaluations, checkpoints and what is written at the end."""
    loading_seconds: float


def probe(file: "RunFile", data: "Data", accelerator: "Accelerator", steps: int) -> Probe:
    """Load the model, make three steps of the run, and time the last two of them. Nothing is written."""
    began = time.perf_counter()
    backbone = material.backbone(file, data.problem)
    task = material.bind(file, data, backbone)
    backbone.model.to(accelerator.device)
    attached = attachment.attach(file, backbone, task, None, Processes())
    training = file.training.model_copy(update={"workers": 0})
    loop = build_loop(file, training, attached, task, backbone.head, accelerator)
    loop.learner.begin()
    loop.begin()
    loaded = time.perf_counter() - began
    seconds = []
    for step in range(1, STEPS + 2):
        began = time.perf_counter()
        loop.stepper.step(step, training.learning_rate)
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize(accelerator.device)
        seconds.append(time.perf_counter() - began)
    each = sum(seconds[1:]) / STEPS
    return Probe(seconds_per_step=each, seconds=each * steps, loading_seconds=loaded)
