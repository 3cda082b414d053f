"""pass@10: the chance that one of 10 programs passes all tests of its problem, mean over problems.

Needs 10 or more samples a problem, run in the sandbox. Standard error: of the mean over problems.
"""

from graftlab.metrics import Predictions, Score, _programs

HIGHER_IS_BETTER = True
READS = "programs"


def score(predictions: Predictions) -> Score:
    """Return the unbiased estimate in 0..1; undefined where the programs were not run, or are too few."""
    return _programs.scored(predictions, 10)
