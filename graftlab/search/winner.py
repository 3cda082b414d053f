"""What a search has found: its tables, the best run file, and the best beside the default at fresh seeds."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from graftlab import config, runfile, study
from graftlab.errors import ConfigError
from graftlab.rundir import files, spreadsheet
from graftlab.rundir.records import Json
from graftlab.search import limits, storage
from graftlab.search.trials import ALONE, Found
from graftlab.statistics.budget import expected_best
from graftlab.study import Cell, Comparison, Planned
from graftlab.study import Plan as StudyPlan
from graftlab.study import Study as StudyFile
from graftlab.workers import Crew

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

BEST, DEFAULT_ROW = "best", "default"


class Summary(NamedTuple):
    """What a search says of itself; values are of validation."""

    counts: dict[str, int]
    """Trials by how they ended: complete, pruned, fail, running, waiting."""
    best: "FrozenTrial | None"
    """The best trial that ended by itself; of several objectives none."""
    front: "tuple[FrozenTrial, ...]"
    """Trials that no other beats in every objective."""
    default: float | None
    """The base's own value, where the space holds it and its trial has ended."""
    edges: dict[str, str]
    """Fields of the best trial near an end of their range: `smallest` or `largest`."""
    expected: tuple[float, ...]
    """Expected best value of the first 1, 2, ... of the trials in any order (Dodge et al. 2019)."""
    causes: dict[str, int]
    """Why trials have failed, and how many."""
    limits: dict[str, int]
    """How many trials each limit of `at_most` has ended before they trained."""


def summary(found: Found) -> Summary:
    """Return what a search has come to."""
    from optuna.trial import TrialState

    states = [trial.state.name.lower() for trial in found.trials]
    ended = [trial for trial in found.trials if trial.state == TrialState.COMPLETE]
    alone = len(found.objectives) == 1
    best = _best(found, ended) if alone and ended else None
    default = next((t for t in ended if alone and t.user_attrs.get(storage.DEFAULT)), None)
    causes: dict[str, int] = {}
    for trial in found.trials:
        if trial.state == TrialState.FAIL and (cause := trial.user_attrs.get(storage.CAUSE)):
            causes[cause] = causes.get(cause, 0) + 1
    return Summary(
        {state: states.count(state) for state in dict.fromkeys(states)},
        best,
        () if alone or not ended else tuple(found.study.best_trials),
        None if default is None else default.value,
        {} if best is None else edges(found, best),
        expected_best([t.value for t in ended], found.objectives[0].higher) if alone else (),
        causes,
        limits.broken(found.trials),
    )


def _best(found: Found, ended: Sequence["FrozenTrial"]) -> "FrozenTrial":
    """Return the best trial, the first of equals."""
    sign = 1 if found.objectives[0].higher else -1
    return max(ended, key=lambda trial: (sign * (trial.value or 0.0), -trial.number))


def values(found: Found, trial: "FrozenTrial") -> dict[str, Json]:
    """Return a trial's values by field."""
    ranges = found.plan.search.space
    return {key: ranges[key].value(drawn) for key, drawn in trial.params.items() if key in ranges}


def edges(found: Found, trial: "FrozenTrial") -> dict[str, str]:
    """Return which fields of a trial are near an end of their range."""
    ranges = found.plan.search.space
    told = {
        key: ranges[key].at_edge(value)
        for key, value in values(found, trial).items()
        if isinstance(value, int | float)
    }
    return {key: edge for key, edge in told.items() if edge is not None}


def write(found: Found) -> Summary:
    """Write trials.csv, summary.json and, where there is one best trial, best.yaml; return the summary."""
    said, out = summary(found), found.out
    files.write_text(out / "trials.csv", table(found))
    files.write_json(out / "summary.json", as_json(found, said))
    if said.best is not None:
        files.write_text(out / "best.yaml", best_file(found, said))
    return said


def table(found: Found) -> str:
    """Return a line for each trial: how it ended, its values, its objectives, its run, why it failed."""
    names = [one.name for one in found.objectives]
    took = "seconds of the trial" if "seconds" in names else "seconds"
    columns = ["trial", "state", *found.plan.search.space, *names, took, "run", "cause"]
    rows: list[dict[str, object]] = []
    for trial in found.trials:
        rows.append({
            "trial": trial.number,
            "state": trial.state.name.lower(),
            **values(found, trial),
            **dict(zip(names, trial.values or (), strict=False)),
            took: None if trial.duration is None else round(trial.duration.total_seconds(), 3),
            "run": trial.user_attrs.get("run"),
            "cause": trial.user_attrs.get(storage.CAUSE),
        })  # fmt: skip
    return spreadsheet.text(rows, columns)


def as_json(found: Found, said: Summary) -> dict[str, Json]:
    """Return a summary as JSON."""

    def told(trial: "FrozenTrial") -> dict[str, Json]:
        return {
            "trial": trial.number,
            "values": values(found, trial),
            "scores": dict(zip((one.name for one in found.objectives), trial.values, strict=True)),
            "run": trial.user_attrs.get("run"),
        }

    return {
        "search": found.plan.name,
        "objectives": [vars(one) for one in found.objectives],
        "trials": {**said.counts},
        "best": None if said.best is None else told(said.best),
        "front": [told(trial) for trial in said.front],
        "default": said.default,
        "edges": {**said.edges},
        "expected_best": list(said.expected),
        "causes": {**said.causes},
        "limits": {**said.limits},
    }


def best_file(found: Found, said: Summary) -> str:
    """Return the best trial's run file, with where it came from."""
    assert said.best is not None
    one = found.objectives[0]
    lines = [
        f"# Found by the search {found.plan.name}: trial {said.best.number}.",
        f"# {one.name} on validation {said.best.value:.6g}"
        + (f"; the base's own settings {said.default:.6g}." if said.default is not None else "."),
        "# The best of many is a little too good on the split that chose it: test has not been looked at.",
        *(f"# {key} is at the {edge} value allowed: widen it." for key, edge in said.edges.items()),
    ]  # fmt: skip
    document = found.plan.document(values(found, said.best), f"{found.plan.name}-best")
    return "\n".join(lines) + "\n" + config.dump(runfile.resolve(document).resolved)


def confirm(
    found: Found, crew: Crew = ALONE, quiet: bool = False, again: str = "the same call"
) -> Comparison:
    """Return the best trial beside the base as it is, at seeds that no trial has seen, with test scores.

    Raises:
        ConfigError: there is no best trial.
        Stopped: a signal came; the same call goes on.
    """
    said, seeds = summary(found), found.plan.search.winner.seeds
    if said.best is None:
        raise ConfigError("winner: there is no one best trial to confirm.")
    runs = tuple(
        _planned(found, row, own, seed)
        for row, own in ((BEST, values(found, said.best)), (DEFAULT_ROW, {}))
        for seed in seeds
    )
    plan = StudyPlan(
        f"{found.plan.name}-confirmed", found.plan.path, StudyFile(base={}), tuple(seeds), runs,
        found.plan.allow_code,
    )  # fmt: skip
    done = study.carry_out(plan, found.out / "confirmed", quiet, again, crew=crew)
    return study.compare(plan, done)


def _planned(found: Found, row: str, own: dict[str, Json], seed: int) -> Planned:
    name = f"{row}-seed{seed}"
    document = found.plan.document({**own, "seed": seed}, name)
    file = runfile.resolve(document)
    cell = Cell(
        str(file.resolved["task"].get("name") or file.task.name),
        str(file.resolved["backbone"].get("model") or file.backbone.name),
        f"{row} ({file.method.name})",
        (),
    )
    return Planned(name, cell, seed, document, file)
