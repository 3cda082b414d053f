"""Which folder each run of a study has, whatever it is called: a run is known by its resolved config."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from graftlab import config
from graftlab.errors import CheckpointError, ConfigError
from graftlab.rundir.run import Run
from graftlab.runs import found_labels
from graftlab.runs import place as where_runs_go
from graftlab.runs.identity import HARMLESS
from graftlab.study.design import Planned
from graftlab.study.labels import Cell

log = logging.getLogger("graftlab")


class Folders:
    """The folders of a study's runs."""

    def __init__(self, above: Path) -> None:
        self.above = above
        """The folder that all of them are in."""
        self._there: dict[str, Path] = {}
        self._taken: set[Path] = set()
        self._identities: dict[tuple[str, Cell], str] = {}

    def look(self) -> None:
        """See which runs are there already."""
        self._there = _there(self.above)

    def identity(self, planned: Planned) -> str:
        """Return what a run computes, as text."""
        known = planned.name, planned.cell
        if known not in self._identities:
            self._identities[known] = identity(planned.file.resolved)
        return self._identities[known]

    def of(self, planned: Planned, again: bool = False) -> Path | None:
        """Return the folder of a run; None where it has not begun.

        Look `again` where another process may have begun it.
        """
        own = self.identity(planned)
        if again and own not in self._there:
            self._there |= _there(self.above, f"{planned.name}*")
        return self._there.get(own)

    def free(self, name: str) -> Path:
        """Return a folder where nothing of worth is: another config may have been run under the name."""
        path, number = self.above / name, 1
        while path in self._taken or not where_runs_go.is_free(Run(path)):
            number += 1
            path = self.above / f"{name}-{number}"
        self._taken.add(path)
        return path


def _there(folder: Path, named: str = "*") -> dict[str, Path]:
    """Return the runs that a folder holds, by what they compute."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob(f"{named}/config.yaml")):
        try:
            Run(path.parent).check(path.name)
            own = identity(found_labels.without(config.read_yaml(path), Run(path.parent)))
        except (CheckpointError, ConfigError) as error:
            log.warning("a run is left aside: %s", error)
            continue
        known = found.get(own)
        if known is None or not Run(known).finished:
            found[own] = path.parent
    return found


def identity(resolved: dict[str, Any], without: Iterable[str] = HARMLESS) -> str:
    """Return a resolved config as text, without what changes no result."""
    kept = dict(resolved)
    for key in without:
        section, _, inner = key.partition(".")
        if not inner:
            kept.pop(section, None)
        elif section in kept:
            kept[section] = {k: v for k, v in kept[section].items() if k != inner}
    return config.dump(kept)
