"""Rows made of labelled data, without a model: summaries, labels, questions, titles as answers."""

from collections import Counter
from collections.abc import Mapping, Sequence

from graftlab.data import labels
from graftlab.errors import Argument, ConfigError, DataError, Place, unknown
from graftlab.synthesis import choice
from graftlab.synthesis.documents import Document, Documents
from graftlab.synthesis.folder import Answer, Answered
from graftlab.tasks.elm import prompts

QUESTIONS = 3  # of one answer, as the task type asks
NONE = "-1"
"""The hub's word for no label."""


def targets(given: Sequence[str]) -> dict[str, str]:
    """Return the column of each task type, of `TYPE=COLUMN`. `Raises:` ConfigError."""
    found: dict[str, str] = {}
    place = Place(argument=Argument("target"))
    for one in given:
        kind, equals, column = one.partition("=")
        if not (kind and equals and column):
            said = f"{one!r} is not TYPE=COLUMN, as in summary=abstract."
            raise ConfigError(said, kind="not_allowed", place=place, given=one)
        if choice.chosen([kind]) != (kind,):
            said = f"{kind!r} is a group: a column answers one task type."
            allowed = list(prompts.task_types())
            raise ConfigError(said, kind="not_allowed", place=place, given=kind, allowed=allowed)
        if kind in found:
            said = f"{kind!r} has two columns: {found[kind]} and {column}."
            raise ConfigError(said, kind="conflict", place=place, given=one)
        found[kind] = column
    return found


def label_names(given: str | None) -> tuple[str, ...]:
    """Return the names of `A,B,...`. `Raises:` ConfigError: one is empty."""
    if given is None:
        return ()
    found = tuple(name.strip() for name in given.split(","))
    if not all(found):
        place = Place(argument=Argument("names"))
        raise ConfigError("a name is empty.", kind="not_allowed", place=place, given=given)
    return found


def rows(
    documents: Documents, columns: Mapping[str, str], names: Sequence[str] = ()
) -> tuple[Answered, Counter[str]]:
    """Return the answers to each text of each split, and how many were rejected for what reason.

    `names` are those of labels that are integers.

    Raises:
        ConfigError: no row has one of the columns.
    """
    every = {name for of in documents.splits.values() for d in of for row in d.rows for name in row}
    for column in columns.values():
        if column not in every:
            said = f"{documents.where}: {unknown('column', column, every)}"
            place = Place(argument=Argument("target"))
            raise ConfigError(
                said, kind="unknown", place=place, given=column, allowed=sorted(every)
            )
    rejected = Counter[str]()
    found = {
        split: [(document.text, _answers(document, columns, names, rejected)) for document in of]
        for split, of in documents.splits.items()
    }
    return found, rejected


def _answers(
    document: Document, columns: Mapping[str, str], names: Sequence[str], rejected: Counter[str]
) -> list[Answer]:
    found: list[Answer] = []
    for kind, column in columns.items():
        wants_domain = prompts.named(kind).wants_domain
        of_domain: dict[str | None, list[str]] = {}
        for row in document.rows:
            domain = row.get("domain") if wants_domain else None
            values = _values(row.get(column), names)
            if not values:
                rejected[f"{kind}: no answer"] += 1
            elif wants_domain and not (isinstance(domain, str) and domain.strip()):
                rejected[f"{kind}: no domain"] += 1
            else:
                key = domain if isinstance(domain, str) else None
                of_domain.setdefault(key, []).extend(values)
        for domain, values in of_domain.items():
            distinct = list(dict.fromkeys(values))
            if kind == "category" and len(distinct) > 1:
                rejected["category: several labels of one text"] += 1
                continue
            found += [Answer(kind, response, domain) for response in _together(kind, distinct)]
    return found


def _values(value: object, names: Sequence[str]) -> list[str]:
    """Return what a cell says: one text, several, or none."""
    if isinstance(value, list | tuple):
        return [text for item in value for text in _values(item, names)]
    if value is None or isinstance(value, dict):
        return []
    text = labels.spell(value)
    if text is None or text == NONE:
        return []
    if names and text.removeprefix("-").isdecimal():
        if not 0 <= int(text) < len(names):
            said = f"label {text} has no name: {len(names)} are given, of 0 to {len(names) - 1}."
            raise DataError(
                said,
                ("Name each label, from 0.",),
                kind="not_allowed",
                place=Place(argument=Argument("names")),
                given=text,
            )
        return [names[int(text)]]
    return [text]


def _together(kind: str, distinct: Sequence[str]) -> list[str]:
    """Return the answers that these make: questions three by three, keywords as one list."""
    if kind == "keywords":
        return [", ".join(distinct)]
    if kind == "questions":
        starts = range(0, len(distinct), QUESTIONS)
        return ["\n".join(distinct[start : start + QUESTIONS]) for start in starts]
    return list(distinct)
