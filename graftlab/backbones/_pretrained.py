"""Load a transformers model without its noise, with a new head that depends on the seed alone."""

import contextlib
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from graftlab.config import ModelName, Section
from graftlab.contracts import Note, Problem
from graftlab.errors import ModelError, Refused, missing_extra
from graftlab.seeds import mix
from graftlab.weights.hub import refuse_kernels
from graftlab.weights.pretrained import Located, read_config

if TYPE_CHECKING:
    from torch import nn

PROBLEM_TYPES = {"classes": "single_label_classification", "regression": "regression"}


class Source(Section):
    """Where a pretrained model comes from and how it computes."""

    model: ModelName
    """Alias, hub id, or folder with config.json and safetensors."""
    revision: str | None = None
    """Branch, tag or commit on the hub; the main branch unless given; the run records the commit."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the frozen weights; the head is float32 whatever this says."""
    attention: Literal["eager", "sdpa", "flash_attention_2", "flex_attention"] | None = None
    """Attention kernel; transformers chooses unless given."""


class Loaded(NamedTuple):
    """A model and what its checkpoint left open."""

    model: "nn.Module"
    head: tuple[str, ...]
    notes: tuple[Note, ...]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars and load reports: what matters is said in the record."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def problem_fields(problem: Problem) -> dict[str, object]:
    """Return what a transformers config has to say of a task; nothing for tokens."""
    if problem.kind == "tokens":
        return {}
    names = problem.labels if problem.kind == "classes" else ("score",)
    return {
        "num_labels": problem.num_outputs,
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
        "problem_type": PROBLEM_TYPES[problem.kind],
    }


def config_fields(config: Source, problem: Problem) -> dict[str, object]:
    """Return what transformers has to be told of a section and a task."""
    told = {"dtype": config.dtype, "attn_implementation": config.attention}
    return told | problem_fields(problem)


def outermost_new(model: "nn.Module", keys: Iterable[str]) -> tuple[str, ...]:
    """Return the largest modules whose parameters are all among `keys`, in the model's order."""
    keys = set(keys)
    found: list[str] = []
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        own = [prefix + key for key, _ in module.named_parameters()]
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if name and own and not inside and keys.issuperset(own):
            found.append(name)
    return tuple(found)


def outside_base(model: "nn.Module") -> tuple[str, ...]:
    """Return the names of the top-level modules with parameters that are not the backbone."""
    base = model.base_model_prefix
    return tuple(
        name
        for name, module in model.named_children()
        if name != base and any(True for _ in module.parameters())
    )


def load_model(
    auto: Any, located: Located, fields: dict[str, Any], seed: int, meta: bool = False
) -> Loaded:
    """Return `auto`'s model with the weights in `located`; new weights depend on `seed` alone.

    `fields` go to the model's config; `num_labels` among them asks for a head. With `meta` the model
    is built on the meta device from its config, and no weights are read.

    Raises:
        ModelError: the weights do not fit the architecture that config.json names.
        Refused: the model needs code of its own, or kernels of the hub.
    """
    import torch

    refuse_kernels(located.source, read_config(located.folder))
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(mix(seed, "head"))
            if meta:
                return _build_on_meta(auto, located, fields)
            model, info = auto.from_pretrained(
                located.folder,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                use_safetensors=True,
                trust_remote_code=False,
                **fields,
            )
            new = set(info["missing_keys"]) | {key for key, *_ in info["mismatched_keys"]}
            return _with_head(model, new, located, fields.get("id2label"))
    except (ValueError, OSError, RuntimeError, KeyError, ImportError) as error:
        raise cannot_load(located, error) from error


def cannot_load(located: Located, error: Exception) -> ModelError | Refused:
    """Return the error to raise where transformers failed with `error`."""
    text = str(error).strip()
    if "trust_remote_code" in text:
        return Refused(
            f"{located.source} needs code of its own (auto_map in its config.json), which is not "
            f"run. Use a version of it that transformers has built in.",
            kind="foreign_code",
        )
    if list(located.folder.glob("*.model")) and not (located.folder / "tokenizer.json").is_file():
        # asked after the failure, because transformers then speaks of tiktoken instead
        for package, module in (
            ("sentencepiece", "sentencepiece"),
            ("protobuf", "google.protobuf"),
        ):
            if not _is_installed(module):
                return ModelError(missing_extra(located.source, package, "sentencepiece"))
    return ModelError(f"{located.source} cannot be loaded: {text}")


def _is_installed(module: str) -> bool:
    names = module.split(".")
    return all(find_spec(".".join(names[: i + 1])) for i in range(len(names)))


def _build_on_meta(auto: Any, located: Located, fields: dict[str, object]) -> Loaded:
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(located.folder, trust_remote_code=False, **fields)
    with torch.device("meta"):
        model = auto.from_config(config, trust_remote_code=False)
    return Loaded(model, outside_base(model) if "num_labels" in fields else (), ())


def _with_head(
    model: "nn.Module", new: set[str], located: Located, labels: dict[int, str] | None
) -> Loaded:
    """Return the model with the modules that are new for the task; `labels` None: there are none.

    Raises:
        ModelError: the checkpoint lacks weights of the backbone itself.
    """
    base = f"{model.base_model_prefix}."
    lost = sorted(key for key in new if key.startswith(base) and ".pooler." not in f".{key}")
    if lost or (new and labels is None):
        lost = lost or sorted(new)
        raise ModelError(
            f"the weights of {located.source} do not fit {type(model).__name__}: {len(lost)} are "
            f"missing or of another shape, {lost[0]} first. Choose another backbone.kind, or "
            f"another model."
        )
    if labels is None:
        return Loaded(model, (), ())
    head, notes = outermost_new(model, new), []
    if not any(not key.startswith(base) for key in new):  # the checkpoint has a head of this size
        own = outside_base(model)
        trained_for = read_config(located.folder).get("id2label")
        if trained_for == {str(number): name for number, name in labels.items()}:
            notes.append(Note.of("head_kept", model=located.source))
        else:
            notes.append(Note.of("head_drawn", model=located.source))
            draw_again(model, own)
        head = (*head, *own)
    _keep_in_float32(model, head)
    return Loaded(model, head, tuple(notes))


def draw_again(model: Any, names: Iterable[str]) -> None:
    """Initialise modules as the architecture does, whatever was loaded into them."""
    for name in names:
        for module in model.get_submodule(name).modules():
            for thing in (module, *module.parameters(recurse=False)):
                if hasattr(thing, "_is_hf_initialized"):  # transformers' mark: do not initialise
                    del thing._is_hf_initialized
            model._init_weights(module)


def _keep_in_float32(model: "nn.Module", names: Iterable[str]) -> None:
    """Let modules train in float32 although the backbone computes lower."""
    import torch

    for name in names:
        module = model.get_submodule(name)
        if any(parameter.dtype != torch.float32 for parameter in module.parameters()):
            module.float()
            module.register_forward_pre_hook(_inputs_as_float32)


def _inputs_as_float32(module: "nn.Module", inputs: tuple[Any, ...]) -> tuple[object, ...]:
    return tuple(x.float() if getattr(x, "is_floating_point", bool)() else x for x in inputs)
