"""Conflicts between sections, found before anything is loaded."""

import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from graftlab.config import Document, Problems, Section
from graftlab.config.parser import Location
from graftlab.config.paths import elsewhere
from graftlab.contracts import BackboneKind, Method, Note, TaskKind
from graftlab.data.section import DataSection
from graftlab.errors import (
    ConfigError,
    DataError,
    Fault,
    GraftlabError,
    Words,
    missing_extra,
    unknown,
)
from graftlab.runfile import measures
from graftlab.runfile.records import Part, RunFile
from graftlab.training import schedule
from graftlab.weights import formats, pretrained

if TYPE_CHECKING:
    from graftlab.training.config import Config as Training
    from graftlab.training.trackers import Config as Tracking


WRITTEN = ("texts", "programs")
"""What metrics read that is only there once a model has written."""
EXTRAS = {"sentence_transformers": "embeddings"}
"""With what a package of metrics comes, if not with `text`."""


def check_task(
    task: Part[TaskKind],
    backbone: Part[BackboneKind],
    training: "Training",
    document: Document,
    problems: Problems,
) -> None:
    fits = task.module.backbones(task.config)
    if backbone.name not in fits:
        problems.say(
            document.place("task"),
            f"a task of kind {task.name!r} fits backbones of kind {_any_of(fits)}; "
            f"{_model(backbone)} is of kind {backbone.name!r}.",
            kind="conflict",
        )
    known = {"loss"}
    for number, (name, part) in enumerate(task.parts.items()):
        own = _check_metrics(part, ("task", "tasks", number), document, problems)
        known |= {"mean"} | {f"{name}/{metric}" for metric in (*own, "loss")}
    if not task.parts:
        known |= _check_metrics(task, ("task",), document, problems)
    if training.best_by is not None and training.best_by not in known:
        message = unknown("metric", training.best_by, known)
        place = document.place("training", "best_by")
        problems.say(
            place, f"training.best_by: {message}",
            kind="unknown", given=training.best_by, allowed=sorted(known),
        )  # fmt: skip
    elif training.best_by is not None and _is_of_texts(task, training.best_by):
        said = (
            f"training.best_by: {training.best_by} reads what is written, and nothing is written while "
            f"training. Set task.generation.at_evaluations to a number of answers, such as 50."
        )
        problems.say(document.place("training", "best_by"), said, kind="conflict")
    if task.parts and not len(problems):
        _check_two_classes(task, document, problems)


def _is_of_texts(task: Part[TaskKind], best_by: str) -> bool:
    """Return whether a metric reads texts of a task that writes none at evaluations."""
    name, slash, metric = best_by.rpartition("/")
    config = task.parts[name].config if slash else task.config
    if metric in ("loss", "mean") or measures.measure(metric).module.READS not in WRITTEN:
        return False
    writing = getattr(config, "generation", None)
    return writing is not None and not writing.at_evaluations


def _check_metrics(
    task: Part[TaskKind], where: Location, document: Document, problems: Problems
) -> set[str]:
    """Return the metrics that a task may be judged by: its own, or all where it names none."""
    metrics = task.config.metrics if isinstance(task.config, DataSection) else ()
    said = ".".join(map(str, where))
    for metric in metrics:
        if lacking := _not_installed(metric, said):
            problems.say(document.place(*where, "metrics"), lacking, kind="not_installed")
    return {*(metrics or measures.names())}


def _check_two_classes(task: Part[TaskKind], document: Document, problems: Problems) -> None:
    """Refuse a metric of two classes where a head that tasks share may answer with a third one."""
    if getattr(task.config, "head", None) != "shared":
        return
    outputs = {name: len(own.labels) for name, own in task.module.problem(task.config).parts}
    for number, (name, part) in enumerate(task.parts.items()):
        for metric in part.config.metrics if isinstance(part.config, DataSection) else ():
            most = measures.measure(metric).num_classes
            if most is not None and outputs[name] > most:
                problems.say(
                    document.place("task", "tasks", number, "metrics"),
                    f"task.tasks.{number}.metrics: {metric} is for {most} classes, and with head: shared "
                    f"{name} may be answered with one of {outputs[name]}. Set its metrics to accuracy, "
                    f"macro_f1; or take head: shared_masked.",
                    kind="conflict",
                )


def _not_installed(metric: str, task: str) -> str | None:
    """Return what to do where the package that a metric is computed by is not there; it runs last of all."""
    package = measures.measure(metric).module.PACKAGE
    if package is None or importlib.util.find_spec(package):
        return None
    return missing_extra(f"{task}.metrics: {metric}", package, EXTRAS.get(package, "text"))


def check_data(task: Part[TaskKind], document: Document, problems: Problems) -> None:
    add(problems, document, "task", task.module.check(task.config), DataError)


def check_method(
    method: Part[Method],
    backbone: Part[BackboneKind],
    training: "Training",
    document: Document,
    problems: Problems,
) -> None:
    model = getattr(backbone.config, "model", None)
    model_type = pretrained.model_type_of(model) if isinstance(model, str) else None
    place = document.place("method", "name")
    promised = method.module.PROMISES
    if (why := promised.misfit(backbone.name, model_type)) is not None:
        what = f"kind {backbone.name}" + (f", {model_type}" if model_type else "")
        problems.say(
            place,
            f"the method {method.name!r} does not fit {_model(backbone)} ({what}): {why}. Choose another "
            f"method, such as lora.",
            kind="conflict",
        )
    unfit = _not_on_quantized(method, backbone)
    if unfit is not None:
        problems.say(
            document.place("backbone", "quantization"),
            f"the method {method.name!r} does not fit backbone.quantization: {unfit}. "
            f"Remove the section, or choose another method, such as lora.",
            kind="conflict",
        )
    found = method.module.check(
        method.config, backbone.name, model_type, training.gradient_checkpointing
    )
    add(problems, document, "method", found)
    long = (training.epochs, training.max_steps)
    add(problems, document, "method", method.module.check_length(method.config, *long))


def check_packing(
    task: Part[TaskKind], method: Part[Method], document: Document, problems: Problems
) -> None:
    """Refuse several examples in one row for a method that puts tokens of its own in front of each row."""
    if method.module.PROMISES.virtual_tokens and task.module.packs(task.config):
        problems.say(
            document.place("task", "packing"),
            f"task.packing: the method {method.name!r} puts virtual tokens before each row, not before "
            f"each of the examples in it. Set task.packing: none.",
            kind="conflict",
        )


def check_vectors(
    task: Part[TaskKind], method: Part[Method], document: Document, problems: Problems
) -> None:
    """Refuse a method that reads vectors for rows that have none, and any other for rows that have some."""
    reads, given = method.module.PROMISES.reads_vectors, task.module.VECTORS
    if reads == given:
        return
    is_read = "reads vectors" if reads else "reads no vectors"
    stand = "stand for vectors" if given else "do not stand for any"
    problems.say(
        document.place("method", "name"),
        f"the method {method.name!r} {is_read}, and the rows of a task of kind {task.name!r} {stand}.",
        kind="conflict",
    )


def _not_on_quantized(method: Part[Method], backbone: Part[BackboneKind]) -> str | None:
    """Return why a method does not fit a backbone that is held in 4 or 8 bits; None where it does."""
    quantization = getattr(backbone.config, "quantization", None)
    if quantization is None:
        return None
    return method.module.on_quantized(method.config, quantization.bits)


def folder_for_a_name(document: Document, backbone: Part[BackboneKind]) -> Iterator[Note]:
    """Yield that a folder goes before the model of the same name."""
    values = document.values["backbone"]
    name, model = values.get("model"), getattr(backbone.config, "model", None)
    if name != model and isinstance(name, str) and pretrained.is_known(name):
        yield Note.of("folder_of_that_name", model=name, folder=model)


def notes(document: Document, training: "Training", tracking: "Tracking") -> Iterator[Note]:
    """Yield what is given and has no effect here, with its place."""
    if training.max_steps and _differs(document, "training", training, "epochs"):
        yield _idle(document, "training.epochs", "training.max_steps", training.max_steps)
    steps = document.places.get(("training", "max_steps"))
    if steps and steps.argument and steps.argument == document.place("training", "epochs").argument:
        yield _idle(document, "training.max_steps", "training.epochs", training.epochs)
    own = training.schedule
    for field, names in schedule.READ_BY.items():
        if own.name not in names and _differs(document, "training.schedule", own, field):
            key = f"training.schedule.{field}"
            yield _idle(document, key, "training.schedule.name", own.name)
    for field in type(tracking).model_fields:
        if not tracking.to and _differs(document, "tracking", tracking, field):
            yield _idle(document, f"tracking.{field}", "tracking.to", None)


def _idle(document: Document, key: str, because: str, value: object) -> Note:
    place = _where(document, *key.split("."))
    return Note.of("no_effect", place=place, key=key, because=because, value=value)


def _where(document: Document, *location: str) -> str | None:
    """Return where in a file a key stands; None where an override sets it."""
    place = document.place(*location)
    return str(place) if place.file else None


def _differs(document: Document, section: str, config: Section, field: str) -> bool:
    """Return whether a key of a section is given, and as something else than what it is anyway."""
    default = type(config).model_fields[field].get_default(call_default_factory=True)
    return (*section.split("."), field) in document.places and getattr(config, field) != default


def add(
    problems: Problems,
    document: Document,
    section: str,
    found: Iterable[Fault],
    error: type[GraftlabError] = ConfigError,
) -> None:
    """Add what a part has found in its section, each where its key stands."""
    for problem in found:
        placed = problem.within(section)
        key = placed.place.key
        hint = _elsewhere(document, key)
        place = placed.place or document.place(*key)
        problems.add(replace(placed, place=place, remedies=(*placed.remedies, *hint)), error)


def _elsewhere(document: Document, key: Location) -> list[Words]:
    """Return what to write for a path that lies where the command is given, and not where its file stands."""
    given: object = document.values
    for part in key:
        given = given.get(part) if isinstance(given, dict) else None
    written = elsewhere(given, document, key) if isinstance(given, str) else None
    if written is None:
        return []
    return [(f"Paths in a run file are relative to it: write {written!r}.",)]


def _any_of(names: Iterable[str]) -> str:
    return " or ".join(names)


def _model(backbone: Part[BackboneKind]) -> str:
    return str(getattr(backbone.config, "model", None) or "this backbone")


def unusual_rate(file: RunFile) -> Iterator[Note]:
    """Yield a note where the learning rate is not one at which the method usually trains."""
    low, high = file.method.module.PROMISES.usual_rates
    rate = file.training.learning_rate
    if not low <= rate <= high and file.training.optimizer.name != "sgd":  # whose rates are larger
        yield Note.of("rate_unusual", rate=rate, method=file.method.name, low=low, high=high)


def slow_formats(file: RunFile) -> Iterator[Note]:
    """Yield a note on each key by which this machine would compute in a format that it has no instructions
    for."""
    backbone = file.backbone.config
    quantization = getattr(backbone, "quantization", None)
    asked = {
        "training.precision": ("bfloat16" if file.training.precision == "bf16" else "", "fp32"),
        "backbone.dtype": (getattr(backbone, "dtype", ""), "float32"),
    }
    if getattr(quantization, "bits", None) == 4:  # of 8 bits products are of whole numbers
        compute = getattr(quantization, "compute_dtype", "")
        asked["backbone.quantization.compute_dtype"] = (compute, "float32")
    for key, (dtype, instead) in asked.items():
        if formats.emulated(dtype):
            yield Note.of("format_slow", key=key, dtype=dtype, instead=instead)
