"""What metrics of written texts share: the texts of a prediction, its references, and means over both."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from graftlab.errors import DataError
from graftlab.metrics import Predictions, Score, pairs
from graftlab.metrics._means import mean

One = Callable[[str, list[str]], float | None]
"""The figure of one text beside its references; None where it is not defined for these references."""


def references(label: object) -> list[str]:
    """Return the references that a label holds: a text, a list of them, or a dict with them under `text`.

    Raises:
        DataError: it is something else.
    """
    found = label.get("text") if isinstance(label, Mapping) else label
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list | tuple) or not all(isinstance(one, str) for one in found):
        raise DataError(
            f"the label {label!r:.80} is no reference text. This metric compares texts: a label is a "
            f"text, a list of texts, or a dict with one of these under 'text'."
        )
    return list(found)


def written(row: Mapping[str, object]) -> list[str]:
    """Return the texts written for one example: none, one or several samples."""
    texts = row["prediction"]
    texts = [] if texts is None else [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise DataError(
            f"the prediction {texts!r:.80} of example {row.get('index')} is no text. This metric is for "
            f"tasks that write texts (kind: generation)."
        )
    return list(texts)


def unwritten(predictions: Predictions) -> Score | None:
    """Return the undefined score of predictions of which some have no text, and of none at all.

    Raises:
        DataError: an example has no label, or a prediction is no text.
    """
    pairs(predictions)
    if not predictions:
        return Score(None, None, "no examples")
    missing = sum(not written(row) for row in predictions)
    if not missing:
        return None
    return Score(
        None,
        None,
        f"no text was written for {missing} of {len(predictions)} examples of this split",
    )


def examples(predictions: Predictions) -> Iterator[tuple[list[str], list[str]]]:
    """Yield each example's texts and references."""
    for row in predictions:
        yield written(row), references(row["label"])


def values(predictions: Predictions, one: One) -> list[float | None]:
    """Return of each example the mean of `one` over its samples; None where it is not defined, or no text
    was written."""
    found: list[float | None] = []
    for texts, gold in examples(predictions):
        figures = [one(text, gold) for text in texts]
        known = [figure for figure in figures if figure is not None]
        found.append(sum(known) / len(known) if known else None)
    return found


def scored(predictions: Predictions, one: One, undefined: str) -> Score:
    """Return the mean of `one` over the examples, each the mean over its samples.

    Examples for which `one` is not defined are left out and counted; `undefined` says why.
    """
    if (nothing := unwritten(predictions)) is not None:
        return nothing
    return mean_of(values(predictions, one), undefined)


def mean_of(
    found: Sequence[float | None], undefined: str, details: Mapping[str, object] | None = None
) -> Score:
    """Return the mean of the examples' values; those without one are left out and counted."""
    known = [value for value in found if value is not None]
    left_out = len(found) - len(known)
    said = {**(details or {}), **({"left_out": left_out} if left_out else {})}
    if not known:
        return Score(None, None, undefined, said)
    return mean(known, (said | ({"because": undefined} if left_out else {})) or None)
