"""`vary`: keys of a run file with the values that a study tries, for all methods or for one."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import Field, ValidationError, field_validator

from graftlab import config
from graftlab.config import Conflict, Document, Parsed, Problems, Section
from graftlab.config.parser import Location
from graftlab.errors import Place, unknown
from graftlab.runfile import Root
from graftlab.study import labels
from graftlab.study.labels import NAMED_BY

STUDYS_OWN = ("extends", "name", "paths", "seed", "tracking")
"""Keys of a run file that cannot vary: the study gives them, or they are not about what is computed."""
LISTED = {f"{section}.{name}": f"{section}s" for section, name in NAMED_BY.items()}
"""Keys that the entries of a study's lists say, and the lists."""
Vary = dict[str, tuple[Any, ...]]
"""A run file's key, such as `training.learning_rate`, and its values."""
OF_RANGES = ("float", "int", "choice")
"""What a field of a search's space is told by."""
DIGITS = 4  # of the values of a grid: what is read and written stays the same number


class Grid(Section):
    """Values that lie evenly on a scale of powers, around one of them."""

    centre: float = Field(gt=0)
    """The value in the middle."""
    decades: float = Field(2, gt=0)
    """Powers of ten from the smallest to the largest."""
    per_decade: int = Field(4, ge=1)
    """Values for each of them; four, as in *Learning Rate Matters* (arXiv 2602.04998)."""

    @property
    def values(self) -> tuple[float, ...]:
        steps = round(self.decades * self.per_decade)
        powers = ((step - steps / 2) / self.per_decade for step in range(steps + 1))
        return tuple(rounded(self.centre * 10**power) for power in powers)


def rounded(value: float) -> float:
    """Return a value of a grid with as many digits as are written."""
    return float(f"{value:.{DIGITS}g}")


def spelled_out(vary: Any) -> Any:
    """Return `vary` with the values of its grids in their place. `Raises:` ValueError."""
    if not isinstance(vary, Mapping):
        return vary
    return {key: _values(key, given) for key, given in vary.items()}


def _values(key: str, given: Any) -> Any:
    if isinstance(given, list):
        return tuple(given)
    if not isinstance(given, Mapping):
        return given
    if inner := next((name for name, value in given.items() if _is_values(value)), None):
        ranged = inner in OF_RANGES
        hint = "a range is for tune" if ranged else f"write {key}.{inner}: [...]"
        said = f"{key}: a list of values is wanted, or the centre of a grid; {hint}"
        raise Conflict(key, said, kind="not_allowed")
    try:
        return Grid.model_validate(given).values
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        known = ", ".join(Grid.model_fields)
        said = f"{key}: {at}: {first['msg']}. A grid has {known}; other values are a list"
        raise Conflict(key, said, kind="not_allowed") from None


def _is_values(given: Any) -> bool:
    return isinstance(given, list | tuple | Mapping)


class Own(Section):
    """What an entry of `methods` has of its own beside a piece of a run file."""

    vary: Vary = Field(default_factory=dict)
    """As the study's `vary`, for this method alone; it takes the place of the study's values of a key."""

    tune: dict[str, Any] = Field(default_factory=dict)
    """A space of this method's own, over that of the study's `tune`: a key and what it may take."""

    _spelled_out = field_validator("vary", mode="before")(spelled_out)


def check(vary: Vary, at: Location, document: Document, problems: Problems) -> None:
    """Note keys that no run file has and values that stand twice."""
    known = [key for key in Root.model_fields if key not in STUDYS_OWN]
    said = ".".join(map(str, at))
    for key, values in vary.items():
        place = document.place(*at, key)
        section = key.partition(".")[0]
        if named := LISTED.get(key):
            text = f"{said}.{key}: the rows of a study are called by it."
            remedy = (f"Write {named}: [...].",)
            problems.say(place, text, kind="not_allowed", given=key, remedies=(remedy,))
        elif section not in known:
            problems.say(place, f"{said}: {unknown('section', section, known)} {_whole_key(key)}")
        if not values or len({*map(repr, values)}) < len(values):
            problems.say(place, f"{said}.{key}: give one value or more, each once.")
        elif len({labels.shown(value) for value in values}) < len(values):
            alike = ", ".join(labels.shown(value) for value in values)
            problems.say(
                place,
                f"{said}.{key}: tables and folders show two of the values alike ({alike}), and their runs "
                f"would be taken for one. Leave one out, or let them differ in the first six digits.",
            )


def _whole_key(key: str) -> str:
    """Return a hint for a key whose section was left out."""
    from graftlab.training.config import Config

    hint = f"Write training.{key}." if key in Config.model_fields else ""
    return hint or "A whole key is wanted, as in training.learning_rate."


def settings(vary: Vary, place_of: Callable[[str], Place]) -> Iterator[Parsed]:
    """Yield what each combination lays over a run file; one that is empty where nothing varies."""
    for values in itertools.product(*vary.values()):
        laid = Parsed({}, {})
        for dotted, value in zip(vary, values, strict=True):
            laid = with_value(laid, dotted, value, place_of(dotted))
        yield laid


def with_value(laid: Parsed, dotted: str, value: Any, place: Place) -> Parsed:
    """Return values with one more, at its whole key."""
    keys = tuple(dotted.split("."))
    for key in reversed(keys):
        value = {key: value}
    places: dict[Location, Place] = {keys[:n]: place for n in range(1, len(keys) + 1)}
    return Parsed(config.merge(laid.values, value), {**laid.places, **places})
