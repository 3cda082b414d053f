"""An adapter folder of PEFT, with nothing of ours in it: read without a model."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.adapters import PREFIX
from graftlab.adapters import files as adapter_files
from graftlab.adapters.files import INITIAL
from graftlab.contracts import About, Change, Differentiable, Merged
from graftlab.contracts.analysis import NO_CHANGE
from graftlab.errors import Argument, ConfigError, ModelError
from graftlab.explanation import adapter_changes, foreign
from graftlab.explanation.adapter_changes import Layer
from graftlab.explanation.stored import Stored, opened

if TYPE_CHECKING:
    from torch import Tensor

    from graftlab.contracts.arrays import Floats

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
        rank = self._config.get("init_r" if kind == "adalora" else "r")
        return self._about._replace(method=self._about.method or method, rank=rank)

    @functools.cached_property
    def _read(self) -> "tuple[Mapping[str, Any], dict[str, Tensor]]":
        adapter_files.check_whole(self._folder)
        config, tensors = adapter_files.read(self._folder)
        names = {name: name.removeprefix(PREFIX).replace(".base_layer", "") for name in tensors}
        return config, {names[name]: tensor for name, tensor in tensors.items()}

    @property
    def _config(self) -> Mapping[str, Any]:
        return self._read[0]

    @functools.cached_property
    def _type(self) -> adapter_changes.Type:
        self._refuse_rebased()
        if (found := adapter_changes.type_of(self._config)) is not None:
            return found
        kind = self._config.get("peft_type")
        if kind in adapter_changes.WITHOUT:
            raise ConfigError(
                f"{self._folder}: {kind} changes no weight, so that there is no change to analyse.",
                kind=NO_CHANGE,
            )
        raise ConfigError(
            f"{self._folder}: what {kind} does to a weight is not read from its file. Merge it with "
            f"peft's merge_and_unload, save the model, and analyse BASE:MERGED.",
            kind=NO_CHANGE,
        )

    def _refuse_rebased(self) -> None:
        """Refuse an adapter that took a part out of the weights, where that is not at hand."""
        start = adapter_changes.rebased(self._config)
        if start is None or (self._folder / INITIAL).is_file():
            return
        merged = "merge it with peft's merge_and_unload, save the model, and analyse BASE:MERGED."
        as_lora = (
            "save it anew with peft's save_pretrained and its path_initial_model_for_weight_conversion, "
            "as LoRA for the untouched weights; or "
        )
        raise ConfigError(
            f"{self._folder}: its start ({start}) has changed the weights before training, and {INITIAL} is "
            f"not there to say by what. To analyse it, {'' if start == 'loftq' else as_lora}{merged}",
            kind=NO_CHANGE,
        )

    @functools.cached_property
    def _layers(self) -> "dict[str, dict[str, Tensor]]":
        found, path = adapter_changes.layers(self._read[1]), self._folder / INITIAL
        if not path.is_file():
            return found
        start = adapter_changes.layers(adapter_files.read(self._folder, INITIAL)[1])
        if other := sorted(start.keys() ^ found.keys()):
            raise ModelError(
                f"{path} has not the adapter's layers: {other[0]} is in one of them alone."
            )
        return {layer: own | start[layer] for layer, own in found.items()}

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
        """Return the weights of adapted layers, then those saved whole, where the base is at hand: a matrix
        that it lacks is new.

        Raises:
            ConfigError: its type changes no weight, or not one that is read here.
            ModelError: a change does not fit the base's weight, so that it is another model's adapter.
        """
        changed, base = self._type.changes, self._base
        adapted = [
            f"{layer}.{own}" for layer in self._layers for own in changed
            if own == "weight" or self._moves_bias(layer)
        ]  # fmt: skip
        if base is None:
            return adapted
        for name in adapted:
            if name.endswith(".weight"):
                self._check(name, base)
        whole = [
            name for name, tensor in self._read[1].items()
            if not adapter_changes.OWN.fullmatch(name)
            and (tensor.dim() > 1 or base.shape(name) == tuple(tensor.shape))
        ]  # fmt: skip
        return [*adapted, *whole]

    def _moves_bias(self, layer: str) -> bool:
        name = f"{layer}.bias"
        shape = None if self._base is None else self._base.shape(name)
        return self._type.moves_bias(self._layer(name), shape)

    def _check(self, name: str, base: Stored) -> None:
        shape, own = base.shape(name), self._type.shape(self._layer(name))
        if shape is None or len(shape) != 2 or all(
            size in (None, there) for size, there in zip(own, shape, strict=True)
        ):  # fmt: skip
            return
        said = [size or there for size, there in zip(own, shape, strict=True)]
        raise ModelError(
            f"{self._folder}: its change of {name} is {said}, but the weight is {list(shape)} in "
            f"{base.source}. Give the base that it was trained on."
        )

    def _layer(self, name: str) -> Layer:
        layer = name.rpartition(".")[0]
        return Layer(layer, self._layers[layer], self._config, lambda own: self._before(layer, own))

    def _before(self, layer: str, own: str) -> "Tensor":
        before = self.base(f"{layer}.{own}")
        if before is None:
            kind = self.about.method
            raise ConfigError(
                f"{self._folder}: the change of {layer}.{own} depends on the weight before ({kind}).",
                ("Give the model it was trained on with ", Argument("base"), "."),
                kind="missing",
            )
        return before

    def change(self, name: str) -> Change:
        tensors = self._read[1]
        if name not in tensors:
            return Change(name, *self._type.change(self._layer(name), name.rpartition(".")[2]))
        after, before = tensors[name].float(), self.base(name)
        if before is None or before.shape != after.shape:
            return Change(name, after, None, new=True)
        return Change(name, after - before, None)

    def base(self, name: str) -> "Tensor | None":
        return None if self._base is None else self._base.read(name)

    def recorded(self, table: str) -> Sequence[Mapping[str, Any]]:
        return ()

    def differentiable(self, examples: int) -> Differentiable | str:
        """Return the adapted model with its loss on one sentence."""
        if self._base is None:
            return NO_BASE
        return foreign.loaded(str(self._base.folder), self._base.folder, examples, self._folder)

    def merged(self, examples: int) -> Merged | str:
        """Return the base with the adapter's change in its weights, and its loss on one sentence."""
        if self._base is None:
            return NO_BASE
        return foreign.merged(str(self._base.folder), self._base.folder, examples, self._folder)

    def activations(self, texts: Sequence[str], before: bool = False) -> "Sequence[Floats] | str":
        """Return those of the adapted model, or of its base."""
        if self._base is None:
            return NO_BASE
        base, adapter = self._base.folder, None if before else self._folder
        return foreign.activations(str(base), base, texts, adapter)
