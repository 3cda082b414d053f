"""pass@1: the chance that a program passes all tests of its problem, mean over problems.

Needs one sample or more a problem, run in the sandbox. Standard error: of the mean over problems.
"""

from graftlab.metrics import Predictions, Score, _programs

HIGHER_IS_BETTER = True
READS = "programs"


def score(predictions: Predictions) -> Score:
    """Return the unbiased estimate in 0..1; undefined where the programs were not run, or are too few."""
    return _programs.scored(predictions, 1)
