"""What is odd about rows, before anything is trained on them: each with its count, rows of the file and key.

Questionable things are notes; what cannot be meant is refused.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from graftlab.contracts import Note
from graftlab.data.labels import spell
from graftlab.data.rows import Rows
from graftlab.errors import DataError, Place

SHOWN = 3  # rows and labels named in a note
LEAST = 20  # rows from which shares say something
CONSTANT = 0.95  # of a column's rows with one value
MANY = 0.5  # classes a row, from where a column of labels is something else
LONG = 512  # words that no task takes where none says how long its inputs may be
TRUTHS = (  # words of one answer: where all labels are such, two of them are seldom two classes
    frozenset(("yes", "y", "true", "1", "ja", "j", "wahr")),
    frozenset(("no", "n", "false", "0", "nein", "falsch")),
)
FEW_NUMBERS = 5  # numbers as classes that are as often meant as not


@dataclass(frozen=True)
class Finding:
    """How often something was found, and where first."""

    count: int
    rows: tuple[int | str, ...]
    """Numbers of rows of the source, from 1; or files of pictures."""


def found(rows: Rows, places: Sequence[int]) -> Finding:
    """Return the finding that is at these positions."""
    return Finding(len(places), tuple(map(rows.called, places[:SHOWN])))


def texts_of(rows: Rows) -> dict[str, Sequence[str | None]]:
    """Return the columns of text that rows have, by name."""
    columns = rows.columns
    names = [name for name in ("text", "pair", "question") if name in columns]
    texts: dict[str, Sequence[str | None]] = {name: columns[name] for name in names}
    if fields := columns.get("fields"):
        texts |= {name: [row.get(name) for row in fields] for name in fields[0]}
    return texts


def empty_places(rows: Rows) -> dict[str, list[int]]:
    """Return the positions of texts that hold nothing but white space, by column."""
    blank = {
        name: [i for i, text in enumerate(texts) if text is not None and not text.strip()]
        for name, texts in texts_of(rows).items()
    }
    return {name: places for name, places in blank.items() if places}


def repeated_places(rows: Rows) -> tuple[list[int], list[int]]:
    """Return the positions of inputs that stood earlier in the split, and of those with another label."""
    first: dict[bytes, object] = {}
    repeated, contrary = [], []
    for place, (key, label) in enumerate(
        zip(rows.columns["key"], rows.columns["label"], strict=True)
    ):
        if key not in first:
            first[key] = label
            continue
        repeated.append(place)
        if label != first[key]:
            contrary.append(place)
    return repeated, contrary


def of_rows(split: str, rows: Rows, limit: int) -> Iterator[Note]:
    """Yield what is odd about a split's inputs; `limit` is the longest input in tokens."""
    for column, places in empty_places(rows).items():
        yield Note.of("texts_empty", split=split, column=column, **asdict(found(rows, places)))
    repeated, contrary = repeated_places(rows)
    if repeated:
        yield Note.of("inputs_repeated", split=split, **asdict(found(rows, repeated)))
    if contrary:
        yield Note.of("labels_contrary", split=split, **asdict(found(rows, contrary)))
    for column, texts in texts_of(rows).items():
        yield from _of_column(split, column, texts, rows, limit)


def _of_column(
    split: str, column: str, texts: Sequence[str | None], rows: Rows, limit: int
) -> Iterator[Note]:
    known = [text for text in texts if text is not None]
    if len(known) >= LEAST:
        value, count = Counter(known).most_common(1)[0]
        if count >= CONSTANT * len(known):
            places = [i for i, text in enumerate(texts) if text == value][:SHOWN]
            at = Finding(count, found(rows, places).rows)
            yield Note.of("column_constant", split=split, column=column, value=value[:40], of=len(known),
                          **asdict(at))  # fmt: skip
    # a text of n characters has at most (n + 1) / 2 words
    long = {
        i: len(text.split())
        for i, text in enumerate(texts)
        if text is not None and len(text) >= 2 * limit
    }
    long = {i: words for i, words in long.items() if words > limit}
    if long:
        places = sorted(long, key=lambda i: -long[i])
        yield Note.of("texts_long", split=split, column=column, limit=limit, words=long[places[0]],
                      **asdict(found(rows, places)))  # fmt: skip


def of_labels(
    indices: Sequence[int], values: Sequence[object], where: str, inferred: bool
) -> Iterator[Note]:
    """Yield what is odd about the labels of train as they stand in the source.

    Raises:
        DataError: nearly every row has a class of its own, and no one has said that these are classes.
    """
    places: dict[str, list[int]] = {}
    for index, value in zip(indices, values, strict=True):
        if (spelled := spell(value)) is not None:
            name = spelled if isinstance(value, bool) else str(value)
            places.setdefault(name, []).append(index + 1)
    total = sum(map(len, places.values()))
    if inferred and total >= LEAST and len(places) > MANY * total:
        shown = ", ".join(repr(name) for name in list(places)[:SHOWN])
        raise DataError(
            f"{total} rows have {len(places)} different labels ({shown}, ...), a class for nearly "
            f"every row. Name the column of the labels in task.columns.label, say task.regression: true "
            f"for scores, or give the classes as task.labels.",
            place=Place(where, key=("task", "columns", "label")),
            kind="labels_differ",
        )
    yield from _variants(places)
    yield from _truths(places)
    alike: dict[str, list[int]] = {}  # as they are read: without blanks around
    for name, rows in places.items():
        alike.setdefault(str(spell(name)), []).extend(rows)
    once = [name for name, rows in alike.items() if len(rows) == 1]
    if once and total >= LEAST:
        yield Note.of("labels_once", count=len(once), labels=once[:SHOWN],
                      rows=tuple(alike[name][0] for name in once[:SHOWN]))  # fmt: skip
    if inferred and len(places) >= FEW_NUMBERS and all(map(_is_number, places)):
        yield Note.of("labels_numbers", count=len(places), labels=list(places)[:SHOWN],
                      rows=tuple(rows[0] for rows in list(places.values())[:SHOWN]))  # fmt: skip


def _variants(places: Mapping[str, Sequence[int]]) -> Iterator[Note]:
    """Yield groups of labels that are equal but for case and blanks."""
    alike: dict[str, list[str]] = {}
    for name in places:
        alike.setdefault(" ".join(name.split()).casefold(), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            rare = sorted(names, key=lambda name: len(places[name]))[:-1]
            rows = sorted(row for name in rare for row in places[name])
            yield Note.of("label_variants", labels=names, count=len(rows), rows=tuple(rows[:SHOWN]))


def _truths(places: Mapping[str, Sequence[int]]) -> Iterator[Note]:
    """Yield yes and no in several words, as Yes, y and 1, where all labels are such words."""
    spelled = {name: str(spell(name)).casefold() for name in places}
    if not set(spelled.values()) <= frozenset().union(*TRUTHS):
        return
    for words in TRUTHS:
        names = [name for name, word in spelled.items() if word in words]
        if len({spelled[name] for name in names}) > 1:
            most = max(names, key=lambda name: len(places[name]))
            rows = sorted(row for name in names if name != most for row in places[name])
            yield Note.of("labels_truths", labels=names, count=len(rows), rows=tuple(rows[:SHOWN]))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def classes(splits: Mapping[str, Rows], names: Sequence[str]) -> Iterator[Note]:
    """Yield the classes of train with their rows, and how often always saying the largest one is right."""
    if "train" not in splits or not len(splits["train"]) or not names:
        return
    counts = Counter(splits["train"].columns["label"])
    largest = max(counts, key=lambda label: counts[label])
    scored = {s: rows.columns["label"] for s, rows in splits.items() if s != "train" and len(rows)}
    right = {split: labels.count(largest) / len(labels) for split, labels in scored.items()}
    shown = {names[label]: count for label, count in counts.most_common()}
    yield Note.of(
        "class_counts",
        rows=len(splits["train"]),
        classes=shown,
        largest=names[largest],
        right=right,
    )


def without(
    split: str, rows: Rows, empty: str | None, duplicates: str | None
) -> tuple[Rows, dict[str, int]]:
    """Return a split without what its section leaves out, and how many rows that were by reason.

    Raises:
        DataError: empty texts are there, and refused; or nothing is left.
    """
    lost: dict[str, int] = {}
    blank = (
        {place for places in empty_places(rows).values() for place in places} if empty else set()
    )
    if blank and empty == "refuse":
        at = found(rows, sorted(blank))
        raise DataError(
            f"{split}: {at.count} rows have an empty text (rows {_listed(at.rows)}). Mend the data, or leave "
            f"them out with task.empty: drop."
        )
    again = set(repeated_places(rows)[0]) - blank if duplicates else set()
    for reason, places in (("an empty text", blank), ("repeated", again)):
        lost |= {reason: len(places)} if places else {}
    if not lost:
        return rows, lost
    kept = [i for i in range(len(rows)) if i not in blank and i not in again]
    if not kept:
        raise DataError(f"{split}: every row has an empty text, and task.empty: drop leaves none.")
    return rows.take(kept), lost


def _listed(rows: Sequence[int | str]) -> str:
    return ", ".join(map(str, rows))
