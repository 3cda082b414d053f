"""A linear layer with an adapter that reads the layer's output (sequential) or its input (parallel)."""

# Shapes: N examples or tokens (any leading axes), I in features, O out features, R rank.

import math
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTunerLayer, _get_in_out_features, check_adapters_to_merge
from peft.utils.quantization_utils import resolve_quantization_backend
from torch import Tensor, nn
from torch.nn.functional import linear

from graftlab.methods.jelly import frozen, product, projections
from graftlab.methods.jelly.forms import Form
from graftlab.weights import quantized, surgery

if TYPE_CHECKING:
    from graftlab.methods.jelly.peft_config import JellyConfig


class JellyLinear(nn.Module, BaseTunerLayer):
    """y = W x + b + s B A (W x) while sequential, and y = W x + b + s B A x, LoRA, when parallel.

    W may be a Linear's, transformers' Conv1D's or a quantized layer's. After a `merge_reinit` switch a
    frozen pair adds what was learned before it: y = W x + b + s B A x + s B1 A1 x.
    """

    adapter_layer_names = ("jelly_A", "jelly_B")
    other_param_names = (
        "jelly_dropout",
        "jelly_merged_A",
        "jelly_merged_B",
        "jelly_gradient",
        "jelly_form",
        "forms",
        "r",
        "scaling",
    )

    def __init__(self, base_layer: nn.Module, adapter_name: str, **settings: Any) -> None:
        super().__init__()
        self.base_layer = base_layer
        quantized.keep_readable(self.get_base_layer())
        sides = _get_in_out_features(self.get_base_layer())
        assert sides[0] is not None
        assert sides[1] is not None
        self.in_features, self.out_features = sides[0], sides[1]
        self.jelly_A = nn.ParameterDict({})
        self.jelly_B = nn.ParameterDict({})
        self.jelly_dropout = nn.ModuleDict({})
        self.jelly_merged_A = BufferDict(persistent=True)
        self.jelly_merged_B = BufferDict(persistent=True)
        self.jelly_gradient = BufferDict(persistent=True)  # A's last one; see JellyCallback
        self.jelly_form = BufferDict(persistent=True)
        self.forms: dict[str, Form] = {}
        self.r: dict[str, int] = {}
        self.scaling: dict[str, float] = {}
        self.quantization_backend = resolve_quantization_backend(self.get_base_layer())
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._unmerged: frozen.Kept | None = None
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, **settings)

    @property
    def is_square(self) -> bool:
        """Whether A has one shape in both modes."""
        return self.in_features == self.out_features

    def update_layer(
        self, adapter_name: str, *, form: Form, r: int, alpha: float, config: "JellyConfig"
    ) -> None:
        """Add an adapter: A random, B zero."""
        if r <= 0:
            raise ValueError(f"`r` should be a positive integer value but the value passed is {r}")
        self.r[adapter_name] = r
        self.scaling[adapter_name] = alpha / (math.sqrt(r) if config.use_rslora else r)
        dropout = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        self.jelly_dropout[adapter_name] = dropout
        # torch's own draws come first, as in peft's LoRA: the same seed gives the same start
        width = self.out_features if form.sequential else self.in_features
        a_RX, b_OR = nn.Linear(width, r, bias=False), nn.Linear(r, self.out_features, bias=False)
        if config.init_weights == "gaussian":
            nn.init.normal_(a_RX.weight, std=1 / math.sqrt(width))
        else:
            nn.init.kaiming_uniform_(a_RX.weight, a=math.sqrt(5))
        if config.init_weights is not False:  # then it keeps torch's own draw
            nn.init.zeros_(b_OR.weight)
        self.jelly_A[adapter_name] = a_RX.weight
        self.jelly_B[adapter_name] = b_OR.weight
        self.forms[adapter_name] = form
        self.jelly_form[adapter_name] = form.encode()
        self._hold_pair(adapter_name, form)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def take_saved(self, adapter_name: str, code: Tensor, has_gradient: bool) -> None:
        """Make room for an adapter that is about to be read: its form as saved, and a gradient if any."""
        self.take_form(adapter_name, Form.decode(code))
        self.forget_gradient(adapter_name)
        if has_gradient:
            a = self.jelly_A[adapter_name]
            self.keep_gradient(adapter_name, self._zeros(*a.shape, dtype=a.dtype))

    def take_form(self, adapter_name: str, form: Form) -> None:
        """Let the adapter have this form, with tensors of the shapes it needs; their values are to follow.

        A parameter whose shape has to change becomes another parameter.
        """
        width = self.out_features if form.sequential else self.in_features
        a_RX = self.jelly_A[adapter_name]
        if a_RX.shape[1] != width:
            self.replace_A(adapter_name, a_RX.new_zeros(len(a_RX), width))
        self._set_form(adapter_name, form)
        self._hold_pair(adapter_name, form)

    def replace_A(self, adapter_name: str, value: Tensor) -> None:
        """Set A: in place if the shape stays, otherwise as a new parameter."""
        a = self.jelly_A[adapter_name]
        if a.shape == value.shape:
            a.data.copy_(value)
        else:
            self.jelly_A[adapter_name] = nn.Parameter(value.to(a), requires_grad=a.requires_grad)

    def keep_gradient(self, adapter_name: str, gradient: Tensor) -> None:
        """Hold A's gradient of the last step as a buffer, so that it is saved with the adapter."""
        self.jelly_gradient[adapter_name] = gradient

    def forget_gradient(self, adapter_name: str) -> None:
        """Drop what `keep_gradient` holds."""
        if adapter_name in self.jelly_gradient:
            del self.jelly_gradient[adapter_name]

    def _set_form(self, adapter_name: str, form: Form) -> None:
        self.forms[adapter_name] = form
        self.jelly_form[adapter_name] = form.encode().to(self.jelly_form[adapter_name].device)

    def _hold_pair(self, adapter_name: str, form: Form) -> None:
        held = adapter_name in self.jelly_merged_A
        if form.merged and not held:
            rank, dtype = self.r[adapter_name], self.jelly_B[adapter_name].dtype
            self.jelly_merged_A[adapter_name] = self._zeros(rank, self.in_features, dtype=dtype)
            self.jelly_merged_B[adapter_name] = self._zeros(self.out_features, rank, dtype=dtype)
        elif held and not form.merged:
            del self.jelly_merged_A[adapter_name], self.jelly_merged_B[adapter_name]

    def _zeros(self, *shape: int, dtype: torch.dtype) -> Tensor:
        # not on the adapter's device: with low_cpu_mem_usage that is meta, where peft wants no buffers
        device = self.get_base_layer().get_parameter("weight").device
        return torch.zeros(*shape, dtype=dtype, device=device)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object
    ) -> None:
        """Take the form that is read before torch compares shapes: a state dict says more than a config."""
        for name in list(self.jelly_form):
            if (code := state_dict.get(f"{prefix}jelly_form.{name}")) is not None:
                self.take_saved(name, code, f"{prefix}jelly_gradient.{name}" in state_dict)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def frozen_weight(self) -> Tensor:
        """Return the layer's own weight W (O, I) without what may be merged, dequantized if need be."""
        w = self.get_base_weight() if self._unmerged is None else self._unmerged.read()
        w = surgery.whole(w)
        return w.T if surgery.is_conv1d(self.get_base_layer()) else w

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """Return the layer's output (N, O) for x (N, I), with the active adapters' corrections."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        if self.disable_adapters or self.merged:
            output: Tensor = self.base_layer(x, *args, **kwargs)
            return output
        active = [name for name in self.active_adapters if name in self.jelly_A]
        if not any(self.forms[name].sequential for name in active):
            y = h = self.base_layer(x, *args, **kwargs)
        elif product.is_plain(self.base_layer):
            h = linear(x, self.base_layer.weight)  # type: ignore[arg-type]
            y, active = self._of_product(x, h, active)
        else:
            y = self.base_layer(x, *args, **kwargs)
            h = product.without_bias(self.base_layer, y)
        for name in active:
            y = y + self._correction(name, x, h)
        return y.to(h.dtype)

    def _of_product(self, x: Tensor, h: Tensor, active: list[str]) -> tuple[Tensor, list[str]]:
        """Return h + b with one correction, where one comes cheaper so, and the adapters that are left."""
        bias: Any = self.base_layer.bias
        first = next((name for name in active if self._reads_product(name)), None)
        if first is None:
            return (h if bias is None else h + bias.to(h.dtype)), active
        return self._corrected(first, x, h, True, bias), [name for name in active if name != first]

    def _reads_product(self, name: str) -> bool:
        """Return whether an adapter reads the layer's product as it is."""
        return self.forms[name].sequential and isinstance(self.jelly_dropout[name], nn.Identity)

    def _corrected(
        self, name: str, x: Tensor, h: Tensor, whole: bool = False, bias: Tensor | None = None
    ) -> Tensor:
        factors = self.jelly_A[name], self.jelly_B[name], self.scaling[name]
        corrected: Tensor = product.Correction.apply(
            x, h, *factors, self.frozen_weight, whole, bias
        )
        return corrected

    def _correction(self, name: str, x: Tensor, h: Tensor) -> Tensor:
        if self._reads_product(name):
            return self._corrected(name, x, h)
        a, b, scaling = self.jelly_A[name], self.jelly_B[name], self.scaling[name]
        dropout = self.jelly_dropout[name]
        form = self.forms[name]
        x = self._cast_input_dtype(h if form.sequential else x, a.dtype)
        correction = linear(linear(dropout(x), a), b) * scaling
        if form.merged:
            pair = linear(linear(x, self.jelly_merged_A[name]), self.jelly_merged_B[name])
            correction = correction + pair * scaling
        return correction

    @torch.no_grad()
    def factors(self, adapter_name: str, scaled: bool = True) -> tuple[Tensor, Tensor]:
        """Return B (O, R), scaled by s, and A (R, I), whose product is the change of the weight W (O, I).

        Sequential: B and A W. After `merge_reinit`: of rank 2 R.
        """
        a, b = self.jelly_A[adapter_name].detach(), self.jelly_B[adapter_name].detach()
        form = self.forms[adapter_name]
        if form.sequential:
            a = projections.pull_back(a, self.frozen_weight()).to(b.dtype)
        if form.merged:
            a = torch.cat([a, self.jelly_merged_A[adapter_name]])
            b = torch.cat([b, self.jelly_merged_B[adapter_name]], dim=1)
        return (b * self.scaling[adapter_name] if scaled else b), a

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Return the change of the layer's weight, laid out as the weight itself."""
        up, down = self.factors(adapter)
        delta = up @ down
        return delta.T if surgery.is_conv1d(self.get_base_layer()) else delta

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Return True: the change is additive, of rank R or 2 R."""
        return True

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the changes to the weight. The weight itself is kept until it is unmerged.

        Raises:
            ValueError: with `safe_merge`, a change is not finite; nothing has been merged then.
        """
        names = [n for n in check_adapters_to_merge(self, adapter_names) if n in self.jelly_A]
        if not names:
            return
        changes = {name: self.get_delta_weight(name) for name in names}
        kept = frozen.merge(self, changes, safe_merge)
        self._unmerged = self._unmerged or kept
        self.merged_adapters.extend(names)

    def unmerge(self) -> None:
        """Put the weight back, bit for bit."""
        if self._unmerged is not None:
            self._unmerged.put_back(self)
            self._unmerged = None
            self.merged_adapters.clear()

    def extra_repr(self) -> str:
        """Return each adapter's mode."""
        return ", ".join(
            f"{name}: {'sequential' if form.sequential else 'parallel'}"
            for name, form in self.forms.items()
        )
