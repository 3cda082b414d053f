"""A note: what a run's reader has to know, as a kind and fields. Words are made of it at the very end."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from string import Formatter

from graftlab.contracts.words import WORDS

NOTED = {"word": "note"}
"""`extra` of a log record that is a note as `check` has it: the command line calls it so, not a warning."""
SAID = "said"
"""The kind of a note that is words alone: what older runs hold, and what a part from outside has to say."""


@dataclass(frozen=True)
class Note:
    """What was done or found, as data: whoever has to act on it reads `kind` and `fields`."""

    kind: str
    fields: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, kind: str, /, **fields: object) -> "Note":
        """Return a note of a kind that has words, with the fields that they want."""
        wanted = fields_of(kind)
        assert wanted == set(fields) - {"task"}, (kind, wanted, set(fields))
        return cls(kind, fields)

    @classmethod
    def read(cls, value: "str | Mapping[str, object]") -> "Note":
        """Return what `as_json` was made of; a text, as older runs have it, is a note of words alone."""
        if isinstance(value, str):
            return cls(SAID, {"text": value})
        return cls(str(value["kind"]), {key: item for key, item in value.items() if key != "kind"})

    def as_json(self) -> dict[str, object]:
        """Return what environment.json, result.json and `--json` have of it."""
        return {"kind": self.kind, **self.fields}

    def within(self, task: str) -> "Note":
        """Return the note as one on a task of several."""
        return Note(self.kind, {"task": task, **self.fields})

    def __str__(self) -> str:
        """Say it in words; of a kind that only a newer version knows, its fields."""
        words = WORDS.get(self.kind)
        given = {key: value for key, value in self.fields.items() if key != "task"}
        if words is None or fields_of(self.kind) != set(given):
            said = ", ".join([self.kind.replace("_", " "), *(f"{k} {v}" for k, v in given.items())])
        else:
            said = words.format(**given) if isinstance(words, str) else words(**given)
        return f"{self.fields['task']}: {said}" if "task" in self.fields else said


def fields_of(kind: str) -> set[str]:
    """Return the names of the fields that the words of a kind are made of."""
    words = WORDS[kind]
    if isinstance(words, str):
        return {name for _, name, _, _ in Formatter().parse(words) if name}
    code = words.__code__
    return set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])


def read_notes(values: "Iterable[str | Mapping[str, object]]") -> list[Note]:
    """Return the notes of a record."""
    return [Note.read(value) for value in values]


def written(notes: Iterable[Note]) -> list[dict[str, object]]:
    """Return notes as a record has them."""
    return [note.as_json() for note in notes]
