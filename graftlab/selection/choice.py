"""From scores of layers to one layer, and how sure that is."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from graftlab.errors import DataError
from graftlab.selection.request import Config

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from graftlab.contracts.arrays import Floats, Integers


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
    best: int | None = None
    """The layer with the highest mixed score, where the rule is to take the latest near it."""


def choose(
    layers: Sequence[int], scores: "Mapping[str, Floats]", num_layers: int, config: Config
) -> Choice:
    """Return the layer with the highest mixed score, of equals the first; or by the rule `latest` the last
    that is behind it by no more than a standard error of that difference; without any vote, the last.

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
    mixed_BL, silent = _mixed(scores, defined_L, config)
    depth_L = np.asarray(layers) / max(num_layers - 1, 1)
    if config.depth_bias_form == "additive":
        combined_BL = mixed_BL - config.depth_bias * depth_L
    else:
        combined_BL = mixed_BL * (1 - config.depth_bias * depth_L)
    rule = "last" if len(silent) == len(counting) else config.rule
    taken_B = _taken(combined_BL, rule)
    return Choice(
        layers[int(taken_B[0])],
        combined_BL,
        {} if rule == "last" else _wins(taken_B[1:], layers),
        left_out,
        {
            name: layers[int(np.nanargmax(found_BL[0]))]
            for name, found_BL in scores.items()
            if np.isfinite(found_BL[0]).any()
        },
        layers[int(_taken(mixed_BL, rule)[0])],
        silent,
        layers[int(np.nanargmax(combined_BL[0]))] if rule == "latest" else None,
    )


def _mixed(
    scores: "Mapping[str, Floats]", defined_L: "NDArray[np.bool_]", config: Config
) -> "tuple[Floats, tuple[str, ...]]":
    """Return (B, L) the scores that count as one, NaN where one is undefined; and those without a vote."""
    import numpy as np

    counting = {name: weight for name, weight in config.weights.items() if weight}
    mixed_BL = np.where(defined_L, 0.0, np.full(next(iter(scores.values())).shape, np.nan))
    own_BL = {name: scores[name][:, defined_L] for name in counting}
    silent = tuple(
        name for name in counting if config.normalise != "none" and not tells_apart(own_BL[name])
    )
    voting = {name: weight for name, weight in counting.items() if name not in silent}
    for name, weight in voting.items():
        share = weight / sum(voting.values())
        mixed_BL[:, defined_L] += share * normalise(own_BL[name], config.normalise)
    return mixed_BL, silent


def _wins(taken: "Integers", layers: Sequence[int]) -> dict[int, float]:
    """Return the share of bootstrap samples that choose each layer, the largest first."""
    found = Counter(layers[int(index)] for index in taken)
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return {layer: count / len(taken) for layer, count in ordered}


def _taken(scores_BL: "Floats", rule: str) -> "Integers":
    """Return (B,) which layer each row chooses; by the rule `last` the last that is defined."""
    import numpy as np

    best_B: Integers = np.nanargmax(scores_BL, axis=1)
    if rule == "last":
        return np.full_like(best_B, np.flatnonzero(np.isfinite(scores_BL[0]))[-1])
    if rule == "best" or len(scores_BL) < 3:
        return best_B
    behind_L = scores_BL[:, [best_B[0]]] - scores_BL
    error_L = np.std(behind_L[1:], axis=0, ddof=1)
    near_BL = np.nanmax(scores_BL, axis=1, keepdims=True) - scores_BL <= error_L
    last_B: Integers = near_BL.shape[1] - 1 - near_BL[:, ::-1].argmax(axis=1)
    return np.maximum(last_B, best_B)


def tells_apart(scores_BL: "Floats") -> bool:
    """Return whether a score differs over the layers by more than its error: its range by more than 95 % of
    the ranges that the bootstrap samples have around their own means, layer by layer. The best and the worst
    layer are picked by the scores themselves, so the interval of a pair that was given beforehand would be
    too narrow. Without bootstrap samples no error is known.
    """
    import numpy as np

    if len(scores_BL) < 3:
        return True
    errors_BL = scores_BL[1:] - scores_BL[1:].mean(axis=0)
    by_chance = np.quantile(np.ptp(errors_BL, axis=1), 0.95)
    return bool(np.ptp(scores_BL[0]) > by_chance)


def normalise(scores_BL: "Floats", how: str) -> "Floats":
    """Return the scores brought to 0..1 over the layers: by the first row's range, so that bootstrap samples
    stay as wide as they are; or each row by its ranks. Equal scores become 0."""
    import numpy as np

    if how == "none":
        return scores_BL
    if how == "rank":
        from scipy.stats import rankdata

        scores_BL = rankdata(scores_BL, axis=1)
    by_BL = scores_BL if how == "rank" else scores_BL[:1]
    low_B1 = by_BL.min(axis=1, keepdims=True)
    range_B1 = by_BL.max(axis=1, keepdims=True) - low_B1
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
    if choice.best not in (None, choice.layer):
        said[0] += f", the last that is within a standard error of the best, layer {choice.best}"
    if num_choices == 1:
        return said[0] + "; there was no other to choose from."
    voting = [
        name for name, weight in config.weights.items() if weight and name not in choice.silent
    ]
    if not voting:
        said[0] += ", the last, as in the paper: no score that counts tells the layers apart"
    elif choice.wins:
        share = choice.wins.get(choice.layer, 0.0)
        sure = "sure" if share >= SURE else "likely, not sure" if share >= LIKELY else "open"
        said[0] += (
            f"; the choice is {sure}: it wins in {share:.0%} of bootstrap samples of the examples"
        )
        others = [(layer, won) for layer, won in choice.wins.items() if layer != choice.layer]
        said[0] += "".join(f", layer {layer} in {won:.0%}" for layer, won in others[:1])
    else:
        said[0] += "; how sure that is was not asked (method.selection.resamples is 0)"
    alone = {name: choice.alone[name] for name in voting}
    if len({*alone.values()}) > 1:
        each = ", ".join(f"{name} {layer}" for name, layer in alone.items())
        said.append(f"The scores that count disagree; each alone would choose: {each}")
    if choice.silent and voting:
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
