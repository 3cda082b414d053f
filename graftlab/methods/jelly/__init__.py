"""JELLY: a low-rank adapter that trains behind its layer first and switches to beside it, as LoRA is.

Joint Efficient Learning with Layer-Yielding. Sequential: y = W x + b + s B A (W x); parallel:
y = W x + b + s B A x. What the switch does to A and B is in `projections`, when it comes in `switching`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from graftlab import adapters
from graftlab.config import Conflict
from graftlab.contracts import Attached, Backbone, Promises, Setting
from graftlab.errors import ConfigError, Fault, wrong
from graftlab.methods.jelly.plan import Plan
from graftlab.weights import surgery

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn

    from graftlab.methods.jelly.layer import JellyLinear
# Shapes: I in features, O out features, R rank.

PROMISES = Promises(
    quantized=True,
    steers=True,  # it decides from gradients when to switch, and replaces weights then
)
REGISTERS = f"{__name__}.tuner"

LONGER = ("Lower method.switch_epoch or method.switch_step, or train longer.",)
DYNAMIC = ("criterion", "ema", "drop_ratio", "patience", "warmup", "minimum", "latest")
SWITCHING = ("switch_method", "reset_optimizer", "rewarmup_steps")


class Config(adapters.OnLinear):
    """Sequential first, parallel after."""

    rank: int = Field(8, ge=1, le=surgery.MOST_RANK)
    """Rank of the correction (r)."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead (Kalajdzievski, 2023, arXiv 2312.03732)."""
    lora_plus_ratio: float = Field(1.0, gt=0)
    """B's learning rate is this many times A's (LoRA+, arXiv 2402.12354, takes 16)."""
    init: Literal["lora", "jelly", "gaussian"] = "lora"
    """Start of A: uniform as LoRA's (lora; jelly is another name of it), or normal with variance
    1 / width (gaussian). B starts at zero."""
    mode: Literal["parallel", "sequential", "seq2par", "dynamic"] = "dynamic"
    """Beside the layer throughout (LoRA), behind it throughout, a switch at a set time, or a switch when
    the gradient of A has lost its direction."""
    switch_method: Literal["exact", "tip", "tip_preserve", "merge_reinit", "none"] = "exact"
    """What becomes of A and B: A W and B (exact), the double projection of the source with B zero (tip),
    the same A with the B that keeps the function (tip_preserve), a frozen copy of what was learned and a
    fresh start (merge_reinit), or nothing (none)."""
    switch_epoch: float | None = None
    """seq2par: switch once so many epochs are done; 0 or less is LoRA. Unless set, 1."""
    switch_step: int | None = Field(None, ge=0)
    """seq2par: switch after so many optimizer steps, instead of switch_epoch."""
    nonsquare: Literal["own_A", "parallel", "error"] = "own_A"
    """Layers whose output is not as wide as their input: an A of the output's width that is projected at
    the switch (own_A), parallel from the start, or refused."""
    reset_optimizer: bool = True
    """Forget the optimizer's moments of A at the switch, and of B unless the switch is exact."""
    rewarmup_steps: int = Field(0, ge=0)
    """Let the learning rate rise again from zero over so many steps after the switch."""
    criterion: Literal["consecutive", "halves"] = "consecutive"
    """dynamic: the coherence is the cosine between A's gradients of two steps in a row, or of the two
    halves of one batch (at least two micro-batches)."""
    ema: float = Field(0.1, gt=0, le=1)
    """dynamic: weight of a new coherence in its average."""
    drop_ratio: float = Field(0.2, ge=0, lt=1)
    """dynamic: switch when the average has fallen to this share of its peak."""
    patience: int = Field(1, ge=1)
    """dynamic: for so many steps in a row."""
    warmup: int | float | None = Field(None, ge=0)
    """dynamic: the peak counts from this step on; below 1, a share of the run. Unless set, 50 steps, but
    at most a tenth of the run."""
    minimum: int | float | None = Field(None, ge=0)
    """dynamic: no switch before this step or share. Unless set, 100 steps, but at most a fifth."""
    latest: int | float | None = Field(None, gt=0)
    """dynamic: switch at this step or share whatever the gradients say; 1.0 for never. Unless set, at two
    thirds of the run."""

    @model_validator(mode="after")
    def _belongs_to_the_mode(self) -> "Config":
        # a run's own config.yaml gives every field: the defaults do nothing, and are no request
        fields = type(self).model_fields
        given = {name for name, field in fields.items() if getattr(self, name) != field.default}
        if self.mode != "seq2par":
            _refuse(given, ("switch_epoch", "switch_step"), self.mode, "seq2par")
        if self.mode != "dynamic":
            _refuse(given, DYNAMIC, self.mode, "dynamic")
        if self.mode in ("parallel", "sequential"):
            _refuse(given, SWITCHING, self.mode, "seq2par or dynamic")
        if self.starts_parallel:
            idle = (*SWITCHING, "nonsquare")
            _refuse(given, idle, f"{self.mode} from the start", "sequential, seq2par or dynamic")
        if self.switch_epoch is not None and self.switch_step is not None:
            raise Conflict("switch_epoch", "switch_epoch and switch_step exclude each other")
        for name in ("warmup", "minimum", "latest"):
            value = getattr(self, name)
            if isinstance(value, float) and value > 1:
                raise Conflict(
                    name, f"{name} {value}: write a whole number of steps, or a share from 0 to 1"
                )
        return self

    @property
    def starts_parallel(self) -> bool:
        """Whether it is LoRA from the first step on."""
        switch = self.switch_epoch if self.switch_step is None else self.switch_step
        return self.mode == "parallel" or (
            self.mode == "seq2par" and switch is not None and switch <= 0
        )

    def plan(self, seed: int) -> Plan:
        """Return what a run does about the switch."""
        names = ("mode", "switch_epoch", "switch_step", *SWITCHING, *DYNAMIC)
        return Plan(**{name: getattr(self, name) for name in names}, seed=seed)


def _refuse(given: set[str], names: tuple[str, ...], mode: str, other: str) -> None:
    idle = [name for name in names if name in given]
    if idle:
        raise Conflict(
            idle[0], f"{', '.join(idle)} does nothing with mode {mode}; it needs mode {other}"
        )


def check_length(config: Config, epochs: float, max_steps: int) -> list[Fault]:
    """Return why the switch would come after the end of a run, where that is known without its rows."""
    if config.mode != "seq2par":
        return []
    step, epoch = config.switch_step, 1.0 if config.switch_epoch is None else config.switch_epoch
    if step is not None and 0 < max_steps <= step:
        said = f"method.switch_step is {step}, but the run ends with step {max_steps} (training.max_steps)."
        return [wrong("switch_step", said, kind="conflict", given=step, remedies=(LONGER,))]
    if step is None and not max_steps and epoch >= epochs:
        said = f"method.mode seq2par switches after {epoch:g} epochs, but the run has {epochs:g}."
        return [wrong("switch_epoch", said, kind="conflict", given=epoch, remedies=(LONGER,))]
    return []


def attach(backbone: Backbone, config: Config, setting: Setting) -> Attached:
    """Return the frozen backbone with an adapter on its target layers, and the hook that switches.

    Raises:
        ConfigError: no layer matches, the rank is larger than one of them, or a layer is not square where
            that is refused or cannot be switched.
    """
    from graftlab.methods.jelly.hook import SwitchHook
    from graftlab.methods.jelly.tuner import JellyConfig

    names = adapters.resolve(backbone, config.targets, config.rank)
    peft_config = adapters.make_config(
        JellyConfig,
        {
            "r": config.rank,
            "alpha": adapters.whole(config.alpha),
            "dropout": config.dropout,
            "use_rslora": config.rslora,
            "mode": "parallel" if config.starts_parallel else config.mode,
            "switch_method": config.switch_method,
            "nonsquare": config.nonsquare,
            "init_weights": config.init,
            "target_modules": names,
            **adapters.common_fields(backbone),
        },
        {},
    )
    model = adapters.attach(backbone, peft_config, setting.seed)
    _report(model, config)
    rates = {}
    if config.lora_plus_ratio != 1:
        rates = {n: config.lora_plus_ratio for n, _ in model.named_parameters() if ".jelly_B." in n}
    switches = config.mode in ("seq2par", "dynamic") and not config.starts_parallel
    hooks = (SwitchHook(model, adapters.ADAPTER, config.plan(setting.seed)),) if switches else ()
    return Attached(model, hooks, rates, adapters.random_frozen(model))


def _report(model: "PeftModel", config: Config) -> None:
    """Say how many layers are in which mode, and how many numbers train before and after the switch.

    Raises:
        ConfigError: no layer is sequential, or one that is not square cannot keep its A.
    """
    import logging

    from graftlab.methods.jelly.tuner import layers

    found = {name.removeprefix(adapters.PREFIX): layer for name, layer in layers(model).items()}
    sequential = [n for n, layer in found.items() if layer.forms[adapters.ADAPTER].sequential]
    own = [name for name in sequential if not found[name].is_square]
    if not sequential and not config.starts_parallel:
        raise ConfigError(
            f"method.mode {config.mode} has no sequential layer to begin with: of the {len(found)} "
            "targets none is square. Set method.nonsquare: own_A, or method.mode: parallel."
        )
    if own and config.switch_method == "none" and config.mode in ("seq2par", "dynamic"):
        raise ConfigError(
            f"method.switch_method none keeps A as it is, but {own[0]} is not square: its A does not fit "
            "the layer's input. Set method.nonsquare: parallel, or another switch_method.",
            kind="not_square",
        )
    after = sum(config.rank * (m.in_features + m.out_features) for m in found.values())
    now = sum(
        layer.jelly_A[adapters.ADAPTER].numel() + layer.jelly_B[adapters.ADAPTER].numel()
        for layer in found.values()
    )
    logging.getLogger("graftlab").info(
        "JELLY: %d layers sequential (%d of them not square), %d parallel; the adapter has %d parameters "
        "while sequential, %d when parallel",
        len(sequential), len(own), len(found) - len(sequential), now, after,
    )  # fmt: skip


save = adapters.save
off = adapters.off
merge = adapters.merge


def load(backbone: Backbone, config: Config, folder: Path) -> "nn.Module":
    """Return the backbone with the saved adapter, each layer in the mode that it was saved in."""
    from graftlab.methods.jelly import tuner  # noqa: F401  (registers the type in PEFT

    return adapters.load(backbone, folder)


def _layers(model: "PeftModel") -> "dict[str, JellyLinear]":
    from graftlab.methods.jelly.tuner import layers

    return {name.removeprefix(adapters.PREFIX): layer for name, layer in layers(model).items()}


def deltas(model: "PeftModel") -> "Iterator[tuple[str, tuple[Tensor, Tensor]]]":
    """Yield the name of each adapted weight and its change as two factors, first @ second.

    Their product has the layout of the weight itself: (O, I), or (I, O) for transformers' Conv1D.
    """
    from graftlab.weights.surgery import is_conv1d

    for name, layer in _layers(model).items():
        up, down = layer.factors(adapters.ADAPTER)
        transposed = is_conv1d(layer.get_base_layer())
        yield f"{name}.weight", (down.T, up.T) if transposed else (up, down)


def to_lora(model: "PeftModel") -> "tuple[dict[str, object], dict[str, Tensor]]":
    """Return the config and the weights of a plain LoRA adapter: rank R, or 2 R after `merge_reinit`."""
    from peft import LoraConfig

    own, weights, found = adapters.config_dict(model), adapters.tensors(model), _layers(model)
    weights = {name: tensor for name, tensor in weights.items() if ".jelly_" not in name}
    ranks = {}
    for name, layer in found.items():
        up, down = layer.factors(adapters.ADAPTER, scaled=False)
        ranks[name] = len(down)
        weights[f"{adapters.PREFIX}{name}.lora_A.weight"] = down.cpu().contiguous()
        weights[f"{adapters.PREFIX}{name}.lora_B.weight"] = up.cpu().contiguous()
    # (2 alpha) / (2 R) = alpha / R, and (sqrt(2) alpha) / sqrt(2 R) = alpha / sqrt(R)
    scale = 2**0.5 if own["use_rslora"] else 2
    doubled = [name for name, rank in ranks.items() if rank != own["r"]]
    config = LoraConfig(
        r=own["r"],
        lora_alpha=own["alpha"],
        lora_dropout=own["dropout"],
        use_rslora=own["use_rslora"],
        rank_pattern={name: ranks[name] for name in doubled},
        alpha_pattern={name: adapters.whole(scale * own["alpha"]) for name in doubled},
    ).to_dict()
    shared = ("task_type", "auto_mapping", "base_model_name_or_path", "revision", "modules_to_save")
    config |= {name: own[name] for name in shared}
    return config | {"target_modules": sorted(found), "inference_mode": True}, weights
