"""Which evaluation was the best so far, whether enough have come since, and whether time is up."""

from collections.abc import Callable

from graftlab.training.config import EarlyStopping
from graftlab.training.state import Position


def is_best(
    position: Position, value: float | None, higher_is_better: bool, config: EarlyStopping
) -> bool:
    """Take an evaluation's value into the position, which may end the run; return whether it is the best.

    A value that is undefined improves on nothing.
    """
    if _improves(position.best_value, value, higher_is_better, config.min_improvement):
        position.best_step, position.best_value, position.waited = position.step, value, 0
        return True
    position.waited += 1
    position.ended = position.ended or 0 < config.patience <= position.waited
    return False


def is_out_of_time(
    position: Position, seconds: float, limit: float, agree: Callable[[bool], bool]
) -> bool:
    """Take a step's seconds into the position; return whether its steps have had as many as there are.

    Without a `limit` (0) nothing is counted. `agree` makes one decision of those of all processes.
    """
    if not limit:
        return False
    position.seconds += seconds
    position.out_of_time = agree(position.seconds >= limit)
    return position.out_of_time


def _improves(
    before: float | None, now: float | None, higher_is_better: bool, least: float
) -> bool:
    if now is None:
        return False
    if before is None:
        return True
    return (now - before if higher_is_better else before - now) > least
