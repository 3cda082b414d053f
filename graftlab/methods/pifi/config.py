"""What a run file says of PiFi."""

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from graftlab.adapters.inner_lora import Lora
from graftlab.config import Conflict, ModelName, Section
from graftlab.methods.pifi import donors
from graftlab.selection import Config as Selection


class Config(Section):
    """A layer plugged in."""

    plug: Literal["layer", "random", "mlp", "none"] = "layer"
    """What stands between P_in and P_out: the layer, one drawn anew with its shapes and norms (frozen
    too), a GELU (so that P_in and P_out are a trainable MLP of the same size), or nothing."""
    projections: bool = True
    """With `plug: none`: keep P_in and P_out. Without them the head reads the encoder: the `base` of PiFi."""
    llm: ModelName | None = Field("llama3.1", validate_default=True)
    """The donor: alias, hub id, or folder with config.json and safetensors; only the layer is read of it.
    Null in the run's config where neither layer nor projections are there."""
    revision: str | None = None
    """Branch, tag or commit of the donor on the hub; the run records the commit."""
    layer: int | tuple[int, ...] | Literal["last", "auto"] = "last"
    """Which layer, counted from 0; several are passed one after the other; `auto` lets the scores of
    `graftlab select` choose."""
    plug_mode: Literal["pooled", "sequence"] = "pooled"
    """Pass the pooled vector as a sequence of one; or every token, with the donor's mask and positions, and
    pool afterwards."""
    pooling: Literal["cls", "mean", "mean_with_padding"] = "cls"
    """What stands for a text: the first token, the mean of its tokens, or the mean with padding."""
    pad_to: int | None = Field(None, ge=8)
    """Tokens that every input is padded to for `mean_with_padding`, which needs it."""
    residual: bool = False
    """Add what goes into the plug-in to what comes out."""
    train_layer: bool = False
    """Train the plugged-in layer too; it is saved with the rest then."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format that the frozen layer is held in and computes in."""
    encoder: Literal["full", "lora", "frozen"] = "full"
    """What trains of the encoder: all, LoRA, or nothing."""
    lora: Lora = Lora()
    """The LoRA of `encoder: lora`."""
    head_dropout: float = Field(0.2, ge=0, lt=1)
    """Share of the head's inner values that is zeroed in training."""
    selection: Selection = Selection()
    """How `layer: auto` and `graftlab select` choose a layer."""

    @field_validator("llm")
    @classmethod
    def _found_from_anywhere(cls, llm: str | None, info: ValidationInfo) -> str | None:
        if llm is None or is_base(info.data):
            return None
        folder = donors.local(llm)
        return str(folder) if folder else llm  # a run resumes from any directory

    @field_validator("layer")
    @classmethod
    def _counted_from_0(cls, layer: object) -> object:
        for number in numbers(layer):
            if number < 0:
                raise ValueError(f"layer {number}: layers count from 0, and the last one is `last`")
        return layer

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> "Config":
        for conflict in _conflicts(self):
            raise conflict
        return self


def _conflicts(config: Config) -> Iterator[Conflict]:
    """Yield what contradicts itself, or would have no effect."""
    plug, base = config.plug, is_base(vars(config))
    if plug in ("mlp", "none"):
        for name, default in (("layer", "last"), ("dtype", "float32")):
            if getattr(config, name) != default:
                yield Conflict(name, f"{name} has no effect: there is no layer in plug {plug}")
    if base:
        idle = {"revision": None, "residual": False, "plug_mode": "pooled"}
        for name, without in idle.items():
            if getattr(config, name) != without:
                yield Conflict(
                    name, f"{name} has no effect without projections: nothing is plugged in"
                )
    elif not config.projections:
        yield Conflict("projections", f"projections false is for plug none; {plug} needs them")
    elif not config.llm:
        yield Conflict("llm", "llm is missing; its width is that of the projections")
    if config.train_layer and plug != "layer":
        yield Conflict(
            "train_layer",
            f"train_layer has no effect: plug {plug} has no layer that has learned something",
        )
    if config.train_layer and config.dtype != "float32":
        yield Conflict("dtype", "dtype must be float32 where train_layer is true")
    if config.layer == ():
        yield Conflict("layer", "layer is empty; name one or more")
    if config.plug_mode == "sequence" and config.pooling == "cls":
        yield Conflict(
            "pooling",
            "pooling cls with plug_mode sequence is the same as plug_mode pooled: in a causal layer the "
            "first token sees no other. Choose pooling mean",
        )
    if (config.pooling == "mean_with_padding") != (config.pad_to is not None):
        yield Conflict(
            "pad_to",
            "pad_to and pooling mean_with_padding go together: the mean must not depend on the batch",
        )
    if config.encoder != "lora" and config.lora != Lora():
        yield Conflict("lora", f"lora has no effect with encoder {config.encoder}")


def numbers(layer: object) -> tuple[int, ...]:
    """Return the layers that are given by number."""
    return () if isinstance(layer, str) else layer if isinstance(layer, tuple) else (layer,)


def is_base(given: Mapping[str, object]) -> bool:
    return given.get("plug") == "none" and given.get("projections") is False
