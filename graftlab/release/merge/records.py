"""What the certificate of a merged model holds: merge.json, field by field."""

from typing import TypedDict


class Logits(TypedDict):
    """How much logits differ; None where one is not finite."""

    outputs: int
    finite: bool
    largest: float | None
    mean: float | None
    scale: float | None
    """The largest of them."""


class Score(TypedDict):
    """A metric of the adapted model, and of the merged one."""

    before: float | None
    after: float | None


class Layer(TypedDict):
    """A linear layer, and by how much its output differs: a share of the output's largest value."""

    name: str
    difference: float


class Compared(TypedDict):
    """What two models put out for the same examples."""

    logits: Logits
    kl: float | None
    """Mean Kullback-Leibler divergence of the outputs' distributions, in nats; None of a score."""
    scores: dict[str, Score]
    worst_layer: Layer | None


class Tensor(Layer):
    """A weight, and how many of its numbers are off by more than they had to be rounded."""

    off: int


class Weights(TypedDict):
    """The weights of a merged model beside what they should be."""

    tensors: int
    left_out: int
    off: int
    worst: Tensor | None


class Sample(TypedDict):
    """What examples were compared."""

    what: str
    rows: int
    notes: list[dict[str, object]]


class Certificate(TypedDict):
    """merge.json."""

    passed: bool
    problems: list[dict[str, object]]
    """Notes: what differs by more than it had to."""
    run: str
    method: str
    backbone: dict[str, object]
    """Its record in environment.json, without the notes."""
    dtype: str
    sample: Sample
    compared: Compared
    weights: Weights
    quantized: Compared | None
    """Of a backbone in few bits: beside the model as it was trained."""
    tolerance: dict[str, float]
    sha256: dict[str, str]
    versions: dict[str, str]
