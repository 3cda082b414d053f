"""What a model puts out for a sample of its run's data, and how much two models differ there."""

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from graftlab.adapters import PREFIX
from graftlab.contracts import Backbone, Batch, Note, Task
from graftlab.errors import GraftlabError
from graftlab.inference import Adapted
from graftlab.release.merge import records
from graftlab.runs import evaluation, material, prediction
from graftlab.seeds import mix
from graftlab.weights import surgery

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

# Shapes: N examples, L tokens, K outputs that are kept, V vocabulary or classes, I and O features.

log = logging.getLogger("graftlab")

OF_A_CALL, OF_ALL = 64, 512
"""How many outputs of one forward pass are compared, and of all: 512 of 128 k words take 256 MiB."""
OF_A_LAYER = 16
LENGTH, BATCH = 32, 8  # of made-up inputs


class Sample(NamedTuple):
    """Examples, and a task that gives them to a model."""

    task: Task
    split: str
    rows: int
    what: str
    """What they are, in words."""
    notes: tuple[Note, ...] = ()


def sample(adapted: Adapted, rows: int) -> Sample:
    """Return the first rows of the run's validation data; where they are gone, made-up inputs."""
    try:
        task = adapted.bind(material.read_again(adapted.file, adapted.run))
    except GraftlabError as error:
        note = Note.of("inputs_made_up", reason=str(error))
        log.warning("%s", note)
        made = cast("Task", MadeUp(adapted.backbone, rows))
        return Sample(made, "made-up", rows, "made-up inputs", (note,))
    split = next(name for name in ("validation", "test", "train") if task.size(name))
    count = min(rows, task.size(split))
    return Sample(task, split, count, f"the first {count} rows of {split}")


class MadeUp:
    """Random tokens or pixels, which need no data."""

    metrics: tuple[str, ...] = ()

    def __init__(self, backbone: Backbone, rows: int) -> None:
        import torch

        model = cast("PreTrainedModel", backbone.model)
        generator = torch.Generator().manual_seed(mix(0, "made-up"))
        if backbone.max_length is None:
            size, channels = model.config.image_size, model.config.num_channels
            pixels = torch.randn((rows, channels, size, size), generator=generator)
            self._batch: Batch = {"pixel_values": pixels}
            return
        tokenizer = backbone.processor
        special = set(tokenizer.all_special_ids)
        known = torch.tensor([i for i in range(len(tokenizer)) if i not in special])
        shape = (rows, min(LENGTH, backbone.max_length))
        ids_NL = known[torch.randint(len(known), shape, generator=generator)]
        self._batch = {"input_ids": ids_NL, "attention_mask": torch.ones_like(ids_NL)}

    def inputs(self, split: str, index: int) -> dict[str, object]:
        return {name: tensor[index] for name, tensor in self._batch.items()}

    def size(self, split: str) -> int:
        return len(self.lengths(split))

    def lengths(self, split: str) -> Sequence[int]:
        return [1] * len(next(iter(self._batch.values())))

    def batch(self, split: str, indices: Sequence[int], epoch: int | None) -> Batch:
        return {name: tensor[list(indices)] for name, tensor in self._batch.items()}

    def predict(self, model: "nn.Module", batch: Batch) -> list[dict[str, object]]:
        model(**batch)
        rows = len(next(iter(batch.values())))
        return [{"label": None, "prediction": None, "loss": None} for _ in range(rows)]


@dataclass
class Seen:
    """What a model has put out."""

    logits: "list[Tensor]" = field(default_factory=list)
    """(K, V) of each forward pass, float32, on the CPU."""
    layers: "dict[str, tuple[Tensor, Tensor]]" = field(default_factory=dict)
    """Of each linear layer, by its name in the plain model: some inputs (K, I) and their outputs (K, O)."""
    scores: dict[str, float | None] = field(default_factory=dict)
    """`loss` and the task's metrics."""


class Outputs(Protocol):
    """What is used of what a model returns."""

    logits: "Tensor"


def look(model: "nn.Module", taken: Sample, batch_size: int) -> Seen:
    """Return what a model puts out for a sample."""
    seen = Seen()
    with ExitStack() as stack:

        def keep(
            module: "nn.Module", args: object, inputs: "dict[str, Tensor]", output: "Outputs"
        ) -> None:
            kept = sum(map(len, seen.logits))
            rows_KV = _rows(output.logits, inputs.get("attention_mask"))
            seen.logits.append(_evenly(rows_KV, min(OF_A_CALL, OF_ALL - kept)).float().cpu())

        handle = model.register_forward_hook(keep, with_kwargs=True)
        stack.callback(handle.remove)
        for name, layer in _layers(model):
            stack.callback(layer.register_forward_hook(_keeper(seen, name)).remove)
        known = range(taken.task.size(taken.split))[: taken.rows]
        predictions = prediction.predict(model, taken.task, taken.split, batch_size, only=known)
    scores = evaluation.score(
        predictions, taken.task.metrics, functools.partial(taken.task.inputs, taken.split)
    )
    seen.scores = {"loss": evaluation.mean_loss(predictions)}
    seen.scores |= {name: score.value for name, score in scores.items()}
    return seen


def _layers(model: "nn.Module") -> "Iterator[tuple[str, nn.Module]]":
    """Yield each linear layer, with what an adapter has put around it, under its plain name."""
    modules = dict(model.named_modules())
    for name in surgery.linear_layers(model):
        outer = name.partition(".base_layer")[0].partition(".modules_to_save.")[0]
        if ".original_module" not in name and ".lora_" not in name:
            yield outer.removeprefix(PREFIX), modules[outer]


def _keeper(seen: Seen, name: str) -> "Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]":
    def keep(module: "nn.Module", inputs: "tuple[Tensor, ...]", output: "Tensor") -> None:
        if name not in seen.layers and inputs:
            rows = [_evenly(x.reshape(-1, x.shape[-1]), OF_A_LAYER) for x in (inputs[0], output)]
            seen.layers[name] = (rows[0].float().cpu(), rows[1].float().cpu())

    return keep


def _rows(logits: "Tensor", mask: "Tensor | None") -> "Tensor":
    """Return the outputs as rows (K, V), without those of padding."""
    if mask is not None and logits.dim() == 3 and mask.shape == logits.shape[:2]:
        return logits[mask.bool()]
    return logits.reshape(-1, logits.shape[-1])


def _evenly(rows: "Tensor", count: int) -> "Tensor":
    import torch

    if len(rows) <= count:
        return rows.detach().clone()
    return rows.detach()[torch.linspace(0, len(rows) - 1, max(count, 0)).long()].clone()


def compare(expected: Seen, found: Seen, loaded: "nn.Module") -> records.Compared:
    """Return how much what was `found` of a `loaded` model differs from what was `expected`.

    `kl` is the mean Kullback-Leibler divergence of the outputs' distributions, in nats; None of a score.
    """
    import torch

    ours_KV, theirs_KV = torch.cat(expected.logits), torch.cat(found.logits)
    assert ours_KV.shape == theirs_KV.shape
    difference_KV = (ours_KV.double() - theirs_KV.double()).abs()
    finite = bool(ours_KV.isfinite().all() and theirs_KV.isfinite().all())
    kl = None
    if ours_KV.shape[1] > 1 and finite:
        p, q = (logits.double().log_softmax(-1) for logits in (ours_KV, theirs_KV))
        kl = max(float((p.exp() * (p - q)).sum(-1).mean()), 0.0)
    return {
        "logits": {
            "outputs": len(ours_KV),
            "finite": finite,
            "largest": float(difference_KV.max()) if finite else None,
            "mean": float(difference_KV.mean()) if finite else None,
            "scale": float(ours_KV.abs().max()) if finite else None,
        },
        "kl": kl,
        "scores": {k: {"before": v, "after": found.scores[k]} for k, v in expected.scores.items()},
        "worst_layer": _worst_layer(expected, loaded),
    }


def _worst_layer(expected: Seen, loaded: "nn.Module") -> records.Layer | None:
    """Return the linear layer whose output differs most for the same input, by the output's largest value."""
    import torch

    worst: records.Layer | None = None
    layers = dict(_layers(loaded))
    for name, (input_KI, output_KO) in expected.layers.items():
        if name not in layers:
            continue
        weight = next(layers[name].parameters())
        with torch.no_grad():
            mine_KO = layers[name](input_KI.to(weight.device, weight.dtype)).float().cpu()
        gap = float((mine_KO - output_KO).abs().max() / output_KO.abs().max().clamp(min=1e-12))
        if worst is None or not gap <= worst["difference"]:
            worst = {"name": name, "difference": gap}
    return worst
