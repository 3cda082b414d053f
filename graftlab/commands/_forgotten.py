"""What `evaluate --forgetting` measures and says."""

from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.terminal import say, say_json

if TYPE_CHECKING:
    from graftlab.rundir.records import Forgotten


def show(run: Path, word: str, others: bool, as_json: bool) -> None:
    """Measure what a run has forgotten of what one word asks, and print it.

    Raises:
        ConfigError: `others`, options that this one does not go with, are given; or there is no such thing.
    """
    from graftlab.errors import Argument, ConfigError, Place
    from graftlab.inference import forgetting as measuring
    from graftlab.runs import forgetting

    if others:
        said = "it asks the run and its base alike, and goes with no other option but --json."
        place = Place(argument=Argument("forgetting", word))
        raise ConfigError(said, place=place, kind="conflict")
    found = measuring.measure(run, forgetting.of_word(word), quiet=False)
    if as_json:
        say_json({key: found[key] for key in found if key not in ("units", "key", "adapter")})  # type: ignore[literal-required]
        return
    say(_text(found))


def _text(found: "Forgotten") -> str:
    import numpy as np

    from graftlab.statistics import components

    units = np.array(found["units"])
    estimate = components.of_examples(units, np.zeros(len(units)))
    ends = estimate._replace(value=found["forgotten"]).interval()
    said = (
        f" ({ends[0]:+.4f} to {ends[1]:+.4f} for other examples of their kind, 95 %)"
        if ends
        else ""
    )
    return (
        f"{found['measure']} on {found['name']}, {found['examples']} examples: base {found['base']:.4f}, "
        f"adapted {found['adapted']:.4f}; forgotten {found['forgotten']:+.4f}{said}."
    )
