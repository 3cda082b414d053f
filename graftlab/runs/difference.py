"""What differs between two runs: config, data, versions, and scores with the paired difference."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from graftlab.config import read_yaml
from graftlab.errors import DataError
from graftlab.rundir import provenance
from graftlab.rundir.provenance import Difference
from graftlab.rundir.records import Result
from graftlab.rundir.run import Run
from graftlab.runs import paired, prediction, summary
from graftlab.runs.identity import ENVIRONMENT
from graftlab.runs.paired import Gap, Pair

NO_MATTER = ("name", "paths", "tracking")
"""Sections of config.yaml that say nothing about what is computed."""
DATA = ("fingerprint", "sizes", "labels", "problem")
"""What of a run's data is compared."""


@dataclass(frozen=True)
class Differences:
    """What two runs do not share."""

    first: Path
    second: Path
    config: list[Difference]
    data: list[Difference]
    versions: list[Difference]
    """Packages, commits, device, threads."""
    scores: list[Gap]

    def as_json(self) -> dict[str, object]:
        return {
            "first": str(self.first),
            "second": str(self.second),
            **{
                part: [changed._asdict() for changed in getattr(self, part)]
                for part in ("config", "data", "versions", "scores")
            },
            "interval": paired.INTERVAL,
        }


def between(first: Path, second: Path) -> Differences:
    """Return what differs between two runs; scores are those that both have.

    Raises:
        ConfigError: one of them is no run.
        CheckpointError: what one has recorded cannot be read.
    """
    runs = [summary.started(path) for path in (first, second)]
    configs = [
        {key: value for key, value in read_yaml(run.config).items() if key not in NO_MATTER}
        for run in runs
    ]
    one, two = (run.read_environment() if run.environment.is_file() else {} for run in runs)
    versions = [
        changed
        for key in ENVIRONMENT
        for changed in provenance.differences({key: one.get(key)}, {key: two.get(key)})
    ]
    data = [{key: e.get("data", {}).get(key) for key in DATA} for e in (one, two)]
    return Differences(
        first,
        second,
        provenance.differences(configs[0], configs[1]),
        provenance.differences(data[0], data[1]),
        versions,
        list(_gaps(runs[0], runs[1])),
    )


def _gaps(first: Run, second: Run) -> Iterator[Gap]:
    if not (first.finished and second.finished):
        return
    one, two = (run.read_result() for run in (first, second))
    for split in (split for split in ("test", "validation") if split in one["metrics"]):
        if split not in two["metrics"]:
            continue
        pair = _pair(first, second, split)
        for metric in one["metrics"][split]:
            if metric in two["metrics"][split]:
                yield paired.gap(
                    split, metric, (_score(one, split, metric), _score(two, split, metric)), pair
                )


def _score(result: Result, split: str, metric: str) -> float | None:
    return result["metrics"][split][metric]["value"]


def _pair(first: Run, second: Run, split: str) -> Pair | str:
    """Return the predictions of both, or why they cannot be paired."""
    for run in (first, second):
        run.check_if_listed(run.predictions(split))
    try:
        one, two = (prediction.read(run.predictions(split)) for run in (first, second))
    except DataError as error:
        return str(error)
    return paired.unlike(one, two) or (one, two)
