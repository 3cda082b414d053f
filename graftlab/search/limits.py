"""Limits of a search that are known before a trial trains."""

import logging
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from graftlab import runfile
from graftlab.config import Document
from graftlab.search import storage
from graftlab.search.design import Search

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger("graftlab")
BROKEN = "broken_limit"


def check(search: Search, trial: "Trial", document: Document) -> None:
    """Prune a trial whose run would break a limit, and say beside it which.

    Raises:
        TrialPruned: it would break one.
        GraftlabError: the run cannot be planned, and would fail.
    """
    limits = search.at_most
    if not limits:
        return
    from optuna import TrialPruned

    from graftlab.planning import forecast

    made = forecast.plan(runfile.resolve(document))
    known = {"trainable": made["parameters"]["trainable"], "memory": made["memory"]["peak"]}
    for name, most in limits.items():
        if known[name] > most:
            trial.set_user_attr(BROKEN, name)
            trial.set_user_attr(storage.CAUSE, f"{name} would be {known[name]:g}")
            raise TrialPruned


def broken(trials: Iterable["FrozenTrial"]) -> dict[str, int]:
    """Return how many trials each limit has ended before they trained."""
    return dict(Counter(t.user_attrs[BROKEN] for t in trials if BROKEN in t.user_attrs))


def tell(trials: Iterable["FrozenTrial"]) -> None:
    """Say how many trials each limit has ended before they trained."""
    for name, count in broken(trials).items():
        log.warning("%d trials did not train: more %s than at_most allows", count, name)
