"""What commands that carry out or use a run print on standard output."""

from graftlab.contracts import read_notes
from graftlab.rundir.records import ScoreRecord
from graftlab.rundir.run import Run
from graftlab.terminal import console, say_json


def show_result(run: Run, as_json: bool) -> None:
    """Print a finished run's scores, as a table or as JSON with the run's directory."""
    result = run.read_result()
    if as_json:
        say_json({"run": str(run.path), **result})
        return
    from rich.table import Table

    table = Table(title=f"{result['name']}: {result['method']} on {result['task']}")
    table.add_column("metric")
    for split in result["metrics"]:
        table.add_column(split, justify="right")
    for name in dict.fromkeys(name for scores in result["metrics"].values() for name in scores):
        cells = (scores.get(name) for scores in result["metrics"].values())
        table.add_row(name, *[score_text(cell) if cell else "" for cell in cells])
    screen = console()
    if result["metrics"]:
        screen.print(table)
    parameters = result["parameters"]
    screen.print(
        f"{parameters['trainable']:,} of {parameters['total']:,} parameters trained "
        f"({parameters['trainable'] / parameters['total']:.2%}), step {result['selected_step']} of "
        f"{result['steps']} selected, {result['seconds']['training']:.1f} s of training.\n"
        f"Everything is in {run.path}"
    )
    for reason in read_notes(result["not_exact"]):
        screen.print(f"Not exactly repeatable: {reason}")


def score_text(score: ScoreRecord) -> str:
    """Return a score with its standard error, or why there is none."""
    if score["value"] is None:
        return f"undefined ({score.get('reason') or 'no label is known'})"
    error = score.get("standard_error")
    return f"{score['value']:.4f}" + (f" ± {error:.4f}" if error is not None else "")
