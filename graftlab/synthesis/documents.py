"""Source texts with the rows of data that have them, each in one split and no other."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from graftlab.data.splits import digest
from graftlab.embeddings import texts
from graftlab.errors import DataError
from graftlab.seeds import mix


@dataclass(frozen=True)
class Shares:
    """How much of the texts of one file goes to which split, which the seed and the text alone decide."""

    validation: float = 0.1
    test: float = 0.1
    seed: int = 0

    def split(self, key: bytes) -> str:
        """Return the split of a text."""
        draw = mix(self.seed, "split", key.hex()) / 2**63
        if draw < self.test:
            return "test"
        return "validation" if draw < self.test + self.validation else "train"


@dataclass(frozen=True)
class Document:
    """A source text."""

    text: str
    key: bytes
    """What texts share that differ in case and white space alone."""
    rows: list[Mapping[str, object]] = field(default_factory=list)
    """Of the data: those that have this text."""


@dataclass(frozen=True)
class Documents:
    """The texts of each split."""

    where: str
    splits: Mapping[str, Sequence[Document]]
    dropped: Mapping[str, int]
    """Rows of each split whose text stands in another one, from test to train."""


def key_of(text: str) -> bytes:
    """Return what a text shares with those that differ from it in case and white space alone."""
    return digest("".join(text.casefold().split()))


def read(
    source: str, column: str | None, shares: Shares, overrides: Sequence[str] = ()
) -> Documents:
    """Return the texts of a data file, split by `shares`, or of a run file, in the splits of its task.

    Raises:
        ConfigError, DataError: as `texts.read`; or no text is left for train.
    """
    opened = texts.open_rows(source, overrides).items()
    rows = {name: list(texts.with_text(where, of, column)) for name, (where, of) in opened}
    if "" in rows:
        found, dropped = _carved(rows[""], shares), Counter[str]()
    else:
        found, dropped = _apart(rows)
    splits = {split: tuple(found[split].values()) for split in texts.SPLITS if found.get(split)}
    _check(splits)
    if "train" not in splits:
        held = ", ".join(f"{len(of)} in {split}" for split, of in splits.items())
        raise DataError(f"{source} leaves no text for train: {held}.", kind="empty")
    return Documents(source, splits, dict(dropped))


Grouped = dict[str, dict[bytes, Document]]


def _add(found: Grouped, split: str, text: str, row: Mapping[str, object]) -> None:
    key = key_of(text)
    found.setdefault(split, {}).setdefault(key, Document(text, key)).rows.append(row)


def _carved(rows: Iterable[tuple[str, Mapping[str, object]]], shares: Shares) -> Grouped:
    found: Grouped = {}
    for text, row in rows:
        _add(found, shares.split(key_of(text)), text, row)
    return found


def _apart(
    rows: Mapping[str, Iterable[tuple[str, Mapping[str, object]]]],
) -> tuple[Grouped, Counter[str]]:
    """Return the splits as they are, without what stands in test, or in validation, of those before."""
    found: Grouped = {}
    dropped = Counter[str]()
    for split in reversed(texts.SPLITS):
        taken = {key for of in found.values() for key in of}
        for text, row in rows.get(split, ()):
            if key_of(text) in taken:
                dropped[split] += 1
            else:
                _add(found, split, text, row)
    return found, dropped


def _check(splits: Mapping[str, Sequence[Document]]) -> None:
    """Hold that no text stands in two splits."""
    seen: set[bytes] = set()
    for documents in splits.values():
        keys = {document.key for document in documents}
        assert len(keys) == len(documents)
        assert not keys & seen, "a text stands in two splits"
        seen |= keys
