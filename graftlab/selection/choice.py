"""From scores of layers to one layer, and how sure that is."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from graftlab.errors import DataError
from graftlab.selection.request import Config

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats


# Shapes: L layers, B rows: the scores, then their bootstrap samples.

NORMAL_95 = 1.96  # standard errors on either side that are a 95 % interval
SURE, LIKELY = 0.95, 0.5  # shares of bootstrap samples that are called sure, and likely


class Choice(NamedTuple):
    """What the scores come to."""

    layer: int
    combined: "Floats"  # (B, L)
    """The mixed score, depth taken into account; NaN at layers that are left out of the choice."""
    wins: dict[int, float]
    """Layer -> share of the bootstrap samples in which it wins; empty where there are none."""
    left_out: tuple[int, ...]
    """Layers at which a score that counts is undefined."""
    alone: dict[str, int]
    """The layer that each score would choose by itself, without a depth bias."""
    unbiased: int
    """The layer that the mix would choose without a depth bias."""
    silent: tuple[str, ...] = ()
    """Scores that count and have no vote: over the layers they differ by no more than their error."""


def choose(
    layers: Sequence[int], scores: "Mapping[str, Floats]", num_layers: int, config: Config
) -> Choice:
    """Return the layer with the highest mixed score; of equals the first.

    `scores` are (B, L), NaN where undefined; depth is counted over all `num_layers` of the model.

    Raises:
        DataError: at every layer a score that counts is undefined.
    """
    import numpy as np

    counting = {name: weight for name, weight in config.weights.items() if weight}
    defined_L = np.all([np.isfinite(scores[name]).all(axis=0) for name in counting], axis=0)
    left_out = tuple(layer for layer, kept in zip(layers, defined_L, strict=True) if not kept)
    if not defined_L.any():
        raise DataError(
            f"no layer can be chosen: at each of {len(layers)} one of {', '.join(counting)} is "
            f"undefined. See layer_scores.csv.",
            kind="undefined",
        )
    silent = tuple(
        name
        for name in counting
        if config.normalise != "none" and not tells_apart(scores[name][:, defined_L])
    )
    mixed_BL = np.full(next(iter(scores.values())).shape, np.nan)
    mixed_BL[:, defined_L] = 0.0
    for name, weight in counting.items():
        if name not in silent:
            share = weight / sum(counting.values())
            mixed_BL[:, defined_L] += share * normalise(
                scores[name][:, defined_L], config.normalise
            )
    depth_L = np.asarray(layers) / max(num_layers - 1, 1)
    if config.depth_bias_form == "additive":
        combined_BL = mixed_BL - config.depth_bias * depth_L
    else:
        combined_BL = mixed_BL * (1 - config.depth_bias * depth_L)
    best_B = np.nanargmax(combined_BL, axis=1)
    found, counts = np.unique(best_B[1:], return_counts=True)
    wins = {layers[i]: float(n) / (len(best_B) - 1) for i, n in zip(found, counts, strict=True)}
    return Choice(
        layers[int(best_B[0])],
        combined_BL,
        dict(sorted(wins.items(), key=lambda item: -item[1])),
        left_out,
        {
            name: layers[int(np.nanargmax(found_BL[0]))]
            for name, found_BL in scores.items()
            if np.isfinite(found_BL[0]).any()
        },
        layers[int(np.nanargmax(mixed_BL[0]))],
        silent,
    )


def tells_apart(scores_BL: "Floats") -> bool:
    """Return whether a score differs over the layers by more than its error: the best layer's from the worst
    one's by more than a 95 % interval of that difference reaches. Without bootstrap samples none is known.
    """
    import numpy as np

    apart_B = scores_BL[:, scores_BL[0].argmax()] - scores_BL[:, scores_BL[0].argmin()]
    if len(apart_B) < 3:
        return True
    return bool(apart_B[0] > NORMAL_95 * np.std(apart_B[1:], ddof=1))


def normalise(scores_BL: "Floats", how: str) -> "Floats":
    """Return each row brought to 0..1 over its layers: by its range, or by ranks; equal scores to 0."""
    import numpy as np

    if how == "none":
        return scores_BL
    if how == "rank":
        from scipy.stats import rankdata

        scores_BL = rankdata(scores_BL, axis=1)
    low_B1 = scores_BL.min(axis=1, keepdims=True)
    range_B1 = scores_BL.max(axis=1, keepdims=True) - low_B1
    scaled: Floats = (scores_BL - low_B1) / np.where(range_B1 > 0, range_B1, 1.0)
    return scaled


def interval(values_B: "Floats") -> tuple[float, float] | None:
    """Return a 95 % interval around the first value, from the spread of the others (percentiles would
    lie off to one side: resampling adds noise to what is a square)."""
    import numpy as np

    if len(values_B) < 3 or not np.isfinite(values_B).all():
        return None
    half = NORMAL_95 * float(np.std(values_B[1:], ddof=1))
    return float(values_B[0]) - half, float(values_B[0]) + half


def statement(choice: Choice, num_layers: int, num_choices: int, config: Config) -> str:
    """Return in plain words which layer was chosen and how sure that is."""
    said = [f"Layer {choice.layer} of 0 to {num_layers - 1} is chosen"]
    if num_choices == 1:
        return said[0] + "; there was no other to choose from."
    if choice.wins:
        share = choice.wins.get(choice.layer, 0.0)
        sure = "sure" if share >= SURE else "likely, not sure" if share >= LIKELY else "open"
        said[0] += (
            f"; the choice is {sure}: it wins in {share:.0%} of bootstrap samples of the examples"
        )
        others = [(layer, won) for layer, won in choice.wins.items() if layer != choice.layer]
        said[0] += "".join(f", layer {layer} in {won:.0%}" for layer, won in others[:1])
    else:
        said[0] += "; how sure that is was not asked (method.selection.resamples is 0)"
    voting = [
        name for name, weight in config.weights.items() if weight and name not in choice.silent
    ]
    alone = {name: choice.alone[name] for name in voting}
    if len({*alone.values()}) > 1:
        each = ", ".join(f"{name} {layer}" for name, layer in alone.items())
        said.append(f"The scores that count disagree; each alone would choose: {each}")
    if choice.silent:
        names = ", ".join(choice.silent)
        said.append(f"Over the layers {names} differ by no more than their error, and have no vote")
    if choice.unbiased != choice.layer:
        said.append(f"Without the depth bias it would be layer {choice.unbiased}")
    if choice.left_out:
        left = ", ".join(map(str, choice.left_out))
        said.append(
            f"{len(choice.left_out)} of {num_choices} layers are left out, as a score is undefined "
            f"there: {left}"
        )
    return ". ".join(said) + "."
