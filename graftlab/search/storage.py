"""Where trials are kept: a journal beside the runs, or a database that many workers share."""

import contextlib
import itertools
import logging
import os
import random
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError, DiskError
from graftlab.workers.presence import BEAT_S, MISSED, Presence

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage, RDBStorage
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger("graftlab")
VARIABLE = "GRAFTLAB_STORAGE"
"""The environment's variable with a database's URL, where it is not given on the command line."""
OPENED_AGAIN = 10
GONE_S = 600.0
"""So long a database that goes away is waited for."""
WORKER, RETRY_OF, CAUSE, DEFAULT = "worker", "retry_of", "cause", "default"
NO_WORKER_YET_S = 60.0  # a trial that was asked for so long ago without saying by whom is nobody's


def url(given: str | None) -> str | None:
    """Return the database's URL, given or from the environment; None for a journal."""
    return given or os.environ.get(VARIABLE) or None


def shown(given: str) -> str:
    """Return a URL without its password and without its query, which may have one."""
    return re.sub(r"\?.*", "?***", re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", given))


def failures_in_a_row(trials: "Sequence[FrozenTrial]", since: datetime) -> int:
    """Return how many trials have failed one after another, up to the last that has ended, by itself or by a
    limit; what ended before `since`, or was killed, is not counted."""
    from optuna.trial import TrialState

    def failed(trial: "FrozenTrial") -> bool:
        return trial.state == TrialState.FAIL and CAUSE in trial.user_attrs

    ended = [(t.datetime_complete, t.number, t) for t in trials if t.datetime_complete is not None]
    latest = [trial for at, _, trial in sorted(ended, reverse=True) if at >= since]
    return sum(1 for _ in itertools.takewhile(failed, latest))


def open_storage(database: str | None, out: Path, beat_s: float = BEAT_S) -> "BaseStorage":
    """Return the storage, in a database with a sign of life every `beat_s` seconds.

    A database that goes away is waited for.

    Raises:
        ConfigError: optuna is missing.
        DiskError: it cannot be opened.
    """
    try:
        import optuna
    except ImportError:
        raise ConfigError(
            "a search needs optuna. Install with: pip install 'graftlab[search]'."
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if database is None:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        out.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(out / "trials.journal")))
    try:
        return _database(database, max(1, round(beat_s)))
    except Exception as error:  # sqlalchemy's, a driver's and optuna's own have no common base
        said = str(error).replace(database, shown(database)).partition("\n")[0]
        raise DiskError(
            f"the storage {shown(database)} cannot be opened: {type(error).__name__}: {said}. Check that "
            f"the database runs and that its driver is installed (for PostgreSQL: pip install "
            f"'psycopg[binary]', and a URL of postgresql+psycopg://)."
        ) from None


def _database(database: str, beat_s: int) -> "BaseStorage":
    """Return a database; where several workers make its tables at once, all but one find them there."""
    from optuna import storages
    from optuna.exceptions import ExperimentalWarning

    def made() -> "RDBStorage":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return storages.RDBStorage(
                database,
                heartbeat_interval=beat_s,
                grace_period=MISSED * beat_s,
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_stale_trial_callback=storages.RetryHeartbeatStaleTrialCallback(),
            )

    for left in range(OPENED_AGAIN, -1, -1):
        try:
            found = made()
            break
        except Exception as error:
            if left == 0 or type(error).__name__ not in ("IntegrityError", "ProgrammingError"):
                raise
            time.sleep(random.random())
    _wait_for(found, shown(database))
    return found


def _wait_for(made: "RDBStorage", name: str) -> None:
    """Have a database that is gone waited for, whenever a connection is wanted."""
    from sqlalchemy import event

    def connect(dialect: Any, _: object, given: Any, named: Any) -> object:
        began = time.monotonic()
        told = False
        while True:
            try:
                return dialect.connect(*given, **named)
            except dialect.loaded_dbapi.OperationalError:
                if time.monotonic() - began > GONE_S:
                    raise
            if not told:
                log.warning("the storage %s is gone; waiting for it to come back", name)
                told = True
            time.sleep(1.0)

    event.listen(made.engine, "do_connect", connect)


@contextlib.contextmanager
def not_gone() -> Iterator[None]:
    """Say it in words where the storage goes away for good. `Raises:` DiskError."""
    try:
        yield
    except Exception as error:
        if is_gone(error):
            raise DiskError(
                "the storage of the trials is gone. The same command goes on when it is back; "
                "runs under way have been saved.", kind="gone",
            ) from error  # fmt: skip
        raise


def is_gone(error: Exception) -> bool:
    """Say whether an error is that a database cannot be reached: sqlalchemy's, or optuna's about it."""
    causes = (error, error.__cause__)
    return any(type(one).__name__ in ("OperationalError", "StorageInternalError") for one in causes)


def fail_the_dead(study: "optuna.Study", workers: Presence) -> None:
    """Fail the trials of workers that are gone, and ask for each again: the same values find the same run."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = trial.user_attrs.get(WORKER)
        if worker is None:
            began = trial.datetime_start
            dead = began is not None and time.time() - began.timestamp() > NO_WORKER_YET_S
        else:
            dead = not workers.alive(worker)
        if dead and _fail(study, trial):
            ask_again(study, trial)


def _fail(study: "optuna.Study", trial: "FrozenTrial") -> bool:
    """Say whether it was this call that has failed the trial: another worker may have come first."""
    from optuna.trial import TrialState

    storage: Any = study._storage
    try:
        return bool(storage.set_trial_state_values(trial._trial_id, TrialState.FAIL))
    except Exception as error:
        if "Finished" in type(error).__name__ or isinstance(error, RuntimeError):
            return False
        raise


def taken(trial: "Trial") -> bool:
    """Say whether a trial that this process carries out has been ended by another, which took it for dead."""
    from optuna.trial import TrialState

    held: Any = trial.study._storage
    return bool(held.get_trial(trial._trial_id).state != TrialState.RUNNING)


def ask_again(study: "optuna.Study", trial: "FrozenTrial") -> None:
    """Have the values of a trial tried again, before any others."""
    log.info("trial %d is asked for again: its worker is gone", trial.number)
    kept = {DEFAULT: True} if trial.user_attrs.get(DEFAULT) else {}
    study.enqueue_trial(values(trial), user_attrs={RETRY_OF: root(trial), **kept})


def values(trial: "FrozenTrial") -> dict[str, Any]:
    """Return what was asked for and what was drawn: a trial may be killed between the two."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def root(trial: "FrozenTrial") -> int:
    """Return the number of the trial whose values this one has tried again, or its own."""
    return int(trial.user_attrs.get(RETRY_OF, trial.number))


def num_drawn(study: "optuna.Study") -> int:
    """Return how many trials there are, each counted once, however often it was tried again."""
    return sum(RETRY_OF not in trial.user_attrs for trial in study.get_trials(deepcopy=False))
