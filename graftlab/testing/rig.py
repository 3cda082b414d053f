"""Tiny backbones, batches and a bare loop, on which the promises of methods are tested in milliseconds."""

import functools
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from graftlab import registry
from graftlab.config import Section
from graftlab.contracts import Attached, Backbone, MicroBatch, Problem, Setting, Training, adding
from graftlab.seeds import mix
from graftlab.testing import examples
from graftlab.weights import quantized, surgery

# Shapes: N examples, L tokens, C classes, V vocabulary.

NUM_STEPS = 6
CLASSES = Problem("classes", ("a", "b", "c"))
TOKENS = Problem("tokens")
VOCABULARY, LENGTH, EXAMPLES = 60, 12, 8


class Family(NamedTuple):
    """One kind of backbone that a method may fit."""

    kind: str
    problem: Problem
    model_type: str
    make: Callable[[], nn.Module]
    bits: int = 0
    """4: its linear layers are bitsandbytes'."""
    vectors: int = 0
    """Numbers of the vectors that its rows stand for; 0: they stand for none."""


def _bert() -> nn.Module:
    from transformers import AutoConfig, BertForSequenceClassification

    config: Any = AutoConfig.for_model(
        "bert",
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=80,
        num_labels=3,
    )
    return BertForSequenceClassification(config)


def _qwen(**fields: Any) -> Any:
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        pad_token_id=0,
        **fields,
    )


def _qwen_classifier() -> nn.Module:
    from transformers import Qwen2ForSequenceClassification

    return Qwen2ForSequenceClassification(_qwen(num_labels=3))


def _qwen_lm() -> nn.Module:
    from transformers import Qwen2ForCausalLM

    return Qwen2ForCausalLM(_qwen(tie_word_embeddings=True))


def _vit() -> nn.Module:
    from transformers import AutoConfig, ViTForImageClassification

    config: Any = AutoConfig.for_model(
        "vit",
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=48,
        image_size=8,
        patch_size=4,
        num_labels=3,
    )
    return ViTForImageClassification(config)


FAMILIES = {
    "encoder": Family("encoder", CLASSES, "bert", _bert),
    "decoder": Family("decoder", CLASSES, "qwen2", _qwen_classifier),
    "tokens": Family("decoder", TOKENS, "qwen2", _qwen_lm),
    "vectors": Family("decoder", TOKENS, "qwen2", _qwen_lm, vectors=24),
    "vision": Family("vision", CLASSES, "vit", _vit),
    "quantized": Family("decoder", CLASSES, "qwen2", _qwen_classifier, 4),
}


def misfit(name: str, family: Family) -> str | None:
    """Return why a method does not fit this kind of backbone, or none can be made here; None if it does."""
    method = registry.find("methods", name)
    if family.bits and find_spec("bitsandbytes") is None:
        return "bitsandbytes is not installed"
    if method.PROMISES.reads_vectors != bool(family.vectors):
        return "it reads vectors" if family.vectors == 0 else "it reads no vectors"
    unfit = method.on_quantized(config(name), family.bits) if family.bits else None
    return (
        unfit
        or method.PROMISES.misfit(family.kind, family.model_type)
        or method.PROMISES.not_problems.get(family.problem.kind)
    )


def _quantize(model: nn.Module, head: Sequence[str]) -> None:
    """Put bitsandbytes' 4-bit layers in the place of the linear ones, as the kind `decoder` has them."""
    from bitsandbytes.nn import Linear4bit  # type: ignore[attr-defined]

    for name, layer in surgery.linear_layers(model, head).items():
        old: Any = layer
        bias = old.bias is not None
        new = Linear4bit(
            old.in_features, old.out_features, bias, compute_dtype=torch.float32, quant_type="nf4"
        )
        new.load_state_dict(old.state_dict())
        quantized.keep_readable(new)
        model.set_submodule(name, new.to("cpu").requires_grad_(False).eval())


def backbone(family: Family, head_seed: int = 0) -> Backbone:
    """Return a new backbone: the same body every time, and a head that depends on the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = family.make().eval()
        for parameter in model.parameters():  # transformers starts biases at zero and norms at one
            parameter.data += 0.05 * torch.randn_like(parameter)
        head = tuple(n for n in ("classifier", "score") if hasattr(model, n))
        torch.manual_seed(mix(head_seed, "head"))
        for name in head:
            for parameter in model.get_submodule(name).parameters():
                parameter.data.normal_(std=0.3)
        if family.bits:
            _quantize(model, head)
    record = {"source": "tiny"}
    return Backbone(model, family.kind, None, head, LENGTH, record)


def batch(family: Family, seed: int = 0) -> dict[str, Tensor]:
    """Return inputs and labels; texts have padding on the right."""
    generator = torch.Generator().manual_seed(mix(seed, "batch"))
    labels = torch.arange(EXAMPLES) % 3
    if family.kind == "vision":
        return {
            "pixel_values": torch.randn(EXAMPLES, 3, 8, 8, generator=generator),
            "labels": labels,
        }
    ids = torch.randint(1, VOCABULARY, (EXAMPLES, LENGTH), generator=generator)
    mask = torch.ones_like(ids)
    mask[::2, LENGTH - 3 :] = 0
    inputs = {"input_ids": ids * mask, "attention_mask": mask}
    if family.vectors:
        vectors = torch.randn(EXAMPLES, family.vectors, generator=generator)
        places = torch.zeros_like(ids)
        places[:, 0] = 1
        inputs |= {"vectors": vectors, "vector_mask": places}
    return {**inputs, "labels": labels if family.problem is CLASSES else ids}


def outputs(model: nn.Module, family: Family) -> Tensor:
    """Return the logits of one batch in eval mode: (N, C), or (N, L, V) without those of padding."""
    training = model.training
    inputs = batch(family)
    with torch.no_grad():
        logits: Tensor = model.eval()(**{k: v for k, v in inputs.items() if k != "labels"}).logits
    model.train(training)
    if family.problem is TOKENS:
        logits = logits[inputs["attention_mask"].bool()]
    return logits


FOLDER = tempfile.TemporaryDirectory(prefix="graftlab-testing-")


@functools.cache
def config(name: str) -> Section:
    """Return a method's section for the promises: its defaults, or, where these ask for files from
    elsewhere, what its `example(folder)` has written."""
    method = registry.find("methods", name)
    make = method.example or examples.METHODS.get(name)
    if make is None:
        return method.Config()
    folder = Path(FOLDER.name) / name
    folder.mkdir()
    return make(folder)


def setting(family: Family, seed: int = 0, restored: Any = None) -> Setting:
    """Return a setting of a short run; one that is resumed must not look at the data again."""

    def batches() -> Iterator[dict[str, Tensor]]:
        assert restored is None, "a resumed run computes nothing again"
        yield from (batch(family, step) for step in range(1, NUM_STEPS + 1))

    vectors = {"width": family.vectors, "num_tokens": 1, "origin": None}
    given = vectors if family.vectors else None
    return Setting(seed, NUM_STEPS, 3, family.problem, batches, restored, vectors=given)


def loss(model: nn.Module, family: Family, seed: int = 0) -> Tensor:
    """Return the mean cross-entropy of a batch."""
    inputs = batch(family, seed)
    labels = inputs.pop("labels")
    logits = model(**inputs).logits.float()
    if family.problem is TOKENS:
        kept = inputs["attention_mask"][:, 1:].bool()
        return nn.functional.cross_entropy(logits[:, :-1][kept], labels[:, 1:][kept])
    return nn.functional.cross_entropy(logits, labels)


def start(attached: Attached, optimizer: torch.optim.Optimizer) -> None:
    """Tell the hooks that training begins."""
    for hook in attached.hooks:
        hook.on_train_start(Training(attached.model, optimizer, NUM_STEPS, 3, lambda: None))


def train(
    attached: Attached, family: Family, steps: int = 2, rate: float = 0.02
) -> dict[str, bool]:
    """Train for some steps as the loop does; return which trainable parameters have had a gradient."""
    model = attached.model.train()
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(list(trainable.values()), lr=rate, weight_decay=0.0)
    start(attached, optimizer)
    reached = dict.fromkeys(trainable, False)
    for step in range(1, steps + 1):
        for hook in attached.hooks:
            hook.on_step_start(step)
        extra = [term for hook in attached.hooks for term in hook.loss_terms(step).values()]
        with torch.random.fork_rng():
            torch.manual_seed(step)
            outputs: list[object] = []
            handle = model.register_forward_hook(lambda _, __, made, o=outputs: o.append(made))
            mean = loss(model, family, step)
            handle.remove()
            given = batch(family, step)
            count = len(given["labels"])
            micro = MicroBatch(step, 0, given, outputs[-1], count, count)
            for part in adding(attached.hooks, None):
                extra += [term / count for term in part.micro_batch_losses(micro).values()]
            sum(extra, mean).backward()
        for hook in attached.hooks:
            hook.after_backward(step, 1)
            hook.before_optimizer_step(step)
        for name, parameter in trainable.items():
            reached[name] |= parameter.grad is not None and bool(parameter.grad.abs().max() > 0)
        for group in optimizer.param_groups:
            group["lr"] = rate * math.prod(hook.rate_factor(step) for hook in attached.hooks)
        optimizer.step()
        for hook in attached.hooks:
            hook.after_optimizer_step(step)
        optimizer.zero_grad()
    for hook in attached.hooks:
        hook.on_train_end()
    model.eval()
    return reached
