"""What a search asks for before its sampler chooses: the cells of a grid, or the base's own values."""

from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError
from graftlab.rundir.records import Json
from graftlab.search import space, storage
from graftlab.search.design import Plan

if TYPE_CHECKING:
    import optuna

STOPPED, DEFAULT = "stopped", "default"
MISSING = object()


def ask(plan: Plan, study: "optuna.Study") -> None:
    """Ask for the first trials of a search, or for those again that were stopped.

    Raises:
        ConfigError: a grid has no end of cells.
    """
    if study.get_trials(deepcopy=False):
        _again(study)
    elif plan.search.sampler.name == "grid":
        try:
            for cell in space.cells(plan.search.space):
                study.enqueue_trial(cell)
        except ValueError as error:
            raise ConfigError(f"sampler: grid: {error}.") from None
    elif default := _default(plan):
        study.enqueue_trial(default, user_attrs={DEFAULT: True})


def _default(plan: Plan) -> dict[str, Json] | None:
    """Return the base's own values as a trial's, where the space holds them: it is tried first."""
    values: dict[str, Json] = {}
    for key, given in space.ordered(plan.search.space):
        if not space.applies(given, values):
            continue
        own: Any = plan.file.resolved
        for part in key.split("."):
            own = own.get(part, MISSING) if isinstance(own, dict) else MISSING
        if not given.holds(own):
            return None
        values[key] = own
    return {key: space.label(value) for key, value in values.items()}


def _again(study: "optuna.Study") -> None:
    from optuna.trial import TrialState

    known = study.get_trials(deepcopy=False)
    retried = {trial.user_attrs.get(storage.RETRY_OF) for trial in known}
    for trial in known:
        stopped = trial.state == TrialState.FAIL and trial.user_attrs.get(STOPPED)
        if stopped and trial.number not in retried and storage.RETRY_OF not in trial.user_attrs:
            storage.ask_again(study, trial)
