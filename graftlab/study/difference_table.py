"""Differences of pairs as tables: for the terminal those from the best row, as CSV all of them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from graftlab.study.findings import Difference

if TYPE_CHECKING:
    from rich.table import Table

WORDS = {
    "seeds and examples, paired": "t over seeds, and examples where they add to it",
    "seeds and examples, seeds not paired": "t over two sets of seeds, and examples where they add to it",
    "seeds, paired": "t over paired seeds",
    "seeds, not paired": "t over two sets of seeds",
    "seeds with their splits, paired": "corrected t over paired seeds, splits overlap (Nadeau & Bengio)",
    "seeds with their splits, not paired": "corrected t over two sets of seeds, splits overlap",
    "examples of one seed": "t over examples, which says nothing about other seeds: no row is called better",
}


def flat(one: Difference) -> dict[str, object]:
    """Return a difference as a line of differences.csv."""
    beside = one.beside
    own = {
        key: value
        for key, value in vars(one).items()
        if key not in ("beside", "reason") and not isinstance(value, dict)
    }
    return {
        **own,
        "permutation_p": beside.permutation_p,
        "permutation_smallest_p": beside.permutation_smallest_p,
        "mcnemar_p": "; ".join(f"seed {seed}: {p:.4g}" for seed, p in beside.mcnemar_p.items())
        or None,
        "epsilon_min": beside.epsilon_min,
        "epsilon_min_other": beside.epsilon_min_other,
        "improvement": beside.improvement,
        "reason": one.reason,
    }


def against(best: str, found: Iterable[Difference]) -> list[Difference]:
    """Return the differences of all other rows from one: other less best."""
    return [
        one if one.second == best else turned(one)
        for one in found
        if best in (one.first, one.second)
    ]


def turned(one: Difference) -> Difference:
    """Return the same difference seen from the other row."""

    def less(value: float | None) -> float | None:
        return None if value is None else -value

    beside = one.beside
    return replace(
        one,
        first=one.second,
        second=one.first,
        difference=less(one.difference),
        low=less(one.high),
        high=less(one.low),
        beside=replace(
            beside,
            epsilon_min=beside.epsilon_min_other,
            epsilon_min_other=beside.epsilon_min,
            improvement=None if beside.improvement is None else 1 - beside.improvement,
        ),
    )


def table(best: str, found: Sequence[Difference]) -> "Table":
    """Return the differences from the row with the best mean, for the terminal."""
    from rich.table import Table

    one = found[0]
    made = Table(title=f"less {best}: {one.split} {one.metric}")
    made.add_column("method", overflow="fold", min_width=6)
    for name in (
        "difference",
        f"{one.level:.0%} interval",
        "p",
        "Holm",
        "visible",
        "seeds",
    ):
        made.add_column(name, justify="right", no_wrap=True)
    for one in against(best, found):
        ends = "" if one.low is None else f"{one.low:+.4f}, {one.high:+.4f}"
        made.add_row(
            one.first,
            "-" if one.difference is None else f"{one.difference:+.4f}",
            ends,
            *(p_value(p) for p in (one.p, one.p_holm)),
            "" if one.smallest_visible is None else f"{one.smallest_visible:.4f}",
            "" if one.seeds_wanted is None else str(one.seeds_wanted),
        )
    return made


def p_value(p: float | None) -> str:
    """Return a p-value with as many digits as it is worth."""
    return "" if p is None else "< .0001" if p < 1e-4 else f"{p:.4f}"


def sentences(found: Sequence[Difference]) -> list[str]:
    """Return in words what the differences of a study come to, and how they were judged."""
    known = [one for one in found if one.p is not None]
    corrected = [one for one in known if one.p_holm is not None]
    lines = []
    if corrected:
        seen = [one for one in corrected if one.better is not None]
        pairs = f"{len(corrected)} pair{'s' * (len(corrected) > 1)}"
        lines.append(
            f"{len(seen)} of {pairs} of methods differ at 5 %, corrected for all {pairs} (Holm)"
            + ("." if seen else ": no difference can be seen.")
        )
    judged = Counter(one.procedure for one in known if one.procedure is not None)
    lines += [f"intervals: {WORDS[how]} ({count} of {len(found)})" for how, count in judged.items()]
    if any(one.smallest_visible is not None for one in known):
        lines.append(
            "visible: a true difference that such a pair finds in 4 of 5 studies, corrected for all pairs; "
            "seeds: how many would find the difference as it stands as often"
        )
    reasons = Counter(one.reason for one in found if one.reason)
    lines += [f"{count} of {len(found)} differences: {why}" for why, count in reasons.items()]
    return lines
