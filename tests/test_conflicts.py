"""What a run has recorded while it trained, as tables, figures and findings."""

import json
import math

import numpy as np
import pytest

from graftlab.analyses import conflicts, step_gradients
from graftlab.explanation import findings, sentences
from graftlab.plots import step_gradients as norms
from graftlab.plots import task_conflicts
from graftlab.report import gradient_charts
from graftlab.rundir.run import Run
from graftlab.testing.analyses import Planted, asked


def line(step, layer, cosine, norm=1.0):
    number = int(layer) if layer.isdigit() else None
    return {
        "step": step, "layer": layer if number is None else f"layers.{layer}", "number": number,
        "task": "a", "other_task": "b", "cosine": cosine, "norm": norm, "other_norm": 2.0,
    }  # fmt: skip


def rows(lines, table="conflicts", analysis=conflicts, steps=(10,)):
    subjects = [Planted("mixed", (), {}, step, {table: tuple(lines)}) for step in steps]
    return list(analysis.rows(subjects, asked()))


def test_a_line_is_the_mean_over_the_steps_at_which_both_tasks_had_a_gradient():
    one, other = rows(
        [line(5, "0", 0.5, 3.0), line(5, "global", -1.0), line(10, "0", -0.1, 4.0),
         line(10, "global", None)],
    )  # fmt: skip
    assert (one.pair, one.number, one.checkpoint, one.steps) == ("a and b", 0, 10, 2)
    assert one.cosine == pytest.approx(0.2)
    assert one.deviation == pytest.approx(0.6 / math.sqrt(2))
    assert (one.opposed, one.null_cosine) == (0.5, 0.0)
    assert (one.gradient_norm, one.other_gradient_norm) == (math.sqrt(12.5), 2.0)
    assert (other.cosine, other.deviation, other.opposed, other.steps) == (-1.0, None, 1.0, 2)
    (none,) = rows([line(5, "0", None)])
    assert (none.cosine, none.null_cosine, none.opposed) == (None, None, None)


def test_a_run_with_several_checkpoints_is_told_once():
    assert len(rows([line(5, "0", 0.5)], steps=(5, 10))) == 1


def test_tasks_that_pull_apart_in_all_layers_are_a_finding_beside_its_null_and_random_ones_none():
    apart = [line(5, str(n), -0.5 + 0.01 * n) for n in range(6)] + [line(5, "global", 0.9)]
    (found,) = findings.find({"conflicts": rows(apart)}, {})
    assert (found.model, found.column, found.units) == ("mixed: a and b", "cosine", 6)
    assert found.value == pytest.approx(-0.475)
    assert (found.null, found.beyond) == (0.0, True)
    assert f"{sentences.NULLS['conflicts']} 0." in sentences.sentence(found)
    even = [line(5, str(n), (-0.2, 0.2)[n % 2]) for n in range(6)]
    (found,) = findings.find({"conflicts": rows(even)}, {})
    assert not found.beyond


def test_the_matrix_is_drawn_of_all_layers_together_and_pairs_by_block():
    found = task_conflicts.data(rows([line(5, "0", -0.5), line(5, "global", 0.25)])).models["mixed"]
    assert (found.tasks, found.pairs, found.layers) == (("a", "b"), ("a and b",), ("layers.0",))
    np.testing.assert_array_equal(found.together, [[1.0, 0.25], [0.25, 1.0]])
    np.testing.assert_array_equal(found.by_layer, [[-0.5]])


def test_step_gradients_are_drawn_by_kind_as_the_root_of_the_sum_of_squares():
    figures = {"number": 0, "mean": 1.0, "std": 1.0, "sparsity": 0.0, "near_zero": 0.0, "numel": 4}
    lines = [
        {"step": step, "layer_type": "mlp", "param": name, "norm": norm, **figures}
        for step, sizes in ((5, (3.0, 4.0)), (10, (0.0, 2.0)))
        for name, norm in zip("ab", sizes, strict=True)
    ]
    found = rows(lines, "gradients", step_gradients)
    assert [(row.checkpoint, row.param, row.norm) for row in found[:2]] == [
        (5, "a", 3.0), (5, "b", 4.0),
    ]  # fmt: skip
    band = norms.data(found).panels["mlp"]["mixed"]
    np.testing.assert_array_equal(band.steps, [5.0, 10.0])
    np.testing.assert_array_equal(band.mean, [5.0, 2.0])
    assert findings.find({"step_gradients": found}, {}) == []


def test_the_report_of_a_run_shows_what_it_has_recorded_and_nothing_where_that_is_not(tmp_path):
    run = Run(tmp_path)
    assert gradient_charts.charts(run) == []
    figures = {"param": "a", "layer_type": "mlp", "norm": 2.0}
    gradients = [{"step": step, **figures} for step in (5, 10)]
    cosines = [line(5, "global", -0.5), line(5, "0", 0.25), line(10, "global", None)]
    for table, lines in (("gradients", gradients), ("conflicts", cosines)):
        run.recorded(table).write_text("".join(json.dumps(one) + "\n" for one in lines))
    norms_shown, cosines_shown = gradient_charts.charts(run)
    assert "mlp" in norms_shown
    assert "a and b" in cosines_shown
    assert "-0.5" in cosines_shown
    assert "0.25" not in cosines_shown  # one block's
