"""A search as what plots draw from."""

from graftlab.contracts import Searched
from graftlab.contracts.plot import Ranged
from graftlab.search.space import Range
from graftlab.search.trials import Found


def searched(found: Found) -> Searched:
    """Return the trials of a search as a record."""
    return Searched(
        tuple(one.name for one in found.objectives),
        tuple(one.higher for one in found.objectives),
        tuple(
            {
                "number": trial.number,
                "state": trial.state.name,
                "params": dict(trial.params),
                "values": list(trial.values) if trial.values else [],
                "curve": dict(trial.intermediate_values),
            }
            for trial in found.trials
            if trial.state.name in ("COMPLETE", "PRUNED", "FAIL")
        ),
        {key: _ranged(given) for key, given in found.plan.search.space.items()},
    )


def _ranged(given: Range) -> Ranged:
    known: Ranged = {"log": given.log, "step": given.step}
    if given.float is not None:
        known["float"] = given.float
    if given.int is not None:
        known["int"] = given.int
    if given.choice is not None:
        known["choice"] = given.choice
    return known
