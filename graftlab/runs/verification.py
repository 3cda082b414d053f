"""What a finished run can claim: its scores with intervals, what of it was verified, and what was not."""

from typing import NamedTuple

from graftlab.contracts import read_notes
from graftlab.errors import GraftlabError
from graftlab.rundir import manifest
from graftlab.rundir.records import Result
from graftlab.rundir.run import Run

HALF_WIDTH = 1.959963984540054  # standard errors: 95 % of a normal distribution
INTERVAL = "95 % interval over the examples: 1.96 standard errors to either side"
"""What an interval is, for whoever reads it."""


class Scored(NamedTuple):
    """A score of a split."""

    split: str
    metric: str
    value: float | None
    standard_error: float | None
    low: float | None
    """Ends of the interval over the examples; None where the metric has no standard error."""
    high: float | None
    examples: int | None
    reason: str | None
    """Why there is no value."""


def scores(result: Result) -> list[Scored]:
    """Return a run's scores with their intervals, test first."""
    splits = sorted(result["metrics"], key=lambda split: split != "test")
    found = []
    for split in splits:
        for metric, one in result["metrics"][split].items():
            value, error = one["value"], one.get("standard_error")
            low = high = None
            if value is not None and error is not None:
                low, high = value - HALF_WIDTH * error, value + HALF_WIDTH * error
            reason = None if value is not None else one.get("reason") or "no label is known"
            examples = result.get("data", {}).get(split)
            found.append(Scored(split, metric, value, error, low, high, examples, reason))
    return found


def verified(run: Run, result: Result) -> list[str]:
    """Return what was verified of a run, a sentence each."""
    found = []
    if _is_whole(run) is True:
        found.append("All files are as the run left them: their sha256 are those of its manifest.")
    if result["metrics"].get("test"):
        chosen = result.get("selected_by")
        how = f"by {chosen} on validation" if chosen else "as the last one"
        found.append(f"Test chose nothing: step {result['selected_step']} was taken {how}.")
    if result.get("exact"):
        found.append(
            "Repeatable: the same file, machine, versions and threads give the same bytes."
        )
    if not result.get("skipped_steps"):
        found.append("Every step had a finite loss and gradient.")
    return found


def not_verified(run: Run, result: Result) -> list[str]:
    """Return what nobody may take for granted of a run, a sentence each."""
    found = [
        f"Other seeds: this is one run, with seed {result['seed']}; another may score differently."
    ]
    if not result["metrics"].get("test"):
        found.append("Scores on rows that chose nothing: there is no test split.")
    without = [one.metric for one in scores(result) if one.value is not None and one.low is None]
    if without:
        names = ", ".join(dict.fromkeys(without))
        found.append(f"How far chance may move {names}: there is no standard error.")
    whole = _is_whole(run)
    if whole is not True:
        found.append(f"That the files are as the run left them: {whole}.")
    found += [f"Exact repetition: {reason}" for reason in read_notes(result.get("not_exact", ()))]
    if result.get("skipped_steps"):
        found.append(
            f"{result['skipped_steps']} steps were skipped: their loss or gradient was not finite."
        )
    found.append(
        "Rows of other sources, languages or times; safety and bias: nothing but the metrics was looked at."
    )
    return found


def _is_whole(run: Run) -> bool | str:
    """Return True of a run whose files are as it left them, else why that is not so."""
    try:
        run.check()
        known = manifest.read(run.path) is not None
        return known or "an older version made the run, which has no manifest"
    except GraftlabError as error:
        return str(error).rstrip(".")
