"""The right one of a fixed number of choices, classified by its place or found by its likelihood."""

import copy
import dataclasses
import inspect
import json
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator, model_validator

from graftlab.config import Conflict, Paths, Section
from graftlab.contracts import Backbone, Data, Problem, Row, Task
from graftlab.data import inputs, nested, readers, sources
from graftlab.data.labels import Classes, names_of
from graftlab.data.load import Form, check_local, read_splits
from graftlab.data.rows import Numbered, Rows
from graftlab.data.section import DataSection
from graftlab.errors import ConfigError, Fault
from graftlab.tasks import _questions
from graftlab.tasks._questions import ANSWER, INSTRUCTION, lettered, question_columns
from graftlab.tasks.classification import TextTask, longest_input

if TYPE_CHECKING:
    from graftlab.tasks._choice_tokens import Texts

BACKBONES = ("encoder", "decoder", "tiny")


class Columns(Section):
    """Which columns of the data are what."""

    question: str = "question"
    """The question; or a text with columns in braces, such as `{context} {question}`."""
    choices: tuple[str, ...] = ("choices",)
    """The column with a list of choices, or one column a choice; empty: the choices are the class names."""
    label: str = "label"
    """The right choice, as `labels` spells it."""

    @field_validator("question")
    @classmethod
    def _names_columns(cls, question: str) -> str:
        if any(set(name) & set("[]!") for name in _fields(question)):
            raise ValueError("question: plain column names stand in braces, nothing else")
        return question


class Config(DataSection):
    """Questions with choices. `labels` are needed: as many classes as a question has choices.

    Rows with another number of choices are left out and counted.
    """

    columns: Columns = Columns()
    """Which columns of the data are what, for layout `columns`."""
    layout: Literal["columns", "instruction"] = "columns"
    """Question and choices have columns; or both stand in the text `instruction`, and `answer` says which,
    as in the commonsense files of LLM-Adapters."""
    form: Literal["classify", "likelihood"] = "classify"
    """A new head puts out the right choice's place, for question and choices in one text; or a decoder's
    own head gives each choice a likelihood, and trains on the right one."""
    prompt: str = "Question: {question}\nAnswer:"
    """What comes before a choice, for form `likelihood`; `{choices}` stands for all of them with letters."""
    normalise: Literal["none", "tokens", "characters"] = "none"
    """By what a choice's log-likelihood is divided before the highest wins, for form `likelihood`."""
    max_length: int | None = Field(None, ge=8)
    """Longest input in tokens; the beginning of a longer one is cut and counted. Left out: 256, or the
    model's own limit if that is less."""

    @field_validator("prompt")
    @classmethod
    def _prompt_has_a_question(cls, prompt: str) -> str:
        names = _fields(prompt)
        if "question" not in names or not set(names) <= {"question", "choices"}:
            raise ValueError("prompt: {question} must stand in it, and {choices} may; nothing else")
        return prompt

    @model_validator(mode="after")
    def _labels_are_given(self) -> "Config":
        if self.labels is None:
            raise Conflict(
                "labels",
                "labels: give the right answers as the data spell them, in the order of the choices",
            )
        if not 2 <= len(names_of(self.labels)) <= len(string.ascii_uppercase):
            raise Conflict("labels", "labels: there must be 2 to 26 choices")
        return self


def _fields(template: str) -> list[str]:
    """Return the names in braces. `Raises:` ValueError: a brace is open."""
    return [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]


def example(folder: Path) -> Config:
    """Return a section that reads questions, written into `folder`: for `graftlab.testing`."""
    for split, count in (("train", 9), ("validation", 3), ("test", 3)):
        rows = [
            {
                "question": f"{split} {'so ' * i}?",
                "choices": ["no", "yes " * (1 + i % 3), f"perhaps {i}"],
                "label": "ABC"[i % 3],
            }
            for i in range(count)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return Config(data_dir=folder, labels=("A", "B", "C"), max_length=60)


def backbones(config: Config) -> tuple[str, ...]:
    """Return the kinds of backbone that fit the form."""
    return BACKBONES if config.form == "classify" else BACKBONES[1:]


def problem(config: Config) -> Problem:
    """Return what the model has to put out: a class, or tokens whose choices have these names."""
    assert config.labels is not None
    return Problem("classes" if config.form == "classify" else "tokens", names_of(config.labels))


def check(config: Config) -> list[Fault]:
    """Return what is wrong with local files and columns; nothing is imported or downloaded."""
    found = check_local(config, _columns(config), _label(config))
    other = "instruction" if config.layout == "columns" else "columns"
    hint = (f"Or is it task.layout: {other}?",)
    return [
        replace(problem, remedies=(*problem.remedies, hint))
        if problem.kind == "no_column" and problem.given == _columns(config)[0]
        else problem
        for problem in found
    ]


def read(config: Config, paths: Paths, seed: int) -> Data:
    """Return the task's rows: `index`, `question`, `choices` and `label`.

    `seed` changes nothing here; see `split_seed`.

    Raises:
        ConfigError, DataError, Refused
    """
    form = Form(_columns(config), _label(config), _parser(config))
    return dataclasses.replace(read_splits(config, paths, form), problem=problem(config))


def _columns(config: Config) -> list[str]:
    if config.layout == "instruction":
        return [INSTRUCTION]
    return [*question_columns(config.columns.question), *config.columns.choices]


def _label(config: Config) -> str:
    return ANSWER if config.layout == "instruction" else config.columns.label


def _parser(config: Config) -> Callable[[Mapping[str, object]], dict[str, object]]:
    assert config.labels is not None
    columns, classes = config.columns, Classes(config.labels, config.drop_labels)
    if config.layout == "instruction":
        return _questions.Instructions(not columns.choices, classes)
    return _questions.Columns(columns.question, columns.choices, columns.label, classes)


def read_inputs(config: Config, source: str | Path | Sequence[object]) -> list[Row]:
    """Return new questions as rows without labels: from a file, from one JSON object as text, or from a
    list of dicts. Each has the task's columns, or `question` and `choices`.

    Where all questions have the same choices, a text (a line of a .txt file, an item of a list) is one.

    Raises:
        DataError: a row cannot be used, or has another number of choices.
    """
    where, numbered = _inputs(config, source)
    of_columns = _parser(config)

    def parse(row: dict[str, object]) -> dict[str, object]:
        if set(_questions.PLAIN) <= row.keys():
            return _questions.checked(_questions.plain(row), len(names_of(config.labels or ())))
        row = nested.reached(row, _columns(config))
        sources.check_columns(row, _columns(config), where)
        return of_columns(row)

    return inputs.read(where, numbered, parse)


def _inputs(
    config: Config, source: str | Path | Sequence[object]
) -> tuple[str, Iterable[Numbered]]:
    if isinstance(source, Path):
        if source.suffix.lower() != ".txt":
            return str(source), readers.read(source)
        numbered = readers.read_text(source, "question")
        return str(source), (
            (i, row if isinstance(row, str) else _asked(config, row["question"]))
            for i, row in numbered
        )
    items = [source] if isinstance(source, str) else source
    return "input", ((index, _asked(config, item)) for index, item in enumerate(items))


def _asked(config: Config, item: object) -> dict[str, object] | str:
    """Return an item as a row, or why it is none."""
    if isinstance(item, Mapping):
        return dict(item)
    if isinstance(item, str) and item.lstrip().startswith("{"):
        try:
            return dict(json.loads(item))
        except (ValueError, RecursionError) as error:
            return f"not a JSON object: {error}"
    if isinstance(item, str) and not config.columns.choices:
        return {"question": item, "choices": list(names_of(config.labels or ()))}
    return 'a JSON object is wanted: {"question": "...", "choices": ["...", "..."]}'


def tagged(row: Row, name: str) -> Row:
    """Return a row whose question says to which task of a mixture it belongs."""
    return {**row, "question": f"{name}: {row['question']}"}


def bind(data: Data, backbone: Backbone, config: Config, seed: int) -> Task:
    """Return the task with its texts as tokens; `record` counts what was cut.

    Raises:
        ConfigError: `max_length` is more than the model takes, or the backbone reads images.
    """
    if backbone.max_length is None:
        raise ConfigError("this task has texts, but the backbone reads images.")
    metrics = config.metrics or ("accuracy",)
    max_length = longest_input(config.max_length, backbone.max_length)
    if config.form == "classify":
        tokenizer = copy.copy(backbone.processor)
        tokenizer.truncation_side = "left"  # the choices stand at the end
        rendered = {split: _rendered(rows) for split, rows in data.splits.items()}
        as_texts = Data(rendered, data.problem)
        return TextTask(as_texts, tokenizer, max_length, metrics, data.splits)
    from graftlab.tasks._likelihood import LikelihoodTask, Options

    accepted = inspect.signature(backbone.model.forward).parameters
    options = Options(metrics, config.normalise, "logits_to_keep" in accepted)
    texts = {split: _texts(config, rows) for split, rows in data.splits.items()}
    return LikelihoodTask(data, texts, backbone.processor, max_length, options)


def render(question: str, choices: Sequence[str]) -> str:
    """Return the text that form `classify` reads: the question, then `A. first`, ..., a line each."""
    return f"{question}\n{lettered(choices)}"


def _rendered(rows: Sequence[Row]) -> Rows:
    return Rows(
        {
            "index": [row["index"] for row in rows],
            "text": [render(row["question"], row["choices"]) for row in rows],
            "pair": [None] * len(rows),
            "label": [row["label"] for row in rows],
        }
    )


def _texts(config: Config, rows: Sequence[Row]) -> "Texts":
    """Return the prompts, and each with each of its choices behind a space."""
    from graftlab.tasks._choice_tokens import Texts

    texts = Texts([], [])
    for row in rows:
        prompt = config.prompt.format(question=row["question"], choices=lettered(row["choices"]))
        texts.prompts.append(prompt.rstrip())
        between = "" if prompt[-1:].isspace() else " "
        texts.wholes.extend(f"{prompt}{between}{choice}" for choice in row["choices"])
    return texts
