"""The contestants of sft_throughput.py: one fine-tuning of a Llama with LoRA each, at the same settings.

python bench/sft_contestants.py CONTESTANT '{"model": ..., "data": ..., ...}' prints figures as JSON.

`tokens/s` counts the examples' own tokens, prompts too, padding not, over training alone: the clock runs
from the epoch's beginning, before its first batch is made, to the end of its last step. The loss is that of
the trained adapter on held-out answers, per token, computed by the same code for all.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

PROMPT, COMPLETION = "Question: {question}\nAnswer:", " {answer}"
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
HELD_OUT = 100


@dataclass(frozen=True)
class Settings:
    model: str
    """Folder of a Llama."""
    data: str
    """Folder with train.jsonl and validation.jsonl: `question`, `answer`."""
    rows: int = 600
    batch_size: int = 8
    max_length: int = 512
    learning_rate: float = 1e-3
    rank: int = 8
    alpha: int = 16
    seed: int = 0

    def public(self) -> dict[str, Any]:
        """Return the settings without folders, which are the machine's own affair."""
        return {key: v for key, v in asdict(self).items() if key not in ("model", "data")}


class Tokens(NamedTuple):
    """One example."""

    ids: list[int]
    start: int
    """Where the answer begins."""


def graftlab(settings: Settings, packing: str = "none") -> dict[str, float]:
    """`graftlab run`, with everything said that could differ from the peers."""
    run_file = {
        "seed": settings.seed,
        "backbone": {"kind": "decoder", "model": settings.model, "dtype": "float32"},
        "task": {
            "kind": "generation",
            "data_dir": settings.data,
            "prompt": PROMPT,
            "completion": COMPLETION,
            "max_length": settings.max_length,
            "packing": packing,
            "metrics": ["perplexity"],
        },
        "method": {
            "name": "lora",
            "rank": settings.rank,
            "alpha": settings.alpha,
            "dropout": 0.0,
            "targets": list(LAYERS),
        },
        "training": {
            "epochs": 1,
            "batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            "schedule": {"name": "linear", "warmup": 0},
            "optimizer": {"weight_decay": 0.0},
            "precision": "fp32",
            "logging_every": 1,  # so that timing.jsonl has every step; others write far less
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        file, run = Path(folder) / "run.yaml", Path(folder) / "run"
        file.write_text(json.dumps(run_file), encoding="utf-8")  # JSON is YAML
        command = [sys.executable, "-m", "graftlab", "run", str(file), "--out", str(run)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        timing = (run / "timing.jsonl").read_text(encoding="utf-8").splitlines()
        steps = [line for line in map(json.loads, timing) if "examples" in line]
        from peft import PeftModel

        model, tokenizer = loaded(settings)
        adapted = PeftModel.from_pretrained(model, str(run / "adapter"))
        return figures(settings, adapted, tokenizer, sum(line["seconds"] for line in steps))


def loaded(settings: Settings) -> tuple[Any, Any]:
    """Return the Llama in float32 and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(settings.model, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(settings.model)


def lora(settings: Settings) -> Any:
    """Return PEFT's config of the adapter."""
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,
        target_modules=list(LAYERS),
    )


def read(settings: Settings, split: str) -> list[dict[str, str]]:
    """Return a split's rows as prompt and completion."""
    lines = (Path(settings.data) / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        {"prompt": PROMPT.format(**row), "completion": COMPLETION.format(**row)}
        for row in map(json.loads, lines)
    ]


def tokenized(settings: Settings, tokenizer: Any, split: str) -> list[Tokens]:
    """Return a split's rows as tokens, each with an end."""
    found = []
    for row in read(settings, split):
        prompt = tokenizer(row["prompt"])["input_ids"]
        whole = tokenizer(row["prompt"] + row["completion"])["input_ids"]
        ids = [*whole, tokenizer.eos_token_id][: settings.max_length]
        found.append(Tokens(ids, len(prompt)))
    return found


def padded(examples: Sequence[Tokens]) -> dict[str, Any]:
    """Return a batch as transformers' collators make it, loss on the answers."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    ids = [torch.tensor(example.ids) for example in examples]
    labels = [row.clone() for row in ids]
    for row, example in zip(labels, examples, strict=True):
        row[: example.start] = -100
    mask = [torch.ones_like(row) for row in ids]
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence(mask, batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
    }


def figures(settings: Settings, model: Any, tokenizer: Any, seconds: float) -> dict[str, float]:
    """Return what every contestant prints."""
    import torch

    total = sum(len(example.ids) for example in tokenized(settings, tokenizer, "train"))
    held_out = tokenized(settings, tokenizer, "validation")
    model.eval()
    loss = count = 0.0
    with torch.no_grad():
        for i in range(0, len(held_out), settings.batch_size):
            batch = padded(held_out[i : i + settings.batch_size])
            labels = batch["labels"][:, 1:]
            logits = model(**batch).logits[:, :-1].flatten(0, 1)
            loss += torch.nn.functional.cross_entropy(logits, labels.flatten(), reduction="sum")
            count += (labels != -100).sum()
    return {"tokens/s": total / seconds, "held-out loss": float(loss / count)}


def trl(settings: Settings, **arguments: Any) -> dict[str, float]:
    """trl's SFTTrainer with a `peft_config`, as its guide sets it up, on prompts and completions.

    https://huggingface.co/docs/trl/sft_trainer. Without gradient checkpointing and bfloat16, which it takes
    by itself and which are slower here.
    """
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Clock(TrainerCallback):
        seconds = 0.0

        def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
            self.start = time.perf_counter()

        def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
            self.seconds += time.perf_counter() - self.start

    clock = Clock()
    model, tokenizer = loaded(settings)
    with tempfile.TemporaryDirectory() as folder:
        asked = {
            "per_device_train_batch_size": settings.batch_size,
            "max_length": settings.max_length,
            **arguments,
        }
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=folder,
                num_train_epochs=1,
                learning_rate=settings.learning_rate,
                bf16=False,
                gradient_checkpointing=False,
                save_strategy="no",
                report_to="none",
                seed=settings.seed,
                **asked,
            ),
            train_dataset=Dataset.from_list(read(settings, "train")),
            processing_class=tokenizer,
            peft_config=lora(settings),
            callbacks=[clock],
        )
        trainer.train()
    return figures(settings, trainer.model, tokenizer, clock.seconds)


def trl_packed(settings: Settings) -> dict[str, float]:
    """The same with packing, in batches of as many rows as hold the tokens of an unpacked batch."""
    _, tokenizer = loaded(settings)
    lengths = [len(example.ids) for example in tokenized(settings, tokenizer, "train")]
    rows = round(settings.batch_size * sum(lengths) / len(lengths) / settings.max_length)
    return trl(settings, packing=True, per_device_train_batch_size=max(1, rows))


def bare(settings: Settings, group: bool = False) -> dict[str, float]:
    """The shortest PyTorch loop: no logging, no checkpoint, no checks; in random order, or in graftlab's."""
    import torch
    from peft import get_peft_model

    torch.manual_seed(settings.seed)
    model, tokenizer = loaded(settings)
    model = get_peft_model(model, lora(settings))
    examples = tokenized(settings, tokenizer, "train")
    batches = list(_batches(examples, settings, group))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=len(batches))
    model.train()
    start = time.perf_counter()
    for indices in batches:
        model(**padded([examples[i] for i in indices])).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return figures(settings, model, tokenizer, time.perf_counter() - start)


def _batches(
    examples: Sequence[Tokens], settings: Settings, group: bool
) -> Iterator[Sequence[int]]:
    if not group:
        order = random.Random(settings.seed).sample(range(len(examples)), len(examples))
        for i in range(0, len(order), settings.batch_size):
            yield order[i : i + settings.batch_size]
        return
    import numpy as np

    from graftlab.seeds import mix
    from graftlab.training.order import Order

    lengths = np.array([len(example.ids) for example in examples])
    order = Order(lengths, settings.batch_size, mix(settings.seed, "order"))
    for step in range(1, order.steps_per_epoch + 1):
        yield order.batch(step)


CONTESTANTS = {
    "graftlab": graftlab,
    "graftlab_packed": lambda settings: graftlab(settings, "packed"),
    "graftlab_padding_free": lambda settings: graftlab(settings, "padding_free"),
    "trl": trl,
    "trl_packed": trl_packed,
    "trl_grouped": lambda settings: trl(settings, train_sampling_strategy="group_by_length"),
    "bare": bare,
    "bare_grouped": lambda settings: bare(settings, group=True),
}

if __name__ == "__main__":
    print(json.dumps(CONTESTANTS[sys.argv[1]](Settings(**json.loads(sys.argv[2])))))
