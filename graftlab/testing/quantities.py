"""The promises of every quantity, over all registered names: of weights with planted spectra."""

import copy
import math
import typing
from typing import Any

import numpy as np
import pytest

from graftlab import registry
from graftlab.contracts import Asked
from graftlab.contracts.analysis import CHANGE, MOVE, WEIGHT
from graftlab.spectra import Before, Delta, Moved

every = pytest.mark.parametrize("name", registry.names("quantities"))
SHAPES = (12, 8), (8, 12), (9, 9), (7, 1)


def _drawn(shape: tuple[int, int], rank: int | None, size: float) -> Moved:
    draws = np.random.default_rng(0)
    before = draws.standard_normal(shape)
    if rank is None:
        delta = Delta(size * draws.standard_normal(shape), None)
    else:
        left, right = (
            draws.standard_normal((shape[0], rank)),
            draws.standard_normal((rank, shape[1])),
        )
        delta = Delta(size * left, right)
    return Moved(Before(before), delta, Asked(top=3))


def _given(quantity: Any, moved: Moved) -> list[object]:
    whats = {WEIGHT: moved.weight, CHANGE: moved.change, MOVE: moved}
    return [whats[what] for what in quantity.OF]


@every
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("rank", "size"), [(2, 1.0), (None, 0.1), (2, 0.0), (None, 0.0)])
def test_it_is_a_number_of_one_type_or_undefined(
    name: str, shape: tuple[int, int], rank: int | None, size: float
) -> None:
    """Of a change of low rank and one that is whole, of none, and of weights of any form."""
    quantity = registry.find("quantities", name)
    annotated = typing.get_type_hints(quantity.value)["return"]
    (kind,) = set(typing.get_args(annotated)) - {type(None)}
    assert set(quantity.OF) <= {WEIGHT, CHANGE, MOVE}
    assert quantity.OF
    for given in _given(quantity, _drawn(shape, rank, size)):
        value = quantity.value(given)
        assert value is None or (type(value) is kind and not math.isnan(value))


@every
def test_asking_changes_nothing_and_comes_out_alike(name: str) -> None:
    quantity, moved = registry.find("quantities", name), _drawn((12, 8), 2, 1.0)
    before = copy.deepcopy(moved)
    values = [[quantity.value(given) for given in _given(quantity, moved)] for _ in range(2)]
    assert values[0] == values[1]
    np.testing.assert_array_equal(moved.weight.values, before.weight.values)
    np.testing.assert_array_equal(moved.change.values, before.change.values)


@every
def test_rotating_the_factors_of_a_change_against_each_other_changes_nothing(name: str) -> None:
    """A change has many factors; what is said of it must not depend on which were trained."""
    quantity, moved = registry.find("quantities", name), _drawn((12, 8), 2, 1.0)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((2, 2)))[0]
    delta = moved.delta
    assert delta.right is not None
    turned = Moved(moved.start, Delta(delta.left @ turn, turn.T @ delta.right), Asked(top=3))
    for one, other in zip(_given(quantity, moved), _given(quantity, turned), strict=True):
        assert quantity.value(one) == pytest.approx(quantity.value(other), rel=1e-8)
