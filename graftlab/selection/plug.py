"""An encoder's vectors through P_in and one layer of the large model, as PiFi sends them."""

from typing import TYPE_CHECKING, Literal

from graftlab.seeds import mix
from graftlab.selection import space

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats, Integers
    from graftlab.weights.layers.layer import Layer


# Shapes: N examples, E values of the encoder's vector, D of the large model's state.

RIDGE = 0.01  # of the mean eigenvalue: with N < E, least squares alone would learn N by heart


def plug(
    encoded_NE: "Floats",
    inputs_ND: "Floats",
    folds_N: "Integers",
    layer: "Layer",
    projection: Literal["random", "least_squares"],
    seed: int,
) -> "list[Floats]":
    """Return for each fold (N, <= N) the vectors after P_in and `layer.pooled`, of length 1.

    A random P_in is one for all folds and layers; one by least squares is fitted to `inputs_ND`, the
    layer's own pooled inputs, without the fold's examples.
    """
    num_folds = int(folds_N.max()) + 1
    if projection == "random":
        return [
            _through(layer, encoded_NE @ random(*sizes(encoded_NE, inputs_ND), seed))
        ] * num_folds
    return [
        _through(
            layer, encoded_NE @ fitted(encoded_NE[folds_N != fold], inputs_ND[folds_N != fold])
        )
        for fold in range(num_folds)
    ]


def sizes(encoded_NE: "Floats", inputs_ND: "Floats") -> tuple[int, int]:
    return encoded_NE.shape[1], inputs_ND.shape[1]


def random(num_in: int, num_out: int, seed: int) -> "Floats":
    """Return (E, D) as `torch.nn.Linear` begins: uniform within 1 / sqrt(E)."""
    import numpy as np

    draws = np.random.default_rng(mix(seed, "projection"))
    return draws.uniform(-(num_in**-0.5), num_in**-0.5, (num_in, num_out))


def fitted(encoded_NE: "Floats", inputs_ND: "Floats") -> "Floats":
    """Return (E, D) that brings the encoder's vectors nearest to the layer's inputs, with a small ridge."""
    import numpy as np

    gram_EE = encoded_NE.T @ encoded_NE
    ridge = RIDGE * np.trace(gram_EE) / len(gram_EE)
    solved: Floats = np.linalg.solve(
        gram_EE + ridge * np.eye(len(gram_EE)), encoded_NE.T @ inputs_ND.astype(np.float64)
    )
    return solved


def _through(layer: "Layer", projected_ND: "Floats") -> "Floats":
    import torch

    weight = next(layer.parameters())
    with torch.no_grad():
        out_ND = layer.pooled(torch.from_numpy(projected_ND).to(weight.device, weight.dtype))
    return space.shorten(space.unit_length(out_ND.float().cpu().numpy()))
