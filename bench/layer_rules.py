"""Rules that choose a layer by the scores of one sample: what bench/layer_choice.py compares."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Shapes: L layers, B rows: the scores, then their bootstrap samples.


class Sampled(NamedTuple):
    """What a rule knows."""

    layers: Sequence[int]
    """Those it may choose from."""
    num_layers: int
    scores: Mapping[str, Mapping[str, NDArray[np.float64]]]
    """Space -> score -> (B, L)."""


def best(name: str, space: str = "pca") -> Callable[[Sampled], int]:
    """Return the rule that takes the layer with the highest score, of equals the first."""
    return lambda sampled: sampled.layers[int(sampled.scores[space][name][0].argmax())]


def mixed(**settings: object) -> Callable[[Sampled], int]:
    """Return the rule of `method.selection` with these settings."""

    def rule(sampled: Sampled) -> int:
        from graftlab.selection import Config
        from graftlab.selection.choice import choose

        config = Config(**settings)
        scores = sampled.scores[config.space]
        return choose(sampled.layers, scores, sampled.num_layers, config).layer

    return rule


def stretched(sampled: Sampled) -> int:
    """The default of graftlab until this was measured: each score brought to 0..1 whatever its error."""
    mixed_L = np.zeros(len(sampled.layers))
    for name, weight in MIX["weights"].items():
        score_L = sampled.scores["pca"][name][0]
        mixed_L += weight * (score_L - score_L.min()) / max(np.ptp(score_L), 1e-12)
    depth_L = np.asarray(sampled.layers) / (sampled.num_layers - 1)
    return sampled.layers[int((mixed_L - MIXED_BIAS * depth_L).argmax())]


MIX = {"weights": {"probe": 0.4, "fisher": 0.3, "silhouette": 0.3}}
MIXED_BIAS = 0.3
SOURCE = {
    **MIX,
    "space": "raw",
    "normalise": "none",
    "rule": "best",
    "depth_bias": MIXED_BIAS,
    "depth_bias_form": "multiplicative",
}
LAST, RANDOM = "last layer", "random layer"
RULES: dict[str, Callable[[Sampled], int]] = {
    LAST: lambda sampled: sampled.layers[-1],
    "first layer": lambda sampled: sampled.layers[0],
    "the source's formula": mixed(**SOURCE),
    "three scores stretched and mixed, depth bias": stretched,
    "three scores mixed, those that tell layers apart": mixed(
        **MIX, rule="best", normalise="minmax", depth_bias=0.0
    ),
    **{name: best(name) for name in (*("probe", "fisher", "silhouette", "plugin"),)},
    "linear": mixed(weights={"linear": 1.0}, rule="best"),
    "linear, latest within an error": mixed(weights={"linear": 1.0}, rule="latest"),
    "plugin, latest within an error": mixed(weights={"plugin": 1.0}, rule="latest"),
}
