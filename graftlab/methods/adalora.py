"""AdaLoRA: W + s P diag(e) Q, whose ranks are shared out among the layers by importance while it trains.

Zhang et al., 2023, arXiv 2303.10512. The budget of ranks falls along a cubic (equation 12) from the
initial rank to the target; P and Q are kept near orthogonal by a term of the loss (equation 4). peft adds
that term only to a loss that the model computes itself; here it is a term of any loss.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from pydantic import Field, model_validator

from graftlab import adapters
from graftlab.adapters.low_rank import lora_layers
from graftlab.config import Conflict
from graftlab.contracts import Attached, Backbone, Excused, Promises, Setting, hook
from graftlab.errors import ModelError
from graftlab.weights import surgery

if TYPE_CHECKING:
    from peft import AdaLoraConfig, AdaLoraModel, PeftModel
    from peft.tuners.adalora.layer import RankAllocator
    from torch import Tensor, nn

# Shapes: I in features, O out features, R rank.

PROMISES = Promises(
    reloads_exactly=Excused(
        "its file is cut to the ranks that are left, so sums run over fewer terms: within 1e-5"
    ),
    quantized=True,
    steers=True,  # it shares out ranks by what gradients say
)


class Config(adapters.LinearAdapter):
    """Adaptive budget allocation for low-rank adaptation."""

    tuner: ClassVar[str] = "adalora"
    own_fields: ClassVar[dict[str, str]] = {
        "target_r": "method.target_rank",
        "init_r": "method.initial_rank",
        "tinit": "method.warmup_share",
        "tfinal": "method.final_share",
        "deltaT": "method.allocate_share",
        "beta1": "method.smoothing",
        "beta2": "method.smoothing",
        "orth_reg_weight": "method.orthogonality",
        "total_step": "training.max_steps or training.epochs",
        "rank_pattern": "training",
    }

    target_rank: int = Field(8, ge=1, le=surgery.MOST_RANK)
    """Mean rank over the layers in the end."""
    initial_rank: int = Field(12, ge=2, le=surgery.MOST_RANK)
    """Rank of every layer at the start."""
    warmup_share: float = Field(0.1, ge=0, lt=1)
    """Share of the steps before the budget begins to fall."""
    final_share: float = Field(0.3, ge=0, lt=1)
    """Share of the steps after the budget has reached the target."""
    allocate_share: float = Field(0.01, gt=0, le=1)
    """Share of the steps between two allocations (at least one step)."""
    smoothing: float = Field(0.85, gt=0, lt=1)
    """Weight of the past in the averages of importance and of its uncertainty."""
    orthogonality: float = Field(0.5, ge=0)
    """Weight of the term that keeps P and Q orthogonal (0.1 in the paper, 0.5 in peft)."""

    @model_validator(mode="after")
    def _falls(self) -> "Config":
        if self.target_rank >= self.initial_rank:
            raise Conflict(
                "target_rank",
                f"target_rank {self.target_rank} is not below initial_rank {self.initial_rank}",
            )
        if self.warmup_share + self.final_share >= 1:
            raise Conflict(
                "warmup_share",
                "warmup_share and final_share leave no steps for the budget to fall in",
            )
        return self


def schedule(config: Config, num_steps: int) -> dict[str, int]:
    """Return peft's `tinit`, `tfinal` and `deltaT` in steps; the target is reached at any length.

    With three steps or more the first one only measures importance: before it every score is zero.
    """
    tfinal = min(int(config.final_share * num_steps), num_steps - 1)
    tinit = int(config.warmup_share * num_steps)
    tinit = min(max(tinit, 1 if num_steps >= 3 else 0), num_steps - tfinal - 1)
    every = max(1, int(config.allocate_share * num_steps))
    return {"tinit": tinit, "tfinal": tfinal, "deltaT": every}


def attach(backbone: Backbone, config: Config, setting: Setting) -> Attached:
    """Return the frozen backbone with P, e and Q on its target layers, and the hook that allocates.

    Raises:
        ConfigError: no layer matches, or the initial rank is larger than one of them.
    """
    from peft import AdaLoraConfig

    fields = {
        "init_r": config.initial_rank,
        "target_r": config.target_rank,
        "lora_alpha": adapters.whole(config.alpha),
        "lora_dropout": config.dropout,
        "beta1": config.smoothing,
        "beta2": config.smoothing,
        "orth_reg_weight": config.orthogonality,
        "total_step": setting.num_steps,
        "target_modules": adapters.resolve(backbone, config.targets, config.initial_rank),
        **schedule(config, setting.num_steps),
        **adapters.common_fields(backbone),
    }
    model = adapters.attach(
        backbone, adapters.make_config(AdaLoraConfig, fields, config.peft), setting.seed
    )
    return Attached(model, hooks=(Allocate(model),), computed=adapters.random_frozen(model))


class Triple(Protocol):
    """What is used of one of PEFT's AdaLoRA layers."""

    lora_A: "Mapping[str, nn.Parameter]"  # noqa: N815  (PEFT's names)
    lora_B: "Mapping[str, nn.Parameter]"  # noqa: N815
    lora_E: "Mapping[str, nn.Parameter]"  # noqa: N815
    ranknum: "Mapping[str, Tensor]"
    scaling: Mapping[str, float]

    def get_base_layer(self) -> "nn.Module": ...


def _layers(model: "PeftModel") -> dict[str, Triple]:
    return cast("dict[str, Triple]", lora_layers(model))


def _config(model: "PeftModel") -> "AdaLoraConfig":
    return cast("AdaLoraConfig", model.peft_config[adapters.ADAPTER])


class Allocate(hook.Hook):
    """Shares out the ranks after each step, and keeps P and Q orthogonal."""

    def __init__(self, model: "PeftModel") -> None:
        self.model = model
        self.config, self.tuner = _config(model), cast("AdaLoraModel", model.base_model)
        self.allocator: RankAllocator = self.tuner.rankallocator
        self.allocated = False  # whether the budget has reached its target

    def loss_terms(self, step: int) -> "dict[str, Tensor]":
        """Return the mean over P and Q of ||P'P - I||, weighted as in peft's `AdaLoraModel.forward`."""
        import torch

        terms = []
        for layer in _layers(self.model).values():
            a_RI, b_OR = layer.lora_A[adapters.ADAPTER], layer.lora_B[adapters.ADAPTER]
            for gram_RR in (a_RI @ a_RI.T, b_OR.T @ b_OR):
                eye_RR = torch.eye(len(gram_RR), dtype=gram_RR.dtype, device=gram_RR.device)
                terms.append(torch.linalg.matrix_norm(gram_RR - eye_RR))
        mean = torch.stack(terms).mean()
        return {"adalora/orthogonality": self.config.orth_reg_weight * mean}

    def after_optimizer_step(self, step: int) -> dict[str, float]:
        """Allocate, and return the mean rank that is left."""
        assert self.config.total_step is not None
        last = self.config.total_step - self.config.tfinal
        if step > last and not self.allocated:
            step = last  # the step that should have set the final ranks was skipped
        if step == last and not self.allocator.ipt:
            self.allocator.update_ipt(self.tuner.model)  # a run of one step
        self.tuner.update_and_allocate(step)
        self.allocated = self.allocated or step == last
        return {"adalora/rank": self.mean_rank()}

    def mean_rank(self) -> float:
        """Return the mean over the layers of the rank that the last allocation left."""
        pattern = self.config.rank_pattern
        if not pattern:
            return float(self.config.init_r)
        return sum(sum(kept) for kept in pattern.values()) / len(pattern)

    def state_dict(self) -> dict[str, Any]:
        """Return the importance of every weight and the ranks, which stand in no state dict of peft's."""
        allocator = self.allocator
        return {
            "ipt": dict(allocator.ipt),
            "exp_avg_ipt": dict(allocator.exp_avg_ipt),
            "exp_avg_unc": dict(allocator.exp_avg_unc),
            "rank_pattern": self.config.rank_pattern or {},
            "allocated": self.allocated,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        places = dict(self.tuner.model.named_parameters())
        for name in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
            moved = {key: value.to(places[key].device) for key, value in state[name].items()}
            setattr(self.allocator, name, moved)
        self.config.rank_pattern = state["rank_pattern"] or None
        self.allocated = state["allocated"]


def save(model: "PeftModel", folder: Path) -> None:
    """Write the adapter, cut to the directions whose e is not zero, and the head.

    e is looked at, not the last allocation: the weights may be those of an earlier, best step.
    """
    config = _config(model)
    pattern = config.rank_pattern
    if pattern and not config.inference_mode:  # a loaded adapter is cut already
        layers = _layers(model).items()
        config.rank_pattern = {f"{name}.lora_E": _kept(layer).tolist() for name, layer in layers}
    try:
        adapters.save(model, folder)
    finally:
        config.rank_pattern = pattern


def _kept(layer: Triple) -> "Tensor":
    """Return which directions (R,) still change the layer."""
    kept: Tensor = layer.lora_E[adapters.ADAPTER].detach().flatten() != 0
    return kept


off = adapters.off
merge = adapters.merge


def load(backbone: Backbone, config: Config, folder: Path) -> "nn.Module":
    """Return the backbone with the saved adapter."""
    return adapters.load(backbone, folder)


def deltas(model: "PeftModel") -> "Iterator[tuple[str, tuple[Tensor, Tensor]]]":
    """Yield the name of each adapted weight and its change as two factors, first @ second.

    Their product has the layout of the weight itself: (O, I), or (I, O) for transformers' Conv1D.
    """
    for name, layer in _layers(model).items():
        up, down = _factors(layer)
        transposed = surgery.is_conv1d(layer.get_base_layer())
        yield f"{name}.weight", (down.T, up.T) if transposed else (up, down)


def _factors(layer: Triple) -> "tuple[Tensor, Tensor]":
    """Return s P diag(e) (O, R) and Q (R, I), cut to the directions that are left."""
    kept = _kept(layer)
    a_RI, b_OR = layer.lora_A[adapters.ADAPTER].detach(), layer.lora_B[adapters.ADAPTER].detach()
    e_R = layer.lora_E[adapters.ADAPTER].detach().flatten()
    # 1e-5 as in peft's forward pass, which divides by the initial rank whatever is left of it
    scale = layer.scaling[adapters.ADAPTER] / (layer.ranknum[adapters.ADAPTER] + 1e-5)
    return (b_OR * e_R * scale)[:, kept], a_RI[kept]


def to_lora(model: "PeftModel") -> "tuple[dict[str, object], dict[str, Tensor]]":
    """Return the config and the weights of a plain LoRA adapter with each layer's own rank and s = 1.

    Raises:
        ModelError: no layer has a rank left.
    """
    from peft import LoraConfig

    factors = {name: _factors(layer) for name, layer in _layers(model).items()}
    ranks = {name: len(down) for name, (_, down) in factors.items() if len(down)}
    if not ranks:
        raise ModelError(
            "every layer's rank is zero: the adapter changes nothing that LoRA could hold"
        )
    weights = {n: x for n, x in adapters.tensors(model).items() if ".lora_" not in n}
    for name in ranks:
        for key, factor in zip("BA", factors[name], strict=True):
            weights[f"{adapters.PREFIX}{name}.lora_{key}.weight"] = factor.cpu().contiguous()
    own = adapters.config_dict(model)
    shared = ("task_type", "auto_mapping", "base_model_name_or_path", "revision", "modules_to_save")
    rank = max(ranks.values())
    config = LoraConfig(r=rank, lora_alpha=rank, rank_pattern=ranks, alpha_pattern=ranks).to_dict()
    config |= {name: own[name] for name in shared}
    return config | {"target_modules": sorted(ranks), "inference_mode": True}, weights
