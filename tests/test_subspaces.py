"""Subspaces of changes: closed forms, symmetry, and random ones against their null."""

import numpy as np
import pytest
import torch

from graftlab.analyses import subspaces
from graftlab.contracts import Asked, Change
from graftlab.errors import ConfigError
from graftlab.plots import subspace_similarity
from graftlab.spectra import Delta, moved
from graftlab.testing.analyses import Planted

BEFORE = torch.zeros(12, 8)


def basis(size, *columns):
    return torch.eye(size, dtype=torch.float64)[:, list(columns)]


def state(model, left, right, step=None, before=BEFORE):
    name = "layers.3.q_proj.weight"
    return Planted(model, (Change(name, left, right),), {name: before}, step)


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def found(*states, top=2, seed=0):
    return list(subspaces.rows(states, Asked(top=top, seed=seed)))


def test_spaces_that_share_one_of_two_directions_have_a_half():
    """Left: e0, e1 against e1, e2. Right: the same two in both."""
    values = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))
    right = basis(8, 4, 5).T
    one, two = found(
        state("a", basis(12, 0, 1) @ values, right), state("b", basis(12, 1, 2) @ values, right)
    )
    assert (one.dimensions, two.dimensions) == (1, 2)
    assert (one.left_similarity, one.right_similarity) == pytest.approx((0, 1))
    assert (two.left_similarity, two.right_similarity) == pytest.approx((0.5, 1))
    assert (two.null_left_similarity, two.null_right_similarity) == (2 / 12, 2 / 8)
    assert (two.number, two.module, two.model, two.other) == (3, "q_proj", "a", "b")


def test_the_null_is_what_random_changes_have_on_average():
    pairs = [
        found(
            state("a", drawn(12, 2, seed=4 * k), drawn(2, 8, seed=4 * k + 1)),
            state("b", drawn(12, 2, seed=4 * k + 2), drawn(2, 8, seed=4 * k + 3)),
        )[-1]
        for k in range(400)
    ]
    for side in ("left_similarity", "right_similarity"):
        values = np.array([getattr(row, side) for row in pairs])
        error = values.std() / 20
        assert abs(values.mean() - getattr(pairs[0], f"null_{side}")) < 4 * error


def started(seed, moved_by=0.0, rank=3):
    """A change whose right factor is the same at the start and has moved a little since."""
    right = drawn(rank, 40, seed=100) + moved_by * drawn(rank, 40, seed=seed + 1)
    return drawn(50, rank, seed=seed), right


def over(one, other, seed=0):
    before = torch.zeros(50, 40)
    return found(state("a", *one, before=before), state("b", *other, before=before), seed=seed)


def test_what_began_as_one_factor_is_beside_random_changes_of_that_factor():
    """Two adapters of one seed that have learned nothing in common are not told from their null."""
    lines = [over(started(2 * k, 0.1), started(2 * k + 1000, 0.1), seed=k) for k in range(60)]
    for place in (0, 1):
        rows = [pair[place] for pair in lines]
        assert all(row.same_start for row in rows)
        values = np.array([row.right_similarity - row.null_right_similarity for row in rows])
        assert abs(values.mean()) < 4 * values.std() / 60**0.5
        assert np.mean([row.null_right_similarity for row in rows]) > 5 * rows[0].dimensions / 40
        assert {row.null_left_similarity for row in rows} == {rows[0].dimensions / 50}


def test_what_began_apart_or_has_no_factors_is_beside_random_spaces():
    left, right = started(0)
    for other, alike in [
        ((drawn(50, 3, seed=5), drawn(3, 40, seed=6)), False),
        ((drawn(50, 4, seed=5), drawn(4, 40, seed=100)), False),
        ((drawn(50, 40, seed=5), None), None),
    ]:
        (*_, row) = over((left, right), other)
        assert row.same_start is alike
        assert row.null_right_similarity == pytest.approx(2 / 40)


def test_the_same_seed_gives_the_same_null():
    one, other = started(0, 0.1), started(1, 0.1)
    assert over(one, other) == over(one, other)


def test_size_sign_and_rotation_of_the_factors_change_nothing():
    left, right = drawn(12, 2, seed=0), drawn(2, 8, seed=1)
    turn = torch.linalg.qr(drawn(2, 2, seed=2)).Q
    (*_, row) = found(state("a", left, right), state("b", -3 * left @ turn, turn.T @ right))
    assert (row.left_similarity, row.right_similarity, row.cosine) == pytest.approx((1, 1, -1))


def test_a_models_checkpoints_are_compared_with_its_last_and_models_by_their_last():
    states = [
        state(model, drawn(12, 2, seed=seed), drawn(2, 8, seed=seed + 9), step)
        for seed, (model, step) in enumerate([("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 7)])
    ]
    pairs = {(r.model, r.checkpoint, r.other, r.other_checkpoint) for r in found(*states)}
    assert pairs == {("a", 1, "a", 3), ("a", 2, "a", 3), ("b", 1, "b", 7), ("a", 3, "b", 7)}


def test_the_cosine_of_factored_changes_is_that_of_the_whole_ones():
    one = Delta(drawn(12, 2, seed=0).numpy(), drawn(2, 8, seed=1).numpy())
    two = Delta(drawn(12, 3, seed=2).numpy(), drawn(3, 8, seed=3).numpy())
    first, second = one.whole().ravel(), two.whole().ravel()
    expected = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert moved.cosine(one, two) == pytest.approx(expected)
    assert moved.cosine(Delta(one.whole(), None), two) == pytest.approx(expected)
    assert moved.cosine(Delta(0 * one.left, one.right), two) is None


def test_models_with_other_bases_are_refused_by_the_weight_that_differs():
    left, right = drawn(12, 2, seed=0), drawn(2, 8, seed=1)
    with pytest.raises(ConfigError, match=r"layers\.3\.q_proj\.weight"):
        found(state("a", left, right), state("b", left, right, before=BEFORE + 1))


def test_the_matrix_drawn_takes_the_random_share_off():
    right = basis(8, 4, 5).T
    shared = subspace_similarity.data(
        found(state("a", basis(12, 0, 1), right), state("b", basis(12, 1, 2), right))
    )
    assert shared.models == ("a", "b")
    expected = (0.5 - 2 / 12) / (1 - 2 / 12)
    np.testing.assert_allclose(
        shared.values["left_similarity"], [[1, expected], [expected, 1]], atol=1e-12
    )
