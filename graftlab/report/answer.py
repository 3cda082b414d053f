"""What a study was to find out and what it has found, in plain words; and what it has not measured."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from graftlab.report.study_tables import Group, groups, own
from graftlab.study.findings import Difference, Procedure
from graftlab.study.records import Comparison, Row

MOST_NAMES = 6
OF_RUNS: Procedure = "examples of one seed"
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
    found = [_of(group, own(group, comparison.differences)) for group in every]
    if len(found) == 1:
        return re.sub("^no ", "No ", found[0])  # a method's name stays as it is
    return " ".join(f"On {group.title}: {said}" for group, said in zip(every, found, strict=True))


class _Rest(NamedTuple):
    """The rows beside the best one, by what is known of their difference from it."""

    beaten: list[Row]
    rivals: list[Row]
    """Judged, and not seen to be worse."""
    unjudged: list[Row]
    without_score: list[Row]
    reasons: list[str]
    """Why some are not judged."""
    of_one_seed: bool
    """Whether the judgements are of runs, and say nothing about other seeds."""

    @classmethod
    def of(cls, group: Group, pairs: Sequence[Difference]) -> "_Rest":
        best, label = group[0], group[0].label
        its = {
            one.second if one.first == label else one.first: one
            for one in pairs
            if label in (one.first, one.second)
        }
        scored = [row for row in group if row is not best and row.score.mean is not None]
        judged = [row for row in scored if row.label in its and its[row.label].p is not None]
        unjudged = [row for row in scored if row not in judged]
        return cls(
            beaten=[row for row in judged if its[row.label].better == label],
            rivals=[row for row in judged if its[row.label].better != label],
            unjudged=unjudged,
            without_score=[row for row in group if row.score.mean is None],
            reasons=[its[row.label].reason or "" for row in unjudged if row.label in its],
            of_one_seed=any(its[row.label].procedure == OF_RUNS for row in judged),
        )


def _of(group: Group, pairs: Sequence[Difference]) -> str:
    """Return what is known of one task and backbone."""
    best = group[0]
    if best.score.mean is None:
        return "no run has a score yet."
    rest, score = _Rest.of(group, pairs), f"{best.score.mean:.4f} {group.split} {group.metric}"
    said, left = f"{best.label} has the best mean, {score}", _left(rest)
    if rest.of_one_seed:
        num_runs = 1 + len(rest.beaten) + len(rest.rivals)
        runs = f"these {'two' if num_runs == 2 else num_runs} runs of one seed"
        said = f"of {runs}, that of {best.label} has the best score, {score}"
    if len(group) == 1 + len(rest.without_score):
        return f"{said}; there is nothing to compare it with.{left}"
    judged = [one for one in pairs if one.p is not None]
    if not judged:
        return f"{said}, but nothing tells how far chance may have moved it: {_why(rest.reasons)}.{left}"
    left = _unjudged(rest) + left
    if rest.of_one_seed:
        return f"{said}.{left}"
    if not any(one.better for one in judged):
        them = "them" if len(judged) == len(pairs) else "those that can be judged"
        return f"no difference can be seen between any of {them} {LEVEL}; {said}.{_visible(pairs)}{left}"
    if len(rest.beaten) == len(group) - 1:
        return f"{said}, and is seen to be better than every other {LEVEL}.{left}"
    better = (
        f", and is seen to be better than {listed(row.label for row in rest.beaten)}"
        if rest.beaten
        else ""
    )
    if not rest.rivals:
        return f"{said}{better}{f' {LEVEL}' if better else ''}.{left}"
    rivals = listed(row.label for row in rest.rivals)
    return f"{said}. It cannot be told apart from {rivals}{better} {LEVEL}.{_visible(pairs)}{left}"


def _unjudged(rest: _Rest) -> str:
    if not rest.unjudged:
        return ""
    names = listed(row.label for row in rest.unjudged)
    return f" How far chance may have moved its difference from {names} is not known: {_why(rest.reasons)}."


def _left(rest: _Rest) -> str:
    """Return what has no score, and what one seed leaves open."""
    names = listed(row.label for row in rest.without_score)
    said = (
        f" {names} {'has' if len(rest.without_score) == 1 else 'have'} no score." if names else ""
    )
    return said + " Other seeds may order the methods otherwise." * rest.of_one_seed


def _why(reasons: Iterable[str]) -> str:
    return listed(dict.fromkeys(filter(None, reasons))) or "one value is no sample"


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
        "The time that answers take": [row.inference_seconds for row in rows],
        "Floating-point operations of training": [row.training_flops for row in rows],
        "The last checkpoint beside the best": [row.last for row in rows],
        "Time of training that can be compared": [row.seconds for row in rows],
        "Peak memory": [row.peak_memory_bytes for row in rows],
        "Forgetting, what the backbone could do before and cannot any more": [
            row.forgetting for row in rows
        ],
    }
    for what, values in without.items():
        missing = sum(value is None for value in values)
        if missing == len(values):
            found.append(f"{what}: of no row.")
        elif missing:
            found.append(f"{what}: {missing} of {len(values)} rows have none.")
    found += [
        f"Forgetting of {row.label} at seed {seed}: {cause}"
        for row in rows
        for seed, cause in row.forgetting_holes.items()
    ]
    if not comparison.chosen_by:
        found.append(
            "Tuning: every row has the settings that it was given, which may favour one method."
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
