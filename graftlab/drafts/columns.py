"""What the columns of rows are, by their names and by what stands in them: the task that they are for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase
from typing import Any, NamedTuple

from graftlab.data import nested, numbers, readers
from graftlab.data.labels import spell
from graftlab.drafts.draft import CLASSES, GENERATION, IMAGES
from graftlab.errors import DataError, Place

SEEN = 20_000  # rows that are looked at
FEW = 50  # labels that a person gives; more are something else, unless rows are many
SHORT = 60  # characters of the name of a class
LABELS = ("label", "labels", "class", "category", "target", "intent", "sentiment", "topic", "queue",
          "tag", "stars", "rating", "score", "y", "gold", "type", "status", "answer")  # fmt: skip
TEXTS = ("text", "sentence", "review", "content", "body", "message", "comment", "tweet", "document",
         "description", "utterance", "query", "question", "title",
         "subject", "input")  # fmt: skip
PAIRS = (("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"),
         ("text1", "text2"), ("text_a", "text_b"), ("question", "sentence"),
         ("query", "passage"))  # fmt: skip
FORMS: tuple[tuple[tuple[str, str], dict[str, Any]], ...] = (  # columns of prompt and answer
    (("instruction", "output"), {"template": "alpaca"}),
    (("instruction", "response"), {"template": "alpaca", "completion": "{response}"}),
    (("question", "answer"), {"template": "question_answer"}),
    (("document", "summary"), {"template": "summarise"}),
    (("article", "summary"), {"prompt": "{article}\nSummary:", "completion": " {summary}"}),
    (("prompt", "completion"), {"prompt": "{prompt}", "completion": "{completion}"}),
    (("prompt", "response"), {"prompt": "{prompt}\n", "completion": "{response}"}),
    (("input", "output"), {"prompt": "{input}\n", "completion": "{output}"}),
    (("source", "target"), {"prompt": "{source}\n", "completion": "{target}"}),
)
PREFERENCES = ("chosen", "rejected")
CHOICES = ("choices", "options")


class Seen(NamedTuple):
    """What was read of a file."""

    columns: tuple[str, ...]
    rows: list[dict[str, Any]]
    """The first of them."""
    bad: int
    """Rows among them that cannot be read."""


def look(path: Path) -> Seen:
    """Return the first rows of a file, or of an image folder.

    Raises:
        DataError: it cannot be read, or has no row.
    """
    rows: list[dict[str, Any]] = []
    bad = 0
    for _, row in readers.read(path, layout=readers.look(path)):
        if isinstance(row, str):
            bad += 1
        else:
            rows.append(nested.flat(row))
        if len(rows) + bad >= SEEN:
            break
    if not rows:
        raise DataError(
            f"{path} has no row that can be read.", place=Place(str(path)), kind="no_rows"
        )
    names = dict.fromkeys(name for row in rows[:200] for name in row)
    return Seen(tuple(names), rows, bad)


def task_of(path: Path) -> dict[str, Any]:
    """Return the task that a file's rows are for, without where they are. `Raises:` DataError, as `of`."""
    return of(look(path), path)


def of(seen: Seen, path: Path) -> dict[str, Any]:
    """Return the task that rows are for, without where they are.

    Raises:
        DataError: they are preferences, or no column can be told for text or image.
    """
    within = {name.lower().rpartition(".")[2]: name for name in seen.columns}
    names = within | {name.lower(): name for name in seen.columns}
    if set(PREFERENCES) <= names.keys():
        raise DataError(
            f"{path}: columns chosen and rejected are preferences, which are not learned here. Keep the "
            f"prompt and the chosen answer, and it is a task that generates text.",
            place=Place(str(path)),
            kind="preferences",
        )
    if chat := next((name for name in seen.columns if _is_chat(_values(seen, name))), None):
        own = {} if chat == "messages" else {"columns": {"messages": chat}}
        return {"kind": GENERATION, "template": "chat", **own}
    if picture := next((name for name in seen.columns if _is_picture(_values(seen, name))), None):
        label = _label(seen, names, (picture,))
        read = {"image": picture, "label": label or "label"}
        shown = {key: name for key, name in read.items() if name != key}
        return {"kind": IMAGES, **({"columns": shown} if shown else {})}
    choices = next((names[name] for name in CHOICES if name in names), None)
    if choices is not None and _is_list(_values(seen, choices)):
        return _of_choices(seen, names, choices)
    for pair, form in FORMS:
        if set(pair) <= set(seen.columns) and not _is_class(seen, pair[1]):
            return {"kind": GENERATION, **form}
    return _of_texts(seen, names, path)


def _of_choices(seen: Seen, names: Mapping[str, str], choices: str) -> dict[str, Any]:
    question = next((names[n] for n in ("question", *TEXTS) if n in names), seen.columns[0])
    label = next(
        (names[n] for n in ("answer", "label", "correct", "answer_index", "gold") if n in names),
        "label",
    )
    found = sorted(
        {str(spell(row.get(label))) for row in seen.rows if spell(row.get(label)) is not None}
    )
    most = max(len(row[choices]) for row in seen.rows if isinstance(row.get(choices), list))
    first = (
        1 if found and "0" not in found else 0
    )  # where the first choice is never the right one, too
    numbers = [str(number + first) for number in range(most)]
    ways = (numbers, list(ascii_uppercase[:most]), list(ascii_lowercase[:most]))
    labels = next((way for way in ways if set(found) <= set(way)), found)
    columns = {"question": question, "choices": [choices], "label": label}
    return {"kind": "multiple_choice", "columns": columns, "labels": labels}


def _of_texts(seen: Seen, names: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Return a task of one text or two and their label; of a plain text where there is no label."""
    texts = [name for name in seen.columns if _is_text(_values(seen, name))]
    pair = next(((names[a], names[b]) for a, b in PAIRS if a in names and b in names), None)
    label = _label(seen, names, (*(pair or ()), *texts[:1]) if pair or len(texts) == 1 else ())
    others = [name for name in texts if name != label]
    named = next((names[name] for name in TEXTS if names.get(name) in others), None)
    text = named or max(others, key=lambda name: _length(seen, name), default=None)
    if text is None:
        raise DataError(
            f"{path}: no column of text or images was found among {', '.join(seen.columns)}.",
            place=Place(str(path)),
            kind="no_text",
        )
    if label is None:
        return {
            "kind": GENERATION,
            "template": "text",
            **({} if text == "text" else {"columns": {"text": text}}),
        }
    columns: dict[str, str] = (
        {"text": pair[0], "pair": pair[1], "label": label}
        if pair
        else {"text": text, "label": label}
    )
    shown = {key: name for key, name in columns.items() if name != key}
    task: dict[str, Any] = {"kind": CLASSES, **({"columns": shown} if shown else {})}
    if _is_score(_values(seen, label)):
        return {**task, "regression": True}
    return {**task, **_merged(_values(seen, label))}


def _merged(values: Sequence[object]) -> dict[str, Any]:
    """Return `labels` that make one class of those which differ by case or blanks alone, where some do."""
    counts = Counter(str(spell(value)) for value in values if spell(value) is not None)
    alike: dict[str, list[str]] = {}
    for name in counts:
        alike.setdefault(" ".join(name.split()).casefold(), []).append(name)
    if len(alike) == len(counts):
        return {}
    usual = {key: max(group, key=lambda name: counts[name]).strip() for key, group in alike.items()}
    return {"labels": {name: usual[key] for key, group in sorted(alike.items()) for name in group}}


def _label(seen: Seen, names: Mapping[str, str], taken: Sequence[str | None]) -> str | None:
    """Return the column of classes or scores: the one that is named so, or the last with few values."""
    free = [name for name in seen.columns if name not in taken]
    by_name = [names[name] for name in LABELS if names.get(name) in free]
    fitting = [n for n in by_name if _is_class(seen, n) or _is_score(_values(seen, n))]
    few = [name for name in free if _is_class(seen, name)]
    return next(iter(fitting), None) or (few[-1] if few else next(iter(by_name[:1]), None))


def _is_class(seen: Seen, name: str) -> bool:
    known = [text for value in _values(seen, name) if (text := spell(value)) is not None]
    different = set(known)
    few = len(different) <= max(2, min(FEW, len(known) // 3), len(known) // 100)
    return len(different) >= 2 and few and all(len(text) <= SHORT for text in different)


def _is_score(values: Sequence[object]) -> bool:
    """Return whether values are numbers that are no names of classes: many, and not whole."""
    # with commas that may be of thousands too: whoever reads them refuses those, and says why
    found = [numbers.number(str(value), ",") for value in values if value not in (None, "")]
    scores = [number for number in found if number is not None]
    some = len(set(scores)) > FEW // 5 and any(not number.is_integer() for number in scores)
    return some and len(scores) == len(found)


def _values(seen: Seen, name: str) -> list[object]:
    return [row.get(name) for row in seen.rows]


def _first(values: Sequence[object]) -> object:
    return next((value for value in values if value not in (None, "", [])), None)


def _is_list(values: Sequence[object]) -> bool:
    return isinstance(_first(values), list)


def _is_chat(values: Sequence[object]) -> bool:
    turn = first[0] if isinstance(first := _first(values), list) else None
    return isinstance(turn, Mapping) and (
        {"role", "content"} <= turn.keys() or {"from", "value"} <= turn.keys()
    )


def _is_picture(values: Sequence[object]) -> bool:
    first = _first(values)
    if isinstance(first, Mapping):
        return "bytes" in first
    return isinstance(first, str) and first.lower().endswith(readers.IMAGES)


def _is_text(values: Sequence[object]) -> bool:
    known = [value for value in values[:200] if isinstance(value, str) and value.strip()]
    return bool(known) and not all(_is_number(text) for text in known)


def _is_number(text: str) -> bool:
    return numbers.number(text, ".") is not None or bool(numbers.COMMA.fullmatch(text.strip()))


def _length(seen: Seen, name: str) -> float:
    known = [len(str(value)) for value in _values(seen, name)[:200] if value is not None]
    return sum(known) / max(1, len(known))


def local(entry: Mapping[str, Any], folder: Path) -> Path | None:
    """Return the file or folder that another program's entry of a data set names, where it lies here.

    It is looked for from the file's folder, then from the shell's.
    """
    files = entry.get("data_files") or entry.get("path")
    name = files[0] if isinstance(files, list) and files else files
    if not isinstance(name, str):
        return None
    found = (root / Path(name).expanduser() for root in (folder.absolute(), Path.cwd()))
    return next((path for path in found if path.exists()), None)
