"""The curves of a comparison: numbers as they were logged, a gap where they were not finite."""

import json

import numpy as np

from graftlab import plots
from graftlab.contracts import Compared
from graftlab.plots import learning_curves

LINES = [
    {"step": 10, "loss": 2.0, "learning_rate": 0.1},
    {"step": 20, "loss": None, "learning_rate": 0.1},
    {"step": 20, "validation/loss": 1.0, "validation/accuracy": 0.5},
]


def test_curves_are_what_was_logged_with_a_gap_where_it_was_not_finite(tmp_path):
    (tmp_path / "runs" / "a").mkdir(parents=True)
    lines = "".join(json.dumps(line) + "\n" for line in LINES)
    (tmp_path / "runs" / "a" / "metrics.jsonl").write_text(lines)
    found = learning_curves.data(Compared("accuracy", {"a": [tmp_path / "runs/a"]}, []))
    (loss,), (accuracy,) = found.loss["a"], found.validation["a"]
    assert loss.steps.tolist() == [10, 20]
    np.testing.assert_array_equal(loss.values, [2.0, np.nan])
    assert (accuracy.steps.tolist(), accuracy.values.tolist()) == ([20], [0.5])


def test_a_mean_curve_has_the_steps_that_all_seeds_have():
    one = learning_curves.Line(np.array([1, 2, 3]), np.array([1.0, 2.0, 3.0]))
    two = learning_curves.Line(np.array([2, 3, 4]), np.array([4.0, np.nan, 1.0]))
    mean = learning_curves.mean([one, two])
    assert mean.steps.tolist() == [2, 3]
    np.testing.assert_array_equal(mean.values, [3.0, np.nan])


def test_the_same_figure_is_the_same_bytes():
    line = learning_curves.Line(np.arange(1, 1001), np.linspace(1, 0, 1000))
    found = learning_curves.Curves(
        "accuracy", {"a_b": [line, line], "$\\bad$": []}, {"a_b": [line]}
    )
    one, two = (plots.svg(plots.titled(learning_curves.draw(found), "$x$")) for _ in range(2))
    assert one == two


def test_nothing_logged_draws_an_empty_figure(tmp_path):
    found = learning_curves.data(Compared("accuracy", {"a": [tmp_path]}, []))
    assert "<svg" in plots.svg(learning_curves.draw(found))
