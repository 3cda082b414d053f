"""What PiFi will really see: the frozen encoder's vectors through P_in and the layer, probed as in `probe`.

The other scores read a model that has seen the whole text; the plugged-in layer sees one vector of an
encoder. P_in is drawn as PiFi draws it, or fitted by least squares to the layer's pooled inputs.
"""

from typing import TYPE_CHECKING

from graftlab.selection.scores import Sample, Undefined
from graftlab.selection.scores.probe import classes, recognised

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats


def score(sample: Sample, weights_BN: "Floats") -> "Floats":
    """Return (B,) chance-corrected accuracies.

    Raises:
        Undefined: there are no vectors of an encoder, or they are the same after the layer.
    """
    if not sample.plugged:
        raise Undefined("no vectors of an encoder were given")
    return recognised(sample, sample.plugged, weights_BN, sample.components, classes)
