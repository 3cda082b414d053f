"""What bench/layer_choice.py measures of a donor and a data set: scores, probes, and short trainings.

Rows of train alone: a pool that samples are drawn from and PiFi is trained on, and rows that are held out.
"""

import copy
import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from settings import ROOT

# Shapes: N rows, d the encoder's width, L layers, B scores and their bootstrap samples.

POOL, HELD, SAMPLES, RESAMPLES = 800, 500, 400, 100
SCORES = {
    "pca": ("probe", "fisher", "silhouette", "plugin", "linear"),
    "raw": ("probe", "fisher", "silhouette"),
}
"""By space; those that nothing is chosen by are left out, as each is dear."""


COUNTS = {"small-llama": 6, "smollm2_135m": 30}  # layers


class Schedule(NamedTuple):
    """How PiFi is trained: Adam, clipping and smoothing as in the recipe `pifi/base`."""

    steps: int
    batch: int
    rate: float


FROZEN, FULL = Schedule(100, 32, 1e-3), Schedule(40, 16, 3e-4)


class Cell:
    """A donor and a data set."""

    def __init__(self, donor: str, data: str, folder: Path, where: Mapping[str, str]) -> None:
        """`where` has the folder of the data, and that of a donor which is no alias."""
        self.donor, self.data, self.folder, self.where = donor, data, folder, where
        self.folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def file(self) -> Any:
        from graftlab import config, runfile

        given = [
            f"task.data_dir={self.where['data']}/{self.data}",
            *("backbone.model=minilm", "method.pooling=mean", "task.max_length=48"),
            *(["task.columns.text=sentence"] if self.data == "sst2" else []),
            *("method.layer=auto", f"method.selection.samples={POOL + HELD}"),
            f"method.llm={self.where.get(self.donor, self.donor)}",
            f"paths.cache={ROOT / 'build' / 'layer_choice' / 'cache'}",
        ]
        return runfile.resolve(config.read(f"pifi/{self.data}", given))

    @cached_property
    def loaded(self) -> Any:
        from graftlab.runs import material

        return material.load(self.file)

    @cached_property
    def request(self) -> Any:
        """The rows with the encoder's vectors, the donor and its tokenizer."""
        from graftlab.runs import layer_request
        from graftlab.weights import packages, pretrained

        with packages.kept_in(self.file.paths.cache):
            located = pretrained.locate(self.file.method.config.llm, None)
            return layer_request.request(self.file, self.loaded, self.rows, located)

    @cached_property
    def rows(self) -> NDArray[Any]:
        from graftlab.runs import layer_request

        return layer_request.draw(self.file, self.loaded.data)

    @cached_property
    def pool(self) -> NDArray[np.bool_]:
        """(N,) whether a row is of the pool; the classes are spread evenly."""
        from graftlab.selection.examples import folds

        share = round((POOL + HELD) / HELD * 10)
        return folds(self.labels, share, 0) >= 10

    @property
    def num_layers(self) -> int:
        return COUNTS[self.donor]

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.request.examples.labels


def score(cell: Cell, seeds: int, layers: Sequence[int]) -> None:
    """Write a file a layer: all scores by the sample of each seed, and a well-fitted probe's accuracy."""
    from graftlab.selection import hidden_states

    seen = cell.request.examples
    if _layer_file(cell, layers[-1]).is_file():
        return
    tokens = hidden_states.tokenize(seen.texts, seen.pairs, cell.request.tokenizer, 64)
    stream = hidden_states.Stream(
        cell.request.checkpoint, tokens, cell.folder, dtype="bfloat16", notify=print
    )
    scorings = [_scoring(cell, seed) for seed in range(seeds)]
    for computed in stream.run(
        layers[-1], again=lambda layer: not _layer_file(cell, layer).is_file()
    ):
        if computed.number not in layers:
            continue
        scored: list[dict[str, Any]] = []
        for positions, spaces in scorings:
            own = computed._replace(
                before=computed.before[positions] if len(computed.before) else computed.before,
                after=computed.after[positions],
            )
            scored.append(_scores(own, spaces))
        found = {"probe": _probe(cell, computed.after), "seeds": scored}
        _layer_file(cell, computed.number).write_text(json.dumps(found))


def read_layer(cell: Cell, layer: int) -> dict[str, Any]:
    """Return a layer's scores by seeds, and the accuracy of the probe."""
    found: dict[str, Any] = json.loads(_layer_file(cell, layer).read_text(encoding="utf-8"))
    return found


def is_read(cell: Cell, layer: int) -> bool:
    return _layer_file(cell, layer).is_file()


def _layer_file(cell: Cell, layer: int) -> Path:
    return cell.folder / f"layer-{layer:02}.json"


def _scoring(cell: Cell, seed: int) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Return a seed's sample of the pool, and what scores it in each space."""
    from graftlab.selection import Config, examples, survey

    seen, pool = cell.request.examples, np.flatnonzero(cell.pool)
    asked = Config(samples=SAMPLES, seed=seed, resamples=RESAMPLES)
    positions = pool[examples.draw(seen.labels[pool], seen.classes, asked)]
    drawn = examples.Examples(
        [seen.texts[i] for i in positions], [seen.pairs[i] for i in positions],
        seen.labels[positions], seen.classes, seen.encoded[positions],
    )  # fmt: skip
    return positions, {
        space: survey.Scoring(
            dataclasses.replace(cell.request, examples=drawn, scores=names),
            asked.model_copy(update={"space": space}),
        )
        for space, names in SCORES.items()
    }


def _scores(computed: Any, spaces: Mapping[str, Any]) -> dict[str, Any]:
    plugged = spaces["pca"].plugged(computed)
    return {
        space: scoring.row(computed.number, computed.after, plugged).scores
        for space, scoring in spaces.items()
    }


def _probe(cell: Cell, after: NDArray[np.float32]) -> float:
    """Return the accuracy on held-out rows of a linear classifier fitted to the pool."""
    from graftlab.selection import space
    from graftlab.selection.scores.linear import classes

    pool, labels = cell.pool, cell.labels
    projected = space.project(space.unit_length(after), pool, None)
    found = classes(projected[pool], labels[pool], projected[~pool])
    return float((found == labels[~pool]).mean())


def train_frozen(cell: Cell, layer: int, seeds: Sequence[int]) -> list[float]:
    """Return for each seed the accuracy on held-out rows of PiFi with a frozen encoder, trained on the pool.

    All seeds are trained at once: P_in, P_out and the head of each stand one behind the other, and nothing
    but the frozen layer is shared, so that each is what it would be alone.
    """
    import torch
    from torch.nn import functional as F

    model = _attached(cell, layer, 0, "frozen")
    drawn = [_linears(model, seed) for seed in seeds]
    weights = [torch.stack(same).requires_grad_() for same in zip(*drawn, strict=True)]
    p_in, p_out, w_1, b_1, w_2, b_2 = weights
    vectors = torch.from_numpy(cell.request.examples.encoded).float()
    labels = torch.from_numpy(cell.labels)

    def logits(rows: Any, dropout: float) -> Any:
        """Return (S, B, C) of rows (S, B)."""
        inner = torch.einsum("sbd,sed->sbe", vectors[rows], p_in)
        inner = model.donor[0].pooled(inner.flatten(0, 1)).view_as(inner)
        out = torch.einsum("sbe,sde->sbd", inner, p_out)
        hidden = torch.einsum("sbd,sed->sbe", out, w_1) + b_1[:, None]
        hidden = F.gelu(F.dropout(hidden, dropout))
        return torch.einsum("sbd,scd->sbc", hidden, w_2) + b_2[:, None]

    optimizer = torch.optim.Adam(weights, lr=FROZEN.rate, fused=True)
    orders = np.stack([_order(cell, FROZEN, seed) for seed in seeds], axis=1)
    torch.manual_seed(0)
    for rows_SB in orders:
        found = logits(rows_SB, model.config.head_dropout)
        loss = F.cross_entropy(found.flatten(0, 1), labels[rows_SB].flatten(), label_smoothing=0.05)
        optimizer.zero_grad()
        (len(seeds) * loss).backward()  # the mean of each seed's own batch
        optimizer.step()
    held = np.flatnonzero(~cell.pool)
    with torch.no_grad():
        found = logits(np.tile(held, (len(seeds), 1)), 0.0).argmax(2)
    return (found == labels[held]).float().mean(1).tolist()


def _linears(model: Any, seed: int) -> list[Any]:
    """Return P_in, P_out and the head's weights and biases, drawn by the seed."""
    import torch

    torch.manual_seed(seed)
    first, second = model.classifier[0], model.classifier[3]
    for linear in (model.project_in, model.project_out, first, second):
        linear.reset_parameters()
    found = [model.project_in.weight, model.project_out.weight]
    found += [first.weight, first.bias, second.weight, second.bias]
    return [weight.detach().clone() for weight in found]


def train(cell: Cell, layer: int, seed: int) -> float:
    """Return the accuracy on held-out rows of PiFi, trained on the pool in bfloat16."""
    import torch

    model = _attached(cell, layer, seed, "full")
    labels = torch.from_numpy(cell.labels)

    def logits(rows: NDArray[np.int64]) -> Any:
        batch = cell.loaded.task.batch("train", cell.rows[rows].tolist(), 0)
        del batch["labels"]
        with torch.autocast("cpu", torch.bfloat16):
            return model(**batch).logits.float()

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=FULL.rate, fused=True)
    torch.manual_seed(seed)
    model.train()
    for rows in _order(cell, FULL, seed):
        loss = torch.nn.functional.cross_entropy(logits(rows), labels[rows], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 5)
        optimizer.step()
    model.eval()
    held = np.flatnonzero(~cell.pool)
    with torch.no_grad():
        parts = np.array_split(held, len(held) // 50)
        found = torch.cat([logits(rows).argmax(1) for rows in parts])
    return float((found == labels[held]).float().mean())


def _attached(cell: Cell, layer: int, seed: int, encoder: str) -> Any:
    from graftlab.contracts import Setting
    from graftlab.weights import packages

    asked = cell.file.method.config.model_copy(update={"layer": layer, "encoder": encoder})
    setting = Setting(seed, 1, 1, cell.loaded.data.problem, lambda: iter(()))
    model = copy.deepcopy(cell.loaded.backbone.model)
    backbone = dataclasses.replace(cell.loaded.backbone, model=model)
    with packages.kept_in(cell.file.paths.cache):
        return cell.file.method.module.attach(backbone, asked, setting).model


def _order(cell: Cell, how: Schedule, seed: int) -> list[NDArray[np.int64]]:
    """Return the rows of each step: the pool, shuffled anew each epoch."""
    draws, pool = np.random.default_rng(seed), np.flatnonzero(cell.pool)
    rows: list[np.int64] = []
    while len(rows) < how.steps * how.batch:
        rows.extend(draws.permutation(pool))
    return [np.array(rows[i * how.batch : (i + 1) * how.batch]) for i in range(how.steps)]
