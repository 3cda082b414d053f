"""The task that generates text, bound to a tokenizer: batches, loss, what each token got, and answers."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab import programs
from graftlab.contracts import Backbone, Batch, Data, Note, Row, inputs_of, written
from graftlab.data.labels import Unusable
from graftlab.errors import ConfigError, DataError
from graftlab.seeds import mix
from graftlab.tasks import _packing
from graftlab.tasks._logits import at_labels, cross_entropy, has_virtual_tokens
from graftlab.tasks._outputs import UNKNOWN
from graftlab.tasks.generation import fields as configs
from graftlab.tasks.generation.answers import RowVectors, Writer
from graftlab.tasks.generation.examples import TOO_LONG, Builder, Built, to_train_on
from graftlab.tasks.generation.fields import Config
from graftlab.tasks.generation.templates import around, without
from graftlab.tasks.generation.tokens import Flat

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger("graftlab")

# Shapes: N examples, L tokens of the longest, M trained tokens, V vocabulary.

DEFAULT_MAX_LENGTH = 512
MODEL_INPUTS = ("input_ids", "attention_mask", "vectors", "vector_mask")


class Split(NamedTuple):
    """A split's examples, as far as they are used."""

    flat: Flat
    rows: Sequence[Row]
    """The split's, with `label`, what answers are scored by; None where unknown."""
    kept: list[int]
    """Which of them the examples are."""


class GenerationTask:
    """Prompts and answers for a causal language model.

    A batch for evaluation has `rows` too: the places of its examples among those of all splits. Where
    prompts have places for vectors, `vectors` (N, D) are those of the rows.
    """

    def __init__(
        self,
        data: Data,
        backbone: Backbone,
        config: Config,
        seed: int,
        vectors: RowVectors | None = None,
    ) -> None:
        assert backbone.max_length is not None
        self.problem = data.problem
        self.metrics, self.final_metrics = configs.metrics(config)
        self._config, self._vectors = config, vectors
        tokenizer = backbone.processor
        self._builder = builder = Builder(config, tokenizer, vectors.num_tokens if vectors else 0)
        self._pad = tokenizer.pad_token_id or 0
        self._apart = None if config.packing == "none" else _packing.isolation(backbone.model)
        self._max_length = longest(config.max_length, backbone.max_length)
        self._splits: dict[str, Split] = {}
        record: dict[str, object] = {"truncated": {}, "left_out": {}, "too_long": {}}
        for split, rows in data.splits.items():
            built = builder.build(rows, self._max_length, answered=split != "input")
            self._splits[split] = self._used(split, rows, built)
            _count(record, split, built)
        self._offsets = dict(zip(self._splits, _offsets(self._splits), strict=True))
        used = [s.rows[i] for s in self._splits.values() for i in s.kept]
        self._labels = [row["label"] for row in used]
        self._kinds = [row.get("task_type") for row in used]
        self._sources = [n if isinstance(n := row.get("vector"), int) else None for row in used]
        self._writer = Writer(builder, config.generation, backbone, self._max_length, vectors)
        self._around = ("", "") if config.chats else around(config.filled.completion)
        marks = builder.renderer.unknown_marks() if builder.renderer else []
        notes = [Note.of("marks_unknown", marks=marks)] if marks else []
        record |= {"vectors": vectors.record} if vectors else {}
        self.record = {"max_length": self._max_length, **record, "notes": written(notes)}
        self.at_evaluations = self._drawn(config.generation.at_evaluations or 0)
        if any(map(self._is_written, data.splits)) or self.at_evaluations:
            self._writer.check()  # before anything is trained
            if config.execute_code:
                asked = [s.rows for name, s in self._splits.items() if self._is_written(name)]
                asked.append(self._rows("validation", self.at_evaluations))
                programs.require_tests([row["label"] for rows in asked for row in rows])
        elif self.final_metrics and self.size("train"):
            log.warning(
                "%s need answers, but none are written: task.generation.splits names %s, and there is "
                "no such split",
                ", ".join(self.final_metrics), ", ".join(config.generation.splits) or "none",
            )  # fmt: skip

    def _is_written(self, split: str) -> bool:
        return self.writes(split) and self.size(split) > 0

    def _drawn(self, count: int) -> list[int]:
        """Return so many validation examples, the same at every evaluation."""
        import numpy as np

        drawn = np.random.default_rng(mix(self._config.generation.seed, "at evaluations"))
        order: list[int] = drawn.permutation(self.size("validation")).tolist()
        return sorted(order[:count])

    def _used(self, split: str, rows: Sequence[Row], built: Built) -> Split:
        """Return the split's examples: of train those that can be trained on, of others all."""
        if split == "train" and len(rows):
            kept = to_train_on(built, self._config.max_left_out)
        else:
            kept = list(range(len(rows)))
        examples = []
        for place in kept:
            example = built.examples[place]
            try:
                if example is None:
                    raise Unusable(built.left_out[place])
                examples.append(example.within(self._max_length))
            except Unusable as reason:
                where = f"{split} row {rows[place]['index'] + 1}"
                kind = "unusable" if example is None else "too_long"
                raise DataError(f"{where} cannot be used: {reason}.", kind=kind) from None
        return Split(Flat(examples, self._pad), rows, kept)

    @property
    def template(self) -> dict[str, object]:
        """What makes a prompt of new columns, as JSON: kept with the adapter."""
        form, renderer = self._config.filled, self._builder.renderer
        chat = self._config.template == "chat"
        return {
            "template": self._config.template,
            "prompt": None if chat else form.prompt,
            "prompt_without": {form.optional: form.without} if form.optional else {},
            "completion": None if chat else form.completion,
            "columns": self._config.columns.model_dump(mode="json"),
            "no_answer": self._config.no_answer,
            "chat_template": renderer.template if renderer else None,
            "system": self._config.system,
            "cut": list(self._config.shortened),
            "max_length": self._max_length,
            "generation": self._config.generation.model_dump(mode="json"),
            "end_tokens": self._writer.ends,
        }

    def size(self, split: str) -> int:
        return len(self._splits[split].flat) if split in self._splits else 0

    def lengths(self, split: str) -> Sequence[int]:
        lengths: list[int] = self._splits[split].flat.lengths.tolist()
        return lengths

    def batch(self, split: str, indices: Sequence[int], epoch: int | None) -> Batch:
        import numpy as np
        import torch

        flat = self._splits[split].flat
        if self._apart and epoch is not None:
            width = self._max_length if self._config.packing == "packed" else None
            arrays = _packing.collate(
                [_packing.Example(*flat.of(index)) for index in indices], width, self._pad
            )
        else:
            arrays = flat.pad(indices)
        if epoch is None:
            arrays["rows"] = np.asarray(indices, dtype=np.int64) + self._offsets[split]
        if self._vectors:
            arrays["vectors"] = self._vectors.take(self._rows(split, indices))
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _rows(self, split: str, indices: Sequence[int]) -> list[Row]:
        found = self._splits[split]
        return [found.rows[found.kept[index]] for index in indices]

    def inputs(self, split: str, index: int) -> dict[str, object]:
        """Return what an example asks; of one that stands for a vector also its numbers, `vector` (D,), and
        what it was `made_with`."""
        [row] = self._rows(split, [index])
        asked = inputs_of(row)
        if self._vectors is None:
            return asked
        numbers = self._vectors.take([row])[0]
        return asked | {"vector": numbers, "made_with": self._vectors.record["origin"]}

    def source_row(self, split: str, index: int) -> int:
        return int(self._rows(split, [index])[0]["index"])

    def count(self, batch: Batch) -> int:
        return int((batch["labels"][:, 1:] != UNKNOWN).sum())

    def loss(self, model: "nn.Module", batch: Batch, label_smoothing: float = 0.0) -> "Tensor":
        logits_MV, labels_M = at_labels(model, self._inputs(model, batch), batch["labels"])
        return cross_entropy(logits_MV, labels_M, label_smoothing).sum()

    def _inputs(self, model: "nn.Module", batch: Batch) -> dict[str, Any]:
        if "attention_mask" in batch:
            return {name: batch[name] for name in MODEL_INPUTS if name in batch}
        assert self._apart is not None
        if has_virtual_tokens(model):
            raise ConfigError(
                "task.packing: the method puts virtual tokens before each row, not before each of the "
                "examples in it. Set task.packing: none."
            )
        return _packing.inputs(batch, model, self._apart)

    def predict(self, model: "nn.Module", batch: Batch) -> list[dict[str, object]]:
        logits_MV, labels_M = at_labels(model, self._inputs(model, batch), batch["labels"])
        losses_M = cross_entropy(logits_MV, labels_M)
        right_M = logits_MV.argmax(-1) == labels_M
        counts = (batch["labels"][:, 1:] != UNKNOWN).sum(1).tolist()
        found = []
        for place, losses, right in zip(
            batch["rows"].tolist(), losses_M.split(counts), right_M.split(counts), strict=True
        ):
            has_loss = len(losses) > 0
            found.append(
                {
                    "label": self._labels[place],
                    "prediction": None,
                    "loss": losses.double().sum().item() if has_loss else None,
                    "count": len(losses),
                    "correct": int(right.sum()),
                    **({"task_type": kind} if (kind := self._kinds[place]) else {}),
                    **({"source": n} if (n := self._sources[place]) is not None else {}),
                }
            )
        return found

    def writes(self, split: str) -> bool:
        """Say whether answers are written for a split at the end."""
        if split == "input":
            return True
        return bool(self.final_metrics) and split in self._config.generation.splits

    def complete(
        self, model: "nn.Module", split: str, indices: Sequence[int]
    ) -> list[dict[str, Any]]:
        """Return the answers to some examples as `prediction`: a text, or a list of several samples.

        Greedy answers depend on their example alone, up to rounding. What is drawn comes from the
        generation's seed, the split, the example's place and the sample's number: other examples of the
        batch change it by rounding only. Too long a prompt
        loses its beginning.
        """
        rows = self._rows(split, indices)
        answers = self._writer.write(model, rows, [(split, index) for index in indices])
        texts = [[without(text, self._around) for text in samples] for samples in answers]
        single = self._config.generation.samples == 1
        written = [{"prediction": samples[0] if single else samples} for samples in texts]
        if not self._config.execute_code or split == "input":
            return written
        labelled = [{"label": row["label"], **one} for row, one in zip(rows, written, strict=True)]
        return [{k: v for k, v in row.items() if k != "label"} for row in programs.run(labelled)]


def _count(record: dict[str, Any], split: str, built: Built) -> None:
    """Write down what has become of a split's rows."""
    reasons = Counter(built.left_out.values())
    figures = {
        "truncated": len(built.cut - set(built.left_out if split == "train" else ())),
        "left_out": dict(reasons) if split == "train" else {},
        "too_long": reasons[TOO_LONG] if split != "train" else 0,
    }
    for name, figure in figures.items():
        record[name] |= {split: figure} if figure else {}


def _offsets(splits: Mapping[str, Split]) -> list[int]:
    found, total = [], 0
    for split in splits.values():
        found.append(total)
        total += len(split.flat)
    return found


def longest(wanted: int | None, limit: int) -> int:
    """Return the longest input in tokens. `Raises:` ConfigError: more is wanted than the model takes."""
    if wanted and wanted > limit:
        raise ConfigError(f"task.max_length {wanted} is more than the model takes: {limit}.")
    return wanted or min(limit, DEFAULT_MAX_LENGTH)
