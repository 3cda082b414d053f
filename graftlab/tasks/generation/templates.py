"""Prompts and completions as format strings over columns: the named ones, and those of a run file."""

import string
from collections.abc import Mapping
from typing import NamedTuple

from graftlab.data.labels import Unusable
from graftlab.tasks._texts import text_of


class Template(NamedTuple):
    """What a model reads and what it answers, with columns in braces."""

    prompt: str
    completion: str
    cut: tuple[str, ...] = ()
    """Columns that may be shortened."""
    optional: str | None = None
    """A column that a row may lack, or have empty; `without` is the prompt then."""
    without: str = ""


NAMED = {
    # https://github.com/tatsu-lab/stanford_alpaca, train.py: no line break after "Response:"
    "alpaca": Template(
        "Below is an instruction that describes a task, paired with an input that provides further "
        "context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:",
        "{output}",
        ("input",),
        "input",
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:",
    ),
    "question_answer": Template(
        "{context}\nQuestion: {question}\nAnswer:",
        " {answer}",
        ("context",),
        "context",
        "Question: {question}\nAnswer:",
    ),
    "summarise": Template("{document}\nSummary:", " {summary}", ("document",)),
    "code": Template("### Task:\n{text}\n\n### Code:\n", "{code}"),
}


def columns_of(template: str) -> tuple[str, ...]:
    """Return the columns that stand in braces, each once.

    Raises:
        ValueError: a brace is open, or more than a column's name stands in braces.
    """
    found: dict[str, None] = {}
    for _, name, spec, conversion in string.Formatter().parse(template):
        if name is None:
            continue
        if not name or spec or conversion or set(name) & set("[]"):
            raise ValueError(
                f"{{{name}}}: a column's name stands in braces, and nothing else ({{{{ is a brace)"
            )
        found[name] = None
    return tuple(found)


def fill(template: str, fields: Mapping[str, str]) -> str:
    """Return the template with its columns put in; braces in their text mean nothing."""
    return "".join(
        literal + (fields[name] if name else "")
        for literal, name, _, _ in string.Formatter().parse(template)
    )


def around(template: str) -> tuple[str, str]:
    """Return the text before the first column and that after the last one."""
    parts = list(string.Formatter().parse(template))
    names = [i for i, part in enumerate(parts) if part[1]]
    if not names:
        return "", ""
    head = "".join(part[0] for part in parts[: names[0] + 1])
    return head, "".join(part[0] for part in parts[names[-1] + 1 :])


def without(text: str, around: tuple[str, str]) -> str:
    """Return the text without what a template puts before and after it."""
    return text.removeprefix(around[0]).removesuffix(around[1])


def text_in(row: Mapping[str, object], column: str, no_answer: str) -> str:
    """Return a column as text: of a list (or a dict with the list `text`, as SQuAD has) its first item,
    or `no_answer` where it is empty; numbers as they are written. `Raises:` Unusable."""
    value = row[column]
    if isinstance(value, Mapping) and isinstance(value.get("text"), list | tuple):
        value = value["text"]
    if isinstance(value, list | tuple):
        value = value[0] if value else no_answer
    if isinstance(value, int | float) and value == value:
        value = str(value)
    if value is None:
        raise Unusable(f"column {column!r} is empty (null)")
    return text_of({column: value}, column)
