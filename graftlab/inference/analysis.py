"""Analyses of a finished run, carried out: their tables, and the plots that draw from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftlab import analyses, plots, registry
from graftlab.contracts.plot import RUN
from graftlab.errors import ConfigError, unknown
from graftlab.inference.adapted import Adapted
from graftlab.inference.changes import RunSubject

FOLDER = "analysis"  # in the run's own, unless another is named


@dataclass(frozen=True)
class Table:
    """What an analysis has found."""

    name: str
    rows: Sequence[Any]
    """The lines, NamedTuples of the analysis's `Row`."""
    files: Sequence[Path]
    """The table as CSV and Parquet, then the figures."""

    def as_json(self) -> dict[str, object]:
        return {
            "rows": [row._asdict() for row in self.rows],
            "files": [str(path) for path in self.files],
        }


def check(kinds: Sequence[str]) -> None:
    """Refuse an analysis that there is not. `Raises:` ConfigError."""
    for kind in kinds:
        if kind not in registry.names("analyses"):
            raise ConfigError(f"{unknown('analysis', kind, registry.names('analyses'))}")


def carry_out(
    adapted: Adapted, kinds: Sequence[str] = (), out: Path | None = None
) -> tuple[list[Table], list[Path]]:
    """Return the tables of some analyses, all unless named, and the figures of the run itself.

    Everything is written into `out`, a folder in the run's own unless given.

    Raises:
        ConfigError: there is no such analysis, or the run does not have what it asks for.
    """
    check(kinds)
    subject, folder = RunSubject(adapted), out or adapted.run.path / FOLDER
    found = {}
    for name in kinds or registry.names("analyses"):
        analysis = registry.find("analyses", name)
        found[name] = (analysis.Row, list(analysis.rows(subject)))
    folder.mkdir(parents=True, exist_ok=True)
    tables = []
    for name, (row, rows) in found.items():
        written = analyses.write(rows, row, folder, name)
        drawn = registry.having("plots", "DRAWS_FROM", name)
        figures = plots.draw(drawn, rows, subject.name, folder)
        tables.append(Table(name, rows, [*written, *figures]))
    of_run = registry.having("plots", "DRAWS_FROM", RUN)
    return tables, plots.draw(of_run, adapted.run.path, subject.name, folder)
