"""What a plot is, and the records that plots draw from."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypedDict

from graftlab.rundir.records import Json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from graftlab.contracts.arrays import Floats, Integers


# Shapes: L layers, B rows: the scores, then their bootstrap samples; C components, N examples.

Number: TypeAlias = float  # the names of a range's keys hide these two inside it
Whole: TypeAlias = int

COMPARISON, RUN, SELECTION, SEARCH = "comparison", "run", "selection", "search"
CONTROLS = "controls"
MIXED = "score"  # among the scores of a selection


class Plot(Protocol):
    """A module of `graftlab.plots`: the name of the file that it draws is its own.

    The first line of its docstring says how it is read; a page puts it below the figure.
    """

    DRAWS_FROM: str
    """`comparison` (`data` is given a `Compared`), `run` (the path of a run directory), `selection` (a
    `Selected`), `search` (a `Searched`), `controls` (a list of `ControlRow`), or the name of an analysis (a
    list of its rows)."""
    TITLE: str
    """What stands above the figure, before what it was drawn of."""
    NAME: str | None = None
    """What its files are called; its own name unless given."""

    @abstractmethod
    def data(self, source: Any) -> Any:
        """Return a NamedTuple of arrays: all that is drawn; None where there is nothing to draw."""
        ...

    @abstractmethod
    def draw(self, data: Any) -> "Figure":
        """Return the figure of what `data` has returned; nothing is decided here."""
        ...


class Compared(NamedTuple):
    """The rows of a comparison that are of one task and backbone, the best first."""

    metric: str
    """The metric that ranks them; `loss` where none is known."""
    runs: Mapping[str, Sequence[Path]]
    """The run directories of each row, one a seed, by what the row is called."""
    rows: Sequence[Mapping[str, Any]]
    """The rows as comparison.json has them, in the same order."""


class ControlRow(TypedDict):
    """One score of a model that is asked in one way, beside that of the way that it was trained for."""

    task_type: str
    """`all`, or that of the examples."""
    examples: int
    sources: int
    """Texts that the examples are about."""
    control: str
    """How the model is asked: as it was trained to be, or otherwise."""
    metric: str
    value: float | None
    difference: float | None
    """From the value of the way that it was trained for."""
    low: float | None
    """Ends of the difference's 95 % interval over examples."""
    high: float | None
    reason: str | None
    """Why the value, or else the interval, is None."""


class Selected(NamedTuple):
    """What a selection has found out about the layers of a large model."""

    layers: "Integers"  # (L,)
    chosen: int
    scores: "Mapping[str, Floats]"  # (B, L)
    """NaN where undefined. The mixed one, depth taken into account, comes first: `MIXED`."""
    counting: tuple[str, ...]
    """Scores that are part of the mix."""
    correlations: "Floats"  # (L, C)
    """Of each principal component with the label; NaN where there are fewer."""
    planes: "Mapping[int, Floats]"  # (N, 2)
    """Layer -> the examples on its first two components; without layers where these are undefined."""
    labels: "Integers"  # (N,)
    classes: tuple[str, ...]


class Trial(TypedDict):
    """One trial of a search."""

    number: int
    state: str
    """COMPLETE, PRUNED or FAIL."""
    params: dict[str, Json]
    """By field; choices that are no plain values as JSON."""
    values: list[float]
    """A value an objective; none where it did not end by itself."""
    curve: dict[int, float]
    """The first objective on validation, by step."""


class Ranged(TypedDict, total=False):
    """What a field may take, as a search file has it: one of the first three."""

    float: tuple[Number, Number]
    int: tuple[Whole, Whole]
    choice: tuple[Json, ...]
    log: bool
    step: Number | None


class Searched(NamedTuple):
    """A search as it stands."""

    objectives: tuple[str, ...]
    higher: tuple[bool, ...]
    """Whether more of each is better."""
    trials: tuple[Trial, ...]
    space: Mapping[str, Ranged]
    """Each field's range, as the search file has it."""
