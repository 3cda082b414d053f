"""What an error says, by fields: `pytest.raises(ModelError, check=fault("damaged"))`."""

from collections.abc import Callable
from typing import Any


def fault(kind: str | None = None, key: str | None = None, **fields: Any) -> Callable[[Any], bool]:
    """Return whether one of an error's problems is of this kind, about this key and with these fields."""

    def check(error: Any) -> bool:
        return any(
            kind in (None, problem.kind)
            and (key is None or ".".join(map(str, problem.place.key)) == key)
            and all(getattr(problem, name) == value for name, value in fields.items())
            for problem in error.problems
        )

    return check


def conflict(key: str) -> Callable[[Any], bool]:
    """Return whether a section's error is that of a key: alone, or one of several that do not go together."""

    def check(error: Any) -> bool:
        [found] = error.errors()
        raised = found.get("ctx", {}).get("error")
        return key == getattr(raised, "key", ".".join(map(str, found["loc"])))

    return check
