"""Load a transformers model without its noise, with a new head that depends on the seed alone."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from graftlab.contracts import Problem
from graftlab.errors import ConfigError, ModelError, missing_extra
from graftlab.pretrained import Located
from graftlab.seeds import mix

if TYPE_CHECKING:
    from torch import nn

PROBLEM_TYPES = {"classes": "single_label_classification", "regression": "regression"}
UNLIMITED = 10**6  # tokenizers without a limit say 1e30


class Loaded(NamedTuple):
    """A model and what its checkpoint left open."""

    model: "nn.Module"
    head: tuple[str, ...]
    notes: tuple[str, ...]


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


def problem_fields(problem: Problem) -> dict[str, Any]:
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


def load_tokenizer(located: Located) -> Any:
    """Return the tokenizer that stands beside the weights.

    Raises:
        ModelError: there is none, or one of its packages is not installed.
    """
    from transformers import AutoTokenizer

    try:
        with quiet():
            return AutoTokenizer.from_pretrained(located.folder, trust_remote_code=False)
    except (ImportError, ValueError, OSError) as error:
        for package in ("sentencepiece", "protobuf"):
            if package in str(error).lower():
                what = f"the tokenizer of {located.source}"
                raise ModelError(missing_extra(what, package, "sentencepiece")) from error
        raise ModelError(f"the tokenizer of {located.source} cannot be read: {error}") from error


def load_model(
    auto: Any, located: Located, fields: dict[str, Any], seed: int, meta: bool = False
) -> Loaded:
    """Return `auto`'s model with the weights in `located`; new weights depend on `seed` alone.

    With `meta` the model is built on the meta device from its config, and no weights are read.

    Raises:
        ModelError: the weights do not fit the architecture that config.json names.
    """
    import torch
    from transformers import AutoConfig

    try:
        with quiet(), torch.random.fork_rng():
            torch.manual_seed(mix(seed, "head"))
            if meta:
                config = AutoConfig.from_pretrained(located.folder, **fields)
                with torch.device("meta"):
                    model = auto.from_config(config)
                return Loaded(model, outside_base(model), ())
            model, info = auto.from_pretrained(
                located.folder,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                use_safetensors=True,
                **fields,
            )
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        raise ModelError(f"{located.source} cannot be loaded: {error}") from error
    new = set(info["missing_keys"]) | {key for key, *_ in info["mismatched_keys"]}
    head = outermost_new(model, new) or outside_base(model)
    return Loaded(model, head, ())


def token_limit(tokenizer: Any, model: "nn.Module", wanted: int | None) -> int | None:
    """Return the longest input in tokens: what is wanted, else what tokenizer and positions allow.

    Raises:
        ConfigError: more is wanted than the model has positions.
    """
    limits = [n for n in (tokenizer.model_max_length,) if n < UNLIMITED]
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        for name, module in model.named_modules():
            if name.endswith("position_embeddings") and getattr(module, "padding_idx", None):
                positions -= module.padding_idx + 1  # RoBERTa counts positions from padding_idx + 1
                break
        limits.append(positions)
        if wanted and wanted > positions:
            raise ConfigError(
                f"backbone.max_length is {wanted}, but {model.config.model_type} has {positions} "
                f"positions. Set it to {positions} or less."
            )
    return wanted or min(limits, default=None)
