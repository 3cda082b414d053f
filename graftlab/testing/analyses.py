"""The promises of every analysis, over all registered names.

An analysis is asked about `SEVERAL`: a model, and another at two checkpoints, with changes as factors and
whole, of a vector, none, and one that is not finite; some have no weight from before.
"""

import csv
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pyarrow import parquet
from torch import Tensor, nn

from graftlab import analyses, registry
from graftlab.contracts import About, Asked, Change, Differentiable, Merged, Texts

STRANGE = "$a_b$ & <c>"
every = pytest.mark.parametrize("name", registry.names("analyses"))


class Planted(NamedTuple):
    """A subject whose changes are given."""

    model: str
    given: tuple[Change, ...]
    before: dict[str, Tensor]
    step: int | None = None
    written: Mapping[str, tuple[Mapping[str, Any], ...]] = {}
    """Tables that its run wrote while it trained."""

    @property
    def about(self) -> About:
        return About(self.model, self.step, "lora", 2, "planted")

    def names(self) -> list[str]:
        return [change.name for change in self.given]

    def change(self, name: str) -> Change:
        return next(change for change in self.given if change.name == name)

    def base(self, name: str) -> Tensor | None:
        return self.before.get(name)

    def recorded(self, table: str) -> Sequence[Mapping[str, Any]]:
        return self.written.get(table, ())

    def differentiable(self, examples: int) -> Differentiable | str:
        """A model of a few layers; the one without a step has none."""
        if self.step is None:
            return "there is no model"
        torch.manual_seed(self.step)
        layers = {"embed": nn.Embedding(5, 8), "q_proj": nn.Linear(8, 8), "norm": nn.LayerNorm(8)}
        model = nn.Sequential(OrderedDict(layers)).eval()
        return Differentiable(model, lambda: model(torch.arange(3)).square().mean(), "planted")

    def merged(self, examples: int) -> Merged | str:
        """A model of the weights that there were before; the last one writes no texts."""
        if self.step is None:
            return "there is no model"
        torch.manual_seed(self.step)
        layers = [
            nn.ModuleDict({name: nn.Linear(8, 12) for name in ("q_proj", "v_proj")}) for _ in "ab"
        ]
        model = nn.ModuleDict({"model": nn.ModuleDict({"layers": nn.ModuleList(layers)})})

        def loss() -> Tensor:
            return torch.stack([p.square().mean() for p in model.parameters() if p.dim() > 1]).sum()

        texts = None if self.step == 10 else (lambda texts: len(texts) * float(loss()))
        return Merged(model, loss, "planted", texts)

    def activations(
        self, texts: Sequence[str], before: bool = False
    ) -> list[NDArray[np.float64]] | str:
        """What two blocks put out; the model without a step has none, the last one's second is not finite."""
        if self.step is None:
            return "there is no model"
        draws = np.random.default_rng([self.step, before])
        blocks = [draws.normal(size=(len(texts), width)) for width in (3, 3, 4)]
        blocks[2] *= np.nan if self.step == 10 else 1
        return blocks


def _planted(model: str, seed: int, step: int | None = None) -> Planted:
    draws, start = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(99)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draws)

    changes = (
        Change("model.layers.0.q_proj.weight", drawn(12, 2), drawn(2, 8)),
        Change("model.layers.0.v_proj.weight", drawn(12, 8), None),
        Change("model.layers.1.q_proj.weight", torch.zeros(12, 2), drawn(2, 8)),
        Change("model.layers.1.v_proj.weight", torch.full((12, 2), torch.nan), drawn(2, 8)),
        Change("model.layers.1.q_proj.bias", drawn(12), None),
        Change("model.embed.weight", drawn(5, 16), drawn(16, 8)),
        Change("classifier.weight", drawn(3, 8), None, new=True),
    )
    before = {change.name: torch.randn((12, 8), generator=start) for change in changes[:3]}
    return Planted(model, changes, before, step, _written(draws) if step else {})


def _written(draws: torch.Generator) -> dict[str, tuple[Mapping[str, Any], ...]]:
    """Two steps: of two weights and all, and of three tasks in two blocks and all, once without a cosine."""
    figures = ("mean", "std", "norm", "sparsity", "near_zero")
    places = (("model.layers.0", 0), ("model.layers.1", 1), ("global", None))
    pairs = (("a", "b"), ("a", STRANGE), ("b", STRANGE))

    def size() -> float:
        return float(torch.rand((), generator=draws))

    gradients = [
        {"step": step, "layer_type": "global" if number is None else "attention", "param": name,
         "number": number, **{figure: size() for figure in figures}, "numel": 4}
        for step in (5, 10) for name, number in places
    ]  # fmt: skip
    conflicts = [
        {"step": step, "layer": name, "number": number, "task": one, "other_task": other,
         "cosine": None if step == 5 and number == 1 else 2 * size() - 1,
         "norm": size(), "other_norm": size()}
        for step in (5, 10) for name, number in places for one, other in pairs
    ]  # fmt: skip
    return {"gradients": tuple(gradients), "conflicts": tuple(conflicts)}


PLANTED = _planted("planted $x_1$", 0)
SEVERAL = (PLANTED, _planted("other", 1, step=5), _planted("other", 2, step=10))
NOTHING = Planted("nothing", (), {})


def asked() -> Asked:
    """Return how analyses are asked here: with every quantity, and nothing kept."""
    names = registry.names("quantities")
    return Asked(
        top=3,
        texts=Texts(tuple("abcdefgh"), "8 texts"),
        quantities={name: registry.find("quantities", name) for name in names},
    )


def table(name: str, *subjects: Planted) -> tuple[Any, list[Any]]:
    """Return the class of an analysis's lines, and those of subjects: `SEVERAL` unless given."""
    analysis = registry.find("analyses", name)
    given = asked()
    return analysis.row(given), list(analysis.rows(subjects or SEVERAL, given))


@every
def test_lines_are_of_one_kind_and_columns_of_one_type(name: str) -> None:
    row, rows = table(name)
    kinds = dict(analyses.columns(row))
    assert rows
    for line in rows:
        assert type(line).__name__ == row.__name__
        assert line._fields == row._fields
        for column, value in line._asdict().items():
            assert value is None or type(value) is kinds[column], column
            assert not (isinstance(value, float) and math.isnan(value)), column


@every
def test_what_a_terminal_shows_are_columns_and_one_of_them_is_a_number(name: str) -> None:
    shown = registry.find("analyses", name).SHOWN
    row, rows = table(name)
    assert set(shown) <= set(row._fields)
    kept = shown or row._fields
    assert any(isinstance(getattr(line, column), float) for line in rows for column in kept)


@every
def test_asking_changes_nothing_and_comes_out_alike(name: str) -> None:
    before = [
        tensor.clone() for change in PLANTED.given for tensor in change[1:3] if tensor is not None
    ]
    first, second = (table(name)[1] for _ in range(2))
    assert first == second
    after = [tensor for change in PLANTED.given for tensor in change[1:3] if tensor is not None]
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


@every
def test_a_subject_without_changes_has_a_table_without_lines(name: str) -> None:
    assert table(name, NOTHING)[1] == []


@every
def test_it_says_how_many_parts_are_done_of_how_many(name: str) -> None:
    heard: list[tuple[int, int]] = []
    given = replace(asked(), said=lambda done, parts: heard.append((done, parts)))
    list(registry.find("analyses", name).rows(SEVERAL, given))
    assert heard == [(done, len(heard)) for done in range(1, len(heard) + 1)]
    assert heard


@every
def test_both_files_hold_the_table(name: str, tmp_path: Path) -> None:
    row, rows = table(name)
    written, table_file = analyses.write(rows, row, tmp_path, name)
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".parquet"}
    assert parquet.read_table(table_file).to_pylist() == [line._asdict() for line in rows]
    kinds = dict(analyses.columns(row))
    with written.open(newline="", encoding="utf-8") as file:
        for line, read in zip(rows, csv.DictReader(file), strict=True):
            found = {
                column: None if text == "" else kinds[column](text)
                for column, text in read.items()
                if kinds[column] is not bool
            }
            assert found == {c: v for c, v in line._asdict().items() if kinds[c] is not bool}
