"""What `layer: auto` asks: on how many examples, in which space, by which scores a layer is chosen."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from graftlab import registry
from graftlab.config import Conflict, Section
from graftlab.errors import unknown


class Config(Section):
    """How a layer is chosen. The recipe `pifi/source` has the settings of the source."""

    samples: int = Field(400, ge=2)
    """Training examples that are looked at, the same number of each class as far as there are so many."""
    components: int = Field(16, ge=1)
    """Principal components of the space that scores are computed in, and of the correlation map."""
    top_components: int = Field(5, ge=1)
    """How many components `pc_label_correlation` takes the mean of: those that tell most of the label."""
    space: Literal["pca", "raw"] = "pca"
    """Compute scores on the components (fitted without the examples that a probe is tested on), or on the
    hidden states as they are, as the source's code does."""
    pooling: Literal["mean", "first", "last"] = "mean"
    """What stands for a text: the mean of its tokens, the first or the last. Scaled to length 1 then."""
    max_length: int = Field(128, ge=2)
    """Longest text in the large model's tokens; the rest is cut and counted."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the large model's layers compute in; scores are float64 whatever it is."""
    weights: dict[str, float] = Field(default_factory=lambda: {"linear": 1.0})
    """How much each score counts; the others are only reported."""
    normalise: Literal["minmax", "rank", "none"] = "minmax"
    """Bring each score to 0..1 over the layers before they are mixed; one that differs over them by no more
    than its error has no vote then. `none` is the source, where the probe outweighs the others."""
    rule: Literal["best", "latest"] = "best"
    """Take the layer with the highest mixed score; or the last one that is behind it by no more than one
    standard error, over the bootstrap samples, of that difference."""
    depth_bias: float = Field(0.0, ge=0, le=1)
    """How much the deepest layer loses against the first; layers between in proportion. The source: 0.3."""
    depth_bias_form: Literal["additive", "multiplicative"] = "additive"
    """Take it from the score, or multiply with 1 minus it: the source, which raises scores below zero."""
    folds: int = Field(5, ge=2)
    """Parts of the cross-validation of probes; each class needs as many examples."""
    projection: Literal["random", "least_squares"] = "random"
    """How `plugin` brings the encoder's vectors into the layer's space: as PiFi begins, or fitted to the
    layer's own pooled inputs."""
    resamples: int = Field(1000, ge=0)
    """Bootstrap samples of the examples, for intervals and for how sure the choice is."""
    layers: tuple[int, ...] = ()
    """Layers to choose from; left out, all. Those below the deepest are computed whatever this says."""
    seed: int = Field(0, ge=0)
    """Seed of the draws; not the run's, so that runs with other seeds share one selection."""

    @field_validator("weights")
    @classmethod
    def _scores_exist(cls, weights: dict[str, float]) -> dict[str, float]:
        for name, weight in weights.items():
            if name not in registry.names("scores"):
                raise ValueError(unknown("score", name, registry.names("scores")))
            if weight < 0:
                raise ValueError(f"the weight of {name} is {weight:g}; it must be 0 or more")
        if not any(weights.values()):
            raise ValueError("weights: one score at least must count")
        return weights

    @field_validator("layers")
    @classmethod
    def _layers_once(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if any(layer < 0 for layer in layers):
            raise ValueError("layers: they count from 0")
        return tuple(sorted(set(layers)))

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> "Config":
        if self.depth_bias_form != "additive" and not self.depth_bias:
            raise Conflict("depth_bias_form", "depth_bias_form has no effect at depth_bias 0")
        if self.top_components > self.components:
            raise Conflict(
                "top_components",
                f"top_components ({self.top_components}) is more than components ({self.components})",
            )
        return self
