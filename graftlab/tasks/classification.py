"""Classes, or a score, for one text or a pair of texts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from graftlab.config import Conflict, Paths, Section
from graftlab.contracts import USUAL_METRICS, Backbone, Batch, Data, Problem, Row, inputs_of
from graftlab.data import inputs, readers
from graftlab.data.load import Form, check_local, read_splits, task_labels
from graftlab.data.rows import Numbered
from graftlab.errors import ConfigError, DataError, Fault
from graftlab.tasks._class_weights import (
    WeightedClasses,
    refuse_for_scores,
    weighted,
    weights,
)
from graftlab.tasks._outputs import forward, label_array, losses, predictions
from graftlab.tasks._texts import cleaned, same_text, text_of
from graftlab.tasks._tokens import Texts

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

BACKBONES = ("encoder", "decoder", "tiny")
DEFAULT_MAX_LENGTH = (
    256  # covers 99 % of the catalogue's rows but IMDB's; attention costs its square
)


class Columns(Section):
    """Which columns of the data are what."""

    text: str = "text"
    """The text, or the first one of a pair."""
    pair: str | None = None
    """The second text of a pair."""
    label: str = "label"
    """The class (an integer or a name) or the score."""


class Config(WeightedClasses):
    """Classification or regression of texts."""

    columns: Columns = Columns()
    """Which columns of the data are what."""
    regression: bool = False
    """Labels are scores; the loss is the squared error."""
    clean: bool = False
    """Take HTML out of the texts (tags become a space, `&amp;` its character), and make every stretch of
    white space one space."""
    max_length: int | None = Field(None, ge=8)
    """Longest input in tokens, the rest is cut (longest text of a pair first) and counted. Left out: 256,
    or the model's own limit if that is less."""

    @model_validator(mode="after")
    def _scores_have_no_names(self) -> "Config":
        if self.regression and (self.labels or self.drop_labels):
            raise Conflict("labels", "labels and drop_labels are for classes; regression has none")
        if self.regression:
            refuse_for_scores(self)
        return self

    def _labels_unknown(self) -> None:
        if not self.regression:
            super()._labels_unknown()


def example(folder: Path) -> Config:
    """Return a section that reads pairs of texts, written into `folder`: for `graftlab.testing`."""
    for split, count in (("train", 9), ("validation", 3), ("test", 3)):
        lines = ["text,pair,label"]
        for i in range(count):
            lines.append(f"{split} {'so ' * i},{'is it ' * (i % 4)}?,{('no', 'yes')[i % 2]}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Config(data_dir=folder, columns=Columns(pair="pair"), max_length=40)


def problem(config: Config) -> Problem:
    """Return what the model has to put out.

    Raises:
        DataError: labels must be found in the train file, and it cannot be read.
    """
    if config.regression:
        return Problem("regression")
    return Problem("classes", task_labels(config, config.columns.label))


def check(config: Config) -> list[Fault]:
    """Return what is wrong with local files and columns; nothing is imported or downloaded."""
    return check_local(config, _columns(config), config.columns.label)


def read(config: Config, paths: Paths, seed: int) -> Data:
    """Return the task's rows: `index`, `text`, `pair` (None for one text) and `label`.

    `seed` changes nothing here: splits come from `split_seed`, so that runs with other seeds can be paired.

    Raises:
        ConfigError, DataError, Refused
    """
    form = Form(_columns(config), config.columns.label, _parser(config), _count_empty)
    return read_splits(config, paths, form, config.regression)


def _columns(config: Config) -> list[str]:
    return [config.columns.text, *([config.columns.pair] if config.columns.pair else [])]


def _parser(config: Config) -> Callable[[Mapping[str, object]], dict[str, object]]:
    columns, pair = _columns(config), config.columns.pair

    def parse(row: Mapping[str, object]) -> dict[str, object]:
        texts = [text_of(row, column) for column in columns]
        texts = [cleaned(text) for text in texts] if config.clean else texts
        return {"text": texts[0], "pair": texts[1] if pair else None, "key": same_text(texts)}

    return parse


def tagged(row: Row, name: str) -> Row:
    """Return a row whose text says to which task of a mixture it belongs."""
    return {**row, "text": f"{name}: {row['text']}"}


def _count_empty(rows: Sequence[Row]) -> dict[str, int]:
    empty = sum(
        not row["text"].strip() or (row["pair"] is not None and not row["pair"].strip())
        for row in rows
    )
    return {"empty_texts": empty}


def read_inputs(config: Config, source: str | Path | Sequence[object]) -> list[Row]:
    """Return new inputs as rows without labels: from a file (.txt holds a text a line, others the task's
    columns), from one text, or from a list of texts, pairs or dicts.

    Raises:
        DataError: a row cannot be used, or a column is missing.
    """
    where, numbered = _inputs(config, source)
    return inputs.read(where, numbered, _parser(config), _columns(config))


def _inputs(
    config: Config, source: str | Path | Sequence[object]
) -> tuple[str, Iterable[Numbered]]:
    columns = _columns(config)
    if isinstance(source, Path):
        if source.suffix.lower() != ".txt":
            return str(source), readers.read(source)
        if config.columns.pair:
            raise DataError(f"{source}: pairs are read from JSONL or CSV with columns {columns}.")
        return str(source), readers.read_text(source, columns[0])
    items = [source] if isinstance(source, str) else source
    return "input", ((index, _as_row(item, columns)) for index, item in enumerate(items))


def _as_row(item: object, columns: list[str]) -> dict[str, object] | str:
    if isinstance(item, Mapping):
        return dict(item)
    values = list(item) if isinstance(item, list | tuple) else [item]
    if len(values) != len(columns):
        return f"{len(values)} texts where the task takes {len(columns)}: {columns}"
    return dict(zip(columns, values, strict=True))


def bind(data: Data, backbone: Backbone, config: Config, seed: int) -> "TextTask":
    """Return the task with its texts as tokens; `record` counts what was cut.

    Raises:
        ConfigError: `max_length` is more than the model takes, or the backbone reads images.
    """
    if backbone.max_length is None:
        raise ConfigError("this task has texts, but the backbone reads images.")
    task = TextTask(
        data,
        backbone.processor,
        longest_input(config.max_length, backbone.max_length),
        _metrics(config, data),
    )
    task.class_weights = weights(config.class_weights, data)
    return task


def longest_input(wanted: int | None, limit: int) -> int:
    """Return the longest input in tokens. `Raises:` ConfigError: more is wanted than the model takes."""
    if wanted and wanted > limit:
        raise ConfigError(f"task.max_length {wanted} is more than the model takes: {limit}.")
    return wanted or min(limit, DEFAULT_MAX_LENGTH)


def _metrics(config: Config, data: Data) -> tuple[str, ...]:
    return config.metrics or USUAL_METRICS[data.problem.kind]


class TextTask:
    """Texts as padded token batches, with cross-entropy or squared error."""

    def __init__(
        self,
        data: Data,
        tokenizer: "PreTrainedTokenizerBase",
        max_length: int,
        metrics: tuple[str, ...],
        asked: Mapping[str, Sequence[Row]] | None = None,
    ) -> None:
        """`asked` are the rows that the texts were made of, where these are not the data's own."""
        self.problem = data.problem
        self.metrics = metrics
        self.class_weights: Tensor | None = None
        self._rows = data.splits if asked is None else asked
        self._texts = {
            split: Texts(
                [row["text"] for row in rows], [row["pair"] for row in rows], tokenizer, max_length
            )
            for split, rows in data.splits.items()
        }
        self._labels = {
            split: label_array(rows, data.problem) for split, rows in data.splits.items()
        }
        self.record = {
            "max_length": max_length,
            "truncated": {
                split: texts.truncated for split, texts in self._texts.items() if texts.truncated
            },
        }

    def size(self, split: str) -> int:
        return len(self._labels.get(split, ()))

    def lengths(self, split: str) -> Sequence[int]:
        return self._texts[split].lengths.tolist()

    def batch(self, split: str, indices: Sequence[int], epoch: int | None) -> Batch:
        import torch

        arrays = self._texts[split].pad(indices)
        arrays["labels"] = self._labels[split][list(indices)]
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def inputs(self, split: str, index: int) -> dict[str, object]:
        return inputs_of(self._rows[split][index])

    def source_row(self, split: str, index: int) -> int:
        return int(self._rows[split][index]["index"])

    def count(self, batch: Batch) -> int:
        return len(batch["labels"])

    def loss(self, model: "nn.Module", batch: Batch, label_smoothing: float = 0.0) -> "Tensor":
        logits, labels = forward(model, batch)
        found = losses(self.problem, logits, labels, label_smoothing)
        if self.class_weights is not None:
            found = weighted(found, labels, self.class_weights)
        return found.sum()

    def predict(self, model: "nn.Module", batch: Batch) -> list[dict[str, object]]:
        logits, labels = forward(model, batch)
        return predictions(self.problem, logits, labels)
