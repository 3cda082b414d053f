"""JELLY as a tuner of PEFT; importing this module registers it."""

import contextlib
from collections.abc import Iterator
from typing import Any

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _get_in_out_features
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from peft.utils.other import get_pattern_key
from torch import Tensor, nn

from graftlab.adapters import register
from graftlab.methods.jelly.forms import Form
from graftlab.methods.jelly.layer import JellyLinear
from graftlab.methods.jelly.peft_config import JellyConfig
from graftlab.weights.surgery import is_conv1d

__all__ = ["JellyConfig", "JellyModel", "form_at_start", "layers"]


class JellyModel(BaseTuner):
    """A model whose target layers are `JellyLinear`s."""

    prefix = "jelly_"
    tuner_layer_cls = JellyLinear
    target_module_mapping: Any = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    def _create_and_replace(  # type: ignore[override]
        self,
        peft_config: JellyConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **kwargs: object,
    ) -> None:
        r_key = get_pattern_key(list(peft_config.rank_pattern), current_key)
        alpha_key = get_pattern_key(list(peft_config.alpha_pattern), current_key)
        settings: dict[str, Any] = {
            "form": form_at_start(peft_config, target, current_key),
            "r": peft_config.rank_pattern.get(r_key, peft_config.r),
            "alpha": peft_config.alpha_pattern.get(alpha_key, peft_config.alpha),
            "config": peft_config,
        }
        if isinstance(target, JellyLinear):
            target.update_layer(adapter_name, **settings)
            return
        layer = JellyLinear(target, adapter_name, **settings)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(
        self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        """Put one module in the place of another. peft's own asks every head for its `weight`, which
        RoBERTa's, of several layers, does not have."""
        setattr(parent, child_name, new_module)

    @contextlib.contextmanager
    def _enable_peft_forward_hooks(self, *args: object, **kwargs: object) -> Iterator[None]:
        if kwargs.get("adapter_names") is not None:
            raise ValueError(
                "JELLY does not mix adapters in one batch: adapter_names has no effect on its layers. "
                "Call the model once for each adapter, after set_adapter()."
            )
        yield

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: Any, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Give each layer the form that the file says before names and shapes are compared.

        Loading onto an adapter that is there already does not read its config again.
        """
        forms = []
        for name, layer in layers(model).items():
            for prefix in (name, f"base_model.model.{name}"):
                code = state_dict.get(f"{prefix}.jelly_form")
                if code is not None and adapter_name in layer.forms:
                    layer.take_saved(adapter_name, code, f"{prefix}.jelly_gradient" in state_dict)
                    forms.append(layer.forms[adapter_name])
        if forms:
            switched = [form for form in forms if form.switch_step is not None]
            config.switch_step = switched[0].switch_step if switched else None
            config.switch_method = switched[0].switch_method if switched else config.switch_method
        return super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)


def layers(model: nn.Module) -> dict[str, JellyLinear]:
    """Return JELLY's layers by the name that they have in this model."""
    return {n: m for n, m in model.named_modules() if isinstance(m, JellyLinear)}


def form_at_start(config: JellyConfig, target: nn.Module, name: str) -> Form:
    """Return the form of a new adapter on a layer.

    Raises:
        ValueError: the layer is not linear, or not square where `nonsquare` is `error`.
    """
    layer = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
    if not isinstance(layer, nn.Linear) and not is_conv1d(layer):
        raise ValueError(
            f"JELLY fits linear layers whose weight can be read; {name} is a {type(layer).__name__}"
        )
    sides = _get_in_out_features(layer)
    square = sides[0] == sides[1]
    if config.mode == "parallel" or (not square and config.nonsquare == "parallel"):
        return Form(sequential=False)
    if not square and config.nonsquare == "error":
        raise ValueError(
            f"{name} is not square ({sides[0]} to {sides[1]}) and nonsquare is error. "
            "Leave it out of the targets, or choose own_A or parallel."
        )
    if config.switch_step is not None:
        return Form(False, config.switch_step, config.switch_method)
    return Form(sequential=True)


register("jelly", JellyConfig, JellyModel)
