"""How `graftlab evaluate --harness` prints what the Language Model Evaluation Harness finds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftlab.terminal import say, say_json


def show(found: Mapping[str, Any], path: Path, as_json: bool) -> None:
    """Print each task's metrics; all of it is in `path`."""
    if as_json:
        say_json({**found, "path": str(path)})
        return
    for task, scores in found["results"].items():
        for name, value in scores.items():
            metric, _, rule = name.partition(",")
            error = scores.get(f"{metric}_stderr,{rule}")
            if rule and not metric.endswith("_stderr"):
                filtered = "" if rule == "none" else f" ({rule})"
                spread = f" ± {error:.4f}" if isinstance(error, float) else ""
                say(f"{task:>24}  {metric}{filtered}  {value:.4f}{spread}")
    say(f"lm-eval {found['harness']}; all of it is in {path}")
