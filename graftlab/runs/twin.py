"""A tiny twin of a run: its architecture with all layers, a few numbers wide, with random weights.

What a part that nobody knows beforehand does to a model can be tried on it in a second, before the model is
loaded. Layers keep their number and names, tokens theirs; ranks are cut to what fits.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from graftlab.contracts import Attached, Backbone, Problem, Setting
from graftlab.runs import material
from graftlab.seeds import mix

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedConfig, PreTrainedModel

    from graftlab.runfile import RunFile

LENGTHS = (12, 9, 12, 7)
HEADS, WIDTH, EXPERTS = 4, 64, 4
RANKS = {"rank": 14, "initial_rank": 14, "target_rank": 10}  # even, and below the narrowest layer
SIZES = {
    "hidden_size": WIDTH,
    "embedding_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "ffn_dim": 2 * WIDTH,
    "n_inner": 2 * WIDTH,
    "moe_intermediate_size": 2 * WIDTH,
    "shared_expert_intermediate_size": 2 * WIDTH,
    "word_embed_proj_dim": WIDTH,
    "head_dim": WIDTH // HEADS,
    "num_local_experts": EXPERTS,
    "num_experts": EXPERTS,
}
"""What transformers' configs call their widths."""
IDS = ("alora_invocation_tokens", "trainable_token_indices")
"""Fields of PEFT that name tokens: they stand in each of the twin's texts."""


class Failed(Exception):
    """What was tried does not work; the message says how it went wrong."""


class Twin(NamedTuple):
    """A run whose backbone is tiny."""

    file: "RunFile"
    problem: Problem
    plain: Backbone
    """Its weights are not quantized."""
    inputs: "dict[str, Tensor]"


def make(file: "RunFile", folder: Path) -> Twin:
    """Return the tiny twin of a run; its model is written into the new folder `folder`.

    Raises:
        GraftlabError: the backbone's config cannot be read.
        Exception: of transformers or torch, where the architecture cannot be made so small.
    """

    problem = file.task.module.problem(file.task.config)
    source = file.backbone.config
    if hasattr(source, "model"):  # else it is made on the spot, and tiny already
        _write(material.backbone(file, problem, meta=True), folder)
        source = _pointed(source, folder)
    method = replace(file.method, config=_cut(file.method.config))
    tiny = replace(file, backbone=replace(file.backbone, config=source), method=method)
    plain = _load(tiny, problem, quantized=False)
    twin = Twin(
        tiny, problem, plain, _inputs(cast("PreTrainedModel", plain.model), method.config.peft)
    )
    outputs(twin, plain.model.eval())  # it works without the adapter
    return twin


def _write(whole: Backbone, folder: Path) -> None:
    """Write a model of the architecture of `whole`, which has no weights, and its tokenizer."""
    import torch

    described = cast("PreTrainedModel", whole.model).config
    architecture = cast("type[PreTrainedModel]", type(whole.model))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small = architecture(_shrink(copy.deepcopy(described)))
        cast("nn.Module", small).float()
        for parameter in small.parameters():  # as they start, outputs hardly depend on inputs
            parameter.data += 0.05 * torch.randn_like(parameter)
    small.save_pretrained(folder)
    whole.processor.save_pretrained(folder)


def _pointed(source: Any, folder: Path) -> Any:
    """Return the backbone's section with the model in `folder`, all of it computed in float32."""
    quantization = getattr(source, "quantization", None)
    if quantization is not None:
        quantization = quantization.model_copy(update={"compute_dtype": "float32"})
        source = source.model_copy(update={"quantization": quantization})
    given = {"model": str(folder), "revision": None, "dtype": "float32"}
    return source.model_copy(update=given)


def _cut(config: Any) -> Any:
    """Return the method's section with small ranks, no dropout and a start of its own."""
    fields = type(config).model_fields
    ranks = {k: min(most, getattr(config, k)) for k, most in RANKS.items() if k in fields}
    plain = {"dropout": 0.0, "start_from": None, "start_head": True}
    return config.model_copy(update=ranks | {k: v for k, v in plain.items() if k in fields})


def _shrink(config: "PreTrainedConfig") -> "PreTrainedConfig":
    """Return a config whose model is narrow and has as many layers and tokens as before."""
    text = config.get_text_config()
    grouped = getattr(text, "num_key_value_heads", None)
    heads = text.num_attention_heads
    for name, size in SIZES.items():
        if isinstance(getattr(text, name, None), int):
            setattr(text, name, size)
    text.num_attention_heads = HEADS
    if grouped is not None:
        text.num_key_value_heads = HEADS if grouped == heads else 1 if grouped == 1 else HEADS // 2
    return config


def _load(file: "RunFile", problem: Problem, quantized: bool) -> Backbone:
    source = file.backbone.config
    if not quantized and getattr(source, "quantization", None) is not None:
        source = source.model_copy(update={"quantization": None})
    return material.backbone(replace(file, backbone=replace(file.backbone, config=source)), problem)


def backbone(twin: Twin, quantized: bool = True) -> Backbone:
    """Return the twin once more: loaded where its layers are quantized, which cannot be copied."""
    if quantized and getattr(twin.file.backbone.config, "quantization", None) is not None:
        return _load(twin.file, twin.problem, True)
    return replace(twin.plain, model=copy.deepcopy(twin.plain.model))


def without(twin: Twin, name: str) -> Twin:
    """Return the twin whose run file lacks one of PEFT's fields."""
    config = twin.file.method.config
    fields = {key: value for key, value in config.peft.items() if key != name}
    method = replace(twin.file.method, config=config.model_copy(update={"peft": fields}))
    return twin._replace(file=replace(twin.file, method=method))


def attach(twin: Twin, checkpointing: bool = False, quantized: bool = True) -> Attached:
    """Return the twin with its adapter, filled as if it had been trained; the same at every call."""
    import torch

    own = backbone(twin, quantized)
    if checkpointing:
        model: Any = own.model
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    seed, batches = mix(twin.file.seed, "method"), [twin.inputs] * 4
    setting = Setting(seed, 4, 2, twin.problem, lambda: iter(batches), None, checkpointing)
    attached: Attached = twin.file.method.module.attach(own, twin.file.method.config, setting)
    random = torch.Generator().manual_seed(0)
    for parameter in attached.model.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=random)
            parameter.data += 0.1 * noise.to(parameter)
    return attached


def _inputs(model: "PreTrainedModel", fields: dict[str, object]) -> "dict[str, Tensor]":
    import torch

    random, config = torch.Generator().manual_seed(0), model.config
    if model.main_input_name == "pixel_values":
        shape = (len(LENGTHS), config.num_channels, config.image_size, config.image_size)
        return {"pixel_values": torch.randn(shape, generator=random)}
    named, vocabulary = list(_token_ids(fields)), config.get_text_config().vocab_size
    texts = [
        torch.cat([
            torch.randint(1, vocabulary, (length,), generator=random),
            torch.tensor(named, dtype=torch.long),
            torch.randint(1, vocabulary, (3,), generator=random),
        ])
        for length in LENGTHS
    ]  # fmt: skip
    ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(text) for text in texts], True)
    return {"input_ids": ids, "attention_mask": mask}


def _token_ids(fields: Mapping[str, object]) -> Iterator[int]:
    for name in IDS:
        value: Any = fields.get(name) or ()
        groups = value.values() if isinstance(value, dict) else (value,)
        yield from (token for group in groups for token in group)


def outputs(twin: Twin, model: "nn.Module") -> "Tensor":
    """Return all logits in one row, of tokens those that are no padding; random fields draw alike."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        logits: Tensor = model(**twin.inputs).logits.float()
    if twin.problem.kind == "tokens":
        mask = twin.inputs["attention_mask"].bool()
        logits = logits[:, -mask.shape[1] :][mask]  # virtual tokens stand before
    if not logits.isfinite().all():
        raise Failed("the outputs are not finite")
    return logits.flatten()
