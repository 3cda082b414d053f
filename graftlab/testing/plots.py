"""The promises of every plot, over all registered names.

A plot is given what its `DRAWS_FROM` names (`graftlab.contracts.plot`): usual values, and values that are
missing, undefined or single. Names in them have dollar signs and underscores, as names of methods may.
"""

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftlab import plots, registry
from graftlab.contracts import Compared, Searched, Selected
from graftlab.contracts.plot import (
    COMPARISON,
    CONTROLS,
    MIXED,
    RUN,
    SEARCH,
    SELECTION,
    ControlRow,
    Ranged,
    Trial,
)
from graftlab.rundir.records import Json
from graftlab.testing import analyses

every = pytest.mark.parametrize("name", registry.names("plots"))
STRANGE = "$a_b$ & <c>"


def _compared(folder: Path, logged: list[Mapping[str, object]]) -> Compared:
    runs: dict[str, list[Path]] = {}
    for method in ("lora", STRANGE):
        runs[method] = [folder / f"{len(runs)}-{seed}" for seed in range(2)]
        for path in runs[method]:
            path.mkdir(exist_ok=True)
            lines = "".join(json.dumps(line) + "\n" for line in logged)
            (path / "metrics.jsonl").write_text(lines, encoding="utf-8")
    scores = {"mean": 0.5, "deviation": 0.1, "standard_error": 0.02, "values": {0: 0.4, 1: 0.6}}
    rows = [
        {
            "task": "t", "backbone": "b", "method": method, "setting": {}, "metric": "accuracy",
            "higher_is_better": True, "test": scores, "validation": scores, "trainable": 8,
            "total": 90, "seconds": 1.5, "peak_memory_bytes": 2**20, "holes": {}, "rank": 1,
            "rank_worst": 2, "place": place + 1, "label": method,
            "runs": {0: f"{place}-0", 1: f"{place}-1"}, "not_paired": [],
        }
        for place, method in enumerate(runs)
    ]  # fmt: skip
    return Compared("accuracy", runs, rows)


def _comparisons(folder: Path) -> Iterator[Compared]:
    steps = [{"step": step, "loss": 1 / step, "learning_rate": 0.1} for step in (1, 2, 3)]
    scored = {"step": 3, "validation/loss": 0.3, "validation/accuracy": 0.5}
    yield _compared(folder, [*steps, scored])
    yield _compared(folder, [{"step": 1, "loss": None, "learning_rate": 0.1}])
    yield _compared(folder, [])


def _selected(layers: int, rows: int, components: int) -> Selected:
    draws = np.random.default_rng(0)
    labels = np.arange(12) % 2
    return Selected(
        np.arange(layers) * 2,
        0,
        {name: draws.normal(size=(rows, layers)) for name in (MIXED, "probe", "my_$core$")},
        ("probe",),
        draws.random((layers, components)),
        {2 * layer: draws.normal(size=(12, 2)) for layer in range(layers if components else 0)},
        labels,
        ("yes", STRANGE),
    )


def _selections(folder: Path) -> Iterator[Selected]:
    yield _selected(layers=5, rows=20, components=4)
    yield _selected(layers=40, rows=20, components=4)
    one = _selected(layers=1, rows=1, components=0)
    yield one
    undefined = {**one.scores, "probe": np.full((1, 1), np.nan)}
    yield one._replace(scores=undefined)


def _searches(folder: Path) -> Iterator[Searched]:
    """One objective and two, with failed and pruned trials; one trial; none."""
    space: dict[str, Ranged] = {
        "training.learning_rate": {"float": (1e-5, 1e-2), "log": True},
        "method.name": {"choice": ("lora", STRANGE)},
        "method.rank": {"int": (1, 9)},
    }
    draws = np.random.default_rng(0)

    def trial(number: int, objectives: int) -> Trial:
        params: dict[str, Json] = {
            "training.learning_rate": float(10 ** draws.uniform(-5, -2)),
            "method.name": ("lora", STRANGE)[number % 2],
        }
        if number % 3:
            params["method.rank"] = int(draws.integers(1, 10))
        state = {5: "PRUNED", 6: "FAIL"}.get(number, "COMPLETE")
        values = [float(v) for v in draws.random(objectives)] if state == "COMPLETE" else []
        curve = {1: 0.1, 2: 0.2} if state != "FAIL" else {}
        return {
            "number": number, "state": state, "params": params, "values": values, "curve": curve
        }  # fmt: skip

    for objectives in (1, 2):
        names, higher = ("acc$u$racy", "seconds")[:objectives], (True, False)[:objectives]
        yield Searched(names, higher, tuple(trial(n, objectives) for n in range(12)), space)
    for fields in (1, 2):
        some = dict(list(space.items())[:fields])
        yield Searched(("loss",), (False,), tuple(trial(n, 1) for n in range(12)), some)
    yield Searched(("loss",), (False,), (trial(0, 1),), space)
    yield Searched(("loss",), (False,), (), space)


def _controls(folder: Path) -> Iterator[list[ControlRow]]:
    """Two task types and all, with a control that there is not; a score that is never defined; nothing."""

    def row(kind: str, control: str, metric: str, value: float | None) -> ControlRow:
        apart = value is not None and control != "vectors"
        return {
            "task_type": kind, "examples": 9, "sources": 5, "control": control, "metric": metric,
            "value": value, "difference": -0.25 if apart else None, "low": -0.5 if apart else None,
            "high": 0.0 if apart else None, "reason": None if value is not None else "there is none",
        }  # fmt: skip

    ways = ("vectors", "shuffled", STRANGE)
    known = {"vectors": 0.5, "shuffled": 0.25, STRANGE: None}
    yield [
        row(kind, control, metric, known[control])
        for kind in ("all", "summary", "my_$kind$")
        for metric in ("loss", "my_$score$")
        for control in ways
    ]
    yield [row("all", control, "loss", None) for control in ways]
    yield []


def _runs(folder: Path) -> Iterator[Path]:
    for compared in _comparisons(folder):
        yield from (paths[0] for paths in compared.runs.values())


SOURCES: Mapping[str, Callable[[Path], Iterator[object]]] = {
    COMPARISON: _comparisons,
    RUN: _runs,
    SELECTION: _selections,
    SEARCH: _searches,
    CONTROLS: _controls,
}


def _case(name: str, folder: Path) -> tuple[Any, list[Any]]:
    plot = registry.find("plots", name)
    if plot.DRAWS_FROM in registry.names("analyses"):
        cases = analyses.SEVERAL, (analyses.PLANTED,), (analyses.NOTHING,)
        return plot, [analyses.table(plot.DRAWS_FROM, *subjects)[1] for subjects in cases]
    known = (*SOURCES, *registry.names("analyses"))
    assert plot.DRAWS_FROM in SOURCES, f"{name} draws from one of {', '.join(known)}"
    return plot, list(SOURCES[plot.DRAWS_FROM](folder))


def _leaves(value: object) -> Iterator[object]:
    """Yield all that a value of `data` holds."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


@every
def test_what_is_drawn_is_computed_first_as_arrays(name: str, tmp_path: Path) -> None:
    plot, sources = _case(name, tmp_path)
    assert plot.TITLE
    for source in sources:
        found = plot.data(source)
        if found is None:
            continue
        assert hasattr(found, "_fields"), "data returns a NamedTuple"
        kinds = np.ndarray | np.generic | str | int | float | bool | None
        assert all(isinstance(leaf, kinds) for leaf in _leaves(found))


@every
def test_computing_changes_nothing_and_comes_out_alike(name: str, tmp_path: Path) -> None:
    plot, sources = _case(name, tmp_path)
    for source in sources:
        before = copy.deepcopy(source)
        first, second = (list(_leaves(plot.data(source))) for _ in range(2))
        np.testing.assert_equal(first, second)
        np.testing.assert_equal(list(_leaves(source)), list(_leaves(before)))


@every
def test_drawing_decides_nothing_and_comes_out_alike(name: str, tmp_path: Path) -> None:
    """Of missing, undefined and single values too; the data are not changed, and the figure has axes."""
    plot, sources = _case(name, tmp_path)
    for source in sources:
        found = plot.data(source)
        if found is None:
            continue
        before = copy.deepcopy(list(_leaves(found)))
        figures = [plots.titled(plot.draw(found), f"{plot.TITLE} ({STRANGE})") for _ in range(2)]
        np.testing.assert_equal(list(_leaves(found)), before)
        assert figures[0].axes
        first, second = map(plots.svg, figures)
        assert first == second


@every
def test_it_is_written_in_a_form_for_screens_and_one_for_print(name: str, tmp_path: Path) -> None:
    plot, sources = _case(name, tmp_path)
    out = tmp_path / "figures"
    out.mkdir()
    there = [source for source in sources if plot.data(source) is not None]
    assert there, "some source has something to draw"
    (written,) = plots.draw({name: plot}, there[0], STRANGE, out)
    called = plot.NAME or name
    assert written == out / f"{called}.png"
    assert {path.name for path in out.iterdir()} == {f"{called}.png", f"{called}.svg"}
    assert written.read_bytes().startswith(b"\x89PNG")
    if len(there) < len(sources):
        nothing = next(source for source in sources if plot.data(source) is None)
        assert plots.draw({name: plot}, nothing, STRANGE, out) == []
        assert not list(out.iterdir())
