"""What an adapter of PEFT adds to a weight, computed from the tensors of its file, without peft's layers."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab.adapters.files import INITIAL_A, INITIAL_B

if TYPE_CHECKING:
    from torch import Tensor

    Factors = tuple[Tensor, Tensor | None]

# Shapes: O and I rows and columns of a weight, R rank.

OWN = re.compile(r"(?P<layer>.+)\.(?P<own>(lora_|hada_|lokr_|ia3_|initial_).+)")
"""The name of a tensor that belongs to an adapted layer."""
EMBEDDING = ("lora_embedding_A", "lora_embedding_B")  # (R, vocabulary) and (width, R)
BIAS = "lora_B.bias"
MAGNITUDES = ("lora_magnitude_vector", "lora_magnitude_vector.weight")
REBASED = ("pissa", "olora", "corda", "lora_ga", "loftq")
"""What `init_lora_weights` begins with where peft changes the weight itself at the start."""
ADALORA_ROUNDING = 1e-5  # what peft adds to the number of ranks that it divides by


class Layer(NamedTuple):
    """An adapted layer, as an adapter's file has it."""

    name: str
    tensors: "Mapping[str, Tensor]"
    """Under the names that they have within the layer: `lora_A.weight`."""
    config: Mapping[str, Any]
    before: "Callable[[str], Tensor]"
    """Returns a weight of the layer as it was before, by its own name: `weight`, `bias`."""

    @property
    def turned(self) -> bool:
        """Whether the weight lies as (I, O), as Conv1D's and an embedding's do."""
        return bool(self.config.get("fan_in_fan_out")) or self.has("lora_embedding_A")

    def has(self, own: str) -> bool:
        return own in self.tensors

    def read(self, own: str) -> "Tensor":
        return self.tensors[own].float()

    def setting(self, name: str) -> float:
        """Return `alpha` or `r` of this layer: of the first pattern that names it, as peft matches them."""
        patterns = {"r": "rank_pattern"}.get(name, "alpha_pattern")
        for key, value in (self.config.get(patterns) or {}).items():
            if re.match(rf"(.*\.)?({key})$", self.name):
                return float(value)
        return float(self.config[name])


class Type(NamedTuple):
    """A type of adapter."""

    changes: Sequence[str]
    """Which of a layer's weights it changes."""
    change: "Callable[[Layer, str], Factors]"
    """Returns left (O, R) and right (R, I), or the whole change (O, I) and None, as the weight lies."""
    shape: "Callable[[Layer], tuple[int | None, int | None]]"
    """Returns which rows and columns the weight has, without reading it; None for any number."""
    moves_bias: "Callable[[Layer, Sequence[int] | None], bool]" = lambda *_: False
    """Says of a type that may change a bias whether it does this layer's, whose shape is given if known."""


def layers(tensors: "Mapping[str, Tensor]") -> "dict[str, dict[str, Tensor]]":
    """Return the adapted layers of a file, each with its tensors by their names within it."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if own := OWN.fullmatch(name):
            found.setdefault(own["layer"], {})[own["own"]] = tensor
    return found


def type_of(config: Mapping[str, Any]) -> Type | None:
    """Return the type of an adapter by its config; None where it is not read here."""
    kind = "DORA" if config.get("use_dora") else config.get("peft_type")
    return TYPES.get(str(kind))


def rebased(config: Mapping[str, Any]) -> str | None:
    """Return the start of an adapter whose weights before are not the model's own; None of any other."""
    start = str(config.get("init_lora_weights")).lower()
    return start if start.startswith(REBASED) else None


def _lora(layer: Layer, own: str) -> "Factors":
    """s B A with s = alpha / R, or alpha / sqrt R of rsLoRA; s (B A - B0 A0) where s B0 A0 was taken out of
    the weight (Meng et al. 2024, PiSSA). Of a bias s b, where b is that of B (`lora_bias`)."""
    import torch

    a_RI, b_OR = (
        _flat(layer.read(name if layer.has(name) else f"{name}.weight"))
        for name in (EMBEDDING if layer.has(EMBEDDING[0]) else ("lora_A", "lora_B"))
    )
    rank = len(a_RI)
    scale = layer.setting("lora_alpha")
    scale /= math.sqrt(rank) if layer.config.get("use_rslora") else rank
    if own == "bias":
        return layer.read(BIAS) * scale, None
    if layer.has(INITIAL_A):
        a_RI = torch.cat([a_RI, layer.read(INITIAL_A)])
        b_OR = torch.cat([b_OR, -layer.read(INITIAL_B)], dim=1)
    return _laid(layer, b_OR * scale, a_RI)


def _dora(layer: Layer, own: str) -> "Factors":
    """m (W + s B A) / ||W + s B A|| - W, norms by row (Liu et al. 2024, DoRA, equation 5): dense."""
    left, right = _lora(layer, own)
    assert right is not None, layer.name
    name = next(name for name in MAGNITUDES if layer.has(name))
    before = _flat(layer.before("weight"))
    moved, axis = before + left @ right, 0 if layer.turned else 1
    size = layer.read(name).flatten() / moved.norm(dim=axis)
    return moved * size.unsqueeze(axis) - before, None


def _adalora(layer: Layer, _: str) -> "Factors":
    """s P diag(e) Q with s = alpha / the ranks at the start, whatever is left of them."""
    a_RI = layer.read("lora_A") * layer.read("lora_E")
    alpha = layer.config["lora_alpha"]
    scale = (alpha if alpha > 0 else len(a_RI)) / (layer.config["init_r"] + ADALORA_ROUNDING)
    return _laid(layer, layer.read("lora_B") * scale, a_RI)


def _ia3(layer: Layer, own: str) -> "Factors":
    """W (l - 1), by row, or of a feed-forward layer's input by column; a bias goes with its row."""
    factor, before = layer.read("ia3_l"), layer.before(own)  # (O, 1) or (1, I)
    if own == "bias":
        return before * (factor.flatten() - 1), None
    factor = factor.T if layer.turned else factor
    return before * (factor - 1).reshape(*factor.shape, *[1] * (before.dim() - 2)), None


def _loha(layer: Layer, _: str) -> "Factors":
    """s (A1 B1) o (A2 B2), the product of entries: of rank R^2 at most (Hyeon-Woo et al. 2022, FedPara)."""
    first, second = (_product(layer, f"hada_w{k}", f"hada_t{k}") for k in (1, 2))
    scale = layer.setting("alpha") / layer.setting("r")
    return _flat(first * second) * scale, None


def _lokr(layer: Layer, _: str) -> "Factors":
    """s W1 (x) W2, the Kronecker product (Yeh et al. 2024, LyCORIS)."""
    import torch

    first, second = (_product(layer, f"lokr_w{k}", f"lokr_t{k}") for k in (1, 2))
    first = first.reshape(*first.shape, *[1] * (second.dim() - 2))
    scale = layer.setting("alpha") / layer.setting("r")
    return _flat(torch.kron(first, second.contiguous())) * scale, None


def _shape_of_factors(layer: Layer) -> tuple[int, int]:
    left, right = _adalora(layer, "") if layer.has("lora_E") else _lora(layer, "")
    assert right is not None, layer.name
    return len(left), right.shape[1]


def _has_bias(layer: Layer, _: Sequence[int] | None) -> bool:
    return layer.has(BIAS)


def _goes_with_rows(layer: Layer, shape: Sequence[int] | None) -> bool:
    """Return whether a bias is scaled as its rows are: where there are as many factors as rows."""
    return shape is not None and tuple(layer.tensors["ia3_l"].shape) == (*shape, 1)


def _shape_of_ia3(layer: Layer) -> tuple[int | None, int | None]:
    rows, columns = (None if size == 1 else size for size in layer.tensors["ia3_l"].shape)
    return (columns, rows) if layer.turned else (rows, columns)


def _shape_of_loha(layer: Layer) -> tuple[int, int]:
    return layer.tensors["hada_w1_a"].shape[0], layer.tensors["hada_w1_b"].shape[1]


def _shape_of_lokr(layer: Layer) -> tuple[int, int]:
    rows = columns = 1
    for name in ("lokr_w1", "lokr_w2"):
        rows *= layer.tensors[name if layer.has(name) else f"{name}_a"].shape[0]
        columns *= layer.tensors[name if layer.has(name) else f"{name}_b"].shape[1]
    return rows, columns


def _product(layer: Layer, name: str, core: str) -> "Tensor":
    """Return a matrix that is whole, a product of two, or of two and a core of a convolution's kernel."""
    import torch

    if layer.has(name):
        return layer.read(name)
    a, b = layer.read(f"{name}_a"), layer.read(f"{name}_b")
    return torch.einsum("rskl,si,ro->oikl", layer.read(core), b, a) if layer.has(core) else a @ b


def _laid(layer: Layer, left_OR: "Tensor", right_RI: "Tensor") -> "Factors":
    return (right_RI.T, left_OR.T) if layer.turned else (left_OR, right_RI)


def _flat(tensor: "Tensor") -> "Tensor":
    return tensor.reshape(len(tensor), -1)


TYPES = {
    "LORA": Type(("weight", "bias"), _lora, _shape_of_factors, _has_bias),
    "DORA": Type(("weight",), _dora, _shape_of_factors),
    "ADALORA": Type(("weight",), _adalora, _shape_of_factors),
    "IA3": Type(("weight", "bias"), _ia3, _shape_of_ia3, _goes_with_rows),
    "LOHA": Type(("weight",), _loha, _shape_of_loha),
    "LOKR": Type(("weight",), _lokr, _shape_of_lokr),
}
"""The types whose change is read, by `peft_type`."""
WITHOUT = (
    *("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT"),
    *("CARTRIDGE", "ADAPTION_PROMPT"),
)
"""Types that change no weight: they put something before the input, or beside the keys and values."""
