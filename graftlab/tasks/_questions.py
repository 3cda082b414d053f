"""Questions with a fixed number of choices, out of columns or out of LLM-Adapters' instructions, and back
into one text."""

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from graftlab.data.labels import Classes, Dropped, Unusable
from graftlab.tasks._texts import same_text, text_of

INSTRUCTION, ANSWER = "instruction", "answer"  # columns of LLM-Adapters' commonsense files
# https://github.com/AGI-Edgerunners/LLM-Adapters, dataset/*/train.json: a lead that ends in a colon, the
# question, its choices, each behind a mark such as `Answer1:`, and the answers that are allowed.
FORM = re.compile(
    r"Please [^:]*: (?P<body>.*)\bAnswer format: (?P<answers>[^\s/]+(/[^\s/]+)+)\s*", re.S
)
PLAIN = ("question", "choices")  # keys of a new item, whatever the columns of the task's own rows


class Question(NamedTuple):
    """What is asked, and what may be answered."""

    question: str
    choices: tuple[str, ...]


def lettered(choices: Sequence[str]) -> str:
    """Return the choices as `A. first`, `B. second`, ..., a line each."""
    return "\n".join(
        f"{letter}. {choice}"
        for letter, choice in zip(string.ascii_uppercase, choices, strict=False)
    )


def question_columns(question: str) -> list[str]:
    """Return the columns in `question`: itself, or those that stand in braces in it."""
    names = [name for _, name, _, _ in string.Formatter().parse(question) if name]
    return names or [question]


class _Columns(string.Formatter):
    """Takes what stands in braces for a column's name, whatever is in it."""

    def get_field(self, field_name: str, args: object, kwargs: Mapping[str, Any]) -> Any:
        return kwargs[field_name], field_name


@dataclass(frozen=True)
class Columns:
    """Reads rows that have columns for the question and its choices."""

    question: str
    choices: Sequence[str]
    label: str
    classes: Classes

    def __call__(self, row: Mapping[str, object]) -> dict[str, object]:
        """Return `question`, `choices` and `key`. `Raises:` Unusable, Dropped."""
        return checked(self.ask(row), len(self.classes.names))

    def ask(self, row: Mapping[str, object]) -> Question:
        """Return a row's question and choices, however many. `Raises:` Unusable."""
        names = question_columns(self.question)
        texts = {name: text_of(row, name).strip() for name in names}
        question = (
            texts[names[0]]
            if names == [self.question]
            else _Columns().vformat(self.question, (), texts)
        )
        if not self.choices:
            return Question(question, self.classes.names)
        if len(self.choices) > 1:
            return Question(question, tuple(text_of(row, name) for name in self.choices))
        return Question(question, _listed(row, self.choices[0], self.label, self.classes))


def _listed(
    row: Mapping[str, object], column: str, label: str, classes: Classes | None
) -> tuple[str, ...]:
    """Return the choices in one column: a list, or `text` and `label` lists as ARC has on the hub."""
    value = row[column]
    names = None
    if isinstance(value, Mapping):
        names, value = value.get("label"), value.get("text")
    if not isinstance(value, list | tuple):
        raise Unusable(f"column {column!r} is {row[column]!r:.60}, not a list of choices")
    choices = tuple(text_of({column: choice}, column) for choice in value)
    if classes is not None and names is not None and len(names) == len(classes.names):
        if [classes(name) for name in names] != list(range(len(names))):
            raise Unusable(f"the choices are labelled {', '.join(map(str, names))}, out of order")
        answer = row.get(label)
        if not classes.is_hidden(answer) and str(answer) not in map(str, names):
            raise Unusable(f"the answer {answer!r} labels none of the choices")
    return choices


@dataclass(frozen=True)
class Instructions:
    """Reads rows whose instruction holds the question, the choices and the allowed answers."""

    fixed: bool
    """Whether the choices are the class names, and none stand in the instruction."""
    classes: Classes

    def __call__(self, row: Mapping[str, object]) -> dict[str, object]:
        """Return `question`, `choices` and `key`. `Raises:` Unusable, Dropped."""
        return checked(self.ask(row), len(self.classes.names))

    def ask(self, row: Mapping[str, object]) -> Question:
        """Return a row's question and choices, however many. `Raises:` Unusable."""
        if row.get("input"):
            raise Unusable(f"column 'input' is {row['input']!r:.60}; in this form it is empty")
        found = FORM.fullmatch(text_of(row, INSTRUCTION))
        if found is None:
            raise Unusable("the instruction is not `Please ...: QUESTION ... Answer format: a/b`")
        body, answers = found["body"].strip(), found["answers"].split("/")
        if self.fixed:
            if sorted(map(self.classes, answers)) != list(range(len(self.classes.names))):
                raise Unusable(f"the answers are {found['answers']}, not those of the task")
            return Question(body, self.classes.names)
        word = answers[0].rstrip(string.digits)
        marks = list(re.finditer(rf"(?:^|\s){re.escape(word.capitalize())}(\d+):", body))
        numbered = [f"{word}{mark[1]}" for mark in marks]
        if numbered != answers or [mark[1] for mark in marks] != [
            str(number) for number in range(1, len(marks) + 1)
        ]:
            raise Unusable(
                f"the answers are {found['answers']}, but the choices are marked "
                f"{', '.join(numbered) or 'nowhere'}"
            )
        ends = [mark.start() for mark in marks[1:]] + [len(body)]
        choices = tuple(body[m.end() : end] for m, end in zip(marks, ends, strict=True))
        return Question(body[: marks[0].start()], choices)


def plain(row: Mapping[str, object]) -> Question:
    """Return the question of a new item that is given by `question` and `choices`. `Raises:` Unusable."""
    return Question(text_of(row, PLAIN[0]), _listed(row, PLAIN[1], "", None))


def checked(asked: Question, number: int) -> dict[str, object]:
    """Return `question`, `choices` and `key`, bytes that equal items share.

    Raises:
        Dropped: there is another number of choices.
        Unusable: the question or a choice is empty.
    """
    choices = tuple(choice.strip() for choice in asked.choices)
    if len(choices) != number:
        raise Dropped(f"{len(choices)} choices, not {number}")
    question = asked.question.strip()
    if not question:
        raise Unusable("the question is empty")
    if "" in choices:
        raise Unusable(f"choice {choices.index('') + 1} is empty")
    return {"question": question, "choices": choices, "key": same_text((question, *choices))}
