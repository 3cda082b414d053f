"""Small data and models in folders, on which the promises of this project's own parts are tested.

A part from elsewhere brings its own in its module: `example`, and `FORMS` of a task kind.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.backbones import _pretrained, decoder, encoder, tiny, vision
from graftlab.config import Section
from graftlab.contracts import Problem, TaskKind
from graftlab.contracts.modules import provided
from graftlab.methods.pifi.config import Config as Pifi
from graftlab.tasks import generation, mixture, multiple_choice
from graftlab.tasks.generation.fields import example_fields
from graftlab.tasks.mixture.section import with_parts

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
LENGTH = 48
Example = Callable[[Path], Section]


# Backbones: as their authors would have published them.


def text_model(folder: Path, kind: str) -> str:
    """Write a BERT without a head (`encoder`) or a Llama (`decoder`), with a tokenizer of bytes."""
    import transformers

    problem = Problem("tokens" if kind == "decoder" else "regression")
    tokenizer = tiny.load(tiny.Config(max_length=LENGTH), problem, seed=0).processor
    sizes = {**SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": LENGTH}
    if kind == "decoder":
        config: PreTrainedConfig = transformers.LlamaConfig(**sizes, bos_token_id=2, eos_token_id=3)
    else:
        config = transformers.BertConfig(**sizes)
    _write(
        transformers.LlamaForCausalLM if kind == "decoder" else transformers.BertModel,
        config,
        folder,
    )
    tokenizer.save_pretrained(folder)
    return str(folder)


def image_model(folder: Path) -> str:
    """Write a ViT without a head, with its processor."""
    import transformers

    config = transformers.ViTConfig(**SIZES, image_size=8, patch_size=4)
    _write(transformers.ViTModel, config, folder)
    processor = tiny.load(tiny.Config(modality="images"), Problem("regression"), seed=0).processor
    processor.save_pretrained(folder)
    return str(folder)


def _write(model: "type[PreTrainedModel]", config: "PreTrainedConfig", folder: Path) -> None:
    import torch

    with _pretrained.quiet(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model(config).save_pretrained(folder)


BACKBONES: Mapping[str, Example] = {
    "encoder": lambda folder: encoder.Config(model=text_model(folder, "encoder")),
    "decoder": lambda folder: decoder.Config(model=text_model(folder, "decoder")),
    "vision": lambda folder: vision.Config(model=image_model(folder)),
    "tiny": lambda _: tiny.Config(width=16, max_length=LENGTH),
}


# Methods whose defaults want files.


def donor(folder: Path) -> Pifi:
    """Return a section with a small donor, written into `folder`."""
    import transformers

    sizes: dict[str, Any] = {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 4}
    config = transformers.LlamaConfig(
        num_hidden_layers=3,
        num_key_value_heads=2,
        initializer_range=0.2,
        vocab_size=30,
        **sizes,
    )
    _write(transformers.LlamaForCausalLM, config, folder)
    return Pifi(llm=str(folder), layer=1)


METHODS: Mapping[str, Example] = {"pifi": donor}


# Forms of tasks beside the kind's own example.


def likelihood(folder: Path) -> multiple_choice.Config:
    """Return a section that reads the same questions for their choices' likelihood."""
    fields = {"form": "likelihood", "normalise": "characters"}
    return multiple_choice.example(folder).model_copy(update=fields)


def plain_text(folder: Path) -> generation.Config:
    """Return a section that reads plain texts."""
    generation.write_rows(folder, lambda split, i: {"text": f"{split} {'so ' * (i % 4)}{i}."})
    return generation.Config(data_dir=folder, template="text", **example_fields())


def chat(folder: Path) -> generation.Config:
    """Return a section that reads conversations, with a chat template of its own."""

    def row(split: str, i: int) -> dict[str, object]:
        turns = [("user", f"{split} {i}"), ("assistant", "yes")] * (1 + i % 2)
        return {"messages": [{"role": role, "content": said} for role, said in turns]}

    generation.write_rows(folder, row)
    file = folder / "chat.jinja"
    file.write_text(
        "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}"
        "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}a:{% endif %}"
    )
    return generation.Config(
        data_dir=folder,
        template="chat",
        chat_template_file=file,
        metrics=("perplexity",),
        **example_fields(),
    )


def with_head(head: str) -> Callable[[Path], mixture.Config]:
    """Return a function that makes the mixture's own tasks with a head that all share, or one each."""

    def make(folder: Path) -> mixture.Config:
        config = mixture.example(folder)
        return with_parts(config.model_copy(update={"head": head}), config.parts)

    return make


def mixture_of_texts(folder: Path) -> mixture.Config:
    """Return a section of two tasks whose answers are texts."""
    module: TaskKind = provided(TaskKind, generation)
    made = {}
    for name, make in (("asked", generation.example), ("plain", plain_text)):
        (folder / name).mkdir(exist_ok=True)
        made[name] = mixture.Resolved(module, make(folder / name))
    return with_parts(mixture.Config(tasks=({}, {})), made)


FORMS: Mapping[str, Mapping[str, Example]] = {
    "generation": {"text": plain_text, "chat": chat},
    "mixture": {
        "shared": with_head("shared"),
        "per_task": with_head("per_task"),
        "texts": mixture_of_texts,
    },
    "multiple_choice": {"likelihood": likelihood},
}
