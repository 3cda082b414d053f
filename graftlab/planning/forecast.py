"""A run foreseen: what it takes of memory, disk, network and steps, from its file alone."""

import contextlib
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from graftlab.contracts import Data, written
from graftlab.errors import Argument, ConfigError, Place
from graftlab.planning import advice, memory, quantized, sizes, storage
from graftlab.planning.shards import Sharing
from graftlab.planning.sizes import Evaluated, Sizes
from graftlab.rundir.records import Parameters
from graftlab.runs import material
from graftlab.training import config as training_config
from graftlab.training import devices

if TYPE_CHECKING:
    from accelerate import Accelerator

    from graftlab.planning.trial import Probe
    from graftlab.runfile import RunFile

ALONE = Sharing()


class Trained(Parameters):
    """How many numbers train, of how many."""

    share: float


class Processes(TypedDict):
    """What the run is shared between."""

    number: int
    kind: str


class Examples(Evaluated):
    """Examples, and their lengths in tokens, as `sizes.Sizes` has them; beside those of the other
    splits."""

    examples: int | None
    longest: int
    mean: float | None
    sampled: bool
    truncated: int


class Steps(TypedDict):
    """The loop's figures; None is not known."""

    steps: int | None
    steps_per_epoch: int | None
    epochs: float | None
    evaluations: int | None
    checkpoints: int | None
    effective_batch: int
    micro_batch: int
    micro_batches: int
    tokens: int | None
    padding: float | None


class Memory(TypedDict):
    """Bytes of one process on its device."""

    peak: int
    when: str
    parts: dict[str, int]
    """Of the peak."""
    evaluation: int
    baseline: int
    """Of the process without a model."""
    free: int | None
    largest: dict[str, int]
    """Tensors, by name."""
    blocks: list[int]
    """Depths of the models that were measured, where blocks repeat."""


class Fetched(TypedDict):
    """Bytes to be fetched first; None is not known."""

    weights: int | None
    data: int | None
    notes: list[dict[str, object]]


class Plan(TypedDict):
    """What a run will take."""

    name: str
    method: str
    backbone: str
    task: str
    device: str
    precision: str
    processes: Processes
    parameters: Trained
    data: Examples
    training: Steps
    memory: Memory
    disk: storage.Disk
    download: Fetched
    time: "Probe | None"
    """None where nothing was tried."""
    warnings: list[dict[str, object]]
    notes: list[dict[str, object]]


def plan(
    file: "RunFile",
    sharing: Sharing = ALONE,
    longest: int | None = None,
    probed: bool = False,
    out: Path | None = None,
) -> Plan:
    """Return what a run will take, as JSON; bytes are whole numbers, and None is not known.

    `longest` assumes that many tokens for the longest example; `probed` loads the model and times steps;
    `out` is the run's directory where it is not the run file's own.

    Raises:
        GraftlabError: the run would be refused for it before its first step.
    """
    baseline = memory.resident()
    accelerator = devices.accelerator(file.training.precision)
    data = sizes.read(file)
    problem = file.task.module.problem(file.task.config) if isinstance(data, str) else data.problem
    backbone = material.backbone(file, problem, meta=True)
    with quiet():
        backbone = quantized.prepared(file, backbone)
    task, found = sizes.bind(file, data, backbone, longest)
    steps = _steps(file, found.examples)
    free = memory.available(accelerator.device)
    with quiet():
        foreseen = memory.foresee(file, backbone, task, accelerator, sharing.processes)
    peaks = sharing.peaks(foreseen.measured.peaks, foreseen.block)
    segment, peak = max(peaks.items(), key=lambda item: item[1].total)
    known = advice.Known(
        file, found, foreseen, accelerator.device, peak.total, peak.parts, free, steps
    )
    disk = storage.disk(file, foreseen.measured.checkpoint, steps, out)
    fetched = storage.download(file, isinstance(data, Data))
    figures = _training(file, found, steps, sharing.processes)
    texts = advice.texts(file, found.evaluated.get("validation", 0), figures["evaluations"])
    return {
        "name": file.name,
        "method": file.method.name,
        "backbone": file.resolved["backbone"].get("model") or file.backbone.name,
        "task": file.resolved["task"].get("name") or file.task.name,
        "device": str(accelerator.device),
        "precision": file.training.precision,
        "processes": {"number": sharing.processes, "kind": sharing.kind},
        "parameters": {
            "trainable": foreseen.trainable,
            "total": foreseen.total,
            "share": foreseen.trainable / foreseen.total,
        },
        "data": {
            "examples": found.examples,
            **found.evaluated,
            "longest": found.longest,
            "mean": found.mean,
            "sampled": found.sampled,
            "truncated": found.truncated,
        },
        "training": figures,
        "memory": {
            "peak": peak.total,
            "when": when(segment, foreseen.depths),
            "parts": {part: size for part, size in peak.parts.items() if size},
            "evaluation": foreseen.measured.evaluation.total,
            "baseline": baseline,
            "free": free,
            "largest": dict(foreseen.measured.largest),
            "blocks": list(foreseen.depths),
        },
        "disk": disk,
        "download": {
            "weights": fetched.weights,
            "data": fetched.data,
            "notes": written(fetched.notes),
        },
        "time": _time(file, data, accelerator, steps) if probed else None,
        "warnings": written(advice.warnings(known)),
        "notes": written([*file.notes, *found.notes, *fetched.notes, *texts]),
    }


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what libraries say when a model is built: the run says it, and here it would come thrice."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)


def _steps(file: "RunFile", examples: int | None) -> int | None:
    """Return the optimizer steps; None where the data decide and are not known."""
    if examples is None:
        return file.training.max_steps or None
    return training_config.num_steps(file.training, examples)


def _training(file: "RunFile", found: Sizes, steps: int | None, processes: int) -> Steps:
    training = file.training
    share = -(-training.batch_size // processes)
    micro = min(training.micro_batch_size or share, share)
    per_epoch = math.ceil(found.examples / training.batch_size) if found.examples else None
    tokens = None
    if steps is not None and found.mean is not None:
        tokens = round(steps * training.batch_size * found.mean)
    evaluations, checkpoints = None, None
    if steps is not None and per_epoch is not None:
        evaluations = advice.times(training.evaluate_every, steps, per_epoch)
        checkpoints = 1 + max(1, advice.times(training.save_every, steps, per_epoch))
    return {
        "steps": steps,
        "steps_per_epoch": per_epoch,
        "epochs": steps / per_epoch if steps and per_epoch else None,
        "evaluations": evaluations,
        "checkpoints": checkpoints,
        "effective_batch": training.batch_size,
        "micro_batch": micro,
        "micro_batches": -(-share // micro),
        "tokens": tokens,
        "padding": advice.padding(found, training.batch_size, training.group_by_length),
    }


def _time(
    file: "RunFile", data: "Data | str", accelerator: "Accelerator", steps: int | None
) -> "Probe":
    from graftlab.planning.trial import probe

    if isinstance(data, str) or steps is None:
        said = f"steps can be timed on the data only, which cannot be read: {data}"
        raise ConfigError(said, place=Place(argument=Argument("probed", True)))
    return probe(file, data, accelerator, steps)


def when(segment: object, depths: tuple[int, ...]) -> str:
    """Return in words where in a step the peak is."""
    if segment == "update":
        return "the optimizer's step"
    if segment == "exchange":
        return "the gradients' exchange"
    if not isinstance(segment, tuple):
        return "the start of a step"
    way = "forward pass" if segment[0] == "forward" else "backward pass"
    place = segment[1]
    if place == "loss":
        return "the loss"
    if place == "head":
        return f"the {way} behind the blocks"
    if place == "embedding":
        return f"the {way} before the blocks"
    if place == "from the last":
        number = segment[2]
        return (
            f"the {way} of the last block"
            if number == 1
            else f"the {way} of block {number} from the last"
        )
    return f"the {way} of block {1 + (segment[2] if place == 'from the first' else place)}"
