"""An adapter folder of PEFT, with nothing of ours in it: LoRA and its kin, read without a model."""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.adapters import PREFIX
from graftlab.adapters import files as adapter_files
from graftlab.contracts import About, Change, Differentiable
from graftlab.errors import Argument, ConfigError, ModelError
from graftlab.explanation import foreign
from graftlab.explanation.stored import Stored, opened

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.contracts.arrays import Floats

# Shapes: O and I rows and columns of a weight, R rank.

A, B, MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"
EMBEDDING_A, EMBEDDING_B = "lora_embedding_A", "lora_embedding_B"
NO_BASE = "its base is not at hand"


class AdapterFolder:
    """An adapter and the model that it is for, where that is at hand."""

    def __init__(self, folder: Path, base: str | None, about: About) -> None:
        """`base` is the model it is for, unless its config's own name for it will do."""
        self._folder, self._given, self._about = folder, base, about

    @property
    def about(self) -> About:
        kind = str(self._config.get("peft_type", "")).lower()
        method = "dora" if self._config.get("use_dora") else kind
        return self._about._replace(method=self._about.method or method, rank=self._config.get("r"))

    @functools.cached_property
    def _read(self) -> "tuple[Mapping[str, Any], dict[str, Tensor]]":
        adapter_files.check_whole(self._folder)
        config, tensors = adapter_files.read(self._folder)
        if config.get("peft_type") != "LORA":
            raise ConfigError(
                f"{self._folder}: {config.get('peft_type')} is not read as an adapter. Merge it with "
                f"peft's merge_and_unload, save the model, and analyse BASE:MERGED."
            )
        return config, {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}

    @property
    def _config(self) -> Mapping[str, Any]:
        return self._read[0]

    @functools.cached_property
    def _base(self) -> Stored | None:
        """The base; None where only its name is known and it is not at hand."""
        named = self._given or self._config.get("base_model_name_or_path")
        if not named:
            return None
        try:
            return opened(str(named))
        except ModelError:
            if self._given:
                raise
            return None

    def names(self) -> Sequence[str]:
        """Return the weights with factors, then those saved whole that the base has too.

        Raises:
            ModelError: a factor does not fit the base's weight, so that it is another model's adapter.
        """
        tensors = self._read[1]
        ends = (f".{A}", f".{EMBEDDING_A}")
        factored = [f"{n[: -len(end)]}.weight" for n in tensors for end in ends if n.endswith(end)]
        for name in factored:
            self._check(name)
        whole = [
            name for name, tensor in tensors.items()
            if "lora_" not in name and self._base is not None
            and self._base.shape(name) == tuple(tensor.shape)
        ]  # fmt: skip
        return [*factored, *whole]

    def _check(self, name: str) -> None:
        shape = self._base.shape(name) if self._base is not None else None
        left, right = self._factors(name)
        if shape is not None and shape != (len(left), right.shape[1]) and len(shape) == 2:
            raise ModelError(
                f"{self._folder}: its change of {name} is {[len(left), right.shape[1]]}, but the weight is "
                f"{list(shape)} in {self._base and self._base.source}. Give the base that it was trained on."
            )

    def change(self, name: str) -> Change:
        tensors = self._read[1]
        if name in tensors:
            before = self.base(name)
            assert before is not None, name
            return Change(name, tensors[name].float() - before, None)
        left, right = self._factors(name)
        layer = name.removesuffix(".weight")
        magnitude = tensors.get(f"{layer}.{MAGNITUDE}", tensors.get(f"{layer}.{MAGNITUDE}.weight"))
        if magnitude is None:
            return Change(name, left, right)
        before = self.base(name)
        if before is None:
            raise ConfigError(
                f"{self._folder}: DoRA's change of {name} depends on the weight before.",
                ("Give the model it was trained on with ", Argument("base"), "."),
                kind="missing",
            )
        turned = before + left @ right
        norms = turned.norm(dim=1, keepdim=True)
        return Change(name, magnitude.float().reshape(-1, 1) / norms * turned - before, None)

    def base(self, name: str) -> "Tensor | None":
        return None if self._base is None else self._base.read(name)

    def differentiable(self, examples: int) -> Differentiable | str:
        """Return the adapted model with its loss on one sentence."""
        if self._base is None:
            return NO_BASE
        return foreign.loaded(str(self._base.folder), self._base.folder, examples, self._folder)

    def activations(self, texts: Sequence[str], before: bool = False) -> "Sequence[Floats] | str":
        """Return those of the adapted model, or of its base."""
        if self._base is None:
            return NO_BASE
        base, adapter = self._base.folder, None if before else self._folder
        return foreign.activations(str(base), base, texts, adapter)

    def _factors(self, name: str) -> "tuple[Tensor, Tensor]":
        """Return B (O, R), scaled, and A (R, I), as the weight lies in the model."""
        tensors, layer = self._read[1], name.removesuffix(".weight")
        if f"{layer}.{EMBEDDING_A}" in tensors:  # (R, vocabulary) and (width, R)
            a, b = (tensors[f"{layer}.{key}"].float() for key in (EMBEDDING_A, EMBEDDING_B))
            return a.T * self._scale(layer, len(a)), b.T
        a, b = tensors[f"{layer}.{A}"].float(), tensors[f"{layer}.{B}"].float()
        a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
        scale = self._scale(layer, len(a))
        if self._config.get("fan_in_fan_out"):
            return a.T * scale, b.T
        return b * scale, a

    def _scale(self, layer: str, rank: int) -> float:
        """Return what peft multiplies B A with in this layer."""
        alpha = _of_layer(self._config.get("alpha_pattern"), layer, self._config["lora_alpha"])
        return alpha / (math.sqrt(rank) if self._config.get("use_rslora") else rank)


def _of_layer(pattern: Mapping[str, float] | None, layer: str, default: float) -> float:
    """Return the value of the first key that names the layer, as peft matches them, or the default."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", layer):
            return float(value)
    return float(default)
