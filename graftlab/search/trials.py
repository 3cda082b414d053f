"""Trials carried out: each a run that really trains and is really evaluated, pruned by its own curve."""

import hashlib
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

from graftlab.data import foreign_code
from graftlab.errors import CheckpointError, ConfigError, GraftlabError, SearchFailed
from graftlab.rundir import files
from graftlab.rundir.records import Json
from graftlab.rundir.run import Run
from graftlab.runs import material
from graftlab.search import engine as optunas
from graftlab.search import first, identity, limits, space, storage
from graftlab.search.design import Plan
from graftlab.search.objective import Objective, objectives
from graftlab.search.watch import Watch
from graftlab.terminal import tell
from graftlab.workers import Crew, Engine, Orders, Slot, Stop, engine, preload
from graftlab.workers.board import Board
from graftlab.workers.presence import Presence

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger("graftlab")
ALONE = Crew()
SPENT = "spent_seconds"
POLL_S = 1.0
FAILURES_IN_A_ROW, ONCE_ONE_HAS_ENDED = 3, 10
"""So many trials of one call that fail one after another end a search; more where one has ended by itself."""


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
    crew: Crew = ALONE,
    quiet: bool = False,
    widen: bool = False,
    again: str = "the same call",
) -> Found:
    """Carry out a search, or go on with it, until its trials or its hours are spent.

    `database` is the URL of a storage that several machines share; a journal beside the runs unless given.
    The `crew` says who carries trials out, and how many at a time. With `widen` the space may be larger
    than in an earlier call.

    Raises:
        ConfigError: the directory holds another search.
        SearchFailed: every trial has failed.
        DiskError: the storage cannot be opened, or is gone and does not come back.
        Stopped: a signal came; trials under way have been saved, and the same call goes on with them.
    """
    with foreign_code.allowed(plan.allow_code):
        material.check_code(plan.file)
        wanted = objectives(plan)
    identity.remember(plan, out, wanted, widen)
    held = storage.open_storage(database, out, crew.beat_s)
    presence = Presence(out / identity.WORKERS, crew.beat_s)
    preload()
    with presence.at_work():
        work = _Work(plan, _Joined(out, held, engine(crew, out), presence), wanted, quiet)
        work.carry_out()
    found = work.found()
    work.stop.check(f"what has ended is not repeated; go on with: {again}")
    limits.tell(found.trials)
    _check_any(found)
    return found


class _Joined(NamedTuple):
    """What a process works with that has joined a search."""

    out: Path
    storage: "BaseStorage"
    engine: Engine
    presence: Presence


class _Work:
    """A search under way in this process."""

    def __init__(
        self, plan: Plan, joined: _Joined, wanted: Sequence[Objective], quiet: bool
    ) -> None:
        self.plan, self.objectives = plan, tuple(wanted)
        self.out, self.storage, self.engine, self.presence = joined
        self.quiet, self.stop, self.board = quiet, Stop(), Board(self.engine.slots)
        self.one_chooses = threading.Lock()
        self.allow_code = plan.allow_code
        self.began, self.began_at = time.monotonic(), datetime.now()  # as optuna has it
        with self._choosing():
            study = self._study()
            first.ask(plan, study)
        self.spent_before = float(study.user_attrs.get(SPENT, 0.0))

    @contextmanager
    def _choosing(self) -> Iterator[None]:
        """Wait until no other worker, of any process, chooses a trial."""
        with self.one_chooses, files.alone(self.presence.folder / "choosing"):
            yield

    def carry_out(self) -> None:
        """Carry out trials in all slots until there are no more."""
        slots = self.engine.slots
        with (
            self.stop.caught(),
            self.board.shown(self.quiet),
            ThreadPoolExecutor(len(slots)) as threads,
        ):
            for ended in [threads.submit(self._work, slot) for slot in slots]:
                ended.result()

    def _study(self) -> "optuna.Study":
        import optuna

        directions: list[Literal["minimize", "maximize"]] = [
            "maximize" if one.higher else "minimize" for one in self.objectives
        ]
        return optuna.create_study(
            storage=self.storage,
            study_name=self.plan.name,
            directions=directions,
            pruner=optunas.pruner(self.plan.search.pruner),
            load_if_exists=True,
        )

    def _work(self, slot: Slot) -> None:
        """Carry out trials in one slot until there are no more."""
        search = self.plan.search
        with storage.not_gone():
            study = self._study()
            while self.stop.received is None:
                with ExitStack() as choosing:  # until the trial counts as running: none is too many
                    choosing.enter_context(self._choosing())
                    storage.fail_the_dead(study, self.presence)
                    more = self._more(study)
                    if more == "no":
                        return
                    if more == "wait":
                        choosing.close()
                        time.sleep(POLL_S)
                        continue
                    known = storage.num_drawn(study)
                    study.sampler = optunas.sampler(search.sampler, search.seed, known)
                    self._one(study, slot, choosing.close)

    def _one(self, study: "optuna.Study", slot: Slot, begun: Callable[[], None]) -> None:
        """Carry out one trial; one that was taken for dead meanwhile is left to whoever has it."""
        taken = False

        def objective(trial: "Trial") -> Any:
            nonlocal taken
            trial.set_user_attr(storage.WORKER, self.presence.name)
            begun()
            try:
                return self._try(trial, slot)
            finally:
                taken = storage.taken(trial)

        try:
            study.optimize(objective, n_trials=1, catch=(TrialFailed,))
        except Exception:
            if not taken:  # optuna refuses to end a trial twice
                raise
        finally:
            study.set_user_attr(SPENT, self.spent_before + time.monotonic() - self.began)

    def _more(self, study: "optuna.Study") -> Literal["yes", "wait", "no"]:
        """Say whether another trial is to begin; what is under way may fail, and is waited for."""
        from optuna.trial import TrialState

        search, trials = self.plan.search, study.get_trials(deepcopy=False)
        states = [trial.state for trial in trials]
        ended = sum(state in (TrialState.COMPLETE, TrialState.PRUNED) for state in states)
        running, waiting = states.count(TrialState.RUNNING), states.count(TrialState.WAITING)
        if search.hours is not None:
            spent = self.spent_before + time.monotonic() - self.began
            if spent >= search.hours * 3600:
                return "no"
        failed = storage.failures_in_a_row(trials, self.began_at)
        if failed >= (ONCE_ONE_HAS_ENDED if ended else FAILURES_IN_A_ROW):
            return "wait" if running else "no"
        grid = search.sampler.name == "grid"
        if waiting if grid else search.trials is None or ended + running < search.trials:
            return "yes"
        return "wait" if running else "no"

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
        try:
            limits.check(self.plan.search, trial, document)
        except GraftlabError as error:
            self._failed(trial, str(error))
        watch = Watch(self.plan.search, self.objectives, trial, run)
        if not run.finished:
            self._say(trial, values)
            several = len(self.engine.slots) > 1
            orders = Orders(self.quiet or several, self.allow_code, ("validation",), slot)
            began = None if run.started else document
            with self.board.on(slot, f"trial {trial.number}", run.path):
                ended = self.engine.carry_out(run.path, began, orders, self.stop, watch)
            if watch.taken:
                raise TrialFailed("another worker has it")
            watch.tell()
            if watch.pruned:
                raise TrialPruned
            if ended.cause is not None:
                self._failed(trial, ended.cause)
        try:
            run.check()
            found = [one.of(run) for one in self.objectives]
        except (CheckpointError, ConfigError) as error:
            self._failed(trial, str(error))
        if None in found:
            self._failed(trial, f"{self.objectives[found.index(None)].name} is not defined")
        return found[0] if len(found) == 1 else tuple(found)

    def _failed(self, trial: "Trial", cause: str) -> NoReturn:
        if self.stop.received is not None:
            trial.set_user_attr(first.STOPPED, True)
        else:
            log.warning("trial %d has failed: %s", trial.number, cause)
            trial.set_user_attr(storage.CAUSE, cause)
        raise TrialFailed(cause)

    def _say(self, trial: "Trial", values: dict[str, Json]) -> None:
        shown = ", ".join(f"{key}={_short(value)}" for key, value in values.items())
        if not self.quiet:
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
    if TrialState.COMPLETE not in states and TrialState.FAIL in states:
        causes = Counter(filter(None, (t.user_attrs.get(storage.CAUSE) for t in found.trials)))
        listed = "; ".join(f"{count} times: {cause}" for cause, count in causes.items())
        raise SearchFailed(f"no trial has ended by itself. {listed}")
