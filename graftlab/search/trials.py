"""Trials carried out: each a run that really trains and is really evaluated, pruned by its own curve."""

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from graftlab.data import foreign_code
from graftlab.errors import CheckpointError, ConfigError, GraftlabError, SearchFailed
from graftlab.rundir.records import Json
from graftlab.rundir.run import Run
from graftlab.runs import material
from graftlab.search import engine, identity, space, storage
from graftlab.search.design import Plan
from graftlab.search.objective import Objective, objectives
from graftlab.search.watch import Watch
from graftlab.terminal import tell
from graftlab.workers import Orders, Slot, Stop, preload, shares
from graftlab.workers import carry_out as in_a_process

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger("graftlab")
SPENT = "spent_seconds"
STOPPED, DEFAULT = "stopped", "default"
MISSING = object()
FAILURES_IN_A_ROW = 3
"""So many first trials that all fail end a search: what they have in common is not in the space."""


@dataclass(frozen=True)
class Found:
    """A search as it stands."""

    plan: Plan
    out: Path
    objectives: tuple[Objective, ...]
    trials: tuple["FrozenTrial", ...]
    study: "optuna.Study"


class TrialFailed(Exception):
    """A trial whose run has failed: optuna counts it as failed, with its cause beside it."""


def place(plan: Plan, out: Path | None) -> Path:
    """Return the search's directory: `out`, or its name below paths.runs."""
    return out or plan.file.paths.runs / plan.name


def carry_out(
    plan: Plan,
    out: Path,
    database: str | None = None,
    workers: int = 1,
    quiet: bool = False,
    widen: bool = False,
    again: str = "the same call",
) -> Found:
    """Carry out a search, or go on with it, until its trials or its hours are spent.

    `database` is the URL of a storage that several machines share; a journal beside the runs unless given.
    `workers` trials go on at a time, each with its share of the cores and GPUs. With `widen` the space may
    be larger than in an earlier call.

    Raises:
        ConfigError: the directory holds another search.
        SearchFailed: every trial has failed.
        Stopped: a signal came; trials under way have been saved, and the same call goes on with them.
    """
    with foreign_code.allowed(plan.allow_code):
        material.check_code(plan.file)
        wanted = objectives(plan)
    identity.remember(plan, out, wanted, widen)
    held = storage.open_storage(database, out)
    work = _Work(plan, out, wanted, held, quiet or workers > 1)
    slots = shares(workers)
    preload()
    with work.workers.at_work(), work.stop.caught(), ThreadPoolExecutor(len(slots)) as threads:
        waiting = [threads.submit(work.work, slot) for slot in slots]
        for done in waiting:
            done.result()
    found = work.found()
    work.stop.check(f"what has ended is not repeated; go on with: {again}")
    _check_any(found)
    return found


class _Work:
    """A search under way in this process."""

    def __init__(
        self, plan: Plan, out: Path, wanted: Sequence[Objective], held: Any, quiet: bool
    ) -> None:
        self.plan, self.out, self.objectives, self.storage = plan, out, tuple(wanted), held
        self.quiet, self.stop, self.workers = quiet, Stop(), storage.Workers(out)
        self.choosing = threading.Lock()
        self.allow_code = plan.allow_code
        self.began = time.monotonic()
        study = self._study()
        self.spent_before = float(study.user_attrs.get(SPENT, 0.0))
        if plan.search.sampler.name == "grid" and not study.get_trials(deepcopy=False):
            try:
                for cell in space.cells(plan.search.space):
                    study.enqueue_trial(cell)
            except ValueError as error:
                raise ConfigError(f"sampler: grid: {error}.") from None
        elif not study.get_trials(deepcopy=False) and (default := self._default()):
            study.enqueue_trial(default, user_attrs={DEFAULT: True})
        self._ask_again_for_what_was_stopped(study)

    def _study(self) -> "optuna.Study":
        import optuna

        directions: list[Literal["minimize", "maximize"]] = [
            "maximize" if one.higher else "minimize" for one in self.objectives
        ]
        return optuna.create_study(
            storage=self.storage,
            study_name=self.plan.name,
            directions=directions,
            pruner=engine.pruner(self.plan.search.pruner),
            load_if_exists=True,
        )

    def _default(self) -> dict[str, Json] | None:
        """Return the base's own values as a trial's, where the space holds them: it is tried first."""
        values: dict[str, Json] = {}
        for key, given in space.ordered(self.plan.search.space):
            if not space.applies(given, values):
                continue
            own: Any = self.plan.file.resolved
            for part in key.split("."):
                own = own.get(part, MISSING) if isinstance(own, dict) else MISSING
            if not given.holds(own):
                return None
            values[key] = own
        return {key: space.label(value) for key, value in values.items()}

    def _ask_again_for_what_was_stopped(self, study: "optuna.Study") -> None:
        from optuna.trial import TrialState

        known = study.get_trials(deepcopy=False)
        retried = {trial.user_attrs.get(storage.RETRY_OF) for trial in known}
        for trial in known:
            stopped = trial.state == TrialState.FAIL and trial.user_attrs.get(STOPPED)
            if stopped and trial.number not in retried and storage.RETRY_OF not in trial.user_attrs:
                storage.ask_again(study, trial)

    def work(self, slot: Slot) -> None:
        """Carry out trials in one slot until there are no more."""
        study = self._study()
        while self.stop.received is None:
            with (
                ExitStack() as choosing
            ):  # until the trial counts as running, so that none is too many
                choosing.enter_context(self.choosing)
                storage.fail_the_dead(study, self.workers)
                if not self._more(study):
                    return
                known = len(study.get_trials(deepcopy=False))
                study.sampler = engine.sampler(
                    self.plan.search.sampler, self.plan.search.seed, known
                )
                self._one(study, slot, choosing.close)

    def _one(self, study: "optuna.Study", slot: Slot, begun: Callable[[], None]) -> None:
        def objective(trial: "Trial") -> Any:
            trial.set_user_attr(storage.WORKER, self.workers.name)
            begun()
            return self._try(trial, slot)

        try:
            study.optimize(objective, n_trials=1, catch=(TrialFailed,))
        finally:
            spent = self.spent_before + time.monotonic() - self.began
            study.set_user_attr(SPENT, spent)

    def _more(self, study: "optuna.Study") -> bool:
        """Say whether another trial is to begin."""
        from optuna.trial import TrialState

        search, trials = self.plan.search, study.get_trials(deepcopy=False)
        states = [trial.state for trial in trials]
        ended = sum(state in (TrialState.COMPLETE, TrialState.PRUNED) for state in states)
        running, waiting = states.count(TrialState.RUNNING), states.count(TrialState.WAITING)
        failed = [t for t in trials if t.state == TrialState.FAIL and not t.user_attrs.get(STOPPED)]
        if search.hours is not None:
            spent = self.spent_before + time.monotonic() - self.began
            if spent >= search.hours * 3600:
                return False
        if not ended and not running and len(failed) >= FAILURES_IN_A_ROW:
            return False
        if search.sampler.name == "grid":
            return waiting > 0
        return search.trials is None or ended + running < search.trials

    def _try(self, trial: "Trial", slot: Slot) -> Any:
        """Return the objectives of one trial's run.

        Raises:
            TrialFailed: the run has failed, or was stopped.
            TrialPruned: its curve, or a limit, has ended it.
        """
        from optuna import TrialPruned

        values = space.suggest(self.plan.search.space, trial)
        run = Run(self.out / "runs" / _folder(values))
        trial.set_user_attr("run", run.path.name)
        document = self.plan.document(values, run.path.name)
        if (reason := self._too_large(document)) is not None:
            trial.set_user_attr(storage.CAUSE, reason)
            raise TrialPruned
        watch = Watch(self.plan.search, self.objectives, trial, run)
        if not run.finished:
            self._say(trial, values)
            quiet = Orders(self.quiet, self.allow_code, ("validation",), slot)
            began = None if run.started else document
            ended = in_a_process(run.path, began, quiet, self.stop, watch)
            watch.tell()
            if watch.pruned:
                raise TrialPruned
            if ended.cause is not None:
                self._failed(trial, ended.cause)
        try:
            run.check()
            found = [one.of(run) for one in self.objectives]
        except CheckpointError as error:
            self._failed(trial, str(error))
        if None in found:
            self._failed(trial, f"{self.objectives[found.index(None)].name} is not defined")
        return found[0] if len(found) == 1 else tuple(found)

    def _failed(self, trial: "Trial", cause: str) -> NoReturn:
        if self.stop.received is not None:
            trial.set_user_attr(STOPPED, True)
        else:
            log.warning("trial %d has failed: %s", trial.number, cause)
            trial.set_user_attr(storage.CAUSE, cause)
        raise TrialFailed(cause)

    def _too_large(self, document: Any) -> str | None:
        """Return which limit a trial's run would break, before it is begun."""
        limits = self.plan.search.at_most
        if not limits:
            return None
        from graftlab import runfile
        from graftlab.planning import forecast

        try:
            made = forecast.plan(runfile.resolve(document))
        except GraftlabError as error:
            return str(error)
        known = {"trainable": made["parameters"]["trainable"], "memory": made["memory"]["peak"]}
        broken = [name for name, most in limits.items() if known[name] > most]
        return f"{broken[0]} would be {known[broken[0]]:g}" if broken else None

    def _say(self, trial: "Trial", values: dict[str, Json]) -> None:
        shown = ", ".join(f"{key}={_short(value)}" for key, value in values.items())
        tell(f"[trial {trial.number}] {shown}")

    def found(self) -> Found:
        """Return the search as it stands."""
        study = self._study()
        return Found(self.plan, self.out, self.objectives, tuple(study.get_trials()), study)


def _folder(values: dict[str, Json]) -> str:
    """Return the name of the run with these values: the same values find the same run."""
    told = json.dumps(values, sort_keys=True, default=str)
    return f"trial-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _check_any(found: Found) -> None:
    """Refuse a search of which nothing came. `Raises:` SearchFailed."""
    from optuna.trial import TrialState

    states = {trial.state for trial in found.trials}
    if states and TrialState.COMPLETE not in states and TrialState.FAIL in states:
        causes: dict[str, int] = {}
        for trial in found.trials:
            if cause := trial.user_attrs.get(storage.CAUSE):
                causes[cause] = causes.get(cause, 0) + 1
        listed = "; ".join(f"{count} times: {cause}" for cause, count in causes.items())
        raise SearchFailed(f"no trial has ended by itself. {listed}")
