"""A run at a glance, finished or not: its config, its last figures and its result."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftlab.config import read_yaml
from graftlab.errors import ConfigError, nearest
from graftlab.rundir.records import Result
from graftlab.rundir.run import Run

TAIL = 5  # lines of metrics.jsonl


@dataclass(frozen=True)
class Summary:
    """What a run directory holds."""

    run: Run
    config: dict[str, Any]
    """The resolved run file."""
    metrics: list[dict[str, Any]]
    """The last lines of metrics.jsonl."""
    result: Result | None
    """None of a run that is not finished."""

    def as_json(self) -> dict[str, Any]:
        return {
            "run": str(self.run.path),
            "finished": self.result is not None,
            "config": self.config,
            "metrics": self.metrics,
            "result": self.result,
        }


def summary(path: Path) -> Summary:
    """Return a run at a glance.

    Raises:
        ConfigError: this is no run.
    """
    run = Run(path)
    if not run.started:
        known = (folder.parent.name for folder in path.parent.glob("*/config.yaml"))
        close = nearest(path.name, known)
        hint = f" Did you mean {close!r}?" if close else ""
        raise ConfigError(
            f"{path} is no run directory: it has no config.yaml.{hint} "
            f"All in a folder: `graftlab list runs --runs DIR`."
        )
    result = run.read_result() if run.finished else None
    return Summary(run, read_yaml(run.config), run.read_metrics()[-TAIL:], result)
