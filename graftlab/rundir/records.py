"""What the JSON files of a run directory hold, field by field."""

from collections.abc import Mapping
from typing import Literal, NotRequired, TypedDict

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
"""What a JSON file holds, where nothing finer is known of it."""


class ScoreRecord(TypedDict):
    """A metric's value, as predictions of a split have it; of the loss the value alone."""

    value: float | None
    standard_error: NotRequired[float | None]
    reason: NotRequired[str | None]
    details: NotRequired[Mapping[str, object] | None]


class ClassFigures(TypedDict):
    """One class of a split; a share of nothing is None."""

    name: str
    examples: int
    predicted: int
    """How many are predicted to be of the class."""
    precision: float | None
    recall: float | None
    f1: float | None


class Averages(TypedDict):
    """Means over the classes that occur."""

    precision: float
    recall: float
    f1: float


class CalibrationBin(TypedDict):
    """Examples whose confidence lies within a fifteenth of 0 to 1."""

    above: float
    """Where the bin begins."""
    examples: int
    confidence: float
    accuracy: float


class Calibration(TypedDict):
    """How well probabilities foretell how often they are right."""

    expected_error: float
    bins: list[CalibrationBin]


class ClassReport(TypedDict):
    """Predictions of a split by class."""

    task: NotRequired[str]
    """Of a mixture: which one."""
    examples: int
    confusion: list[list[int]]
    """Cells that are not empty: class, what was predicted, how many."""
    classes: list[ClassFigures]
    macro: Averages
    weighted: Averages
    """By the examples of each class."""
    calibration: Calibration


class Parameters(TypedDict):
    """How many numbers train, and how many there are."""

    trainable: int
    total: int


class Seconds(TypedDict):
    """How long a run took."""

    training: float
    """All steps, over all sessions."""
    this_session: NotRequired[float]
    """From the start of the process that has finished the run."""


class Outcome(TypedDict):
    """What is known of a run whose training is over."""

    name: str
    task: str
    method: str
    backbone: str
    seed: int
    processes: int
    steps: int
    ended_early: bool
    selected_step: int
    selected_by: str | None
    """A metric; None where the last step counts."""
    parameters: Parameters
    skipped_steps: int
    facts: dict[str, object]
    """What the hooks have to say, by name."""
    exact: bool
    not_exact: list[dict[str, object]]
    """Notes: why a run from its file would not give the same bytes."""
    not_deterministic: list[str]
    seconds: Seconds


class Last(TypedDict):
    """The model after the last step, where the best checkpoint is another and is what counts."""

    step: int
    metrics: dict[str, dict[str, ScoreRecord]]
    """By split, then by name."""


class Costs(TypedDict):
    """What an adapter costs; times of runs that shared their machine say nothing."""

    adapter_bytes: int
    training_flops: float
    """Of all steps: matrix products of the passes forward and back, from the first step's examples."""
    inference_seconds: float
    """A forward pass over 1,000 examples, the adapter beside its backbone."""
    merged_inference_seconds: float | None
    """The same, merged; None where the method cannot be."""


class Forgotten(TypedDict):
    """evaluation/forgetting-NAME.json: an adapted model beside its base on what it was not trained on."""

    name: str
    """What both were asked."""
    measure: Literal["loss", "accuracy"]
    """The mean loss of a token, or of what a probe on frozen features learns to tell apart."""
    base: float
    adapted: float
    forgotten: float
    """By how much the loss has risen, or the accuracy has fallen."""
    examples: int
    units: list[float]
    """(G,) by groups of the examples, of equal weight: what stands for `forgotten` (the jackknife)."""
    key: str
    """A hash of all that the base's answers depend on: equal where two runs were asked the same."""
    adapter: dict[str, str]
    """Hashes of the adapter's files."""


class Compared(TypedDict, total=False):
    """What a run of a study has beside its scores."""

    last: Last
    """Where the best checkpoint is not the last step."""
    costs: Costs
    """On one process."""


class Result(Outcome, Compared):
    """result.json: all that is known of a finished run."""

    peak_memory_bytes: int | None
    """The largest of its processes; None where it is not known."""
    data: dict[str, int]
    """Examples by split."""
    metrics: dict[str, dict[str, ScoreRecord]]
    """By split, then by name."""
    classes: NotRequired[dict[str, list[ClassReport]]]
    """By split, where there are classes; of a mixture one a task."""
    notes: NotRequired[list[dict[str, object]]]
    """What a reader of the scores has to know."""
