"""Several tasks in one run, drawn by turns: of classes all, or of texts all."""

import csv
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.config import Paths
from graftlab.contracts import (
    Backbone,
    Data,
    Note,
    Problem,
    Row,
    Task,
    TaskKind,
    TaskPart,
    read_notes,
    written,
)
from graftlab.contracts.modules import provided
from graftlab.errors import (
    ConfigError,
    Fault,
    GraftlabError,
    wrong,
)
from graftlab.seeds import mix
from graftlab.tasks.mixture import draws
from graftlab.tasks.mixture.apart import apart
from graftlab.tasks.mixture.inputs import read_inputs
from graftlab.tasks.mixture.rows import Changed, Mixed, by_task, places
from graftlab.tasks.mixture.section import Config, Resolved, naming, with_parts

if TYPE_CHECKING:
    from graftlab.tasks.mixture.task import MixtureTask

BACKBONES = ("encoder", "decoder", "vision", "tiny")
SPLITS = ("train", "validation", "test")
ROWS = ("validation/original_train_data_size", "validation/sliced_train_data_size")
"""Figures of a task's record that add up."""

__all__ = ["BACKBONES", "Config", "Resolved", "backbones", "bind", "check", "example", "packs", "problem",
           "read", "read_inputs", "with_parts"]  # fmt: skip


def example(folder: Path) -> Config:
    """Return a section of two tasks with other classes each, written into `folder`."""
    from graftlab.tasks import classification

    parts = {}
    for name, labels in (("mood", ("no", "yes")), ("size", ("big", "small", "tiny"))):
        (folder / name).mkdir(exist_ok=True)
        for split, count in (("train", 6), ("validation", 3), ("test", 3)):
            with (folder / name / f"{split}.csv").open("w", encoding="utf-8") as file:
                lines = [
                    (f"{name} {split} {'so ' * i}", labels[i % len(labels)]) for i in range(count)
                ]
                csv.writer(file).writerows([("text", "label"), *lines])
        own = classification.Config(data_dir=folder / name, max_length=40)
        parts[name] = Resolved(provided(TaskKind, classification), own)
    return with_parts(Config(tasks=({}, {})), parts)


def backbones(config: Config) -> tuple[str, ...]:
    """Return the kinds of backbone that fit all tasks."""
    fits = list(BACKBONES)
    for part in config.parts.values():
        own = part.module.backbones(part.config)
        fits = [kind for kind in fits if kind in own]
    return tuple(fits)


def packs(config: Config) -> bool:
    """Say whether one of the tasks puts several examples into one row."""
    return any(part.module.packs(part.config) for part in config.parts.values())


def check(config: Config) -> list[Fault]:
    """Return what is wrong with the tasks' files and columns, and why they do not go together."""
    found: list[Fault] = []
    if with_vectors := [name for name, part in config.parts.items() if part.module.VECTORS]:
        why = f"task.tasks: the rows of {with_vectors[0]!r} stand for vectors, and a mixture is of texts."
        found.append(wrong("tasks", why, kind="conflict"))
    kinds: dict[str, str] = {}
    for number, (name, part) in enumerate(config.parts.items()):
        said = part.module.check(part.config)
        found += [_of_part(number, fault) for fault in said]
        try:
            kinds[name] = part.module.problem(part.config).kind
        except GraftlabError as error:
            found += [] if said else [_of_part(number, fault) for fault in error.problems]
    try:
        _check_kinds(config, kinds)
    except ConfigError as error:
        found += error.problems
    return found


def _of_part(number: int, fault: Fault) -> Fault:
    """Return what is wrong with one of the tasks as what is wrong with the mixture."""
    return replace(fault, said=f"task.tasks.{number}: {fault.said}").within("tasks", number)


def _check_kinds(config: Config, kinds: Mapping[str, str]) -> None:
    """Raise a ConfigError where the tasks do not go together."""
    said = ", ".join(f"{name} has {kind}" for name, kind in kinds.items())
    if "regression" in kinds.values():
        wanted = f"task.tasks: a mixture has no regression; here {said}. Leave it out."
        raise ConfigError(wrong("tasks", wanted, kind="conflict"))
    if len(set(kinds.values())) > 1:
        wanted = (
            f"task.tasks: a mixture is of classes all or of tokens all, for a model has one kind of head; "
            f"here {said}. Make two runs of it."
        )
        raise ConfigError(wrong("tasks", wanted, kind="conflict"))
    if "tokens" in kinds.values() and (config.head or config.tag):
        given = "head" if config.head else "tag"
        wanted = f"task.{given}: is for tasks with classes; these put out tokens. Leave it out."
        raise ConfigError(wrong(given, wanted, kind="conflict"))
    if config.tag and (lacking := [n for n, p in config.parts.items() if not _tagger(p, n)]):
        wanted = f"task.tag: {lacking[0]!r} has no text that could say its task. Leave it out."
        raise ConfigError(wrong("tag", wanted, kind="conflict"))


def _tagger(part: TaskPart, name: str) -> Callable[[Row], Row] | None:
    tagged = part.module.tagged
    return (lambda row: tagged(row, name)) if tagged else None


def problem(config: Config) -> Problem:
    """Return what the model has to put out for all tasks.

    Raises:
        ConfigError: the tasks do not go together.
        DataError: labels must be found in a train file, and it cannot be read.
    """
    return _joined(config, {n: p.module.problem(p.config) for n, p in config.parts.items()})


def _joined(config: Config, own: Mapping[str, Problem]) -> Problem:
    """Return the tasks' problems as one; a row of the head is named by all the labels that it stands for."""
    _check_kinds(config, {name: found.kind for name, found in own.items()})
    if next(iter(own.values())).kind == "tokens":
        return Problem("tokens", (), tuple(own.items()))
    said = {name: [f"{name}: {label}" for label in found.labels] for name, found in own.items()}
    if config.head == "per_task":
        labels = [label for found in said.values() for label in found]
        return Problem("classes", tuple(labels), tuple(own.items()))
    size = max(map(len, said.values()))
    rows = [" | ".join(found[i] for found in said.values() if i < len(found)) for i in range(size)]
    if config.head == "shared":  # a task may be answered with a label that it does not have
        own = {n: Problem("classes", (*p.labels, *rows[len(p.labels) :])) for n, p in own.items()}
    return Problem("classes", tuple(rows), tuple(own.items()))


def _heads(config: Config, joined: Problem) -> dict[str, slice]:
    """Return which rows of the head are whose."""
    heads, start = {}, 0
    for name, own in joined.parts if joined.kind == "classes" else ():
        heads[name] = slice(start, start + len(own.labels))
        start += len(own.labels) if config.head == "per_task" else 0
    return heads


def read(config: Config, paths: Paths, seed: int) -> Data:
    """Return the rows of all tasks, each with its `task`; `record["tasks"]` has each task's own record.

    Raises:
        ConfigError, DataError, Refused
    """
    own: dict[str, Data] = {}
    for name, part in config.parts.items():
        with naming(name, part):
            own[name] = part.module.read(part.config, paths, mix(seed, name))
    refusing = [n for n, p in config.parts.items() if getattr(p.config, "overlap", "") == "refuse"]
    own = apart(own, refusing)
    joined = _joined(config, {name: data.problem for name, data in own.items()})
    splits = {s: Mixed({n: data.splits.get(s, ()) for n, data in own.items()}) for s in SPLITS}
    records = {name: dict(data.record) for name, data in own.items()}
    prints: dict[str, Any] = {name: found.get("fingerprint", {}) for name, found in records.items()}
    notes = [
        note.within(name)
        for name, found in records.items()
        for note in read_notes(found.get("notes", ()))
    ]
    sizes = [len(data.splits["train"]) for data in own.values()]
    found = zip(own, _quotas(config, sizes), sizes, strict=True)
    drawn = {name: {"draws": quota, "rows": size} for name, quota, size in found}
    skipped = {name: found["skipped"] for name, found in records.items() if found.get("skipped")}
    record = {
        "sizes": {split: len(rows) for split, rows in splits.items()},
        "fingerprint": {s: _digest([(n, f.get(s)) for n, f in prints.items()]) for s in SPLITS},
        "skipped": skipped,
        "notes": written([*notes, Note.of("drawn_of_tasks", drawn=drawn)]),
        "tasks": records,
        **{key: sum(found.get(key, 0) for found in records.values()) for key in ROWS},
    }
    return Data(splits, joined, record)


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def _quotas(config: Config, sizes: list[int]) -> list[int]:
    parts = draws.shares(sizes, config.sampling, config.temperature, config.weights)
    found = draws.quotas(parts, sum(sizes))
    draws.check_quotas(list(config.parts), found)
    return found


def bind(data: Data, backbone: Backbone, config: Config, seed: int) -> "MixtureTask":
    """Return the tasks bound to the backbone; `record` says how many draws of an epoch each has.

    Raises:
        ConfigError, DataError: a task cannot be bound, or would never be drawn.
    """
    from graftlab.tasks.mixture.task import MixtureTask

    problems, names = dict(data.problem.parts), list(config.parts)
    splits = {split: by_task(rows, names) for split, rows in data.splits.items()}
    tasks: dict[str, Any] = {}
    for name, part in config.parts.items():
        own = {split: rows[name] for split, rows in splits.items() if len(rows[name])}
        if config.tagged and data.problem.kind == "classes" and (change := _tagger(part, name)):
            own = {split: Changed(rows, change) for split, rows in own.items()}
        record = data.record.get("tasks", {}).get(name, {})
        bound = Data(own, problems[name], record)
        tasks[name] = part.module.bind(bound, backbone, part.config, mix(seed, name))
    sizes = {split: [tasks[name].size(split) for name in names] for split in splits}
    quotas = _quotas(config, sizes["train"]) if "train" in sizes else [0] * len(names)
    return MixtureTask(
        data.problem,
        tasks,
        _heads(config, data.problem),
        {split: places(data.splits[split], names, sizes[split]) for split in splits},
        quotas,
        getattr(backbone.processor, "pad_token_id", None) or 0,
        _record(tasks, quotas),
    )


def _record(tasks: Mapping[str, Task], quotas: list[int]) -> dict[str, Any]:
    own = {name: dict(task.record) for name, task in tasks.items()}
    cut: dict[str, int] = {}
    for found in own.values():
        for split, count in found.get("truncated", {}).items():
            cut[split] = cut.get(split, 0) + count
    lengths = [found["max_length"] for found in own.values() if found.get("max_length")]
    return {
        "draws": dict(zip(tasks, quotas, strict=True)),
        "max_length": max(lengths, default=None),
        "truncated": cut,
        "of_tasks": own,
        "notes": written(
            note.within(name)
            for name, found in own.items()
            for note in read_notes(found.get("notes", ()))
        ),
    }
