"""What a row's runs have forgotten, put together over its seeds."""

import math
import statistics
from pathlib import Path

import numpy as np

from graftlab.errors import CheckpointError
from graftlab.rundir.records import Forgotten
from graftlab.rundir.run import Run
from graftlab.runs import forgetting
from graftlab.statistics import components
from graftlab.statistics.estimates import Estimate
from graftlab.study.findings import Forgetting
from graftlab.study.records import Row


def of_row(row: Row, folder: Path, name: str) -> Forgetting | None:
    """Return what the runs of a row in `folder` have forgotten of what they were asked under a name; None
    where one of those with a score was not asked, or was asked something else than the others."""
    found: dict[int, Forgotten] = {}
    for seed, value in row.score.values.items():
        try:
            known = forgetting.of_run(Run(folder / row.runs[seed]), name)
        except CheckpointError:
            known = None
        if known is not None:
            found[seed] = known
        elif value is not None:
            return None
    if not found or len({(one["key"], len(one["units"])) for one in found.values()}) > 1:
        return None
    values = {seed: one["forgotten"] for seed, one in found.items()}
    mean, first = math.fsum(values.values()) / len(values), next(iter(found.values()))
    ends = _estimate([*found.values()])._replace(value=mean).interval()
    return Forgetting(
        on=name,
        measure=first["measure"],
        base=first["base"],
        mean=mean,
        deviation=statistics.stdev(values.values()) if len(values) > 1 else None,
        values=values,
        low=ends[0] if ends else None,
        high=ends[1] if ends else None,
        examples=first["examples"],
    )


def _estimate(found: list[Forgotten]) -> Estimate:
    """Return the mean over seeds and groups of examples with its variance: both are samples."""
    gap_SG = np.array([one["units"] for one in found])
    none_SG = np.zeros_like(gap_SG)
    if len(gap_SG) < 2:
        return components.of_examples(gap_SG[0], none_SG[0])
    return components.paired(gap_SG, none_SG)
