"""What `run` and `resume` say at the end."""

from typing import Any

from graftlab import files
from graftlab.runs import Run


def show_result(run: Run, as_json: bool) -> None:
    """Print a finished run's scores, as a table or as JSON with the run's directory."""
    result = run.read_result()
    if as_json:
        print(files.dump_json({"run": str(run.path), **result}), end="")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result['name']}: {result['method']} on {result['task']}")
    table.add_column("metric")
    for split in result["metrics"]:
        table.add_column(split, justify="right")
    for name in next(iter(result["metrics"].values())):
        table.add_row(name, *[_cell(scores[name]) for scores in result["metrics"].values()])
    console = Console(soft_wrap=True)
    console.print(table)
    parameters = result["parameters"]
    console.print(
        f"{parameters['trainable']:,} of {parameters['total']:,} parameters trained "
        f"({parameters['trainable'] / parameters['total']:.2%}), step {result['selected_step']} of "
        f"{result['steps']} selected, {result['seconds']['training']:.1f} s of training.\n"
        f"Everything is in {run.path}",
        highlight=False,
    )
    for reason in result["not_exact"]:
        console.print(f"Not exactly repeatable: {reason}", highlight=False)


def _cell(score: dict[str, Any]) -> str:
    if score["value"] is None:
        return f"undefined ({score.get('reason')})"
    error = score.get("standard_error")
    return f"{score['value']:.4f}" + (f" ± {error:.4f}" if error is not None else "")
