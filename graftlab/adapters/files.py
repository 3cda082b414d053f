"""Adapter folders in PEFT's format: the same bytes for the same weights, and never a pickle."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.adapters.attachment import ADAPTER, PREFIX, drawing, name_source, quiet
from graftlab.contracts import Backbone
from graftlab.errors import Fault, GraftlabError, ModelError, Place, Refused, wrong
from graftlab.rundir import files as rundir
from graftlab.rundir import manifest
from graftlab.rundir.run import Run
from graftlab.weights import surgery

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor

    from graftlab.adapters.fields import LowRank

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
SIZES = ("r", "rank", "init_r", "target_r", "num_virtual_tokens", "encoder_hidden_size")
"""Keys of an adapter's config that say how large its tensors are."""
INITIAL = "initial_adapter.safetensors"
"""A and B as they were at the start, for adapters that changed the frozen weights (PiSSA, OLoRA)."""
INITIAL_A, INITIAL_B = "initial_A", "initial_B"
"""The buffers beside a layer that hold them."""


def tensors(model: "PeftModel") -> "dict[str, Tensor]":
    """Return the adapter and the head on the CPU, under the names that PEFT gives them in its file."""
    from peft import get_peft_model_state_dict

    config = model.peft_config[ADAPTER]
    pattern = getattr(config, "rank_pattern", None)
    with warnings.catch_warnings():
        if config.peft_type == "ADALORA":  # may leave a layer no rank at all, which peft warns of
            warnings.filterwarnings("ignore", message=r"Adapter .* LoRA tensor\(s\) have invalid")
        # Without save_embedding_layers=False peft asks the hub whether the vocabulary has grown.
        state = get_peft_model_state_dict(model, save_embedding_layers=False)
    if pattern is not None:
        config.__dict__["rank_pattern"] = pattern  # AdaLoRA's renames the layers in it
    return {
        name: tensor.detach().cpu().clone().contiguous()
        for name, tensor in state.items()
        if not name.endswith((f".{INITIAL_A}", f".{INITIAL_B}"))  # they have a file of their own
    }


def config_dict(model: "PeftModel") -> dict[str, Any]:
    """Return what stands in `adapter_config.json`: plain values, sets as sorted lists."""
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


def write(folder: Path, config: Mapping[str, object], weights: "Mapping[str, Tensor]") -> None:
    """Write an adapter folder: the same bytes for the same values."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    save_file(dict(weights), folder / WEIGHTS, metadata={"format": "pt"})


def save(model: "PeftModel", folder: Path) -> None:
    """Write the adapter and the head."""
    write(folder, config_dict(model), tensors(model))


def read(folder: Path, weights: str = WEIGHTS) -> "tuple[dict[str, object], dict[str, Tensor]]":
    """Return an adapter folder's config and weights.

    Raises:
        ModelError: a file is missing or damaged, or a number in it is not finite.
        Refused: the weights are pickled, or the config names a module to import.
    """
    if (folder / "adapter_model.bin").exists() and not (folder / WEIGHTS).exists():
        raise Refused(
            f"{folder / 'adapter_model.bin'} is a pickle, which can run code when it is read. Load it "
            f"where you trust it, and save it again with peft's save_pretrained."
        )
    for name in (CONFIG, weights):
        if not (folder / name).is_file():
            raise ModelError(
                f"{folder} holds no {name}, so it is not the adapter that is looked for."
            )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the adapter in {folder} cannot be read: {error}", kind="unreadable"
        ) from error
    if not isinstance(config, dict):
        raise ModelError(
            f"the adapter in {folder} cannot be read: {CONFIG} holds no mapping.", kind="unreadable"
        )
    if config.get("megatron_config"):
        raise Refused(
            f"{folder / CONFIG}: megatron_config has peft import the module {config.get('megatron_core')!r}. "
            f"Remove both keys; no layer here is Megatron's."
        )
    _refuse_sizes(folder / CONFIG, config)
    return config, rundir.read_weights(folder / weights)


def _refuse_sizes(path: Path, config: Mapping[str, object]) -> None:
    """Refuse ranks and numbers of virtual tokens that no adapter has: making it would take hours."""
    found = {key: config.get(key) for key in SIZES}
    patterns = config.get("rank_pattern")
    found |= patterns if isinstance(patterns, dict) else {}
    for key, value in found.items():
        if isinstance(value, int | float) and value > surgery.MOST_RANK:
            said = f"{key} is {value}, more than {surgery.MOST_RANK}: no layer is so wide."
            raise ModelError(said, kind="not_allowed", place=Place(str(path)), given=value)


def load(backbone: Backbone, folder: Path) -> "PeftModel":
    """Return the backbone with the adapter in `folder`, in eval mode, bit for bit as it was saved.

    Raises:
        ModelError: the files are missing or damaged, or belong to another backbone.
        Refused: the weights are pickled.
    """
    from peft import PeftConfig, PeftModel

    _, weights = read(folder)
    surgery.freeze(backbone.model)
    try:
        config = PeftConfig.from_pretrained(str(folder))
        init = getattr(config, "init_lora_weights", None)
        if init is not None:
            config.init_lora_weights = True  # the weights are read: nothing is to be computed
        with drawing(0), quiet():
            model = PeftModel.from_pretrained(backbone.model, folder, config=config)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(
            f"the adapter in {folder} does not fit this backbone: {error}", kind="misfit"
        ) from error
    if init is not None:
        config.init_lora_weights = init
    name_source(config, backbone)
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
    """Set the adapter's and the head's weights; `what` names them in an error.

    Raises:
        ModelError: names or shapes differ.
    """
    import torch

    own = tensors(model)
    if difference := differ(own, weights):
        raise ModelError(
            f"{what} does not fit this backbone and method: {difference}.", kind="misfit"
        )
    places = {in_file(name): tensor for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for name, value in weights.items():
            places[name].copy_(value)


def in_file(name: str) -> str:
    """Return the name that PEFT's file has for a name of the model's state dict."""
    name = name.replace(f".modules_to_save.{ADAPTER}.", ".").replace(f".{ADAPTER}", "")
    if name.endswith(".lora_magnitude_vector.weight"):
        return name.removesuffix(".weight")
    return "prompt_embeddings" if name == "prompt_encoder.embedding.weight" else name


def differ(own: "Mapping[str, Tensor]", given: "Mapping[str, Tensor]") -> str | None:
    """Return how the first tensor of different shape differs, or None."""
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    others = {name: tuple(tensor.shape) for name, tensor in given.items()}
    for name in sorted({*shapes, *others}):
        if shapes.get(name) != others.get(name):
            there, here = others.get(name, "missing"), shapes.get(name, "missing")
            return f"{name} is {there} in the file and {here} here"
    return None


def find_start(start_from: Path) -> Path:
    """Return the adapter folder that `method.start_from` means: a run's, or itself.

    Raises:
        ModelError: there is none.
    """
    for folder in (start_from / "adapter", start_from):
        if (folder / CONFIG).is_file():
            return folder
    raise ModelError(
        f"method.start_from: {start_from} is neither a run with an adapter nor an adapter folder "
        f"(no {CONFIG} in it).",
        kind="no_adapter",
    )


def check_start(
    config: "LowRank", backbone_kind: str, model_type: str | None, gradient_checkpointing: bool
) -> list[Fault]:
    """Return what is wrong with `method.start_from`, before anything is loaded."""
    if config.start_from is not None:
        try:
            check_whole(find_start(config.start_from))
        except GraftlabError as error:
            return [wrong("start_from", p.words(), kind=p.kind) for p in error.problems]
    return []


def check_whole(folder: Path) -> bool:
    """Refuse an adapter that is not as it was written; return whether there is a manifest to tell.

    Raises:
        ModelError: a file of it has changed.
        CheckpointError: all of it is another run's than the one that it lies in.
    """
    run = Run(folder.parent)
    inside = run.adapter == folder and run.started
    return run.check_adapter() if inside else manifest.check(folder, error=ModelError)


def check_base(start_from: Path, backbone: Backbone) -> None:
    """Refuse to begin from an adapter of another backbone: by its weights' hashes where its run is there,
    else by the name in its config.

    Raises:
        ModelError: it was trained on another one.
    """
    folder, own = find_start(start_from), backbone.record
    try:
        text = (folder.parent / "environment.json").read_text(encoding="utf-8")
        theirs = json.loads(text)["backbone"]
    except (OSError, ValueError, KeyError):
        theirs = {"source": read(folder)[0].get("base_model_name_or_path")}
    if theirs.get("sha256") and own.get("sha256"):
        if theirs["sha256"] != own["sha256"]:
            raise ModelError(
                f"method.start_from: {folder} was trained on {theirs.get('source')} with other weights than "
                f"{own.get('source')} has: sha256 {theirs['sha256']}, here {own['sha256']}.",
                kind="other_weights",
            )
    elif theirs.get("source") and own.get("source") and theirs["source"] != own["source"]:
        raise ModelError(
            f"method.start_from: {folder} was trained on {theirs['source']}, but this run's backbone is "
            f"{own['source']}. If they are the same model, write the latter into {CONFIG} as "
            f"base_model_name_or_path.",
            kind="other_backbone",
        )


def begin_from(model: "PeftModel", start_from: Path, head: Sequence[str], with_head: bool) -> None:
    """Set the adapter's weights, and with `with_head` the head's, to those of an earlier run.

    Raises:
        ModelError: the earlier adapter is another method's, or has other shapes or another scale.
    """
    folder = find_start(start_from)
    config, weights = read(folder)
    own = config_dict(model)
    for field in ("peft_type", "use_dora", "r", "lora_alpha", "use_rslora"):
        if config.get(field) != own.get(field):
            raise ModelError(
                f"method.start_from: {folder} has {field} {config.get(field)!r}, this run has "
                f"{own.get(field)!r}. Begin from a run of the same method, rank and alpha."
            )
    if not with_head:
        prefixes = [PREFIX + name for name in head]
        weights = {
            **{n: w for n, w in weights.items() if not surgery.inside(n, prefixes)},
            **{n: w for n, w in tensors(model).items() if surgery.inside(n, prefixes)},
        }
    hint = " (for a task with other labels set method.start_head: false)" if with_head else ""
    put(model, weights, f"method.start_from: the adapter in {folder}{hint}")
