"""The model after the last step, where the best checkpoint is another: a comparison shows both."""

from collections.abc import Sequence

from graftlab.rundir.records import Last
from graftlab.rundir.run import Run
from graftlab.runs.evaluator import Evaluator
from graftlab.training.loop import Loop


def is_replaced(loop: Loop) -> bool:
    """Say whether the best checkpoint is asked for, and is not the last."""
    position = loop.position
    return loop.config.select == "best" and position.best_step not in (0, position.step)


def score(evaluator: Evaluator, loop: Loop, run: Run, splits: Sequence[str]) -> Last:
    """Write the predictions of the model as it is after the last step, and return their scores."""
    metrics = {
        split: evaluator.record(loop.model, split, run.last_predictions(split))
        for split in splits
        if loop.parts.task.size(split)
    }
    return {"step": loop.position.step, "metrics": metrics}
