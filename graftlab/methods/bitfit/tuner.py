"""BitFit as a tuner of PEFT; importing this module registers it."""

from dataclasses import dataclass, field

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge
from peft.utils import PeftType
from torch import Tensor, nn

from graftlab.adapters import register
from graftlab.weights.surgery import is_conv1d


@dataclass
class BitfitConfig(PeftConfig):
    """What PEFT writes into `adapter_config.json` for BitFit."""

    target_modules: list[str] | str | None = field(default=None)
    exclude_modules: list[str] | str | None = field(default=None)
    modules_to_save: list[str] | None = field(default=None)
    init_weights: bool = field(
        default=True, metadata={"help": "Start from zero. False: from random values, for tests."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["BITFIT"]
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)  # type: ignore[assignment]  # as peft has it


class BitfitLayer(nn.Module, BaseTunerLayer):
    """A layer whose output is shifted by a trainable change of its bias."""

    adapter_layer_names = ("bitfit_delta",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BitfitConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = _sides(self.get_base_layer())
        self.bitfit_delta = nn.ParameterDict({})
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: BitfitConfig) -> None:
        """Add an adapter, zero at first."""
        start = torch.zeros_like if config.init_weights else torch.randn_like
        self.bitfit_delta[adapter_name] = nn.Parameter(start(self._bias()))
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def _bias(self) -> Tensor:
        return self.get_base_layer().get_parameter("bias").data

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """Return the layer's output (N, ..., O), or (N, O, ...) of a convolution, with the bias changed."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        y = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return y
        for name in self.active_adapters:
            if name in self.bitfit_delta:
                delta = self.bitfit_delta[name].to(y.dtype)
                y = y + (delta.view(-1, *[1] * (y.dim() - 2)) if self._channels_first() else delta)
        return y

    def _channels_first(self) -> bool:
        return isinstance(
            self.get_base_layer(),
            nn.Conv1d | nn.Conv2d | nn.GroupNorm | nn.modules.batchnorm._BatchNorm,
        )

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the changes to the bias itself.

        Raises:
            ValueError: with `safe_merge`, a change is not finite.
        """
        for name in check_adapters_to_merge(self, adapter_names):
            if name in self.bitfit_delta:
                delta = self.get_delta_weight(name)
                if safe_merge and not delta.isfinite().all():
                    raise ValueError(f"NaNs detected in the adapter {name}: it cannot be merged")
                self._bias().add_(delta)
                self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Take the changes out of the bias again."""
        while self.merged_adapters:
            self._bias().sub_(self.get_delta_weight(self.merged_adapters.pop()))

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Return the change of the bias (O,)."""
        return self.bitfit_delta[adapter].detach().to(self._bias().dtype)


def _sides(layer: nn.Module) -> tuple[int, int]:
    """Return how wide a layer's input and output are."""
    width = layer.get_parameter("bias").numel()
    if is_conv1d(layer):
        return layer.get_parameter("weight").shape[0], width
    linear = getattr(layer, "in_features", getattr(layer, "in_channels", None))
    return (width if linear is None else linear), width  # a norm puts out what it takes


class BitfitModel(BaseTuner):
    """A model whose biased layers are `BitfitLayer`s."""

    prefix = "bitfit_"
    tuner_layer_cls = BitfitLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012  (as peft declares it)

    def _create_and_replace(  # type: ignore[override]
        self,
        peft_config: BitfitConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **kwargs: object,
    ) -> None:
        if isinstance(target, BitfitLayer):
            target.update_layer(adapter_name, peft_config)
            return
        layer = BitfitLayer(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(
        self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        """Put one module in the place of another. peft's own asks every head for its `weight`, which
        RoBERTa's, of several layers, does not have."""
        setattr(parent, child_name, new_module)


register("bitfit", BitfitConfig, BitfitModel)
