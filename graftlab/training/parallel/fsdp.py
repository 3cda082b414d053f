"""FSDP: each process holds a shard of every weight, and a transformer block whole only while it computes.

torch's `fully_shard` (FSDP2; Zhao et al., 2023, arXiv 2304.11277), on GPUs over NCCL and on CPU over gloo.
A block's weights are gathered before its forward and before its backward pass; its gradients are summed and
sharded after the latter. What the optimizer sees are shards.
"""

import functools
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError
from graftlab.training import optimizer
from graftlab.training.optimizer import Moments
from graftlab.training.parallel.request import Asked
from graftlab.training.parallel.sharding import Engine, is_shard
from graftlab.weights import surgery

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from graftlab.training.config import Config
    from graftlab.training.parallel.processes import Processes

log = logging.getLogger("graftlab")
WRAPS = ("TRANSFORMER_BASED_WRAP", "NO_WRAP")
OF_WHOLE_TENSORS = ("adafactor", "rprop", "adamw_8bit", "paged_adamw_8bit")
"""Optimizers that do not work on shards (torch 2.13: DTensor), or would compute something else there."""
IGNORED = {  # what accelerate would do by itself, and the run file says
    "FSDP_ACTIVATION_CHECKPOINTING": "training.gradient_checkpointing counts",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "every process reads the weights",
}


class Fsdp:
    """Weights, gradients and optimizer in shards; what trains stays whole where a method's hooks read it."""

    name = "fsdp"
    lockstep = True
    engine: Engine | None = None  # gradients of shards are summed in the backward pass

    def __init__(self, asked: Asked, processes: "Processes") -> None:
        """Read the launcher's settings.

        Raises:
            ConfigError: one of them is not supported.
        """
        self.asked, self.processes = asked, processes
        settings = asked.settings
        if settings.get("FSDP_VERSION", "1") != "2":
            raise ConfigError(
                "the launcher asks for FSDP version 1, which torch no longer develops. Set "
                "fsdp_version: 2 in accelerate's config, as recipes/accelerate/fsdp.yaml does."
            )
        self.wrap = settings.get("FSDP_AUTO_WRAP_POLICY", "NO_WRAP").upper()
        if self.wrap not in WRAPS:
            raise ConfigError(
                f"the launcher asks for fsdp_auto_wrap_policy {self.wrap}; known: {', '.join(WRAPS)}."
            )
        classes = settings.get("FSDP_TRANSFORMER_CLS_TO_WRAP", "")
        self.classes = {name.strip() for name in classes.split(",") if name.strip()}
        self.reshard = asked.on("FSDP_RESHARD_AFTER_FORWARD", default=True)
        if asked.on("FSDP_OFFLOAD_PARAMS"):
            raise ConfigError(
                "the launcher asks for fsdp_offload_params, which is not supported. Set it to false, and "
                "use more processes or gradient checkpointing."
            )
        for name, why in IGNORED.items():
            if asked.on(name):
                log.warning("%s has no effect: %s", name.lower(), why)

    def check(self, config: "Config", steers: bool, quantized: bool) -> None:
        """Refuse optimizers that want whole tensors, float16, compiled and quantized models."""
        wrong = None
        if config.optimizer.name in OF_WHOLE_TENSORS:
            wrong = f"training.optimizer.name: {config.optimizer.name} does not work on shards. Use adamw"
        elif config.precision == "fp16":
            wrong = "training.precision: fp16 scales losses, which is not done here. Use bf16"
        elif config.compile:
            wrong = "training.compile does not go with it. Set it to false"
        elif quantized:
            wrong = "weights of backbone.quantization are not sharded. Leave it out"
        if wrong:
            raise ConfigError(
                f"the launcher asks for FSDP: {wrong}, or start with `accelerate launch --multi_gpu`."
            )

    def shard(self, model: "nn.Module", device: "torch.device", steered: bool) -> None:
        """Shard block by block, and the rest as one; each weight is gathered in its own precision.

        `steered` keeps the trainable weights whole on every process: hooks read and replace them.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import (
            FSDPModule,
            MixedPrecisionPolicy,
            fully_shard,
            register_fsdp_forward_method,
        )

        kept = {p for p in model.parameters() if not p.is_floating_point()}
        kept |= set(surgery.trainable(model).values()) if steered else set()
        for parameter in kept:
            parameter.data = parameter.data.to(device)
        fully = functools.partial(
            fully_shard,
            mesh=init_device_mesh(device.type, (self.processes.share.world,)),
            ignored_params=kept,
            reshard_after_forward=self.reshard,
            mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False),  # autocast does so
        )
        for module in (*self._blocks(model), model):
            fully(module)
        if hasattr(model, "get_base_model"):  # PEFT's model writes by the one inside it
            register_fsdp_forward_method(model, "generate")
        for module in model.modules():
            if hasattr(module, "generate"):  # transformers' sign: none stops before the others
                module._is_fsdp_managed_module = True  # type: ignore[assignment]
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)  # sums, not means
                module.set_force_sum_reduction_for_comms(True)  # gloo has no scaled sum

    def _blocks(self, model: "nn.Module") -> "list[nn.Module]":
        """Return the modules that are gathered as one, inner ones first.

        Raises:
            ConfigError: there are none of the classes that the launcher names.
        """
        from transformers.modeling_layers import GradientCheckpointingLayer

        if self.wrap == "NO_WRAP":
            return []
        inner = [m for m in model.modules() if m is not model][::-1]
        if not self.classes:
            return [m for m in inner if isinstance(m, GradientCheckpointingLayer)]
        found = [m for m in inner if type(m).__name__ in self.classes]
        if lost := self.classes - {type(m).__name__ for m in found}:
            known = {type(m).__name__ for m in inner if isinstance(m, GradientCheckpointingLayer)}
            raise ConfigError(
                f"fsdp_transformer_layer_cls_to_wrap: this model has no {', '.join(sorted(lost))}. Its "
                f"blocks are: {', '.join(sorted(known)) or 'none'}. Left out, they are found."
            )
        return found

    def begin(
        self, model: "nn.Module", made: "torch.optim.Optimizer", config: "Config"
    ) -> "nn.Module":
        """Leave the optimizer as it is: torch's work on shards."""
        return model

    def settle(self, model: "nn.Module") -> None:
        """Give up what `reshard_after_forward: false` has kept."""
        from torch.distributed.fsdp import FSDPModule

        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def tensors(self, model: "nn.Module", named: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
        """Gather them one after the other."""
        return {
            name: x for name, tensor in named.items() if (x := self._gathered(tensor)) is not None
        }

    def moments(self, made: "torch.optim.Optimizer") -> Moments:
        """Gather them one after the other."""
        return {
            name: {key: self._gathered(value) for key, value in state.items()}
            for name, state in optimizer.state(made).items()
        }

    def _gathered(self, value: Any) -> Any:
        """Return a shard's whole tensor on the main process's CPU, None elsewhere; others as they are."""
        if not is_shard(value):
            return value.detach() if hasattr(value, "detach") else value
        full = value.detach().full_tensor()
        return full.cpu() if self.processes.main else None

    def put(self, target: "Tensor", value: "Tensor") -> None:
        """Copy this process's part of it."""
        import torch

        with torch.no_grad():
            target.copy_(_part(target, value) if is_shard(target) else value)

    def put_moments(self, made: "torch.optim.Optimizer", saved: Moments) -> None:
        """Put this process's part of each back."""
        optimizer.load_state(made, saved, _part_like)

    @contextmanager
    def whole(self, model: "nn.Module") -> Iterator[None]:
        """Put whole tensors in the place of the main process's shards, and the shards back."""
        from torch import nn

        swapped, made = [], {}
        for module in model.modules():
            for name, shard in list(module.named_parameters(recurse=False)):
                if not is_shard(shard) or not shard.requires_grad:
                    continue
                if shard not in made:  # tied weights are one
                    made[shard] = self._gathered(shard)
                if self.processes.main:
                    module._parameters[name] = nn.Parameter(made[shard])
                    swapped.append((module, name, shard))
        try:
            yield
        finally:
            for module, name, shard in swapped:
                module._parameters[name] = shard


def _part(target: "Tensor", value: "Tensor") -> "Tensor":
    """Return this process's part of a whole tensor that all have, laid out as `target`."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(target, DTensor)
    value = value.to(target.device, target.dtype)
    return distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)


def _part_like(parameter: "Tensor", value: "Tensor") -> "Tensor":
    return _part(parameter, value) if is_shard(parameter) else value.to(parameter.device)
