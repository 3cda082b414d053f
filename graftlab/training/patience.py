"""Which evaluation was the best so far, and whether enough have come since."""

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


def _improves(
    before: float | None, now: float | None, higher_is_better: bool, least: float
) -> bool:
    if now is None:
        return False
    if before is None:
        return True
    return (now - before if higher_is_better else before - now) > least
