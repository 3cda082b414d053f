"""What gradients are taken on: one sentence, as in the source, or examples of a run's own task."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.adapters import files as adapter_files
from graftlab.contracts import Differentiable, Merged
from graftlab.errors import GraftlabError
from graftlab.explanation import adapter_changes
from graftlab.inference import Adapted
from graftlab.weights.layers.source import SINGLE

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

CLASSES, TEXT = "This movie is great!", "Question: What is the capital of France? Answer:"
LONGEST, LABEL = 128, 1
SENTENCE = "sentence"


def of_sentence(
    model: "nn.Module", tokenizer: "PreTrainedTokenizerBase", writes: bool
) -> Differentiable | str:
    """Return a model with its loss on the source's sentence: of classes with the label 1, of a model that
    writes with the sentence as its own target."""
    import torch

    text = TEXT if writes else CLASSES
    inputs = dict(tokenizer(text, return_tensors="pt", truncation=True, max_length=LONGEST))
    inputs["labels"] = inputs["input_ids"] if writes else torch.tensor([LABEL])

    def loss() -> "Tensor":
        found: Tensor = model(**inputs).loss
        return found

    return _tried(model, loss, SENTENCE)


def of_task(adapted: Adapted, examples: int) -> Differentiable | str:
    """Return a run's model with its task's own mean loss on the first examples of validation."""
    from graftlab.runs import material

    try:
        task = adapted.bind(material.read_again(adapted.file, adapted.run))
    except GraftlabError as error:
        return str(error)
    count = min(examples, task.size("validation"))
    if not count:
        return "there is no validation split"
    batch = task.batch("validation", range(count), None)

    def loss() -> "Tensor":
        return task.loss(adapted.model, batch) / max(1, task.count(batch))

    return _tried(adapted.model, loss, f"{count} examples of validation")


def of_texts(
    model: "nn.Module", tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]
) -> float:
    """Return the mean loss (nats) of a token after the first of its text; each text is read by itself."""
    import torch

    total, count = 0.0, 0
    for text in texts:
        inputs = dict(tokenizer(text, return_tensors="pt", truncation=True, max_length=LONGEST))
        predicted = inputs["input_ids"].shape[1] - 1
        if predicted:
            with torch.no_grad():
                loss = model(**inputs, labels=inputs["input_ids"]).loss
            total, count = total + predicted * float(loss), count + predicted
    return total / count if count else float("nan")


def merged(
    found: Differentiable | str, tokenizer: "PreTrainedTokenizerBase | None", writes: bool
) -> Merged | str:
    """Return a plain model with its loss, and that of texts where it writes any."""
    if isinstance(found, str):
        return found
    loss = None
    if writes and tokenizer is not None:
        loss = functools.partial(of_texts, found.model, tokenizer)
    return Merged(found.model, found.loss, found.sample, loss)


def _tried(model: "nn.Module", loss: "Callable[[], Tensor]", sample: str) -> Differentiable | str:
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return "nothing of it trains"
    model.eval()
    try:
        loss()
    except Exception as error:  # any model may come here, and what it takes only it knows
        return f"its loss cannot be computed on this sample: {type(error).__name__}: {error}"[:200]
    return Differentiable(model, loss, sample)


def train_again(model: "nn.Module", folder: Path | None = None) -> None:
    """Let those parameters train that the file of an adapter has, and its own; without one all."""
    saved = None if folder is None else _saved(folder)
    for name, parameter in model.named_parameters():
        own = saved is None or adapter_files.in_file(name) in saved
        if parameter.is_floating_point():
            parameter.requires_grad_(own or adapter_changes.OWN.fullmatch(name) is not None)


def _saved(folder: Path) -> set[str]:
    """Return the names of what a method has saved, as PEFT's file has them."""
    from safetensors import safe_open

    path = folder / adapter_files.WEIGHTS
    with safe_open(path if path.is_file() else folder / SINGLE, "pt") as file:
        return {adapter_files.in_file(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
