"""PEFT adapters: attach, save, load and turn off, the same way for every method that uses PEFT.

A PEFT file stands for an adapter on the untouched backbone: `adapter_config.json` with sorted lists and
`adapter_model.safetensors`, the same bytes for the same weights. Pickled adapters are refused.
"""

import ast
import contextlib
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from graftlab import surgery
from graftlab.config import Section
from graftlab.contracts import Backbone
from graftlab.errors import ConfigError, ModelError, Refused, unknown
from graftlab.seeds import mix

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import Tensor, nn

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
ADAPTER = "default"  # PEFT's name for an adapter that was given none
PREFIX = "base_model.model."  # how PEFT's tuners name the model that they hold

# Fields of PEFT's configs that graftlab sets from other keys of a run file, and which.
OWN_FIELDS = {
    "peft_type": "method.name",
    "task_type": "task",
    "auto_mapping": "backbone",
    "base_model_name_or_path": "backbone.model",
    "revision": "backbone.revision",
    "modules_to_save": "backbone (its head)",
    "inference_mode": "nothing: an adapter is attached to be trained",
    "peft_version": "the installed peft",
}


class LinearAdapter(Section):
    """What the adapters on linear layers have in common."""

    alpha: float = Field(16.0, gt=0)
    """The correction is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the adapter's inputs that is zeroed in training."""
    targets: str | tuple[str, ...] = surgery.ALL_LINEAR
    """Layers to adapt: last names or suffixes, a regular expression for full names, or `all-linear`."""
    peft: dict[str, Any] = {}
    """Further fields of the PEFT config, passed on as they are."""

    @field_validator("targets")
    @classmethod
    def _not_empty(cls, targets: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not targets:
            raise ValueError("targets is empty; name linear layers, or write all-linear")
        return targets


def whole(number: float) -> float:
    """Return 16 for 16.0, as PEFT's own files have it."""
    return int(number) if float(number).is_integer() else number


def check_fields(tuner: str, given: Mapping[str, Any], own: Mapping[str, str]) -> dict[str, Any]:
    """Return `given`, the fields for the config of PEFT's `tuner` (`lora`), if it has them all.

    The class is read as source, not imported: PEFT takes seconds to import. `own` maps fields that the
    method sets itself to the run file's key for them.

    Raises:
        ValueError: a field is unknown, or is one that the method sets.
    """
    known = _config_fields(tuner)
    for name in given:
        if key := {**OWN_FIELDS, **own}.get(name):
            raise ValueError(f"peft.{name} is set from {key}; change that instead")
        if name not in known:
            raise ValueError(unknown("field of peft's config:", name, known))
    return dict(given)


def _config_fields(tuner: str) -> set[str]:
    """Return the fields of `peft.tuners.<tuner>.config`'s class and of the classes that it inherits."""
    spec = importlib.util.find_spec("peft")
    assert spec is not None, "peft is a dependency"
    assert spec.origin is not None
    root = Path(spec.origin).parent
    classes: dict[str, ast.ClassDef] = {}
    for file in ("config.py", "tuners/lora/config.py", f"tuners/{tuner}/config.py"):
        tree = ast.parse((root / file).read_text(encoding="utf-8"))
        defined = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        classes |= defined
    fields: set[str] = set()
    wanted = [next(name for name in reversed(defined) if _is_config(name, classes))]
    while wanted:
        node = classes.get(wanted.pop())
        if node is None:
            continue
        wanted += [base.id for base in node.bases if isinstance(base, ast.Name)]
        fields |= {
            line.target.id
            for line in node.body
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        }
    return fields


def _is_config(name: str, classes: Mapping[str, ast.ClassDef]) -> bool:
    """Return whether a class inherits from PEFT's root config (helpers of one config do not)."""
    if name == "PeftConfig":
        return True
    bases = classes[name].bases if name in classes else []
    return any(isinstance(base, ast.Name) and _is_config(base.id, classes) for base in bases)


def task_type(backbone: Backbone) -> str | None:
    """Return PEFT's task type, or None where the model takes no token ids."""
    if getattr(backbone.model, "main_input_name", None) != "input_ids":
        return None
    if backbone.head:
        return "SEQ_CLS"
    return "CAUSAL_LM"


def common_fields(backbone: Backbone) -> dict[str, Any]:
    """Return the fields that every PEFT config of ours has: what it is for, and the head beside it."""
    return {"task_type": task_type(backbone), "modules_to_save": list(backbone.head) or None}


def resolve(backbone: Backbone, targets: str | Sequence[str], rank: int | None = None) -> list[str]:
    """Return the names of the layers to adapt.

    Raises:
        ConfigError: nothing matches, or `rank` is larger than the smaller side of one of them.
    """
    names = surgery.match_targets(backbone.model, targets, backbone.head)
    if rank is not None:
        sides = {name: min(backbone.model.get_submodule(name).weight.shape) for name in names}
        smallest = min(sides, key=lambda name: sides[name])
        if rank > sides[smallest]:
            raise ConfigError(
                f"method.rank is {rank}, but {smallest} has rank {sides[smallest]} at most. "
                f"Set method.rank to 1..{sides[smallest]}, or leave that layer out of method.targets."
            )
    return names


def attach(backbone: Backbone, config: "PeftConfig", seed: int) -> "PeftModel":
    """Return the backbone, frozen, with a new adapter whose random weights depend on `seed` alone.

    Raises:
        ConfigError: PEFT refuses the config for this model.
    """
    from peft import get_peft_model

    surgery.freeze(backbone.model)
    with drawing(seed):
        try:
            model = get_peft_model(backbone.model, config)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"peft refuses the method for this backbone: {error}") from error
    _name_source(model, backbone)
    surgery.train_in_float32(model)
    return model


def make_config(cls: Any, fields: Mapping[str, Any], further: Mapping[str, Any]) -> Any:
    """Return a PEFT config of class `cls`.

    Raises:
        ConfigError: PEFT refuses the values.
    """
    try:
        return cls(**fields, **further)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"peft refuses method.peft {dict(further)}: {error}") from error


@contextlib.contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Draw random numbers from `seed`, and leave the run's own randomness where it was."""
    import torch

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(mix(seed, "adapter"))
        yield


def _name_source(model: "PeftModel", backbone: Backbone) -> None:
    config = model.peft_config[ADAPTER]
    config.base_model_name_or_path = backbone.record.get("source")
    config.revision = backbone.record.get("revision")


def random_frozen(model: "nn.Module") -> tuple[str, ...]:
    """Return the names of the head's weights as they were before training.

    They are random, frozen, and the model uses them when the adapter is off.
    """
    return tuple(name for name, _ in model.named_parameters() if ".original_module." in name)


def tensors(model: "PeftModel") -> "dict[str, Tensor]":
    """Return the adapter and the head as PEFT names them in its file, on the CPU."""
    from peft import get_peft_model_state_dict

    # Without save_embedding_layers=False peft asks the hub whether the vocabulary has grown.
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}


def config_dict(model: "PeftModel") -> dict[str, Any]:
    """Return what stands in `adapter_config.json`: plain values, lists sorted."""
    config = model.peft_config[ADAPTER]
    fields = {**config.to_dict(), "inference_mode": True}
    if config.task_type is None:
        base = model.get_base_model()
        fields["auto_mapping"] = {
            "base_model_class": type(base).__name__,
            "parent_library": type(base).__module__,
        }
    for name in ("modules_to_save", "target_modules", "exclude_modules"):
        if isinstance(fields.get(name), list | set | tuple):
            fields[name] = sorted(set(fields[name]))
    return json.loads(json.dumps(fields, default=sorted))


def write(folder: Path, config: Mapping[str, Any], weights: "Mapping[str, Tensor]") -> None:
    """Write a PEFT adapter folder: the same bytes for the same values."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    save_file(dict(weights), folder / WEIGHTS, metadata={"format": "pt"})


def save(model: "PeftModel", folder: Path) -> None:
    """Write the adapter and the head in PEFT's format."""
    write(folder, config_dict(model), tensors(model))


def read_folder(folder: Path) -> "tuple[dict[str, Any], dict[str, Tensor]]":
    """Return an adapter folder's config and weights.

    Raises:
        ModelError: a file is missing or damaged.
        Refused: the weights are pickled.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / WEIGHTS).exists():
        if (folder / "adapter_model.bin").exists():
            raise Refused(
                f"{folder / 'adapter_model.bin'} is a pickle, which can run code when it is read. Load it "
                f"where you trust it and save it again with peft's save_pretrained (safetensors)."
            )
        raise ModelError(f"{folder} holds no {WEIGHTS}. Name a run, or the folder of an adapter.")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return config, load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"the adapter in {folder} cannot be read: {error}") from error


def load(backbone: Backbone, folder: Path) -> "PeftModel":
    """Return the backbone with the adapter in `folder`, in eval mode, bit for bit as it was saved.

    Raises:
        ModelError: the files are missing or damaged, or belong to another backbone.
        Refused: the weights are pickled.
    """
    from peft import PeftModel

    _, weights = read_folder(folder)
    surgery.freeze(backbone.model)
    try:
        with drawing(0):
            model = PeftModel.from_pretrained(backbone.model, folder)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(f"the adapter in {folder} does not fit this backbone: {error}") from error
    _head_in_float32(model)
    put(model, weights, f"the adapter in {folder}")
    return model.eval()


def _head_in_float32(model: "PeftModel") -> None:
    """Let a head that was trained in float32 stay so on a backbone of lower precision."""
    heads = [p for name, p in model.named_parameters() if f".modules_to_save.{ADAPTER}." in name]
    for parameter in heads:
        parameter.requires_grad_(True)
    surgery.train_in_float32(model)
    for parameter in heads:
        parameter.requires_grad_(False)


def put(model: "PeftModel", weights: "Mapping[str, Tensor]", what: str) -> None:
    """Set the adapter's and the head's weights.

    Raises:
        ModelError: names or shapes differ.
    """
    from peft import set_peft_model_state_dict

    config = model.peft_config[ADAPTER]
    pattern = getattr(config, "rank_pattern", None)
    own = {name: tuple(tensor.shape) for name, tensor in tensors(model).items()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if own != given:
        raise ModelError(f"{what} does not fit: {_difference(own, given)}.")
    set_peft_model_state_dict(model, dict(weights))
    if pattern is not None:
        config.rank_pattern = pattern


def _difference(own: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Return the first tensor that differs, with both shapes."""
    name = min(name for name in {*own, *given} if own.get(name) != given.get(name))
    return f"{name} is {given.get(name, 'missing')} there and {own.get(name, 'missing')} here"


@contextlib.contextmanager
def off(model: "PeftModel") -> Iterator[None]:
    """Let the model be the backbone, head included, for the time of a `with` block."""
    if not model.peft_config[ADAPTER].is_prompt_learning:
        with model.disable_adapter():
            yield
        return
    # peft 0.21.2: disable_adapter() fails on classifiers, which have no prepare_inputs_for_generation
    # (UnboundLocalError), and leaves the trained head on. tests/methods/test_prompt.py sees it mended.
    from peft.utils.other import AuxiliaryTrainingWrapper

    heads = [m for m in model.modules() if isinstance(m, AuxiliaryTrainingWrapper)]
    model.forward = model.get_base_model().forward
    for head in heads:
        head.enable_adapters(False)
    try:
        yield
    finally:
        del model.forward
        for head in heads:
            head.enable_adapters(True)


def merge(model: "PeftModel") -> "nn.Module":
    """Return the plain model with the adapter folded into its weights. The adapter is gone."""
    return model.merge_and_unload()


def base_name(name: str) -> str:
    """Return the name that a layer's weight has in the backbone."""
    return name.removeprefix(PREFIX).removesuffix(".base_layer.weight")
