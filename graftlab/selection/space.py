"""The space that scores are computed in: principal components, or all that the examples span."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from graftlab.contracts.arrays import Floats


# Shapes: N examples, D values a state, C components.


class Undefined(Exception):
    """A score has no value at this layer; the message says why."""


SAME = 1e-10  # of the mean square length: float32 states that differ by less are the same


def unit_length(states_ND: "Floats") -> "Floats":
    """Return the states in float64, each of length 1; one of only zeros stays."""
    import numpy as np

    states_ND = states_ND.astype(np.float64)
    lengths_N1 = np.linalg.norm(states_ND, axis=1, keepdims=True)
    scaled: Floats = states_ND / np.where(lengths_N1 > 0, lengths_N1, 1.0)
    return scaled


def shorten(states_ND: "Floats") -> "Floats":
    """Return the states turned so that N values are enough: all distances and products stay.

    400 examples span at most 400 of a large model's 4096 dimensions, and every score is blind to turning.
    """
    import numpy as np

    if states_ND.shape[1] <= states_ND.shape[0]:
        return states_ND
    u_NN, s_N, _ = np.linalg.svd(states_ND, full_matrices=False)
    turned: Floats = u_NN * s_N
    return turned


def project(states_ND: "Floats", fitted_N: "NDArray[np.bool_]", components: int | None) -> "Floats":
    """Return all states (N, C) in a space fitted on those where `fitted_N` is true.

    Centred, on the leading `components` (None: all dimensions as they are), and scaled as a whole so
    that the variances add up to 1, as much as unit vectors have at most: the penalty of a probe then
    means the same at every layer, and what it does in the source. Components stand in falling order of
    variance; their signs make the largest loading positive.

    Raises:
        Undefined: the fitted states are the same, or not finite.
    """
    import numpy as np

    if not np.isfinite(states_ND).all():
        raise Undefined("states are not finite")
    fitted_ND = states_ND[fitted_N]
    mean_D = fitted_ND.mean(axis=0)
    centred_ND = fitted_ND - mean_D
    spread = float((centred_ND**2).sum())
    if spread <= SAME * float((fitted_ND**2).sum()):
        raise Undefined("all states are the same")
    found_NC = states_ND - mean_D
    if components is not None:
        axes_CD = np.linalg.svd(centred_ND, full_matrices=False)[2]
        axes_CD = axes_CD[: min(components, len(fitted_ND) - 1)]
        largest_C = axes_CD[np.arange(len(axes_CD)), np.abs(axes_CD).argmax(axis=1)]
        found_NC = found_NC @ (axes_CD * np.sign(largest_C)[:, None]).T
    scale = np.sqrt((found_NC[fitted_N] ** 2).sum(axis=1).mean())
    scaled: Floats = found_NC / scale
    return scaled
