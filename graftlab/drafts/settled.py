"""A draft that passes `graftlab check`: what check refuses of it becomes a comment, with the reason."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from graftlab import runfile
from graftlab.config import Document
from graftlab.config.parser import Location, parse
from graftlab.drafts.draft import Draft, Left
from graftlab.drafts.text import written
from graftlab.errors import Fault, GraftlabError
from graftlab.runs import material

NEEDED = {
    ("backbone", "model"),
    ("backbone", "kind"),
    ("method", "name"),
    ("task", "kind"),
    ("task", "name"),
}


class Settled(NamedTuple):
    text: str
    draft: Draft
    problems: tuple[Fault, ...]
    """What check still says of it: its data cannot be used as they are, say."""


def settle(draft: Draft, target: Path) -> Settled:
    """Return the text of the run file that is to stand at `target`, without the keys that check refuses."""
    while True:
        text = written(draft, target)
        parsed = parse(text, str(target))
        document = Document(target, parsed.values, parsed.places)
        try:
            file = runfile.resolve(document)
            material.examine(file)
        except GraftlabError as error:
            problems = error.problems
        else:
            return Settled(text, draft, ())
        without = _without(draft, problems)
        if without is None:
            return Settled(text, draft, problems)
        draft = without


def _without(draft: Draft, problems: tuple[Fault, ...]) -> Draft | None:
    """Return the draft without the keys that problems are about; None where none can be spared."""
    values: dict[str, object] = copy.deepcopy(dict(draft.values))
    left: list[Left] = []
    for problem in problems:
        key = problem.place.key
        if len(key) < 2 or key[:2] in NEEDED or key[:2] == ("task", "files") or key[0] == "paths":
            continue
        if (taken := _take(values, key)) is not None:
            left.append(Left(".".join(map(str, key)), taken[0], problem.said))
    if not left:
        return None
    return replace(draft, values=values, left=(*draft.left, *left))


def _take(values: dict[str, object], key: Location) -> tuple[object] | None:
    """Remove a key and return what stood there; None where there is none."""
    *sections, last = key
    inside: object = values
    for section in sections:
        inside = inside.get(section) if isinstance(inside, Mapping) else None
    if not isinstance(inside, dict) or last not in inside:
        return None
    return (inside.pop(last),)
