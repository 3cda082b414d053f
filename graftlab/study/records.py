"""What a comparison is made of: runs as they stand, rows with their summaries, and the whole."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftlab.errors import CheckpointError
from graftlab.rundir.records import Result
from graftlab.rundir.run import Run
from graftlab.study.design import Planned
from graftlab.study.findings import Difference, Forgetting, Tuning

SHARED = "shared"
"""The file that marks a run beside which others went on."""


@dataclass(frozen=True)
class Done:
    """A run of the study as it stands now."""

    planned: Planned
    folder: Path
    cause: str | None = None
    """Why it is not finished, if it is not."""

    @classmethod
    def of(cls, planned: Planned, folder: Path, cause: str | None = None) -> "Done":
        """Return a run with the damage to its files, if there is some, as the cause why it does not count."""
        run = Run(folder)
        try:
            run.check()
            if run.finished:
                found = run.read_result()
                run.read_environment()
                _ = found["metrics"], found["parameters"], found["seconds"]
        except CheckpointError as error:
            cause = f"{type(error).__name__}: {error}"
        except KeyError as error:
            cause = f"{run.result} has no {error}"
        return cls(planned, folder, cause)

    @property
    def shared(self) -> bool:
        """Whether another run went on beside it, so that its time says nothing."""
        return (self.folder / SHARED).exists()

    @property
    def result(self) -> Result | None:
        run = Run(self.folder)
        return run.read_result() if run.finished and not self.cause else None


@dataclass(frozen=True)
class Summary:
    """A metric over the seeds of a row."""

    mean: float | None
    deviation: float | None
    """Standard deviation over seeds; None for fewer than two."""
    standard_error: float | None
    """Mean over the runs of each run's own standard error: what the size of its test set leaves open."""
    values: dict[int, float | None]
    """By seed; None where the metric is not defined."""
    interquartile_mean: float | None = None
    """Of the values, without a quarter at either end."""
    collapsed: tuple[int, ...] = ()
    """Seeds far worse than the others of the row."""


@dataclass
class Row:
    """One method on one task and backbone, at one setting."""

    task: str
    backbone: str
    method: str
    setting: dict[str, str]
    metric: str | None
    higher_is_better: bool
    test: Summary
    validation: Summary
    trainable: int | None
    total: int | None
    seconds: float | None
    """Of training, the mean over the seeds; None where runs shared the machine."""
    peak_memory_bytes: int | None
    """The largest over the seeds."""
    runs: dict[int, str]
    """Folders by seed."""
    holes: dict[int, str]
    """Causes by seed."""
    ranked_by: str = "test"
    """The split whose score is reported and ranked: validation where the task has no test split."""
    label: str = ""
    """Method and setting: what differences call it."""
    place: int | None = None
    """By the mean alone, of equals the same."""
    rank: int | None = None
    """One more than the rows that are seen to be better."""
    rank_worst: int | None = None
    """The number of rows less those that are seen to be worse: from `rank` to here all is possible."""
    last: Summary | None = None
    """The score after the last step, on the split that is ranked; None where a run has not scored it."""
    adapter_bytes: int | None = None
    """Size of the adapter's files, the largest over the seeds."""
    training_flops: float | None = None
    """Floating-point operations of training, the mean over the seeds."""
    inference_seconds: float | None = None
    """For 1,000 examples, the adapter beside its backbone; None where runs shared the machine."""
    merged_inference_seconds: float | None = None
    """The same with the adapter merged; None where the method cannot merge."""
    forgetting: Forgetting | None = None
    """How much worse its runs have become at what they were not trained on; None where that is not known."""
    forgetting_holes: dict[int, str] = field(default_factory=dict)
    """Causes why a run could not be asked, by seed."""
    chosen: bool = False
    not_paired: list[str] = field(default_factory=list)

    @property
    def score(self) -> Summary:
        """The summary that is reported and ranked."""
        return self.test if self.ranked_by == "test" else self.validation


@dataclass(frozen=True)
class Comparison:
    """A study's answer."""

    name: str
    seeds: tuple[int, ...]
    chosen_by: str | None
    rows: tuple[Row, ...]
    """What is reported; ranked within each task and backbone."""
    grid: tuple[Row, ...]
    """All settings that were chosen from; empty without a choice."""
    runs: tuple[dict[str, Any], ...]
    """One record a run: what it was, how it ended, its figures."""
    differences: tuple[Difference, ...] = ()
    """Of all pairs of rows of one task and backbone, in the order of the rows."""
    tunings: tuple[Tuning, ...] = ()
    """Of each method, where a setting was chosen."""

    @property
    def holes(self) -> list[dict[str, Any]]:
        return [run for run in self.runs if run["cause"]]
