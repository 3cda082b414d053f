"""`graftlab evaluate --harness`: what the Language Model Evaluation Harness finds, shown and kept."""

from typing import TYPE_CHECKING

from graftlab.commands._report import print_json
from graftlab.inference import harness
from graftlab.rundir import files

if TYPE_CHECKING:
    from graftlab.inference import Adapted

LONGEST = 80  # of the tasks' names in that of the file


def ask(
    adapted: "Adapted", options: harness.Options, batch_size: int | None, as_json: bool
) -> None:
    """Print what the harness finds; all of it is kept in the run's folder `harness/`."""
    found = harness.evaluate(adapted, options, batch_size or adapted.batch_size)
    shots = f"-{options.fewshot}shot" if options.fewshot is not None else ""
    first = f"-first{options.limit}" if options.limit else ""
    path = adapted.run.path / "harness" / f"{'-'.join(options.tasks)[:LONGEST]}{shots}{first}.json"
    path.parent.mkdir(exist_ok=True)
    files.write_json(path, found)
    if as_json:
        print_json({**found, "path": str(path)})
        return
    for task, scores in found["results"].items():
        for name, value in scores.items():
            metric, _, rule = name.partition(",")
            error = scores.get(f"{metric}_stderr,{rule}")
            if rule and not metric.endswith("_stderr"):
                filtered = "" if rule == "none" else f" ({rule})"
                spread = f" ± {error:.4f}" if isinstance(error, float) else ""
                print(f"{task:>24}  {metric}{filtered}  {value:.4f}{spread}")
    print(f"lm-eval {found['harness']}; all of it is in {path}")
