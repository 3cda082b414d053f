"""DeepSpeed's ZeRO: stage 2 shards gradients and optimizer, stage 3 the weights as well.

Rajbhandari et al., 2020, arXiv 1910.02054. DeepSpeed's engine has the backward pass and the step; what a
run file says (batch, rates, clipping, optimizer, precision) holds, and its own checkpoints are not used.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab.errors import ConfigError, missing_extra
from graftlab.training.optimizer import Moments
from graftlab.training.parallel import sharding, zero_settings
from graftlab.training.parallel.request import Asked
from graftlab.training.parallel.sharding import Engine
from graftlab.weights import surgery

if TYPE_CHECKING:
    import torch
    from deepspeed import DeepSpeedEngine
    from torch import Tensor, nn

    from graftlab.training.config import Config
    from graftlab.training.parallel.processes import Processes

log = logging.getLogger("graftlab")
BY_ELEMENT = ("adadelta", "adam", "adamax", "adamw", "nadam", "radam", "rmsprop", "sgd")
"""Optimizers whose step does the same to flat pieces of all weights as to the weights."""


class Piece(NamedTuple):
    """Where this process's part of a weight lies."""

    flat: "Tensor"
    """What the optimizer moves: the float32 pieces of many weights, one after the other."""
    start: int
    """In `flat`."""
    first: int
    """In the weight, flattened."""
    size: int


class _Engine:
    """DeepSpeed's engine, which has the backward pass and the step."""

    def __init__(self, deepspeed: "DeepSpeedEngine", world: int) -> None:
        self._deepspeed, self._world = deepspeed, world

    def backward(self, loss: "Tensor") -> None:
        """Add gradients; they are summed and shared out in it. DeepSpeed makes means of sums."""
        self._deepspeed.backward(loss * self._world, scale_wrt_gas=False)

    def update(self) -> tuple[float, bool]:
        """Let DeepSpeed clip and step; it leaves out a step whose gradients are not finite."""
        # where the loss is not finite, its gradients are not either
        self._deepspeed.step()
        applied = not self._deepspeed.optimizer.overflow
        norm = float(self._deepspeed.get_global_grad_norm()) if applied else float("nan")
        return norm, applied


class Zero:
    """Gradients and optimizer in pieces; at stage 3 also the weights, each whole only while it computes."""

    lockstep = True

    def __init__(self, asked: Asked, processes: "Processes") -> None:
        """Read the launcher's settings, and DeepSpeed's own if they name a file.

        Raises:
            ConfigError: one of them is not supported, or DeepSpeed is not installed.
        """
        import importlib.util

        if importlib.util.find_spec("deepspeed") is None:
            raise ConfigError(
                missing_extra("a launcher that asks for DeepSpeed", "deepspeed", "deepspeed")
            )
        self.processes = processes
        self.engine: Engine | None = None
        self.settings = zero_settings.read(asked.settings)
        stage = self.settings["zero_optimization"]["stage"]
        if stage not in (2, 3):
            raise ConfigError(f"the launcher asks for DeepSpeed's ZeRO stage {stage}; known: 2, 3.")
        self.stage: int = stage
        self.name = f"zero{stage}"

    def check(self, config: "Config", steers: bool, quantized: bool) -> None:
        """Refuse methods that read gradients, and what would not be the same on flat pieces."""
        wrong = None
        if steers:
            wrong = "the method, or a hook, reads gradients, which no process has whole. Use FSDP"
        elif config.optimizer.name not in BY_ELEMENT:
            wrong = (
                f"training.optimizer.name {config.optimizer.name}: known: {', '.join(BY_ELEMENT)}"
            )
        elif config.precision == "fp16":
            wrong = "training.precision: fp16 scales losses, which is not done here. Use bf16"
        elif config.compile:
            wrong = "training.compile does not go with it. Set it to false"
        elif quantized:
            wrong = "weights of backbone.quantization are not sharded. Leave it out"
        if wrong:
            raise ConfigError(
                f"the launcher asks for DeepSpeed: {wrong}, or start with `accelerate launch --multi_gpu`."
            )

    def shard(self, model: "nn.Module", device: "torch.device", steered: bool) -> None:
        """Let no process stop writing a text before the others; the rest is done with the optimizer."""
        self.device = device
        if self.stage == 3:
            for module in model.modules():
                if hasattr(module, "generate"):  # transformers' own sign
                    module._is_fsdp_managed_module = True  # type: ignore[assignment]

    def begin(
        self, model: "nn.Module", made: "torch.optim.Optimizer", config: "Config"
    ) -> "nn.Module":
        """Start DeepSpeed's engine over model and optimizer."""
        import os

        if self.device.type == "cpu":
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        import deepspeed

        deepspeed.utils.logger.setLevel(logging.WARNING)
        # gloo adds up; else the first run on a CPU compiles DeepSpeed's own sums, which are others
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self.groups = [[*zip(g["names"], g["params"], strict=True)] for g in made.param_groups]
        world = self.processes.share.world
        settings = zero_settings.of_run(self.settings, config, world)
        deepspeed.init_distributed(dist_init_required=False, verbose=False)
        if self.stage == 3:  # weight by weight: the whole model may be too large for one device
            deepspeed.zero.Init(module=model, config_dict_or_path=settings)
        self.deepspeed, *_ = deepspeed.initialize(model=model, optimizer=made, config=settings)
        self.engine = _Engine(self.deepspeed, world)
        wrapped: nn.Module = self.deepspeed
        return wrapped

    def settle(self, model: "nn.Module") -> None:
        """DeepSpeed does so itself."""

    def tensors(self, model: "nn.Module", named: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
        """Gather them one after the other."""
        own = dict(model.named_parameters())
        found = {}
        for name, tensor in named.items():
            with self._gathered([own[name]] if name in own else []):
                if self.processes.main:
                    whole = own.get(name, tensor).detach()
                    found[name] = whole.cpu().clone() if self.stage == 3 else whole
        return found

    def moments(self, made: "torch.optim.Optimizer") -> Moments:
        """Add up the pieces of all processes, one weight after the other."""
        import torch
        import torch.distributed as dist

        found: Moments = {}
        for name, parameter in self._named():
            piece = self._piece(parameter)
            # a process may have no piece of this weight: what there is, the first says
            keys = self.processes.broadcast(self._kinds(made, self._flat(parameter)))
            state = {}
            for key, value in keys.items():
                if value is not None:
                    state[key] = value
                    continue
                whole = torch.zeros(_size(parameter), device=self.device)
                if piece:
                    kept = made.state[piece.flat][key]
                    whole.narrow(0, piece.first, piece.size).copy_(
                        kept.narrow(0, piece.start, piece.size)
                    )
                dist.all_reduce(whole)
                if self.processes.main:
                    state[key] = whole.view(sharding.shape(parameter)).cpu()
            if state:
                found[name] = state
        return found

    def put(self, target: "Tensor", value: "Tensor") -> None:
        """Copy it into the weight, and into what the optimizer moves."""
        import torch

        with torch.no_grad():
            own = getattr(target, "ds_tensor", None)
            if own is None:
                target.copy_(value)
            elif part := _partition(target):
                own.narrow(0, 0, part[1]).copy_(value.flatten().narrow(0, *part))
            piece = self._piece(target) if target.requires_grad else None
            if piece:
                mine = value.to(piece.flat.device).flatten().narrow(0, piece.first, piece.size)
                piece.flat.narrow(0, piece.start, piece.size).copy_(mine)

    def put_moments(self, made: "torch.optim.Optimizer", saved: Moments) -> None:
        """Put this process's pieces back."""
        import torch

        for name, parameter in self._named():
            for key, value in saved.get(name, {}).items():
                state = made.state[self._flat(parameter)]
                if not isinstance(value, torch.Tensor) or not value.ndim:
                    state[key] = value.clone() if isinstance(value, torch.Tensor) else value
                    continue
                flat = state.setdefault(key, torch.zeros_like(self._flat(parameter)))
                if piece := self._piece(parameter):
                    mine = value.flatten().narrow(0, piece.first, piece.size)
                    flat.narrow(0, piece.start, piece.size).copy_(mine)

    @contextmanager
    def whole(self, model: "nn.Module") -> Iterator[None]:
        """Gather the weights that train, at stage 3."""
        with self._gathered([*surgery.trainable(model).values()]):
            yield

    def _gathered(self, parameters: "list[nn.Parameter]") -> AbstractContextManager[None]:
        import deepspeed

        gathered: AbstractContextManager[None] = deepspeed.zero.GatheredParameters(
            parameters, enabled=self.stage == 3
        )
        return gathered

    def _named(self) -> "Iterator[tuple[str, nn.Parameter]]":
        for group in self.groups:
            yield from group

    def _flat(self, parameter: "Tensor") -> "Tensor":
        """Return what the optimizer moves of the weights that this one lies with."""
        zero = self.deepspeed.optimizer
        if self.stage == 3:
            number = zero.grad_position[zero.get_param_id(parameter)][0]
            flats = zero.fp32_partitioned_groups_flat
        else:
            of = {p: i for i, group in enumerate(self.groups) for _, p in group}
            number, flats = of[parameter], zero.single_partition_of_fp32_groups
        flat: Tensor = flats[number]
        return flat

    def _piece(self, parameter: "Tensor") -> Piece | None:
        """Return where this process's part of a weight lies; None where it has none."""
        if self.stage == 3:
            zero = self.deepspeed.optimizer
            part = _partition(parameter)
            start = zero.grad_position[zero.get_param_id(parameter)][1]
            return part and Piece(self._flat(parameter), start, *part)
        mapping = getattr(parameter, "_hp_mapping", None)
        if mapping is None:
            return None
        there, here = mapping.hp_fragment_address, mapping.lp_fragment_address
        return Piece(self._flat(parameter), there.start, here.start, here.numel)

    def _kinds(self, made: "torch.optim.Optimizer", flat: "Tensor") -> dict[str, object]:
        """Return the keys of the optimizer's state, with values where they are not of each element."""
        state = made.state.get(flat, {})
        return {k: None if getattr(v, "shape", None) == flat.shape else v for k, v in state.items()}


def _size(parameter: "Tensor") -> int:
    size: int = getattr(parameter, "ds_numel", parameter.numel())
    return size


def _partition(parameter: Any) -> tuple[int, int] | None:
    """Return first element and count of this process's part at stage 3, without padding."""
    import torch.distributed as dist

    width = parameter.ds_tensor.ds_numel
    first = width * dist.get_rank()
    count = min(width, parameter.ds_numel - first)
    return (first, count) if count > 0 else None
