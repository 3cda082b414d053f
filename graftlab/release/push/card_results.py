"""What a card says of a run's results: scores with intervals, notes, what was verified and what was not."""

from graftlab.contracts import read_notes
from graftlab.release.push.markdown import plain, points, table
from graftlab.rundir.records import Result
from graftlab.rundir.run import Run
from graftlab.runs import verification
from graftlab.runs.verification import Scored


def sections(run: Run, result: Result) -> list[str]:
    """Return the parts of a card that are about how good a run is, and how sure that is."""
    return [
        "## Scores",
        _scores(result),
        *_warnings(result),
        "## What was verified",
        points(verification.verified(run, result)),
        "## What was not",
        points(verification.not_verified(run, result)),
    ]


def _scores(result: Result) -> str:
    rows = [
        (one.split, one.metric, *_score(one), "" if one.examples is None else f"{one.examples:,}")
        for one in verification.scores(result)
    ]
    if not rows:
        return "There was neither a validation nor a test split."
    chosen = result.get("selected_by")
    note = f"Step {result['selected_step']} of {result['steps']}"
    note += f", chosen by {chosen} on validation" if chosen else ", the last one"
    shown = table(("split", "metric", "value", "standard error", "interval", "n"), rows)
    return f"{shown}\n\n{note}; test was not looked at before. {verification.INTERVAL}."


def _score(one: Scored) -> tuple[str, str, str]:
    if one.value is None:
        return f"undefined ({one.reason})", "", ""
    error = "" if one.standard_error is None else f"{one.standard_error:.4f}"
    known = one.low is not None and one.high is not None
    return f"{one.value:.4f}", error, f"{one.low:.4f} to {one.high:.4f}" if known else ""


def _warnings(result: Result) -> list[str]:
    said = [f"- {plain(note)}" for note in read_notes(result.get("notes", ()))]
    said += [
        f"- Not exactly repeatable: {plain(reason)}" for reason in read_notes(result["not_exact"])
    ]
    return ["\n".join(said)] if said else []
