"""Predictions by class: confusion matrix, precision, recall and F1 of each, means of them, and calibration.

Expected calibration error: the mean over examples of how far confidence (the probability of what is
predicted) and accuracy are apart in bins of equal width (Guo et al., 2017, arXiv 1706.04599, equation 3).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from graftlab.contracts import Note, Prediction, Problem
from graftlab.rundir.records import Averages, Calibration, CalibrationBin, ClassFigures, ClassReport
from graftlab.rundir.run import Run
from graftlab.runs import prediction

BINS = 15  # as in the paper's experiments


def of_run(run: Run, problem: Problem, splits: Iterable[str]) -> dict[str, list[ClassReport]]:
    """Return the reports of what a run has predicted, by split; a split without one is left out.

    Raises:
        DataError: predictions are gone or damaged.
    """
    if "classes" not in {problem.kind, *(part.kind for _, part in problem.parts)}:
        return {}
    found = {split: reports(prediction.read(run.predictions(split)), problem) for split in splits}
    return {split: own for split, own in found.items() if own}


def reports(rows: Sequence[Prediction], problem: Problem) -> list[ClassReport]:
    """Return a report of a split's predictions; of a mixture one a task, of what has no classes none."""
    found = [_report(own, part, name) for name, part, own in _parts(rows, problem)]
    return [one for one in found if one is not None]


def _parts(
    rows: Sequence[Prediction], problem: Problem
) -> Iterator[tuple[str | None, Problem, Sequence[Prediction]]]:
    if not problem.parts:
        yield None, problem, rows
    for name, part in problem.parts:
        yield name, part, [row for row in rows if row["task"] == name]


def _report(rows: Sequence[Prediction], problem: Problem, task: str | None) -> ClassReport | None:
    known = [row for row in rows if row["label"] is not None]
    if problem.kind != "classes" or not known:
        return None
    cells = Counter((row["label"], row["prediction"]) for row in known)
    true = Counter(row["label"] for row in known)
    predicted = Counter(row["prediction"] for row in known)
    classes = [
        _figures(name, cells[number, number], true[number], predicted[number])
        for number, name in enumerate(problem.labels)
    ]
    occur = [c for n, c in enumerate(classes) if true[n] or predicted[n]]
    report: ClassReport = {
        "examples": len(known),
        "confusion": [[*cell, cells[cell]] for cell in sorted(cells)],
        "classes": classes,
        "macro": _averages(occur, [1] * len(occur)),
        "weighted": _averages(occur, [c["examples"] for c in occur]),
        "calibration": calibration(known),
    }
    if task is not None:
        report["task"] = task
    return report


def _figures(name: str, right: int, true: int, predicted: int) -> ClassFigures:
    return {
        "name": name,
        "examples": true,
        "predicted": predicted,
        "precision": right / predicted if predicted else None,
        "recall": right / true if true else None,
        "f1": 2 * right / (true + predicted) if true + predicted else None,
    }


def _averages(classes: Sequence[ClassFigures], weights: Sequence[int]) -> Averages:
    """Return means over the classes that occur; what is undefined counts as 0, as scikit-learn has it."""
    total = sum(weights)

    def mean(values: Sequence[float | None]) -> float:
        return sum(w * (v or 0.0) for w, v in zip(weights, values, strict=True)) / total

    return {
        "precision": mean([c["precision"] for c in classes]),
        "recall": mean([c["recall"] for c in classes]),
        "f1": mean([c["f1"] for c in classes]),
    }


def calibration(rows: Sequence[Prediction]) -> Calibration:
    """Return the expected calibration error, and the bins that it is the mean of; empty ones are left out."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row in rows:
        confidence = max(row["probabilities"])
        place = min(int(confidence * BINS), BINS - 1)
        bins.setdefault(place, []).append((confidence, row["prediction"] == row["label"]))
    found: list[CalibrationBin] = [
        {
            "above": place / BINS,
            "examples": len(own),
            "confidence": sum(confidence for confidence, _ in own) / len(own),
            "accuracy": sum(right for _, right in own) / len(own),
        }
        for place, own in sorted(bins.items())
    ]
    gaps = (b["examples"] * abs(b["accuracy"] - b["confidence"]) for b in found)
    return {"expected_error": sum(gaps) / len(rows), "bins": found}


def warnings(found: Mapping[str, Sequence[ClassReport]]) -> list[Note]:
    """Return a note on each split all of whose examples are predicted to be of one class, and are not."""
    notes = []
    for split, own in found.items():
        for report in own:
            said = [c for c in report["classes"] if c["predicted"]]
            there = [c for c in report["classes"] if c["examples"]]
            if len(said) == 1 and len(there) > 1:
                note = Note.of(
                    "one_class_predicted",
                    split=split,
                    label=said[0]["name"],
                    examples=report["examples"],
                    classes=len(there),
                )
                notes.append(note.within(report["task"]) if "task" in report else note)
    return notes
