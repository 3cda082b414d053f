"""Runs that only their seed tells apart: repetitions of one configuration."""

import re
from collections.abc import Sequence

from graftlab import config
from graftlab.explanation.targets import Model
from graftlab.rundir import provenance
from graftlab.rundir.run import Run
from graftlab.runs import identity

SEEDS = ("seed", "task.split_seed")


def configurations(models: Sequence[Model]) -> dict[str, str]:
    """Return of each model what its configuration is called: the models of one are its repetitions.

    Runs of this project are told by their config.yaml. Any other model is a configuration of its own.
    """
    groups: list[tuple[dict[str, object], list[str]]] = []
    found: dict[str, str] = {model.name: model.name for model in models}
    for model in models:
        if model.run is None:
            continue
        given = config.read_yaml(Run(model.run).config)
        alike = next((names for first, names in groups if _alike(first, given)), None)
        if alike is None:
            groups.append((given, [model.name]))
        else:
            alike.append(model.name)
    for _, names in groups:
        called = without_seed(names[0])
        others = {name for name in found if name not in names} | set(found.values()) - set(names)
        if len(names) > 1:
            found |= dict.fromkeys(names, names[0] if called in others else called)
    return found


def _alike(one: dict[str, object], other: dict[str, object]) -> bool:
    """Say whether two configs differ in their seed, that of their splits, and in what changes nothing."""
    changed = [change.key for change in provenance.differences(one, other)]
    return all(key in SEEDS or identity.is_harmless(key) for key in changed)


def without_seed(name: str) -> str:
    """Return a run's name without the seed at its end: `lora-seed0` is `lora`."""
    return re.sub(r"[-_. ]?seed[-_=]?\d+$", "", name) or name
