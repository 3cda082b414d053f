"""What a file says of a run: keys of a run file, remarks on them, and what there is no key for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from graftlab.config import merge

GENERATION, CLASSES, IMAGES = "generation", "classification", "images"
STANDS_IN = {GENERATION: "smollm2_135m", CLASSES: "minilm", IMAGES: "vit"}
"""A small model of each kind of task, where no file names one."""


class Left(NamedTuple):
    """A key that was not carried over."""

    key: str
    value: object
    why: str = ""


@dataclass(frozen=True)
class Draft:
    """A run file, or a part of one."""

    origin: Path
    """The file or folder that it was read from."""
    what: str
    """What that is, in a few words."""
    values: Mapping[str, Any]
    """Sections with their keys; what is a `Path` is written as seen from the run file."""
    remarks: Mapping[str, str] = field(default_factory=dict)
    """A comment for a section, or for a key in one: `task`, `task.columns`."""
    left: tuple[Left, ...] = ()
    name: str = "run"
    """What the run file is called, without its ending."""
    guesses: Mapping[str, str] = field(default_factory=dict)
    """What was guessed of data, by what it is about."""


def together(drafts: Sequence[Draft]) -> Draft:
    """Return several drafts as one: later ones win. What none of them says is filled in, and said."""
    values: dict[str, Any] = {}
    remarks: dict[str, str] = {}
    for draft in drafts:
        for section, given in draft.values.items():
            below = values.get(section)
            both = isinstance(below, dict) and isinstance(given, dict)
            # rows come from one place: a task is not made of two
            laid = merge(dict(below or {}), given) if both and section != "task" else given
            values[section] = laid
        remarks |= draft.remarks
    left = tuple(left for draft in drafts for left in draft.left)
    guesses = {key: said for draft in drafts for key, said in draft.guesses.items()}
    first = drafts[0]
    whole = Draft(first.origin, first.what, values, remarks, left, first.name, guesses)
    return _filled(whole)


def _filled(draft: Draft) -> Draft:
    """Return a draft with the sections that a run file needs."""
    values, remarks = dict(draft.values), dict(draft.remarks)
    if "task" not in values:
        name = "alpaca" if _kind(values.get("backbone", {})) == "decoder" else "sst2"
        values["task"] = {"name": name}
        remarks["task"] = (
            "no file said it: put your data here, as `graftlab init --from DATA` writes them"
        )
    kind = _task_kind(values["task"])
    backbone = dict(values.get("backbone") or {})
    if "model" not in backbone:
        backbone = {"model": STANDS_IN.get(kind, "minilm"), **backbone}
        remarks.setdefault("backbone", "a small one to start with; others: graftlab list backbones")
    values["backbone"] = backbone
    if not (values.get("method") or {}).get("name"):
        values["method"] = {"name": "lora", **(values.get("method") or {})}
        remarks.setdefault("method", "others: graftlab list methods")
    return replace(draft, values=values, remarks=remarks)


def _kind(backbone: Mapping[str, Any]) -> object:
    return backbone.get("kind")


def _task_kind(task: Mapping[str, Any]) -> str:
    if task.get("name") == "alpaca":
        return GENERATION
    kinds: Iterable[object] = [task.get("kind"), *(t.get("kind") for t in task.get("tasks", ()))]
    return next((str(kind) for kind in kinds if kind in STANDS_IN), CLASSES)
