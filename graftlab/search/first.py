"""What a search asks for before its sampler chooses: the cells of a grid, or the base's own values."""

from typing import TYPE_CHECKING, Any

from graftlab.rundir.records import Json
from graftlab.search import space, storage
from graftlab.search.design import Plan

if TYPE_CHECKING:
    import optuna

STOPPED = "stopped"
MISSING = object()


def ask(plan: Plan, study: "optuna.Study") -> None:
    """Ask for the first trials of a search, for those again that were stopped, for cells that are new."""
    known = study.get_trials(deepcopy=False)
    _again(study)
    if plan.search.sampler.name == "grid":
        _grid(plan, study)
    elif not known and (default := _default(plan)):
        study.enqueue_trial(default, user_attrs={storage.DEFAULT: True})


def _grid(plan: Plan, study: "optuna.Study") -> None:
    known = [_same(storage.values(trial)) for trial in study.get_trials(deepcopy=False)]
    for cell in space.cells(plan.search.space):
        if _same(cell) not in known:
            study.enqueue_trial(cell)


def _same(cell: dict[str, Json]) -> dict[str, Json]:
    """Return a cell by which it is known again: steps counted from another end differ by rounding."""
    return {k: f"{value:.12g}" if isinstance(value, float) else value for k, value in cell.items()}


def _default(plan: Plan) -> dict[str, Json] | None:
    """Return the base's own values as a trial's, where the space holds them: it is tried first."""
    values: dict[str, Json] = {}
    for key, given in space.ordered(plan.search.space):
        if not space.applies(given, values):
            continue
        own: Any = plan.file.resolved
        for part in key.split("."):
            own = own.get(part, MISSING) if isinstance(own, dict) else MISSING
        if own is MISSING or not given.holds(own):
            return None
        values[key] = own
    return {key: space.label(value) for key, value in values.items()}


def _again(study: "optuna.Study") -> None:
    from optuna.trial import TrialState

    known = study.get_trials(deepcopy=False)
    root = {trial.number: storage.root(trial) for trial in known}
    settled = {
        root[trial.number]
        for trial in known
        if trial.state != TrialState.FAIL or trial.user_attrs.get(storage.CAUSE)
    }
    stopped = {root[trial.number]: trial for trial in known if trial.user_attrs.get(STOPPED)}
    for first, trial in stopped.items():
        if first not in settled:
            storage.ask_again(study, trial)
