"""The page and its curves: numbers as they were logged, all text escaped, nothing fetched."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest

from graftlab import config, plots
from graftlab.contracts import Compared
from graftlab.plots import learning_curves
from graftlab.report import page

HOSTILE = "<script>alert(1)</script>$x$\x1b[31m"
FETCHING = {"script", "link", "iframe", "img", "object", "embed", "base", "form"}


class Read(HTMLParser):
    """Collects a page's tags, what they point to, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.text = set(), [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href", "data", "action")]

    def handle_data(self, data):
        self.text += data


def run(folder, name, lines, cause=None):
    """Write a run with the metrics given, and return its record."""
    path = folder / "runs" / name
    path.mkdir(parents=True)
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "config.yaml").write_text(config.dump({"name": name, "method": {"name": HOSTILE}}))
    (path / "environment.json").write_text(
        json.dumps({"packages": {"torch": "1"}, "device": HOSTILE, "graftlab": {"dirty_diff": "d"}})
    )
    return {"run": name, "cause": cause, "not_exact": None, "skipped_steps": None}


def summary(*values):
    known = [value for value in values if value is not None]
    return {
        "mean": sum(known) / len(known) if known else None, "deviation": None,
        "standard_error": None, "values": dict(enumerate(values)),
    }  # fmt: skip


def row(method, runs, *values, **more):
    return {
        "task": "t", "backbone": "b", "method": method, "setting": {}, "metric": "accuracy",
        "higher_is_better": True, "test": summary(*values), "validation": summary(*values),
        "trainable": None, "total": None, "seconds": None, "peak_memory_bytes": None,
        "runs": dict(enumerate(runs)), "holes": {}, "rank": None, "tied": False, "chosen": False,
        "not_paired": [], **more,
    }  # fmt: skip


def record(rows=(), runs=(), grid=()):
    return {
        "name": HOSTILE, "seeds": [0], "chosen_by": None, "rows": list(rows), "grid": list(grid),
        "runs": list(runs), "holes": [run for run in runs if run["cause"]],
    }  # fmt: skip


def write(found, folder):
    page.write(found, folder / "runs", folder, {"learning_curves": learning_curves})
    return (folder / "comparison.html").read_text(encoding="utf-8")


LINES = [
    {"step": 10, "loss": 2.0, "learning_rate": 0.1},
    {"step": 20, "loss": None, "learning_rate": 0.1},
    {"step": 20, "validation/loss": 1.0, "validation/accuracy": 0.5},
]


def test_nothing_is_fetched_and_no_script_runs(tmp_path):
    runs = [run(tmp_path, "a-seed0", LINES)]
    text = write(record([row("a", ["a-seed0"], 0.5, rank=1)], runs), tmp_path)
    read = Read(text)
    assert not read.tags & FETCHING
    assert all(link.startswith("#") for link in read.links)
    assert "@import" not in text
    assert "url(http" not in text


@pytest.mark.quick("cause")
@pytest.mark.parametrize("field", ["method", "cause", "hole", "setting", "not_paired", "task"])
def test_hostile_text_is_shown_and_not_run(tmp_path, field):
    found = row("a", ["a"], 0.5, rank=1)
    if field == "hole":
        found["holes"] = {1: HOSTILE}
    elif field == "setting":
        found["setting"] = {HOSTILE: HOSTILE}
    elif field == "not_paired":
        found["not_paired"] = [HOSTILE]
    elif field != "cause":
        found[field] = HOSTILE
    runs = [run(tmp_path, "a", LINES, HOSTILE if field == "cause" else None)]
    read = Read(write(record([found], runs), tmp_path))
    assert "script" not in read.tags
    assert read.text.count("<script>alert(1)</script>") >= 2  # the title, and the field


def test_a_page_of_no_runs_says_so(tmp_path):
    assert "There is no run to compare." in write(record(), tmp_path)


def test_a_row_without_any_value_has_empty_cells_and_its_cause(tmp_path):
    runs = [run(tmp_path, "a", [], "Diverged")]
    found = row("a", ["a"], holes={0: "Diverged"})
    text = Read(write(record([found], runs), tmp_path)).text
    assert "Diverged" in text
    assert "nan" not in text.lower()
    assert "None" not in text


def test_one_run_is_a_page_with_its_score(tmp_path):
    runs = [run(tmp_path, "a", LINES)]
    found = row("a", ["a"], 0.51234, rank=1)
    assert "0.5123" in Read(write(record([found], runs), tmp_path)).text
    assert (tmp_path / "learning_curves.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_thousand_runs_stay_below_five_megabytes(tmp_path):
    names = [f"m{n % 20}-seed{n // 20}" for n in range(1000)]
    lines = [{"step": step, "loss": 1.0, "validation/accuracy": 0.5} for step in range(1, 60)]
    runs = [run(tmp_path, name, lines) for name in names]
    rows = [
        row(f"m{m}", [n for n in names if n.startswith(f"m{m}-")], *[0.5] * 50) for m in range(20)
    ]
    assert len(write(record(rows, runs), tmp_path).encode()) < 5_000_000


def test_the_grid_marks_what_was_chosen(tmp_path):
    runs = [run(tmp_path, "a", LINES)]
    grid = [row("a", ["a"], 0.1 * n, setting={"training.x": str(n)}, chosen=n == 2) for n in (1, 2)]
    found = {
        **record([row("a", ["a"], 0.5, rank=1)], runs, grid),
        "chosen_by": "validation, all seeds",
    }
    text = Read(write(found, tmp_path)).text
    assert "0.2000 ✓" in text
    assert "0.1000 ✓" not in text


def test_curves_are_what_was_logged_with_a_gap_where_it_was_not_finite(tmp_path):
    run(tmp_path, "a", LINES)
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
