"""A trial's run watched while it trains: its scores go to optuna, which may say to end it."""

import logging
import signal
from typing import TYPE_CHECKING

from graftlab.rundir.records import Json
from graftlab.rundir.run import Run
from graftlab.search import engine, storage
from graftlab.search.design import Search
from graftlab.search.objective import Objective

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.trial import Trial

log = logging.getLogger("graftlab")


class Watch:
    """Tells optuna of a run's scores while it trains, and whether it says to end it."""

    def __init__(
        self, search: Search, objectives: "Sequence[Objective]", trial: "Trial", run: Run
    ) -> None:
        self.pruned = self.taken = False
        self._trial, self._run = trial, run
        self._search, self._objectives = search, objectives
        self._told: set[int] = set()

    def __call__(self) -> signal.Signals | None:
        """Tell of what is new; return what ends the trial's run, if it is to end.

        One that another worker has gone on with ends at once: what it would save, the other writes.
        """
        try:
            if self.taken:
                return signal.SIGKILL
            if storage.taken(self._trial):
                self.taken = True
                log.warning(
                    "trial %d was taken for dead, and is left to others", self._trial.number
                )
                return signal.SIGKILL
            if not self.pruned and self.tell() and engine.may_prune(self._search, len(self._told)):
                self.pruned = self._trial.should_prune()
        except Exception as error:
            if not storage.is_gone(error):
                raise
            log.warning("the storage could not be told of a score; that is tried again")
        return signal.SIGTERM if self.pruned else None

    def tell(self) -> bool:
        """Report scores that have not been reported; say whether there were any."""
        if len(self._objectives) > 1:
            return False
        key, known = f"validation/{self._objectives[0].name}", len(self._told)
        for row in _rows(self._run):
            value, step = row.get(key), row.get("step")
            if isinstance(value, int | float) and isinstance(step, int) and step not in self._told:
                self._trial.report(float(value), step)
                self._told.add(step)
        return len(self._told) > known


def _rows(run: Run) -> list[dict[str, Json]]:
    """Return the lines of a run that may be writing another just now."""
    try:
        return run.read_metrics()
    except (OSError, ValueError):
        return []
