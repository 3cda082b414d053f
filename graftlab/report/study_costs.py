"""What a row of a study costs beside its score: parameters, time, memory, and what is forgotten."""

from collections.abc import Sequence

from graftlab.report.tables import Cell, cell
from graftlab.study.findings import Forgetting
from graftlab.study.records import Row


def columns(rows: Sequence[Row]) -> dict[str, list[Cell]]:
    """Return the columns of what a row costs; those of which nothing is known are empty."""

    def size(count: float | None) -> Cell:
        unit, scale = ("KiB", 2**10) if (count or 0) < 2**20 else ("MiB", 2**20)
        return Cell() if count is None else Cell(f"{count / scale:.1f} {unit}", float(count))

    def seconds(value: float | None) -> Cell:
        return Cell() if value is None else Cell(f"{value:.1f} s", value)

    def tera(count: float | None) -> Cell:
        return Cell() if count is None else Cell(f"{count / 1e12:.3g}", count / 1e12)

    return {
        "trained": [cell(row.trainable) for row in rows],
        "file": [size(row.adapter_bytes) for row in rows],
        "training": [seconds(row.seconds) for row in rows],
        "memory": [size(row.peak_memory_bytes) for row in rows],
        "TFLOP": [tera(row.training_flops) for row in rows],
        "1,000 answers": [seconds(row.inference_seconds) for row in rows],
        "merged": [seconds(row.merged_inference_seconds) for row in rows],
        "forgotten": [_forgotten(row) for row in rows],
    }


def _forgotten(row: Row) -> Cell:
    """Return by how much a row's runs have become worse, ± the standard deviation, with the interval."""
    found = row.forgetting
    if found is None:
        return Cell()
    spread = "" if found.deviation is None else f" ± {found.deviation:.4f}"
    ends = "" if found.low is None else f" ({found.low:+.4f} to {found.high:+.4f})"
    more = {
        "forgotten low": found.low,
        "forgotten high": found.high,
        "forgotten of": f"{found.measure} on {found.on}",
        "base": found.base,
    }
    return Cell(f"{found.mean:+.4f}{spread}{ends}", found.mean, more, tip=said(found))


def said(found: Forgetting) -> str:
    """Return in words what was measured."""
    verb = "risen" if found.measure == "loss" else "fallen"
    return (
        f"how far the {found.measure} on {found.on} ({found.examples} examples) has {verb} from the base's "
        f"{found.base:.4f}; 95 % interval over seeds and examples"
    )


def unbeaten(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that no other beats in score, trained parameters or forgetting without being worse in
    another of the three; none where forgetting is not known of two rows or more."""
    known = {
        row.label: (row.score.mean * (-1 if row.higher_is_better else 1), row.trainable, row.forgetting.mean)
        for row in rows
        if row.score.mean is not None and row.trainable is not None and row.forgetting is not None
    }  # fmt: skip
    if len(known) < 2:
        return []
    return [
        row
        for row in rows
        if row.label in known and not any(_beats(one, known[row.label]) for one in known.values())
    ]


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Say whether the first is nowhere more than the second, and somewhere less."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
