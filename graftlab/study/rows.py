"""One row of a comparison: what the seeds of a method have come to, in scores and in costs."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from graftlab.rundir.records import Costs, Result, ScoreRecord
from graftlab.runs.evaluation import higher_is_better, is_undecided
from graftlab.statistics import aggregates
from graftlab.study.labels import Cell
from graftlab.study.records import Done, Row, Summary


def row_of(cell: Cell, runs: Sequence[Done]) -> Row:
    """Return what the runs of a cell have come to, a hole for each that has no result."""
    results = {run.planned.seed: found for run in runs if (found := run.result)}
    metric, higher = first_metric(results.values())
    scores = {
        split: {seed: _score(result, split, metric) for seed, result in results.items()}
        for split in ("test", "validation")
    }
    some = next(iter(results.values()), None)
    shared = any(run.shared for run in runs)
    costs = [found["costs"] for found in results.values() if "costs" in found]
    peaks = [result["peak_memory_bytes"] for result in results.values()]
    return Row(
        *cell[:3],
        dict(cell.setting),
        metric,
        higher,
        summarize(scores["test"], higher),
        summarize(scores["validation"], higher),
        some and some["parameters"]["trainable"],
        some and some["parameters"]["total"],
        None if shared else _mean([found["seconds"]["training"] for found in results.values()]),
        max((peak for peak in peaks if peak is not None), default=None),
        {run.planned.seed: run.folder.name for run in runs},
        {
            run.planned.seed: run.cause or "not run"
            for run in runs
            if run.planned.seed not in results
        },
        last=_last(results, metric, higher),
        adapter_bytes=max((own["adapter_bytes"] for own in costs), default=None),
        training_flops=_mean([own["training_flops"] for own in costs]),
        inference_seconds=None if shared else _mean([own["inference_seconds"] for own in costs]),
        merged_inference_seconds=None if shared else _merged_seconds(costs),
    )


def _last(results: Mapping[int, Result], metric: str | None, higher: bool) -> Summary | None:
    """Return the scores of the last steps; None where a run has not scored its own."""
    if not results:
        return None
    split = (
        "test" if any("test" in found["metrics"] for found in results.values()) else "validation"
    )
    scores: dict[int, ScoreRecord | None] = {}
    for seed, found in results.items():
        if "last" in found:
            scores[seed] = found["last"]["metrics"].get(split, {}).get(metric or "")
        elif found["selected_step"] == found["steps"]:
            scores[seed] = _score(found, split, metric)
        else:
            return None
    return summarize(scores, higher)


def _merged_seconds(costs: Sequence[Costs]) -> float | None:
    return _mean([s for own in costs if (s := own["merged_inference_seconds"]) is not None])


def first_metric(results: Iterable[Result]) -> tuple[str | None, bool]:
    """Return the task's first metric that says which way is better, and whether more of it is."""
    for result in results:
        for _, scores in sorted(result["metrics"].items()):  # of test before validation
            for name in scores:
                if not is_undecided(name, [*scores]):
                    return name, higher_is_better(name, [*scores])
    return None, True


def _score(result: Result, split: str, metric: str | None) -> ScoreRecord | None:
    return result["metrics"].get(split, {}).get(metric or "")


def summarize(scores: Mapping[int, ScoreRecord | None], higher: bool = True) -> Summary:
    """Return the summary of one score for each seed, of which `higher` is better or not."""
    values = {seed: score and score["value"] for seed, score in scores.items()}
    known = [value for value in values.values() if value is not None]
    errors = [
        error
        for score in scores.values()
        if score and (error := score.get("standard_error")) is not None
    ]
    return Summary(
        _mean(known),
        statistics.stdev(known) if len(known) > 1 else None,
        _mean(errors),
        values,
        aggregates.interquartile_mean(known) if known else None,
        _collapsed(values, higher),
    )


def _collapsed(values: Mapping[int, float | None], higher: bool) -> tuple[int, ...]:
    seeds = [seed for seed, value in values.items() if value is not None]
    known = [value for value in values.values() if value is not None]
    return tuple(seeds[place] for place in aggregates.collapsed(known, higher))


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def last_scores(result: Result) -> dict[str, float | None]:
    """Return the scores of the last step by split and metric, where it is not the one that counts."""
    last = result.get("last")
    return (
        {}
        if last is None
        else {
            f"{split}/{name}": score["value"]
            for split, scores in last["metrics"].items()
            for name, score in scores.items()
        }
    )
