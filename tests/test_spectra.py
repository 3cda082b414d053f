"""Spectra and quantities: closed forms, numpy's full decomposition, scipy's and peft's own answers."""

import math
import re
from collections import OrderedDict

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from scipy.stats import spearmanr
from threadpoolctl import ThreadpoolController, threadpool_info

from graftlab import registry, spectra
from graftlab.contracts import Asked
from graftlab.explanation.kept import OnDisk
from graftlab.spectra import Before, Delta, Moved, subspace, threads
from graftlab.spectra.tridiagonal import Tridiagonal
from graftlab.spectra.updated import Updated
from graftlab.testing.quantities import *  # noqa: F403


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def orthonormal(size, count, seed=0):
    return np.linalg.qr(drawn(size, count, seed=seed))[0]


def planted(values, rows=20, columns=15):
    count = len(values)
    return (orthonormal(rows, count, 1) * values) @ orthonormal(columns, count, 2).T


def quantity(name, of):
    return registry.find("quantities", name).value(of)


def moved(before, after, top=10, **asked):
    return Moved(Before(before), Delta(after - before, None), Asked(top=top, **asked))


@pytest.mark.parametrize(
    "shape", [(60, 60), (30, 80), (80, 30), (1, 5), (5, 1), (1, 1), (2, 2), (40, 3)]
)
def test_all_values_and_the_top_vectors_are_those_of_a_full_decomposition(shape):
    matrix, top = drawn(*shape), min(4, *shape)
    found, (left, values, right) = spectra.of(matrix), np.linalg.svd(matrix, full_matrices=False)
    assert found.route == "gram"
    np.testing.assert_allclose(found.values, values, rtol=1e-7)
    for ours, theirs in ((found.left(top), left[:, :top]), (found.right(top), right[:top].T)):
        np.testing.assert_allclose(np.abs((ours * theirs).sum(axis=0)), 1, rtol=1e-10)
        np.testing.assert_allclose(ours.T @ ours, np.eye(top), atol=1e-12)


def changes(size, rank):
    start = drawn(size, size)
    repeated = np.diag(np.repeat([3.0, 1.0], [size // 2, size - size // 2]))
    deficient = planted(np.array([4.0, 2.0, 1.0]), size, size)
    x, y = drawn(size, rank, seed=1), drawn(size, rank, seed=2)
    return {
        "any": (start @ start.T, x, y),
        "large": (start @ start.T, 1e3 * x, y),
        "tiny": (start @ start.T, 1e-13 * x, y),
        "none": (start @ start.T, 0 * x, y),
        "equal": (repeated, 0.1 * x, y),
        "unchanged": (repeated, 0 * x, y),
        "deficient": (deficient @ deficient.T, x, y),
    }


@pytest.mark.parametrize(
    "name",
    ["any", "large", "tiny", "none", "equal", "unchanged", "deficient"],
)
@pytest.mark.parametrize(("size", "rank", "count"), [(60, 3, 10), (60, 1, 15), (60, 3, 40)])
def test_what_was_reduced_and_changed_by_low_rank_has_the_eigenvectors_of_the_sum(
    name, size, rank, count
):
    start, x, y = changes(size, rank)[name]
    whole = start + x @ y.T + y @ x.T
    anew = []

    def reduced():
        anew.append(name)
        return Tridiagonal(whole.copy())

    found = Updated(np.asfortranarray(np.tril(whole)), Tridiagonal(start.copy()), x, y, reduced)
    values, vectors = np.linalg.eigh(whole)
    largest = np.abs(values).max()
    np.testing.assert_allclose(found.eigenvalues(), values[::-1], atol=1e-13 * size * largest)
    ours = found.eigenvectors(count)
    np.testing.assert_allclose(ours.T @ ours, np.eye(count), atol=1e-12)
    off = np.abs(whole @ ours - ours * found.eigenvalues()[:count]).max()
    assert off < 1e-12 * size * largest
    assert bool(anew) == (4 * count > size)
    onto = found.onto_eigenvectors(x)
    np.testing.assert_allclose(np.linalg.norm(onto), np.linalg.norm(x))
    if name in ("any", "large"):
        cosines = np.abs((ours * vectors[:, ::-1][:, :count]).sum(axis=0))
        np.testing.assert_allclose(cosines, 1, rtol=1e-9)
        np.testing.assert_allclose(np.abs(onto), np.abs(vectors[:, ::-1].T @ x), atol=1e-7)


def test_a_vector_that_iteration_does_not_find_is_found_by_reducing_anew(monkeypatch):
    monkeypatch.setattr("graftlab.spectra.updated.STEPS", 0)  # no iteration: what was drawn
    start, x, y = changes(40, 2)["any"]
    whole = start + x @ y.T + y @ x.T
    found = Updated(whole, Tridiagonal(start.copy()), x, y, lambda: Tridiagonal(whole.copy()))
    cosines = np.abs((found.eigenvectors(3) * np.linalg.eigh(whole)[1][:, :-4:-1]).sum(axis=0))
    np.testing.assert_allclose(cosines, 1, rtol=1e-9)


@pytest.mark.parametrize("shape", [(1024, 1024), (1024, 1100), (1100, 1024)])
def test_a_large_weight_with_a_change_of_low_rank_is_as_if_decomposed_in_full(shape):
    before = Before(drawn(*shape))
    left, right = drawn(shape[0], 4, seed=1), 0.2 * drawn(4, shape[1], seed=2)
    weight = Moved(before, Delta(left, right), Asked(top=6)).weight
    us, values, vs = np.linalg.svd(before.matrix + left @ right, full_matrices=False)
    np.testing.assert_allclose(weight.values[:1000], values[:1000], rtol=1e-9)
    for ours, theirs in ((weight.left(6), us[:, :6]), (weight.right(6), vs[:6].T)):
        np.testing.assert_allclose(np.abs((ours * theirs).sum(axis=0)), 1, rtol=1e-9)
    np.testing.assert_allclose(np.abs(weight.onto_left(left)), np.abs(us.T @ left), atol=1e-6)


def test_small_matrices_take_one_thread_and_large_ones_what_there_is():
    def blas():
        return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}

    with ThreadpoolController().select(user_api="blas").limit(limits=2):
        with threads.fit_for(threads.SMALL):
            assert blas() == {2}
        with threads.fit_for(threads.SMALL - 1):
            assert blas() == {1}
        assert blas() == {2}


@pytest.mark.parametrize("shape", [(30, 30), (20, 45), (45, 20), (1, 4), (4, 1)])
def test_projections_onto_all_left_vectors_need_none_of_them(shape):
    matrix, vectors = drawn(*shape), drawn(shape[0], 3, seed=1)
    left = np.linalg.svd(matrix, full_matrices=False)[0]
    found = spectra.of(matrix).onto_left(vectors)
    np.testing.assert_allclose(np.abs(found), np.abs(left.T @ vectors), atol=1e-9)
    deficient = planted(VALUES[:3], 20, 15)
    np.testing.assert_allclose(
        np.abs(spectra.of(deficient).onto_left(orthonormal(20, 3, 1)[:, :2])),
        np.eye(3)[:, :2], atol=1e-9,
    )  # fmt: skip


def test_where_a_gram_matrix_is_too_coarse_the_matrix_is_decomposed_in_full_and_it_is_said():
    values = np.logspace(0, -9, 15)
    found = spectra.of(planted(values))
    assert found.route == "full"
    np.testing.assert_allclose(found.values, values, rtol=1e-6)
    left = np.linalg.svd(planted(values), full_matrices=False)[0][:, :12]
    np.testing.assert_allclose(np.abs((found.left(12) * left).sum(axis=0)), 1, rtol=1e-6)


@pytest.mark.parametrize("shape", [(90, 80), (80, 80), (80, 120)])
def test_a_few_small_values_are_found_by_themselves_and_the_rest_by_the_gram_matrix(shape):
    values = np.concatenate([np.linspace(2, 1, 77), [8e-6, 4e-6, 3e-6]])
    matrix = planted(values, *shape)
    found, theirs = spectra.of(matrix), np.linalg.svd(matrix, compute_uv=False)
    assert found.route == "gram"
    np.testing.assert_allclose(found.values, theirs, rtol=1e-8)
    singular = spectra.of(planted(np.concatenate([values[:79], [0.0]]), *shape))
    assert singular.route == "full"


@pytest.mark.parametrize("shape", [(40, 40), (30, 60), (60, 30)])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_a_weight_and_factors_have_the_spectrum_of_their_sum(shape, size):
    """Its Gram matrix is that of the weight before, changed: nothing of it may be lost."""
    before = drawn(*shape)
    left, right = size * drawn(shape[0], 3, seed=1), drawn(3, shape[1], seed=2)
    case = Moved(Before(before), Delta(left, right), Asked(top=4))
    u, values, vt = np.linalg.svd(before + left @ right, full_matrices=False)
    np.testing.assert_allclose(case.weight.values, values, rtol=1e-6)
    np.testing.assert_allclose(np.abs((case.weight.left(4) * u[:, :4]).sum(axis=0)), 1, rtol=1e-8)
    np.testing.assert_allclose(np.abs((case.weight.right(4) * vt[:4].T).sum(axis=0)), 1, rtol=1e-8)
    gone = Moved(Before(left @ right), Delta(-left, right), Asked())
    assert gone.weight.largest < 1e-6 * size


@pytest.mark.parametrize("epsilon", [0.1, 0.3, 0.5, 0.9])
def test_intruders_are_those_of_all_directions_wherever_the_first_ones_leave_it_open(epsilon):
    before, left, right = drawn(30, 30), drawn(30, 2, seed=1), drawn(2, 30, seed=2)
    case = Moved(Before(before), Delta(left, right), Asked(top=6, epsilon=epsilon))
    tuned = np.linalg.svd(before + left @ right)[0][:, :6]
    every = np.abs(np.linalg.svd(before)[0].T @ tuned).max(axis=0)
    np.testing.assert_array_equal(case.intruders, every < epsilon)


@pytest.mark.parametrize("rank", [1, 3, 14, 40])
def test_a_product_of_factors_has_the_spectrum_of_the_whole_matrix(rank):
    left, right = drawn(20, rank, seed=rank), drawn(rank, 15, seed=rank + 1)
    found, whole = spectra.of_factors(left, right), np.linalg.svd(left @ right)
    np.testing.assert_allclose(found.values, whole[1], rtol=1e-9, atol=1e-12)
    top = min(rank, 3)
    np.testing.assert_allclose(
        np.abs((found.left(top) * whole[0][:, :top]).sum(axis=0)), 1, rtol=1e-10
    )


def test_vectors_whose_value_is_rounding_are_not_given():
    assert spectra.of(planted(np.array([3.0, 1.0, 0.0]))).left(3).shape == (20, 2)
    assert spectra.of_factors(np.zeros((4, 2)), drawn(2, 3)).left(2).shape == (4, 0)
    assert spectra.of(np.zeros((4, 3))).right(2).shape == (3, 0)


VALUES = np.array([4.0, 2.0, 1.0, 1e-6])


def test_numbers_of_planted_singular_values():
    found = spectra.of(planted(VALUES, 10, 4))
    shares = VALUES / VALUES.sum()
    expected = {
        "effective_rank": 3, "relative_rank": 3, "spectral_norm": 4.0, "nuclear_norm": 7 + 1e-6,
        "frobenius_norm": math.sqrt(21), "stable_rank": 21 / 16, "condition_number": 4e6,
        "rank_95_energy": 3, "energy_rank_95": 2,
        "entropy_rank": math.exp(-(shares * np.log(shares)).sum()),
    }  # fmt: skip
    for name, value in expected.items():
        assert quantity(name, found) == pytest.approx(value, rel=1e-5), name


def test_equal_singular_values_count_in_full_and_a_singular_matrix_has_no_condition():
    equal = spectra.of(planted(np.full(6, 0.5), 9, 6))
    for name in ("entropy_rank", "stable_rank", "effective_rank", "rank_95_energy"):
        assert quantity(name, equal) == pytest.approx(6), name
    assert quantity("condition_number", equal) == pytest.approx(1)
    assert quantity("condition_number", spectra.of(np.diag([1.0, 0.0]))) == math.inf
    nothing = spectra.of(np.zeros((3, 2)))
    assert [quantity(name, nothing) for name in ("stable_rank", "entropy_rank")] == [None, None]


@pytest.mark.parametrize("angle", [1e-6, 1e-3, 0.3, 1.2])
def test_a_planted_angle_comes_back_as_that_angle(angle):
    """The first direction is turned towards one that is outside; all others stay."""
    basis = orthonormal(20, 6)
    values = np.array([5.0, 4.0, 3.0])
    right = orthonormal(15, 3, 3).T
    before = (basis[:, :3] * values) @ right
    turned = basis[:, :3].copy()
    turned[:, 0] = math.cos(angle) * basis[:, 0] + math.sin(angle) * basis[:, 4]
    case = moved(before, (turned * values) @ right, top=3)
    assert quantity("mean_principal_angle", case) == pytest.approx(angle / 3, rel=1e-6)
    assert quantity("projector_distance", case) == pytest.approx(
        math.sin(angle) / math.sqrt(3), rel=1e-6
    )
    assert quantity("left_space_similarity", case) == pytest.approx((2 + math.cos(angle)) / 3)
    assert quantity("right_space_similarity", case) == pytest.approx(1)
    theirs = spearmanr(case.before.values, case.weight.values).statistic
    assert quantity("sv_correlation", case) == pytest.approx(theirs)
    assert quantity("spectrum_change", case) == pytest.approx(0, abs=1e-7)
    intruders = int(math.cos(angle) < 0.5)
    assert quantity("intruder_dimensions", case) == intruders
    assert quantity("intruder_energy", case) == pytest.approx(intruders * 25 / 50)


def test_signs_and_rotations_of_equal_values_move_no_subspace():
    """Three directions of one value: any basis of them is as good, and no angle may be seen."""
    left, right = orthonormal(20, 5), orthonormal(15, 5, 1)
    values = np.array([2.0, 2.0, 2.0, 1.0, 0.5])
    turn = np.eye(5)
    turn[:3, :3] = orthonormal(3, 3, 2)
    turn[3, 3] = -1
    before = (left * values) @ right.T
    after = ((left @ turn) * values) @ (right @ turn).T
    case = moved(before, after, top=3)
    assert quantity("mean_principal_angle", case) == pytest.approx(0, abs=1e-7)
    assert quantity("projector_distance", case) == pytest.approx(0, abs=1e-7)
    assert quantity("intruder_dimensions", case) == 0


def test_subspaces_agree_with_scipy_and_with_their_closed_forms():
    one, other = orthonormal(20, 4), orthonormal(20, 3, 1)
    np.testing.assert_allclose(subspace.angles(one, other), subspace_angles(one, other))
    cosines = np.linalg.svd(one.T @ other, compute_uv=False)
    assert subspace.similarity(one, other) == pytest.approx((cosines**2).mean())
    assert subspace.similarity(one, one[:, :2]) == pytest.approx(1)
    assert subspace.similarity(np.eye(6)[:, :3], np.eye(6)[:, 3:]) == 0
    projectors = one @ one.T - (two := orthonormal(20, 4, 2)) @ two.T
    assert subspace.projector_distance(one, two) == pytest.approx(
        np.linalg.norm(projectors) / math.sqrt(8)
    )


def test_amplification_and_relative_size_are_those_of_their_definitions():
    before, left, right = drawn(12, 9), drawn(12, 2, seed=1), drawn(2, 9, seed=2)
    case = Moved(Before(before), Delta(left, right), Asked())
    u, _, v = np.linalg.svd(left @ right)
    size = np.linalg.norm(left @ right)
    within = np.linalg.norm(u[:, :2].T @ before @ v[:2].T)
    assert quantity("amplification", case) == pytest.approx(size / within)
    assert quantity("relative_change", case) == pytest.approx(size / np.linalg.norm(before))
    assert quantity("rank_use", case) == pytest.approx(
        quantity("entropy_rank", spectra.of(left @ right)) / 2, rel=1e-6
    )


def test_intruders_are_those_that_peft_finds():
    """`peft.tuners.lora.intruders` says of each layer how many it would take out."""
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora.intruders import reduce_intruder_dimension

    torch.manual_seed(0)
    layers = {f"l{size}": torch.nn.Linear(24, size, bias=False) for size in (16, 32, 64)}
    model = get_peft_model(
        torch.nn.Sequential(OrderedDict(layers)),
        LoraConfig(r=3, lora_alpha=2, target_modules=list(layers), init_lora_weights=False),
    )
    ours = {}
    for name, layer in ((n, model.base_model.model.get_submodule(n)) for n in layers):
        before = layer.get_base_layer().weight.detach().double().numpy()
        change = layer.get_delta_weight("default").detach().double().numpy()
        case = Moved(Before(before), Delta(change, None), Asked(epsilon=0.7))
        ours[name] = quantity("intruder_dimensions", case)
    said = []
    reduce_intruder_dimension(model, threshold_epsilon=0.7, logging_sink=said.append)
    found = {}
    for line in said[:-1]:
        place, _, verdict = line.partition(": ")
        count = re.search(r"\d+$", verdict)
        found[place.rpartition(".")[2]] = int(count[0]) if count else 0
    assert ours == found
    assert sum(ours.values()) > 0


def test_a_random_change_has_the_rank_and_the_norm_of_the_change_it_stands_beside():
    draws = np.random.default_rng(3)
    for delta in (Delta(drawn(12, 2), drawn(2, 9)), Delta(drawn(12, 9), None)):
        null = delta.random(draws)
        assert null.rank == delta.rank
        assert np.linalg.norm(null.whole()) == pytest.approx(np.linalg.norm(delta.whole()))
        assert abs((null.whole() * delta.whole()).sum()) < 0.5 * np.linalg.norm(delta.whole()) ** 2


def test_a_weights_spectrum_is_found_on_disk_and_a_damaged_file_counts_as_none(tmp_path):
    matrix, kept = drawn(30, 20), OnDisk(tmp_path)
    first = Before(matrix, kept).spectrum(4)
    again = Before(matrix.copy(), kept).spectrum(4)
    assert (first.route, again.route) == ("gram", "known")
    np.testing.assert_array_equal(again.values, first.values)
    np.testing.assert_array_equal(again.left(4), first.left(4))
    np.testing.assert_allclose(np.abs(again.left(9)), np.abs(first.left(9)), atol=1e-9)
    (file,) = tmp_path.rglob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    assert Before(matrix, kept).spectrum(4).route == "gram"
