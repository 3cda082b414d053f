"""How the loss would move each weight: size, spread and sparsity of gradients, by weight and kind of layer.

Two modes: `trainable` is of the parameters that were trained, of which LoRA's are factors; `weight` is dL/dW
of each adapted matrix as a whole, which alone can be compared between LoRA and full fine-tuning.
"""

import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from graftlab.analyses import number
from graftlab.contracts import Asked, Differentiable, Subject
from graftlab.contracts.analysis import GLOBAL, TRAINABLE, WEIGHT

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# Shapes: T tokens of the sample, O and I rows and columns of a weight.

FILE = "gradient_analysis/gradient_analysis_results"
SHOWN = ("model", "checkpoint", "mode", "param", "mean", "std", "norm", "sparsity", "note")
NEAR_ZERO = 1e-8
KINDS = (
    (
        "norm",
        r"norm|(^|[._])ln(_|\d|\.|$)",
    ),  # before attention: `input_layernorm` of an attention block
    ("head", r"(^|\.)(score|classifier|lm_head|head|pre_classifier)(\.|$)"),
    ("embed", r"embed|(^|\.)(wte|wpe)(\.|$)"),
    (
        "attention",
        r"attn|attention|[qkvo]_proj|(^|\.)(query|key|value|q_lin|k_lin|v_lin|c_attn)(\.|$)",
    ),
    ("mlp", r"mlp|(gate|up|down)_proj|(^|\.)(fc\d|dense|intermediate|lin\d|ffn|c_fc|c_proj)(\.|$)"),
)
"""Kinds of layers by a weight's name, the first that fits."""


class Row(NamedTuple):
    """The gradient of one weight, or of all together."""

    model: str
    checkpoint: int | None
    type: str | None
    rank: int | None
    task_type: str | None
    layer_type: str
    """attention, mlp, embed, norm, head, other; `global` for all together."""
    param: str
    """The weight's name."""
    mean: float | None
    """Of the absolute values."""
    std: float | None
    """Standard deviation of the values."""
    norm: float | None
    """Root of the sum of squares."""
    sparsity: float | None
    """Share of values that are exactly 0."""
    near_zero: float | None
    """Share of values up to 1e-8."""
    numel: int | None
    """How many values there are."""
    mode: str | None
    """`trainable`: of what was trained. `weight`: of an adapted matrix as a whole, dL/dW."""
    number: int | None
    """The first number in its name: which layer."""
    loss: float | None
    sample: str | None
    """What the loss is of."""
    note: str | None
    """Why there is no gradient, if there is none."""


class Figures(NamedTuple):
    """What is said of a gradient; None of one that has no values."""

    mean: float | None
    std: float | None
    norm: float | None
    zeros: float | None
    near: float | None


@dataclass
class Sums:
    """What a gradient's figures are made of; sums of several add up."""

    count: int = 0
    absolute: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    zeros: int = 0
    near: int = 0

    @classmethod
    def of(cls, gradient: "Tensor") -> "Sums":
        values = gradient.detach().double()
        size = values.abs()
        return cls(
            values.numel(),
            float(size.sum()),
            float(values.sum()),
            float(values.square().sum()),
            int((size == 0).sum()),
            int((size <= NEAR_ZERO).sum()),
        )

    def __add__(self, other: "Sums") -> "Sums":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Sums(*(one + two for one, two in pairs))

    def figures(self) -> "Figures":
        """Return mean |g|, deviation, norm, and both shares of zeros."""
        if not self.count:
            return Figures(None, None, None, None, None)
        mean = self.total / self.count
        variance = max(0.0, self.squares / self.count - mean**2)
        return Figures(
            self.absolute / self.count,
            math.sqrt(variance),
            math.sqrt(self.squares),
            self.zeros / self.count,
            self.near / self.count,
        )


def rows(subjects: Sequence[Subject], asked: Asked) -> Iterator[Row]:
    """Yield a line for each weight of each model at each checkpoint, then one for all together, by mode."""
    for subject in asked.each(subjects):
        if not subject.names():
            continue
        found = subject.differentiable(asked.examples)
        if isinstance(found, str):
            yield _row(subject, GLOBAL, GLOBAL, Sums(), None, None, (None, None, found))
        else:
            yield from _of(subject, found)


def _of(subject: Subject, given: Differentiable) -> Iterator[Row]:
    loss, by_mode = gradients(given)
    for mode, found in by_mode.items():
        if not all(math.isfinite(sums.squares) for sums in found.values()):
            yield _row(
                subject, GLOBAL, GLOBAL, Sums(), mode, None, (loss, given.sample, "not finite")
            )
            continue
        for name, sums in found.items():
            told = (loss, given.sample, None)
            yield _row(subject, kind_of(name), name, sums, mode, number(name), told)
        whole = sum(found.values(), Sums())
        if whole.count:
            yield _row(subject, GLOBAL, GLOBAL, whole, mode, None, (loss, given.sample, None))


def _row(
    subject: Subject,
    kind: str,
    name: str,
    sums: Sums,
    mode: str | None,
    number: int | None,
    told: tuple[float | None, str | None, str | None],
) -> Row:
    about = subject.about
    loss, sample, note = told
    loss = loss if loss is not None and math.isfinite(loss) else None
    mean, std, norm, zeros, near = sums.figures()
    return Row(
        about.model, about.checkpoint, about.method, about.rank, about.task_type, kind, name,
        mean, std, norm, zeros, near, sums.count or None, mode, number, loss, sample, note,
    )  # fmt: skip


def kind_of(name: str) -> str:
    """Return the kind of layer that a weight belongs to, by its name."""
    return next((kind for kind, pattern in KINDS if re.search(pattern, name, re.I)), "other")


def gradients(given: Differentiable) -> tuple[float, dict[str, dict[str, Sums]]]:
    """Return the loss, and by mode and name the sums of each gradient. No two of them are held together."""
    trained: dict[str, Sums] = {}
    whole: dict[str, Sums] = {}
    with ExitStack() as stack:
        adapted = {name: m for name, m in given.model.named_modules() if hasattr(m, "base_layer")}
        for name, module in adapted.items():
            stack.callback(_watch(_plain(name), module, whole))
        tuned = {name: p for name, p in given.model.named_parameters() if p.requires_grad}
        for name, parameter in tuned.items():
            into = [trained] if adapted else [trained, whole]
            stack.callback(_keep(_plain(name), parameter, into))
        loss = given.loss()
        with (
            warnings.catch_warnings()
        ):  # where no input has a gradient, the outputs' is what we take
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            loss.backward()
    return float(loss.detach()), {TRAINABLE: trained, WEIGHT: whole}


def _plain(name: str) -> str:
    """Return a parameter's name as the plain model has it."""
    plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
    plain = plain.replace(".modules_to_save.default", "")
    return re.sub(r"(lora_\w+|lora_embedding_\w)\.default", r"\1", plain)


def _keep(name: str, parameter: "Tensor", into: list[dict[str, Sums]]) -> Callable[[], None]:
    """Note a parameter's gradient when it is there, and drop it; return what ends that."""

    def note(found: "Tensor") -> None:
        assert found.grad is not None
        for sums in into:
            sums[name] = Sums.of(found.grad)
        found.grad = None

    handle = parameter.register_post_accumulate_grad_hook(note)
    return handle.remove


def _watch(name: str, module: "nn.Module", into: dict[str, Sums]) -> Callable[[], None]:
    """Note dL/dW of an adapted layer y = W x as sum over tokens of g x^T; return what ends that.

    A layer that is passed several times has the sum over its passes.
    """
    passes: list[torch.Tensor] = []
    sums: list[torch.Tensor] = []

    def forward(_: "nn.Module", given: "tuple[Tensor, ...]", __: object) -> None:
        passes.append(given[0].detach())

    def backward(_: "nn.Module", __: object, grown: tuple["Tensor | None", ...]) -> None:
        x, g = passes.pop(), grown[0]
        if g is None or not x.is_floating_point():  # an embedding: its input is no vector
            return
        g_TO, x_TI = g.reshape(-1, g.shape[-1]).double(), x.reshape(-1, x.shape[-1]).double()
        sums.append(g_TO.T @ x_TI)
        if not passes:
            whole = sums[0] if len(sums) == 1 else sum(sums[1:], sums[0])
            into[f"{name}.weight"] = Sums.of(whole)
            sums.clear()

    handles = [module.register_forward_hook(forward), module.register_full_backward_hook(backward)]

    def remove() -> None:
        for handle in handles:
            handle.remove()

    return remove
