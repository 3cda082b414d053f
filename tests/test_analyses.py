"""Every analysis keeps the promises of `graftlab.testing`; numbers of weights by closed forms and numpy."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from finished_runs import finish
from typer.testing import CliRunner

from graftlab import cli, inference
from graftlab.analyses import weight_change
from graftlab.contracts import Change
from graftlab.errors import ConfigError
from graftlab.inference import analysis
from graftlab.plots import training_dynamics, weight_change_heatmap
from graftlab.testing.analyses import *  # noqa: F403
from graftlab.testing.analyses import Planted


def rows(*changes, **before):
    return list(weight_change.rows(Planted("planted", changes, before)))


def orthogonal(size, columns, seed):
    draws = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, columns, generator=draws, dtype=torch.float64)).Q


PLANTED = torch.tensor([4.0, 2.0, 1e-3], dtype=torch.float64)


def factors():
    return orthogonal(20, 3, 0) * PLANTED, orthogonal(15, 3, 1).T


def test_planted_singular_values_are_found():
    (found,) = rows(Change("layer.3.query.weight", *factors()))
    assert found.spectral == pytest.approx(4)
    assert found.frobenius == pytest.approx(math.sqrt(20 + 1e-6))
    assert found.stable_rank == pytest.approx((20 + 1e-6) / 16)
    assert (found.layer, found.module, found.rank) == (3, "query", 3)
    assert (found.rows, found.columns) == (20, 15)


@pytest.mark.parametrize("rank", [1, 3, 40])
def test_values_of_factors_are_those_of_the_whole_matrix(rank):
    draws = torch.Generator().manual_seed(rank)
    left, right = torch.randn(20, rank, generator=draws), torch.randn(rank, 15, generator=draws)
    found = weight_change.singular_values(left, right).numpy()
    whole = np.linalg.svd(left.double().numpy() @ right.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(found, whole[: len(found)], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(whole[len(found) :], 0, atol=1e-12)
    np.testing.assert_allclose(
        weight_change.singular_values((left.double() @ right.double()), None).numpy(), whole,
        rtol=1e-10, atol=1e-12,
    )  # fmt: skip


def test_rotating_the_factors_against_each_other_changes_nothing():
    left, right = factors()
    turn = orthogonal(3, 3, 2)
    one, other = rows(
        Change("a.weight", left, right), Change("a.weight", left @ turn, turn.T @ right)
    )
    assert one.frobenius == pytest.approx(other.frobenius, rel=1e-12)
    assert one.stable_rank == pytest.approx(other.stable_rank, rel=1e-12)


def test_a_change_is_told_relative_to_the_weight_where_that_is_at_hand():
    left, right = factors()
    change = Change("a.weight", left, right)
    (found,) = rows(change, **{"a.weight": 3 * left @ right})
    assert found.relative == pytest.approx(1 / 3)
    assert rows(change)[0].relative is None
    assert rows(change, **{"a.weight": torch.zeros(20, 15)})[0].relative is None


def test_no_change_and_one_that_is_not_finite_have_defined_lines_and_the_rest_goes_on():
    left, right = factors()
    none, broken, vector = rows(
        Change("a.weight", 0 * left, right),
        Change("b.weight", left / 0, right),
        Change("c.bias", torch.tensor([3.0, -4.0]), None),
    )
    assert (none.frobenius, none.spectral, none.stable_rank, none.note) == (0.0, 0.0, None, None)
    assert (broken.frobenius, broken.note) == (None, weight_change.NOT_FINITE)
    assert (vector.frobenius, vector.spectral, vector.stable_rank) == (5.0, 5.0, 1.0)
    assert (vector.rows, vector.columns) == (2, 1)


def test_a_heat_map_adds_up_a_matrix_and_its_bias_as_squares():
    left, right = factors()
    found = weight_change_heatmap.data(
        rows(
            Change("layer.0.query.weight", 3 * left, right),
            Change("layer.0.query.bias", torch.tensor([2.0]), None),
            Change("layer.2.key.weight", left, right),
            Change("head.weight", 0 * left, right),
        )
    )
    assert (found.layers, found.modules) == (("0", "2", "-"), ("query", "key", "head"))
    norm = 20 + 1e-6
    expected = [
        [math.sqrt(9 * norm + 4), np.nan, np.nan],
        [np.nan, math.sqrt(norm), np.nan],
        [np.nan, np.nan, 0],
    ]
    np.testing.assert_allclose(found.values, expected)
    assert found.measure == "|change|"


# Of finished runs.


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    methods = {"lora": {"rank": 3}, "full": {}, "pissa": {"rank": 2}, "prefix": {}, "bitfit": {}}
    return {name: finish(folder, {"name": name, **own}) for name, own in methods.items()}


@pytest.mark.parametrize("name", ["lora", "full", "pissa", "bitfit"])
def test_a_runs_changes_are_the_difference_of_its_merged_model_from_its_backbone(runs, name):
    adapted = inference.load(runs[name].path)
    tables, _ = analysis.carry_out(adapted, ["weight_change"], runs[name].path / "table")
    (table,) = tables
    found = {row.weight: row for row in table.rows}
    before = {n: p.clone() for n, p in fresh(adapted).named_parameters()}
    merged = dict(adapted.file.method.module.merge(adapted.model).named_parameters())
    moved = {n for n in before if not torch.allclose(merged[n], before[n], rtol=0, atol=1e-9)}
    moved = {n for n in moved if not n.startswith("classifier")}
    assert moved <= set(found)
    for weight, row in found.items():
        change = (merged[weight] - before[weight]).detach().double().numpy()
        values = np.linalg.svd(change.reshape(len(change), -1), compute_uv=False)
        # merged weights are float32: their difference is known to some 1e-7 of the weight
        noise = 1e-6 * float(before[weight].detach().norm())
        assert row.frobenius == pytest.approx(np.sqrt((values**2).sum()), rel=1e-3, abs=noise)
        assert row.spectral == pytest.approx(values[0], rel=1e-3, abs=noise)
        size = float(before[weight].detach().double().norm())
        assert row.relative == (pytest.approx(row.frobenius / size) if size else None)


def fresh(adapted):
    from graftlab.runs import material

    return material.backbone(adapted.file, adapted.problem).model


def test_a_run_that_changes_no_weight_is_refused_by_name_and_leaves_nothing(runs, tmp_path):
    with pytest.raises(ConfigError, match="prefix"):
        analysis.carry_out(inference.load(runs["prefix"].path), (), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_writes_every_table_and_figure_and_says_where(runs):
    run = runs["lora"].path
    said = CliRunner().invoke(cli.app, ["analyse", str(run), "--json"])
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    names = {"weight_change.csv", "weight_change.parquet", "weight_change_heatmap.png",
             "weight_change_heatmap.svg", "training_dynamics.png", "training_dynamics.svg"}  # fmt: skip
    assert {path.name for path in (run / "analysis").iterdir()} == names
    with (run / "analysis" / "weight_change.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["weight"] for row in read] == [
        row["weight"] for row in found["analyses"]["weight_change"]["rows"]
    ]
    shown = CliRunner().invoke(cli.app, ["analyse", str(run), "--kind", "weight_change"])
    assert read[0]["weight"] in shown.output
    wrong = CliRunner().invoke(cli.app, ["analyse", str(run), "--kind", "weight_chang"])
    assert wrong.exit_code == 2
    assert "'weight_change'" in wrong.stderr


def test_dynamics_are_what_a_run_has_logged(tmp_path):
    lines = [
        {"step": 1, "loss": 2.0, "learning_rate": 0.1, "gradient_norm": 3.0},
        {"step": 2, "loss": None, "learning_rate": 0.2, "gradient_norm": None},
        {"step": 2, "validation/loss": 1.5},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = training_dynamics.data(tmp_path)
    np.testing.assert_array_equal(found.steps, [1, 2])
    np.testing.assert_array_equal(found.values["loss"], [2.0, np.nan])
    np.testing.assert_array_equal(found.values["gradient norm"], [3.0, np.nan])
    np.testing.assert_array_equal(found.losses, [1.5])
