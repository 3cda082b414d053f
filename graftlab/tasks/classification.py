"""Classes, or a score, for one text or a pair of texts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from graftlab.config import Paths, Section
from graftlab.contracts import Backbone, Batch, Data, Problem, Row
from graftlab.data import readers, sources, splits
from graftlab.data.labels import Unusable
from graftlab.data.load import Form, read_splits, task_labels
from graftlab.data.section import DataSection
from graftlab.errors import ConfigError, DataError, GraftlabError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

# Shapes: N examples of a batch, C classes, L tokens.

BACKBONES = ("encoder", "decoder", "tiny")
DEFAULT_MAX_LENGTH = (
    256  # covers 99 % of the catalogue's rows but IMDB's; attention costs its square
)
CHUNK = 4096  # texts given to the tokenizer at once: bounds the memory of what it returns
UNKNOWN = -100  # torch's ignore_index: an example without a label


class Columns(Section):
    """Which columns of the data are what."""

    text: str = "text"
    """The text, or the first one of a pair."""
    pair: str | None = None
    """The second text of a pair."""
    label: str = "label"
    """The class (an integer or a name) or the score."""


class Config(DataSection):
    """Classification or regression of texts."""

    columns: Columns = Columns()
    """Which columns of the data are what."""
    regression: bool = False
    """Labels are scores; the loss is the squared error."""
    max_length: int | None = Field(None, ge=8)
    """Longest input in tokens, the rest is cut (longest text of a pair first) and counted. Left out: 256,
    or the model's own limit if that is less."""

    @model_validator(mode="after")
    def _scores_have_no_names(self) -> "Config":
        if self.regression and (self.labels or self.drop_labels):
            raise ValueError("labels and drop_labels are for classes; regression has none")
        return self

    def _labels_unknown(self) -> None:
        if not self.regression:
            super()._labels_unknown()


def problem(config: Config) -> Problem:
    """Return what the model has to put out.

    Raises:
        DataError: labels must be found in the train file, and it cannot be read.
    """
    if config.regression:
        return Problem("regression")
    return Problem("classes", task_labels(config, config.columns.label))


def check(config: Config) -> list[str]:
    """Return what is wrong with local files and columns; nothing is imported or downloaded."""
    try:
        for split, path in sources.local_files(config).items():
            row = sources.first_row(path)
            if row is None:
                return [f"{path} has no row that can be read."]
            needed = _columns(config)
            sources.check_columns(
                row, [*needed, config.columns.label] if split == "train" else needed, str(path)
            )
    except GraftlabError as error:
        return [str(error)]
    return []


def read(config: Config, paths: Paths, seed: int) -> Data:
    """Return the task's rows: `index`, `text`, `pair` (None for one text) and `label`.

    `seed` changes nothing here: splits come from `split_seed`, so that runs with other seeds can be paired.

    Raises:
        ConfigError, DataError, Refused
    """
    form = Form(_columns(config), config.columns.label, _parser(config), same_text, _count_empty)
    return read_splits(config, paths, form, config.regression)


def _columns(config: Config) -> list[str]:
    return [config.columns.text, *([config.columns.pair] if config.columns.pair else [])]


def _parser(config: Config) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    text, pair = config.columns.text, config.columns.pair

    def parse(row: Mapping[str, Any]) -> dict[str, Any]:
        return {"text": _text(row, text), "pair": _text(row, pair) if pair else None}

    return parse


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if not isinstance(value, str):
        raise Unusable(f"column {column!r} is {value!r:.60}, not text")
    if "\0" in value:
        raise Unusable(f"a NUL character stands in column {column!r}")
    if not value.isascii() and not readers.is_unicode(value):
        raise Unusable(f"column {column!r} is not valid Unicode (a lone surrogate)")
    return value


def _count_empty(rows: Sequence[Row]) -> dict[str, int]:
    empty = sum(
        not row["text"].strip() or row["pair"] is not None and not row["pair"].strip()
        for row in rows
    )
    return {"empty_texts": empty}


def same_text(row: Row) -> bytes:
    """Return what two rows share if their texts are equal but for case and white space."""
    texts = (row["text"], row["pair"]) if row["pair"] is not None else (row["text"],)
    return splits.digest(*("".join(text.split()).casefold() for text in texts))


def read_inputs(config: Config, source: str | Path | Sequence[Any]) -> list[Row]:
    """Return new inputs as rows without labels: from a file (.txt holds a text a line, others the task's
    columns), from one text, or from a list of texts, pairs or dicts.

    Raises:
        DataError: a row cannot be used, or a column is missing.
    """
    parse, result = _parser(config), []
    where, numbered = _inputs(config, source)
    for index, row in numbered:
        try:
            if isinstance(row, str):
                raise Unusable(row)
            sources.check_columns(row, _columns(config), where)
            result.append({"index": index, **parse(row), "label": None})
        except Unusable as reason:
            raise DataError(f"{where}, row {index + 1}: {reason}.") from None
    if not result:
        raise DataError(f"{where} has no rows.")
    return result


def _inputs(
    config: Config, source: str | Path | Sequence[Any]
) -> tuple[str, Iterable[readers.Numbered]]:
    columns = _columns(config)
    if isinstance(source, Path):
        if source.suffix.lower() != ".txt":
            return str(source), readers.read(source)
        if config.columns.pair:
            raise DataError(f"{source}: pairs are read from JSONL or CSV with columns {columns}.")
        return str(source), readers.read_text(source, columns[0])
    items = [source] if isinstance(source, str) else source
    return "input", ((index, _as_row(item, columns)) for index, item in enumerate(items))


def _as_row(item: Any, columns: list[str]) -> dict[str, Any]:
    if isinstance(item, Mapping):
        return dict(item)
    values = [item] if isinstance(item, str) else list(item)
    if len(values) != len(columns):
        raise Unusable(f"{len(values)} texts where the task takes {len(columns)}: {columns}")
    return dict(zip(columns, values, strict=True))


def bind(data: Data, backbone: Backbone, config: Config, seed: int) -> "TextTask":
    """Return the task with its texts as tokens; `record` counts what was cut.

    Raises:
        ConfigError: `max_length` is more than the model takes.
    """
    return TextTask(data, backbone.processor, _max_length(config, backbone), _metrics(config, data))


def _max_length(config: Config, backbone: Backbone) -> int:
    limit = backbone.max_length
    if config.max_length and limit and config.max_length > limit:
        raise ConfigError(
            f"task.max_length {config.max_length} is more than the model takes: {limit}."
        )
    return config.max_length or min(limit or DEFAULT_MAX_LENGTH, DEFAULT_MAX_LENGTH)


def _metrics(config: Config, data: Data) -> tuple[str, ...]:
    default = (
        ("pearson", "spearman") if data.problem.kind == "regression" else ("accuracy", "macro_f1")
    )
    return config.metrics or default


class TextTask:
    """Texts as padded token batches, with cross-entropy or squared error."""

    def __init__(
        self, data: Data, tokenizer: Any, max_length: int, metrics: tuple[str, ...]
    ) -> None:
        import numpy as np

        self.problem = data.problem
        self.metrics = metrics
        self._left = tokenizer.padding_side == "left"
        pad = tokenizer.pad_token_id
        self._pad = {
            "input_ids": 0 if pad is None else pad,
            "token_type_ids": tokenizer.pad_token_type_id,
        }
        self._splits: dict[str, dict[str, list[np.ndarray]]] = {}
        self._labels: dict[str, np.ndarray] = {}
        truncated = {}
        for split, rows in data.splits.items():
            self._splits[split], truncated[split] = tokenize(rows, tokenizer, max_length)
            self._labels[split] = self._label_array(rows)
        self.record = {
            "max_length": max_length,
            "truncated": {split: count for split, count in truncated.items() if count},
        }

    def _label_array(self, rows: Sequence[Row]) -> "np.ndarray":
        import numpy as np

        labels = [row["label"] for row in rows]
        if self.problem.kind == "regression":
            return np.array([np.nan if y is None else y for y in labels], dtype=np.float32)
        return np.array([UNKNOWN if y is None else y for y in labels], dtype=np.int64)

    def size(self, split: str) -> int:
        return len(self._labels.get(split, ()))

    def lengths(self, split: str) -> Sequence[int]:
        return [len(ids) for ids in self._splits[split]["input_ids"]]

    def batch(self, split: str, indices: Sequence[int], epoch: int | None) -> Batch:
        import numpy as np
        import torch

        columns = self._splits[split]
        lengths = [len(columns["input_ids"][i]) for i in indices]
        shape = len(indices), max(lengths)
        arrays = {name: np.full(shape, self._pad[name], dtype=np.int64) for name in columns}
        arrays["attention_mask"] = np.zeros(shape, dtype=np.int64)
        for row, (index, length) in enumerate(zip(indices, lengths, strict=True)):
            place = slice(shape[1] - length, None) if self._left else slice(length)
            arrays["attention_mask"][row, place] = 1
            for name, values in columns.items():
                arrays[name][row, place] = values[index]
        arrays["labels"] = self._labels[split][list(indices)]
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def count(self, batch: Batch) -> int:
        return len(batch["labels"])

    def loss(self, model: "nn.Module", batch: Batch, label_smoothing: float = 0.0) -> "Tensor":
        logits, labels = forward(model, batch)
        return losses(self.problem, logits, labels, label_smoothing).sum()

    def predict(self, model: "nn.Module", batch: Batch) -> list[dict[str, Any]]:
        logits, labels = forward(model, batch)
        return predictions(self.problem, logits, labels)


def tokenize(
    rows: Sequence[Row], tokenizer: Any, max_length: int
) -> tuple[dict[str, list["np.ndarray"]], int]:
    """Return the model's token inputs of each row, and how many rows were cut to `max_length`."""
    import numpy as np

    names = ["input_ids"]
    if "token_type_ids" in tokenizer.model_input_names:
        names.append("token_type_ids")
    columns: dict[str, list[np.ndarray]] = {name: [] for name in names}
    truncated = 0
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        texts, pairs = [row["text"] for row in part], [row["pair"] for row in part]
        encoded = tokenizer(
            texts,
            pairs if pairs[0] is not None else None,
            truncation=True,
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
        )
        for ids in encoded["input_ids"]:
            columns["input_ids"].append(np.asarray(ids, dtype=np.int32))
        for types in encoded.get("token_type_ids", ()) if len(names) > 1 else ():
            columns["token_type_ids"].append(np.asarray(types, dtype=np.int32))
        truncated += _count_cut(encoded, tokenizer, texts, pairs, max_length)
    return _never_empty(columns, tokenizer), truncated


def _count_cut(
    encoded: Any, tokenizer: Any, texts: list[str], pairs: list[str | None], max_length: int
) -> int:
    if encoded.encodings is not None:
        return sum(bool(encoding.overflowing) for encoding in encoded.encodings)
    full = [i for i, ids in enumerate(encoded["input_ids"]) if len(ids) >= max_length]
    return sum(len(tokenizer(texts[i], pairs[i])["input_ids"]) > max_length for i in full)


def _never_empty(
    columns: dict[str, list["np.ndarray"]], tokenizer: Any
) -> dict[str, list["np.ndarray"]]:
    """Give an empty text one token where the tokenizer adds none of its own (Qwen's): no model takes 0."""
    import numpy as np

    ends = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id)
    token = next((end for end in ends if end is not None), 0)
    for name, values in columns.items():
        fill = np.asarray([token if name == "input_ids" else 0], dtype=np.int32)
        columns[name] = [value if len(value) else fill for value in values]
    return columns


def forward(model: "nn.Module", batch: Batch) -> tuple["Tensor", "Tensor"]:
    """Return float32 logits (N, C) and labels (N). The model never sees the labels: given them, PEFT's
    AdaLoRA would add its regulariser to a loss that is not ours."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return model(**inputs).logits.float(), batch["labels"]


def losses(
    problem: Problem, logits_NC: "Tensor", labels_N: "Tensor", label_smoothing: float = 0.0
) -> "Tensor":
    """Return the loss of each example (N); 0 or NaN where the label is unknown."""
    from torch.nn import functional as F

    if problem.kind == "regression":
        return F.mse_loss(logits_NC.squeeze(-1), labels_N.float(), reduction="none")
    return F.cross_entropy(
        logits_NC, labels_N, reduction="none", ignore_index=UNKNOWN, label_smoothing=label_smoothing
    )


def predictions(problem: Problem, logits_NC: "Tensor", labels_N: "Tensor") -> list[dict[str, Any]]:
    """Return per example what `contracts.Task.predict` says."""
    loss_N = losses(problem, logits_NC, labels_N).tolist()
    labels = labels_N.tolist()
    if problem.kind == "regression":
        known = [label == label for label in labels]  # NaN is the only number unlike itself
        values: list[dict[str, Any]] = [{"prediction": y} for y in logits_NC.squeeze(-1).tolist()]
    else:
        known = [label != UNKNOWN for label in labels]
        values = [
            {"prediction": best, "probabilities": shares}
            for best, shares in zip(
                logits_NC.argmax(-1).tolist(), logits_NC.softmax(-1).tolist(), strict=True
            )
        ]
    return [
        {"label": label if sure else None, **value, "loss": loss if sure else None}
        for label, sure, value, loss in zip(labels, known, values, loss_N, strict=True)
    ]
