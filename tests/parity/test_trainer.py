"""Same batches, same start, no dropout: our loop and transformers.Trainer with PEFT give the same 20 steps.

Ours is the whole loop on a run's parts; theirs gets our order through a sampler. Float32; 1e-5 is the
rounding of sums that are made in another order.
"""

import copy

import numpy as np
import pytest
import torch

from graftlab.contracts import Attached, Problem
from graftlab.rundir.lines import Lines
from graftlab.rundir.run import Run
from graftlab.seeds import mix
from graftlab.tasks._outputs import forward, losses
from graftlab.training.config import Config
from graftlab.training.loop import Loop, Parts
from graftlab.training.order import Order
from graftlab.training.signals import Signals
from graftlab.weights import surgery

STEPS, BATCH, EXAMPLES, SEED = 20, 8, 48, 3


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_labels=3,
        intermediate_size=64, max_position_embeddings=32, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertForSequenceClassification(config), ["query", "value"], ["classifier"]


def vit():
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        image_size=8, patch_size=4, num_labels=3, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return ViTForImageClassification(config), "all-linear", ["classifier"]


def rows(family):
    torch.manual_seed(1)
    found = []
    for index in range(EXAMPLES):
        if family is vit:
            inputs = {"pixel_values": torch.randn(3, 8, 8)}
        else:
            inputs = {
                "input_ids": torch.randint(1, 50, (12,)),
                "attention_mask": torch.ones(12).long(),
            }
        found.append({**inputs, "labels": torch.tensor(index % 3)})
    return found


class Rows:
    """The rows as a task."""

    problem, metrics = Problem("classes", ("a", "b", "c")), ("accuracy",)

    def __init__(self, family):
        self.rows = rows(family)

    def lengths(self, split):
        return [1] * len(self.rows)

    def batch(self, split, indices, epoch):
        return {key: torch.stack([self.rows[i][key] for i in indices]) for key in self.rows[0]}

    def count(self, batch):
        return len(batch["labels"])

    def loss(self, model, batch, label_smoothing=0.0):
        logits, labels = forward(model, batch)
        return losses(self.problem, logits, labels, label_smoothing).sum()


def adapted(family):
    """Return a LoRA model whose B is not zero, so that A has a gradient from the first step on."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model, targets, head = family()
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=targets, modules_to_save=head, task_type="SEQ_CLS"
    )
    model = get_peft_model(model, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def ours(model, family, config, tmp_path):
    """Train with our loop; return the loss of each step."""
    from accelerate import Accelerator

    (tmp_path / "ours").mkdir()
    run = Run(tmp_path / "ours")
    parts = Parts(
        run=run, attached=Attached(model), task=Rows(family), accelerator=Accelerator(cpu=True),
        evaluate=lambda _: {"loss": 0.0}, higher_is_better=False, best_by="loss",
        head=("classifier",), seed=SEED, signals=Signals(),
    )  # fmt: skip
    lines, timing = Lines(run.metrics), Lines(run.timing)
    Loop(parts, config, lines, timing).run()
    lines.close()
    timing.close()
    return [row["loss"] for row in run.read_metrics() if "loss" in row]


def theirs(model, family, config, tmp_path):
    """Train with transformers.Trainer on our order; return the loss of each step."""
    from transformers import Trainer, TrainingArguments

    order = Order(np.ones(EXAMPLES, dtype=np.int64), BATCH, mix(SEED, "order"), True)
    indices = [i for step in range(1, STEPS + 1) for i in order.batch(step)]
    micro = config.micro_batch_size or BATCH
    found = rows(family)
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "theirs"), max_steps=STEPS, per_device_train_batch_size=micro,
        gradient_accumulation_steps=BATCH // micro, learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule.name, warmup_steps=3,
        weight_decay=config.optimizer.weight_decay, max_grad_norm=config.clip_norm or 0.0,
        logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
        logging_nan_inf_filter=False,
    )  # fmt: skip

    class InOrder(Trainer):
        def _get_train_sampler(self, *_):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    def loss(outputs, labels, num_items_in_batch=None):
        # given explicitly: around a model whose forward takes no num_items_in_batch, and wrapped by peft,
        # Trainer 5 does not divide by the accumulation steps
        summed = torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum")
        return summed / num_items_in_batch

    trainer = InOrder(
        model, arguments, train_dataset=[found[i] for i in indices], compute_loss_func=loss
    )
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


DECAY = {"optimizer": {"weight_decay": 0.1}, "schedule": {"name": "cosine", "warmup": 3}}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        pytest.param(bert, {"micro_batch_size": 4}, id="bert-accumulated"),
        pytest.param(bert, {}, id="bert-linear", marks=pytest.mark.slow),
        pytest.param(bert, DECAY, id="bert-cosine-and-decay", marks=pytest.mark.slow),
        pytest.param(vit, {}, id="vit-linear", marks=pytest.mark.slow),
        pytest.param(vit, {"micro_batch_size": 4}, id="vit-accumulated", marks=pytest.mark.slow),
        pytest.param(vit, DECAY, id="vit-cosine-and-decay", marks=pytest.mark.slow),
    ],
)
def test_twenty_steps_are_those_of_trainer_and_peft(family, changes, tmp_path):
    config = Config.model_validate(
        {
            "max_steps": STEPS, "batch_size": BATCH, "learning_rate": 0.01, "logging_every": 1,
            "evaluate_every": 0, "save_every": 0, "schedule": {"name": "linear", "warmup": 3},
            "clip_norm": 1.0, "select": "last", **changes,
        }
    )  # fmt: skip
    start = adapted(family)
    mine, reference = copy.deepcopy(start), copy.deepcopy(start)
    curve = ours(mine, family, config, tmp_path)
    expected = theirs(reference, family, config, tmp_path)
    assert len(curve) == STEPS
    np.testing.assert_allclose(curve, expected, rtol=0, atol=1e-5)
    weights, before = surgery.trainable(reference), surgery.trainable(start)
    for name, parameter in surgery.trainable(mine).items():
        torch.testing.assert_close(parameter, weights[name], rtol=0, atol=1e-5)
        assert (parameter - before[name]).abs().max() > 1e-3  # they did move
