"""What a study was to find out and what it has found, in plain words; and what it has not measured."""

from collections.abc import Iterable, Sequence

from graftlab.report.study_tables import Group, groups, own
from graftlab.study.findings import Difference
from graftlab.study.records import Comparison, Row

MOST_NAMES = 6
LEVEL = "at 5 %, corrected for all pairs"


def question(comparison: Comparison) -> str:
    """Return what was asked, in a sentence."""
    every = groups(comparison)
    methods = list(dict.fromkeys(row.label for group in every for row in group))
    where = listed(dict.fromkeys(group.title for group in every))
    seeds = f"{len(comparison.seeds)} seed" + "s" * (len(comparison.seeds) != 1)
    tuned = f", each at its best setting on {comparison.chosen_by}" if comparison.chosen_by else ""
    return f"Which of {listed(methods)} does best on {where}, over {seeds}{tuned}?"


def answer(comparison: Comparison) -> str:
    """Return what was found, a sentence or two for each task and backbone."""
    every = groups(comparison)
    if not every:
        return "There is no run to compare."
    several = len(every) > 1
    return " ".join(
        (f"On {group.title}: " if several else "") + _of(group, own(group, comparison.differences))
        for group in every
    )


def _of(group: Group, pairs: Sequence[Difference]) -> str:
    """Return what is known of one task and backbone."""
    known = [row for row in group if row.score.mean is not None]
    if not known:
        return "no run has a score yet."
    best = known[0]
    score = f"{best.label} has the best mean, {best.score.mean:.4f} {group.split} {group.metric}"
    if len(known) == 1:
        return f"{score}; there is nothing to compare it with."
    seen = [one for one in pairs if one.better is not None]
    judged = [one for one in pairs if one.p is not None]
    if not judged:
        return f"{score}, but nothing tells how far chance may have moved it: {_why(pairs)}."
    if not seen:
        return f"no difference can be seen between any of them {LEVEL}; {score}.{_visible(pairs)}"
    rivals = [row for row in known[1:] if not _beats(best, row, pairs)]
    beaten = [row for row in known[1:] if _beats(best, row, pairs)]
    if not rivals:
        return f"{score}, and is seen to be better than every other {LEVEL}."
    said = f"{score}. It cannot be told apart from {listed(row.label for row in rivals)}"
    if beaten:
        said += f", and is seen to be better than {listed(row.label for row in beaten)}"
    return f"{said} {LEVEL}.{_visible(pairs)}"


def _beats(row: Row, other: Row, pairs: Sequence[Difference]) -> bool:
    return any(
        one.better == row.label and {one.first, one.second} == {row.label, other.label}
        for one in pairs
    )


def _why(pairs: Sequence[Difference]) -> str:
    return (
        listed(dict.fromkeys(one.reason for one in pairs if one.reason)) or "one value is no sample"
    )


def _visible(pairs: Sequence[Difference]) -> str:
    """Return how large a difference would have been seen."""
    known = sorted(one.smallest_visible for one in pairs if one.smallest_visible is not None)
    if not known:
        return ""
    return f" A difference of {known[len(known) // 2]:.4f} would be found four times in five."


def listed(names: Iterable[object], most: int = MOST_NAMES) -> str:
    """Return names as a sentence has them; of many the first few and how many more."""
    found = [str(name) for name in names]
    if len(found) > most:
        found = [*found[: most - 1], f"{len(found) - most + 1} others"]
    return (
        found[0]
        if len(found) == 1
        else ", ".join(found[:-1]) + f" and {found[-1]}"
        if found
        else ""
    )


def not_measured(comparison: Comparison) -> list[str]:
    """Return what the figures do not say, a sentence each."""
    rows = [row for group in groups(comparison) for row in group]
    if not rows:
        return ["Nothing was measured."]
    found = []
    if len(comparison.seeds) == 1:
        found.append("Other seeds: there is one, and intervals are over examples alone.")
    for task in dict.fromkeys(row.task for row in rows if row.ranked_by == "validation"):
        found.append(f"A test split of {task}: there is none, and validation chose the step too.")
    without: dict[str, Sequence[object]] = {
        "Forgetting": [row.forgetting for row in rows],
        "The time that answers take": [row.inference_seconds for row in rows],
        "Floating-point operations of training": [row.training_flops for row in rows],
        "The last checkpoint beside the best": [row.last for row in rows],
        "Time of training that can be compared": [row.seconds for row in rows],
        "Peak memory": [row.peak_memory_bytes for row in rows],
    }
    for what, values in without.items():
        missing = sum(value is None for value in values)
        if missing == len(values):
            found.append(f"{what}: of no row.")
        elif missing:
            found.append(f"{what}: {missing} of {len(values)} rows have none.")
    if not comparison.chosen_by:
        found.append(
            "Tuning: every row has the settings of the study file, which may favour one method."
        )
    edges = [
        f"{own.method} on {own.task} ({', '.join(own.edges)})"
        for own in comparison.tunings
        if own.edges
    ]
    if edges:
        found.append(
            f"What lies beyond the grid: the chosen setting stands at its edge for {listed(edges)}."
        )
    found.append(
        "Other data, other backbones and other hyperparameters than those that are listed here."
    )
    return found
