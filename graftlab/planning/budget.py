"""A budget that methods are compared at: checked on what their run files will train, before the first run."""

from collections.abc import Mapping

from graftlab import config
from graftlab.errors import ConfigError, Place
from graftlab.planning import forecast, operations
from graftlab.runfile import RunFile

COUNTED = {
    "trainable": ("method", "backbone", "task"),
    "steps": ("training", "task"),
    "flops": ("method", "backbone", "task", "training"),
    "time": ("training",),
}
"""What may be equal, and the sections of a run file that it depends on."""
SAID = {
    "trainable": "trainable parameters",
    "steps": "optimizer steps",
    "flops": "floating-point operations of training",
    "time": "seconds of training",
}
REMEDY = {
    "trainable": "Change ranks or targets, or leave out methods that cannot be of one size.",
    "steps": "Give all the same training.max_steps, or the same epochs and batch_size.",
    "flops": "Give those that have more fewer training.max_steps, or a larger share to be within.",
    "time": "Give all the same training.max_seconds.",
}


def check(files: Mapping[str, RunFile], equal: str, within: float, place: Place) -> None:
    """Refuse runs that are to be compared and whose counts are further apart than a share `within`.

    Raises:
        ConfigError: they are, with the count of each; or one is not known.
    """
    known: dict[str, float | None] = {}
    counts = {label: _count(file, equal, known) for label, file in files.items()}
    if missing := [label for label, count in counts.items() if count is None]:
        remedy = ("Give training.max_seconds.",) if equal == "time" else ()
        raise ConfigError(
            f"budget: the {SAID[equal]} of {missing[0]} are not known before it runs.",
            remedy,
            place=place,
        )
    found = {label: count for label, count in counts.items() if count is not None}
    low, high = min(found.values(), default=0), max(found.values(), default=0)
    if high > low * (1 + within):
        listed = ", ".join(f"{label} {count:,.0f}" for label, count in found.items())
        raise ConfigError(
            f"budget: {SAID[equal]} differ by {high / low - 1 if low else 1:.1%}, and {within:.1%} is "
            f"allowed: {listed}.",
            (REMEDY[equal],),
            place=place,
            kind="not_equal",
            given=found,
        )


def _count(file: RunFile, equal: str, known: dict[str, float | None]) -> float | None:
    """Return a run's count; settings on which it does not depend are looked at once."""
    sections = {name: file.resolved[name] for name in COUNTED[equal]}
    if equal == "trainable":
        told = config.dump(sections)
    else:
        training = {k: v for k, v in sections["training"].items() if k != "learning_rate"}
        told = config.dump({**sections, "training": training})
    if told not in known:
        known[told] = _counted(file, equal)
    return known[told]


def _counted(file: RunFile, equal: str) -> float | None:
    if equal == "time":
        return file.training.max_seconds or None
    if equal == "flops":
        return operations.training_flops(file)
    plan = forecast.plan(file)
    return plan["parameters"]["trainable"] if equal == "trainable" else plan["training"]["steps"]
