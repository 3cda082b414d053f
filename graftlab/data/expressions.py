"""Parts of a hub data set's splits: `train[:5000]`, `test[20%:]`, `train+validation`.

The grammar is that of the library `datasets` (its ReadInstruction, documented under "Slice splits").
"""

from collections.abc import Mapping
from typing import NamedTuple

from graftlab.errors import ConfigError, unknown

SLICE = r"\w+(\.\w+)*(\[(-?\d+%?)?:(-?\d+%?)?\])?(\((closest|pct1_dropremainder)\))?"
PATTERN = rf"^\s*{SLICE}(\s*\+\s*{SLICE})*\s*$"


class Part(NamedTuple):
    """Rows `start` to `stop` (without it) of a split."""

    split: str
    start: int
    stop: int


def parts(expression: str, sizes: Mapping[str, int], key: str) -> list[Part]:
    """Return what an expression names of splits with these sizes, in its order.

    Raises:
        ConfigError: it names a split that is not there, or nothing at all.
    """
    from datasets import ReadInstruction

    try:
        instruction = ReadInstruction.from_spec(expression.strip())
        found = [Part(x.splitname, x.from_, x.to) for x in instruction.to_absolute(sizes)]
    except ValueError as error:
        named = [text.strip().partition("[")[0] for text in expression.split("+")]
        if absent := [name for name in named if name not in sizes]:
            raise ConfigError(f"{key}: " + unknown("split", absent[0], sizes)) from None
        raise ConfigError(f"{key} {expression!r}: {error}.") from None
    found = [part for part in found if part.start < part.stop]
    if not found:
        held = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise ConfigError(f"{key} {expression!r} names no row: {held}.")
    return found


def refuse_overlap(named: Mapping[str, tuple[str, list[Part]]]) -> None:
    """Stop where two of our splits, each with its expression and parts, share rows of the data set.

    Raises:
        ConfigError: they do; the message says how to hold rows out.
    """
    ours = list(named.items())
    for number, (first, (expression, parts_of_first)) in enumerate(ours):
        for second, (other, parts_of_second) in ours[number:]:
            pairs = (
                (a, b)
                for i, a in enumerate(parts_of_first)
                for j, b in enumerate(parts_of_second)
                if first != second or i < j
            )
            for a, b in pairs:
                start, stop = max(a.start, b.start), min(a.stop, b.stop)
                if a.split == b.split and start < stop:
                    raise ConfigError(
                        f"task.hub.{first} ({expression}) and task.hub.{second} ({other}) share rows "
                        f"{start} to {stop - 1} of {a.split}. Name parts that do not meet, such as "
                        f"{a.split}[:{start or stop}] and {a.split}[{start or stop}:]."
                    )
