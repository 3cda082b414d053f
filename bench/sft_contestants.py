"""The contestants of sft_throughput.py and on_gpu.py: a Llama fine-tuned with LoRA, at the same settings.

python bench/sft_contestants.py CONTESTANT '{"model": ..., "data": ..., ...}' prints figures as JSON.

`tokens/s` counts the examples' own tokens, prompts too, padding not, over training alone: the clock runs
from the epoch's beginning, before its first batch is made, to the end of its last step. The loss is that of
the trained adapter on held-out answers, per token, computed by the same code for all.
"""

import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness import run_child
from sft_settings import COMPLETION, LAYERS, PROMPT, Settings, run_file


class Tokens(NamedTuple):
    """One example."""

    ids: list[int]
    start: int
    """Where the answer begins."""


def graftlab(settings: Settings, packing: str = "none") -> dict[str, float]:
    """`graftlab run`, with everything said that could differ from the peers."""
    with tempfile.TemporaryDirectory() as folder:
        file, run = Path(folder) / "run.yaml", Path(folder) / "run"
        file.write_text(json.dumps(run_file(settings, packing)), encoding="utf-8")  # JSON is YAML
        command = [sys.executable, "-m", "graftlab", "run", str(file), "--out", str(run)]
        # of graftlab alone: what follows is the referee's
        process = run_child(command, int(os.environ.get("OMP_NUM_THREADS", "1")))
        timing = (run / "timing.jsonl").read_text(encoding="utf-8").splitlines()
        steps = [line for line in map(json.loads, timing) if "examples" in line]
        peak = json.loads((run / "result.json").read_text(encoding="utf-8"))["peak_memory_bytes"]
        from peft import PeftModel

        model, tokenizer = loaded(settings)
        adapted = PeftModel.from_pretrained(model, str(run / "adapter"))
        seconds = sum(line["seconds"] for line in steps)
        return figures(settings, adapted, tokenizer, Spent(seconds, peak)) | process


def loaded(settings: Settings) -> tuple[Any, Any]:
    """Return the Llama as the settings say, where it computes, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    options: dict[str, Any] = {"dtype": dtype}
    if settings.attention:
        options["attn_implementation"] = settings.attention
    if settings.bits:
        options["device_map"] = {"": device()}
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    model = AutoModelForCausalLM.from_pretrained(settings.model, **options)
    placed = model if settings.bits else model.to(device())
    return placed, AutoTokenizer.from_pretrained(settings.model)


def device() -> Any:
    """Return the GPU, or the CPU where there is none."""
    import torch

    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def autocast(settings: Settings) -> Any:
    """Return the context in which the settings' precision is computed in."""
    import torch

    return torch.autocast(device().type, torch.bfloat16, enabled=settings.precision == "bf16")


class Spent(NamedTuple):
    """What a training took; `peak` is of the GPU's memory in bytes, where there is one."""

    seconds: float
    peak: int

    @classmethod
    def since(cls, start: float) -> "Spent":
        """Return what was spent since `start`, once the GPU has done all that it was given."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
            return cls(time.perf_counter() - start, torch.cuda.max_memory_allocated())
        return cls(time.perf_counter() - start, 0)


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
        "input_ids": pad_sequence(ids, batch_first=True).to(device()),
        "attention_mask": pad_sequence(mask, batch_first=True).to(device()),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100).to(device()),
    }


def figures(settings: Settings, model: Any, tokenizer: Any, spent: Spent) -> dict[str, float]:
    """Return what every contestant prints."""
    import torch

    total = sum(len(example.ids) for example in tokenized(settings, tokenizer, "train"))
    held_out = tokenized(settings, tokenizer, "validation")
    model.eval()
    loss, count = torch.zeros(()), torch.zeros(())
    with torch.no_grad(), autocast(settings):
        for i in range(0, len(held_out), settings.batch_size):
            batch = padded(held_out[i : i + settings.batch_size])
            labels = batch["labels"][:, 1:]
            logits = model(**batch).logits[:, :-1].flatten(0, 1)
            targets = labels.flatten()
            loss += torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
            count += (labels != -100).sum()
    found = {"tokens/s": total / spent.seconds, "held-out loss": float(loss / count)}
    return found | ({"GPU memory (GiB)": spent.peak / 2**30} if torch.cuda.is_available() else {})


def trl(settings: Settings, **arguments: Any) -> dict[str, float]:
    """trl's SFTTrainer with a `peft_config`, as its guide sets it up, on prompts and completions.

    https://huggingface.co/docs/trl/sft_trainer. Without gradient checkpointing, which it takes by itself.
    """
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Clock(TrainerCallback):
        def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
            self.start = time.perf_counter()

        def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
            self.spent = Spent.since(self.start)

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
                bf16=settings.precision == "bf16",
                use_cpu=device().type == "cpu",
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
    return figures(settings, trainer.model, tokenizer, clock.spent)


def trl_packed(settings: Settings) -> dict[str, float]:
    """The same with packing, in batches of as many rows as hold the tokens of an unpacked batch."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(settings.model)
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
        with autocast(settings):
            loss = model(**padded([examples[i] for i in indices])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return figures(settings, model, tokenizer, Spent.since(start))


def _batches(
    examples: Sequence[Tokens], settings: Settings, group: bool
) -> Iterator[Sequence[int]]:
    if not group:
        drawn = random.Random(settings.seed).sample(range(len(examples)), len(examples))
        for i in range(0, len(drawn), settings.batch_size):
            yield drawn[i : i + settings.batch_size]
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
    "trl_padding_free": lambda settings: trl(settings, padding_free=True),
    "trl_grouped": lambda settings: trl(settings, train_sampling_strategy="group_by_length"),
    "bare": bare,
    "bare_grouped": lambda settings: bare(settings, group=True),
}

if __name__ == "__main__":
    print(json.dumps(CONTESTANTS[sys.argv[1]](Settings(**json.loads(sys.argv[2])))))
