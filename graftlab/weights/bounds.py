"""How many modules a model may have: what a config.json can ask for and nobody can build."""

import re
from collections.abc import Mapping

from graftlab.errors import ModelError, Place

COUNTED = re.compile(
    r"(^|_)(n|num|number)_.*(layer|block|expert)s?(_|$)|^n_?layers?$|layers$|^depths?$"
)
"""Keys of config.json that say how many modules are built."""
MOST_PARTS = 4096  # the largest so far: 2,048 experts (Switch-C), 1,000 layers (DeepNet)


def refuse(where: str, config: Mapping[str, object]) -> None:
    """Refuse a model with more layers, blocks or experts than any has: building it would take days.

    Raises:
        ModelError: it says so.
    """
    for key, value in config.items():
        if isinstance(value, Mapping):
            refuse(where, value)
        sizes = value if isinstance(value, list) else [value]
        large = [n for n in sizes if isinstance(n, int | float) and n > MOST_PARTS]
        if large and COUNTED.search(key):
            said = f"{key} is {large[0]}: no model has more than {MOST_PARTS} of them."
            raise ModelError(said, kind="not_allowed", place=Place(where), given=large[0])
