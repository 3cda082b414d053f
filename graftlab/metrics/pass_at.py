"""pass@k: the chance that one of k programs passes all tests of its problem, mean over problems.

The unbiased estimator 1 - C(n - c, k) / C(n, k), for c of the n programs written that passed (Chen et al.,
Evaluating Large Language Models Trained on Code, 2021, eq. 1). They are run in the sandbox. Standard error:
of the mean over problems.
"""

import math
from fractions import Fraction

from pydantic import Field

from graftlab.config import Section
from graftlab.metrics import Predictions, Score, pairs
from graftlab.metrics._means import mean

HIGHER_IS_BETTER = True
READS = "programs"
NOT_RUN = (
    "the programs were not run: that has to be asked for, task.execute_code or "
    "`graftlab evaluate RUN --execute-code`"
)


class Config(Section):
    """Settings of pass@k."""

    k: int = Field(1, ge=1)
    """Programs of which one has to pass; `task.generation.samples` writes at least as many to a problem."""


def pass_at(k: int, num_samples: int, num_passed: int) -> float:
    """Return the estimate for one problem, exact but for the last rounding; k is at most num_samples."""
    missed = Fraction(math.comb(num_samples - num_passed, k), math.comb(num_samples, k))
    return float(1 - missed)


def score(predictions: Predictions, config: Config) -> Score:
    """Return the mean of the estimates in 0..1; undefined with fewer than k programs, or none run."""
    pairs(predictions)
    if not predictions:
        return Score(None, None, "no examples")
    passed: list[list[bool]] = [row["passed"] for row in predictions if row.get("passed")]
    if missing := len(predictions) - len(passed):
        return Score(None, None, f"{NOT_RUN} ({missing} of {len(predictions)} examples)")
    k, fewest = config.k, min(map(len, passed))
    if fewest < k:
        reason = f"pass@{k} needs {k} programs a problem, and there are {fewest}: task.generation.samples"
        return Score(None, None, reason)
    return mean([pass_at(k, len(one), sum(one)) for one in passed])
