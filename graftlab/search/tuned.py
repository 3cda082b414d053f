"""A study that tunes: a search for each method, with as many trials for each, and the winners as its runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from graftlab import config, runfile, study
from graftlab.config import Document, Parsed, Problems, lay_over
from graftlab.errors import ConfigError, GraftlabError, SearchFailed, unknown
from graftlab.rundir import files
from graftlab.rundir.records import Json
from graftlab.runfile import RunFile
from graftlab.search import design, space, trials, whole_file, winner
from graftlab.search.design import Plan, Search
from graftlab.search.trials import ALONE, Found
from graftlab.statistics.budget import expected_best
from graftlab.study import Cell, Comparison, Done, Planned
from graftlab.study import Plan as StudyPlan
from graftlab.study.findings import Point, Tuning
from graftlab.study.labels import shown
from graftlab.terminal import tell
from graftlab.workers import Crew

KEYS = ("trials", "space", "sampler", "pruner", "seed")
"""What of a search file a study says."""
FOLDER = "tuning"


@dataclass(frozen=True)
class Tuned:
    """A study whose settings have been found."""

    plan: StudyPlan
    """Its runs have the settings that won."""
    tunings: tuple[Tuning, ...]
    failed: tuple[Done, ...]
    """Runs of methods for which none was found, with the cause."""

    def compare(
        self, done: list[Done], unasked: Mapping[Path, str] = MappingProxyType({})
    ) -> Comparison:
        """Return the comparison of the runs, as `study.compare` does, with how each method was tuned."""
        found = study.compare(self.plan, [*done, *self.failed], unasked)
        return replace(found, tunings=self.tunings)


def searches(plan: StudyPlan) -> dict[Cell, Plan]:
    """Return the search of each method on each task and backbone, at the study's first seed.

    Raises:
        ConfigError: something in one of them is wrong, or one would have more trials than another.
    """
    problems, found = Problems(), dict[Cell, Plan]()
    for planned in plan.runs:
        if planned.seed != plan.seeds[0]:
            continue
        given = plan.spaces[planned.cell.method]
        below = {("tune", *at): place for at, place in given.places.items()}
        document = Document(plan.path, {"tune": {**given.values, "base": {}}}, below)
        try:
            found[planned.cell] = _search(planned, document, plan.allow_code)
        except GraftlabError as error:
            problems.include(error)
    problems.raise_if_any()
    _check_equal(found)
    return found


def _search(planned: Planned, document: Document, allow_code: bool) -> Plan:
    values = document.values["tune"]
    for key in values:
        if key not in (*KEYS, "base"):
            said = f"tune: {unknown('key', key, KEYS)}"
            place = document.place("tune", key)
            raise ConfigError(said, place=place, kind="unknown", given=key)
    found = config.build(Search, values, document, ("tune",))
    assert found is not None
    base = Parsed(planned.document.values, {**planned.document.places})
    name = planned.name.removesuffix(f"-seed{planned.seed}")
    return design.checked(found, document, base, name, allow_code, ("tune",))


def _check_equal(found: Mapping[Cell, Plan]) -> None:
    counts = {cell: count(plan) for cell, plan in found.items()}
    if len({*counts.values()}) > 1:
        listed = ", ".join(f"{cell.method} {number}" for cell, number in counts.items())
        raise ConfigError(
            f"tune: every method gets the same number of trials, and these grids have others: {listed}.",
            ("Give their spaces as many combinations, or another sampler.",),
            kind="not_equal", given=[*counts.values()],
        )  # fmt: skip


def count(plan: Plan) -> int:
    """Return how many trials a search has."""
    search = plan.search
    if search.sampler.name != "grid":
        assert search.trials is not None, "a study gives no hours"
        return search.trials
    return sum(1 for _ in space.cells(search.space))


def files_by_group(found: Mapping[Cell, Plan]) -> Iterator[dict[str, RunFile]]:
    """Yield the run files that may come to be compared with each other, by what they are called: every end of
    every range of each method, on one task and backbone."""
    groups: dict[tuple[str, str], dict[str, RunFile]] = {}
    for cell, one in found.items():
        own = groups.setdefault(cell[:2], {})
        for values in design.corners(one.search):
            said = ", ".join(f"{key}={shown(value)}" for key, value in values.items())
            own[f"{cell.method} ({said})"] = runfile.resolve(one.document(values, one.name))
    yield from groups.values()


def carry_out(
    plan: StudyPlan,
    out: Path,
    crew: Crew = ALONE,
    quiet: bool = False,
    again: str = "the same call",
) -> Tuned:
    """Return a study with the settings that its searches have found, each in `out`/tuning.

    Trials are scored on validation alone, at the study's first seed. What has ended is not repeated. A method
    of which no trial has ended by itself is a hole.

    Raises:
        ConfigError: as `searches`, or as `search.carry_out`.
        Stopped: a signal came; the same call goes on.
    """
    tunings, wins, failed = list[Tuning](), dict[Cell, dict[str, Json]](), list[Done]()
    every = searches(plan)
    for number, (cell, one) in enumerate(every.items(), start=1):
        if not quiet:
            tell(f"[tuning {number}/{len(every)}] {one.name}: {count(one)} trials")
        try:
            found = trials.carry_out(one, out / FOLDER / one.name, None, crew, quiet, again=again)
        except SearchFailed as error:
            failed += _holes(plan, out / "runs", cell, str(error))
            continue
        said = winner.write(found)
        files.write_text(found.out / whole_file.FILE, whole_file.text(one))
        tunings.append(_tuning(cell, found, said))
        if said.best is None:
            failed += _holes(plan, out / "runs", cell, "no trial has ended by itself")
        else:
            wins[cell] = winner.values(found, said.best)
    runs = tuple(_with(run, wins[run.cell]) for run in plan.runs if run.cell in wins)
    numbers = {count(one) for one in every.values()}
    by = f"validation, {max(numbers, default=0)} trials of each at seed {plan.seeds[0]}"
    asked = plan.study.model_copy(update={"tune": None})
    return Tuned(
        replace(plan, study=asked, runs=runs, chosen_by=by, spaces={}),
        tuple(tunings),
        tuple(failed),
    )


def _holes(plan: StudyPlan, runs: Path, cell: Cell, cause: str) -> list[Done]:
    return [Done(run, runs / run.name, cause) for run in plan.runs if run.cell == cell]


def _with(planned: Planned, values: Mapping[str, Json]) -> Planned:
    """Return a run with the values that have won."""
    own, document = planned.document, planned.document
    laid = lay_over(Parsed(own.values, {**own.places}), Parsed(space.laid(values), {}))
    made = Document(document.path, laid.values, laid.places)
    setting = tuple((key, shown(value)) for key, value in values.items())
    cell = planned.cell._replace(setting=setting)
    return Planned(planned.name, cell, planned.seed, made, runfile.resolve(made))


def _tuning(cell: Cell, found: Found, said: winner.Summary) -> Tuning:
    one = found.objectives[0]
    ended = [trial for trial in found.trials if trial.state.name == "COMPLETE"]
    points = tuple(
        Point(
            {key: shown(value) for key, value in winner.values(found, trial).items()},
            trial.value if trial.state.name == "COMPLETE" else None,
            None,
            said.best is not None and trial.number == said.best.number,
        )
        for trial in found.trials
        if trial.state.name in ("COMPLETE", "PRUNED")
    )
    return Tuning(
        task=cell.task,
        backbone=cell.backbone,
        method=cell.method,
        metric=one.name,
        higher_is_better=one.higher,
        points=points,
        edges=said.edges,
        expected_best=expected_best([trial.value for trial in ended], one.higher),
    )
