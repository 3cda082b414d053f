"""JELLY's switch inside transformers' Trainer, also when the process is killed and the run resumed.

Slow: fresh processes that are killed and start again.
"""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from graftlab.methods.jelly.callback import JellyCallback
from graftlab.methods.jelly.coherence import cosine
from graftlab.methods.jelly.peft_config import JellyConfig
from graftlab.methods.jelly.tuner import layers
from graftlab.testing import rig

STEPS = 9
FAMILY = rig.FAMILIES["encoder"]

SEQ2PAR = {"switch_step": 4}
DYNAMIC = {"drop_ratio": 0.99, "ema": 0.9, "warmup": 1, "minimum": 3, "latest": 7}
HALVES = {**DYNAMIC, "criterion": "halves"}


def rows(number: int = 27) -> list[dict[str, Tensor]]:
    """Return examples; 27 are an epoch of seven micro-batches of four, whose last step has one."""
    found = []
    for seed in range(4):
        batch = rig.batch(FAMILY, seed)
        found += [{name: value[i] for name, value in batch.items()} for i in range(8)]
    return found[:number]


def adapted(mode: str = "dynamic", **fields: Any) -> PeftModel:
    """Return a tiny BERT whose intermediate layers are not square; everything drops out."""
    settings = {"r": 4, "alpha": 8, "dropout": 0.1, "target_modules": "all-linear", **fields}
    base = rig.backbone(FAMILY).model
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = JellyConfig(mode=mode, modules_to_save=["classifier"], **settings)
        return get_peft_model(base, config)


def trainer(
    folder: Path, model: nn.Module, callbacks: Sequence[TrainerCallback], **settings: Any
) -> Trainer:
    fields = {
        "max_steps": STEPS,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "learning_rate": 0.02,
        "lr_scheduler_type": "linear",
        "save_steps": 1,
        "logging_steps": 1,
        **settings,
    }
    args = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, seed=5, **fields
    )
    return Trainer(
        model=model,
        args=args,
        train_dataset=rows(),
        eval_dataset=rows()[:4],
        callbacks=list(callbacks),
    )


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


class Die(TrainerCallback):
    """Kills its process at the end of a step, after its checkpoint."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


CASES = {
    "seq2par": (adapted, {"mode": "seq2par"}, SEQ2PAR),
    "seq2par, ramp": (adapted, {"mode": "seq2par"}, {"switch_epoch": 0.8, "rewarmup_steps": 3}),
    "seq2par, merge_reinit": (
        adapted,
        {"mode": "seq2par", "switch_method": "merge_reinit"},
        SEQ2PAR,
    ),
    "dynamic": (adapted, {"switch_method": "tip_preserve"}, DYNAMIC),
    "dynamic, halves": (adapted, {}, HALVES),
}


RESUMED = ["dynamic", *(pytest.param(c, marks=pytest.mark.slow) for c in CASES if c != "dynamic")]


@pytest.mark.slow
@pytest.mark.parametrize("case", RESUMED)
def test_a_run_that_is_resumed_before_at_or_after_the_switch_ends_with_the_same_bytes(
    case, tmp_path
):
    make, fields, settings = CASES[case]
    callback = JellyCallback(**settings)
    whole = trainer(tmp_path, make(**fields), [callback])
    whole.train()
    whole.save_model(str(tmp_path / "whole"))
    at = int(callback.facts["switch_step"])
    assert 2 < at < STEPS - 2
    for step in (1, at - 1, at, at + 1, STEPS - 1):
        again = JellyCallback(**settings)
        resumed = trainer(tmp_path / "resumed", make(**fields), [again], save_strategy="no")
        torch.rand(7)  # the process that resumes has drawn other numbers
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        resumed.save_model(str(tmp_path / "end"))
        assert weights(tmp_path / "end") == weights(tmp_path / "whole"), step
        assert again.facts == callback.facts
        coherences = [
            [row for row in each.state.log_history if "jelly/coherence" in row]
            for each in (whole, resumed)
        ]
        assert coherences[0] == coherences[1]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["seq2par", "dynamic"])
def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bytes(case, tmp_path):
    make, fields, settings = CASES[case]

    def run(folder: Path, resume: bool) -> int:
        callback = JellyCallback(**settings)
        made = trainer(folder, make(**fields), [callback])
        made.train(resume_from_checkpoint=resume)
        made.save_model(str(folder / "end"))
        return int(callback.facts["switch_step"])

    switch_step = run(tmp_path / "whole", False)
    killed = tmp_path / "killed"
    command = [sys.executable, __file__, case, str(killed), str(switch_step)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert run(killed, True) == switch_step
    assert weights(killed / "end") == weights(tmp_path / "whole" / "end")


PROCESSES = {"processes": DYNAMIC, "processes, halves": HALVES}


def coherences(made: Trainer) -> dict[int, float]:
    key = "jelly/coherence"
    return {row["step"]: row[key] for row in made.state.log_history if key in row}


@pytest.mark.slow
@pytest.mark.parametrize("case", PROCESSES)
def test_two_processes_switch_at_once_and_stay_equal(case, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, __file__, case, str(tmp_path), "0"]
    started = [
        subprocess.Popen(
            command,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    files = [tmp_path / f"end-{rank}" for rank in range(2)]
    assert weights(files[0]) == weights(files[1])
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    # one process with the same sixteen examples a step
    alone = JellyCallback(**PROCESSES[case])
    fields = {"gradient_accumulation_steps": 4, "save_strategy": "no"}
    made = trainer(tmp_path / "alone", without_dropout(), [alone], **fields)
    made.train_dataset = rows(32)
    made.train()
    assert found["switch_step"] == alone.facts["switch_step"]
    together = {int(step): value for step, value in found["coherences"].items()}
    assert together == pytest.approx(coherences(made), abs=1e-3)


class Spy(TrainerCallback):
    """Writes down what it sees at each moment, before or after JellyCallback."""

    def __init__(self) -> None:
        self.changes: dict[int, list[Tensor]] = {}
        self.state: dict[int, set[str]] = {}
        self.rates: list[float] = []
        self.rates_after: list[float] = []
        self.logs: list[dict[str, float]] = []

    def on_step_begin(self, args, state, control, *, model, optimizer, **kwargs):
        found = layers(model).values()
        with torch.no_grad():
            self.changes[state.global_step] = [m.get_delta_weight("default") for m in found]
        own = {n: p for n, p in model.named_parameters() if "jelly_" in n}
        assert all(p.grad is None for p in own.values())
        self.state[state.global_step] = {n for n, p in own.items() if p in optimizer.state}

    def on_pre_optimizer_step(self, args, state, control, *, optimizer, **kwargs):
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_optimizer_step(self, args, state, control, *, optimizer, **kwargs):
        self.rates_after.append(optimizer.param_groups[0]["lr"])

    def on_log(self, args, state, control, *, logs, **kwargs):
        self.logs.append(dict(logs))


@pytest.mark.quick("False")
@pytest.mark.parametrize("reset", [True, False])
def test_the_exact_switch_changes_no_weight_and_forgets_the_moments_of_a(reset, tmp_path):
    before, after = Spy(), Spy()
    callbacks = [before, JellyCallback(**SEQ2PAR, reset_optimizer=reset), after]
    model = adapted("seq2par")
    trainer(tmp_path, model, callbacks, save_strategy="no").train()
    for old, new in zip(before.changes[4], after.changes[4], strict=True):
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-6)
    lost = before.state[4] - after.state[4]
    own_a = {n for n, p in model.named_parameters() if "intermediate.dense.jelly_A" in n}
    own_a |= {n for n, p in model.named_parameters() if "output.dense.jelly_A" in n}
    own_a -= {n for n in own_a if "attention.output" in n}
    every_a = {n for n in before.state[4] if "jelly_A" in n}
    assert lost == (every_a if reset else own_a)
    assert all(not m.forms["default"].sequential for m in layers(model).values())


def test_no_forward_pass_of_a_step_sees_another_mode_than_the_first(tmp_path):
    model = adapted("seq2par")
    seen: list[tuple[int, bool, bool]] = []
    callback = JellyCallback(**SEQ2PAR)
    made = trainer(
        tmp_path, model, [callback], save_strategy="no", eval_strategy="steps", eval_steps=1
    )
    layer = next(iter(layers(model).values()))

    def record(module: nn.Module, inputs: Any) -> None:
        seen.append((made.state.global_step, module.training, layer.forms["default"].sequential))

    layer.register_forward_pre_hook(record)
    made.train()
    training = [(step, sequential) for step, train, sequential in seen if train]
    assert len(set(training)) == STEPS
    assert {step for step, sequential in training if sequential} == {0, 1, 2, 3}
    # the evaluation after step 4 is still of the sequential model
    assert (4, False, True) in seen
    assert (4, False, False) not in seen


@pytest.mark.slow
def test_learning_rates_rise_again_after_the_switch_and_the_schedule_goes_on(tmp_path):
    plain, ramped = Spy(), Spy()
    for folder, spy, settings in (("a", plain, {}), ("b", ramped, {"rewarmup_steps": 2})):
        callbacks = [JellyCallback(**SEQ2PAR, **settings), spy]
        made = trainer(tmp_path / folder, adapted("seq2par"), callbacks, save_strategy="no")
        made.train()
        logged = [row["learning_rate"] for row in made.state.log_history if "loss" in row]
        assert logged == plain.rates
    factors = [new / old for new, old in zip(ramped.rates, plain.rates, strict=True)]
    assert factors == pytest.approx([1] * 4 + [1 / 3, 2 / 3] + [1] * 3)
    assert ramped.rates_after == plain.rates


def without_dropout(**fields: Any) -> PeftModel:
    """Return a model whose sequential layers are all square, and whose B is not zero."""
    model = adapted(dropout=0.0, target_modules=["query", "key", "value"], **fields)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for number, layer in enumerate(layers(model).values()):
        layer.jelly_B["default"].data.normal_(generator=torch.Generator().manual_seed(number))
    return model


@pytest.mark.quick("halves-0.0001")
@pytest.mark.parametrize("clip", [0.0, 1e-4])
@pytest.mark.parametrize("criterion", ["consecutive", "halves"])
def test_the_coherence_is_the_cosine_of_gradients_whether_they_are_clipped_or_not(
    criterion, clip, tmp_path
):
    model = without_dropout()
    found = layers(model).values()
    callback = JellyCallback(criterion=criterion, latest=1.0)
    made = trainer(
        tmp_path, model, [callback], save_strategy="no", learning_rate=0.0, max_grad_norm=clip
    )
    batches = []
    collate = made.data_collator
    made.data_collator = lambda items: batches.append(collate(items)) or collate(items)
    made.train()
    logged = coherences(made)

    def gradients(*parts: dict[str, Tensor]) -> list[Tensor]:
        model.zero_grad()
        for part in parts:
            model(**part).loss.backward()
        return [layer.jelly_A["default"].grad.clone() for layer in found]

    # steps of an epoch: micro-batches 0 and 1, 2 and 3, 4 and 5, and 6 alone
    if criterion == "halves":
        expected = {
            1: cosine(gradients(batches[0]), gradients(batches[1])),
            3: cosine(gradients(batches[4]), gradients(batches[5])),
            6: cosine(gradients(batches[9]), gradients(batches[10])),
        }
        assert 4 not in logged
    else:
        expected = {
            2: cosine(gradients(*batches[0:2]), gradients(*batches[2:4])),
            4: cosine(gradients(*batches[4:6]), gradients(batches[6])),
            5: cosine(gradients(batches[6]), gradients(*batches[7:9])),
        }
        assert 1 not in logged
    assert {step: logged[step] for step in expected} == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_an_epochs_last_step_is_halved_by_its_own_micro_batches(tmp_path):
    model = without_dropout()
    fields = {"save_strategy": "no", "learning_rate": 0.0, "gradient_accumulation_steps": 4}
    made = trainer(tmp_path, model, [JellyCallback(criterion="halves", latest=1.0)], **fields)
    batches = []
    collate = made.data_collator
    made.data_collator = lambda items: batches.append(collate(items)) or collate(items)
    made.train()
    halves = []
    for half in (batches[4:5], batches[5:7]):  # of the three that are left after the first four
        model.zero_grad()
        for batch in half:
            model(**batch).loss.backward()
        halves.append([m.jelly_A["default"].grad.clone() for m in layers(model).values()])
    assert coherences(made)[2] == pytest.approx(cosine(*halves), abs=1e-4)


@pytest.mark.slow
def test_what_the_switch_did_is_logged_and_trackers_are_told_if_log_is_given(tmp_path):
    probe = rig.batch(FAMILY, seed=9)
    spy, model = Spy(), adapted("seq2par")
    callback = JellyCallback(probe, **SEQ2PAR)
    made = trainer(tmp_path / "a", model, [callback, spy], save_strategy="no")
    made.train()
    (row,) = [row for row in made.state.log_history if "jelly/switch_step" in row]
    assert row["step"] == row["jelly/switch_step"] == 4
    assert row["jelly/switched_layers"] == 13
    assert row["jelly/probe_loss_before"] == pytest.approx(row["jelly/probe_loss_after"], rel=1e-4)
    assert not any("jelly/switch_step" in row for row in spy.logs)
    callback = JellyCallback(**DYNAMIC)
    made = trainer(tmp_path / "b", adapted(), [callback, spy], save_strategy="no")
    callback.log = made.log
    made.train()
    assert len([row for row in spy.logs if "jelly/switch_step" in row]) == 1
    assert len([row for row in spy.logs if "jelly/coherence" in row]) > 1
    assert len([row for row in made.state.log_history if "loss" in row]) == STEPS


@pytest.mark.slow
def test_the_probe_moves_nothing(tmp_path):
    ends = []
    for probe in (None, rig.batch(FAMILY, seed=9)):
        made = trainer(
            tmp_path, adapted("seq2par"), [JellyCallback(probe, **SEQ2PAR)], save_strategy="no"
        )
        made.train()
        made.save_model(str(tmp_path / "end"))
        ends.append(weights(tmp_path / "end"))
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_the_best_checkpoint_before_the_switch_is_sequential_again(tmp_path):
    scores = iter([0.1, 0.9, *[0.2] * STEPS])
    model = adapted("seq2par")
    made = trainer(
        tmp_path,
        model,
        [JellyCallback(**SEQ2PAR)],
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="score",
    )
    made.compute_metrics = lambda _: {"score": next(scores)}
    made.train()
    assert made.state.best_global_step == 2
    assert all(m.forms["default"].sequential for m in layers(model).values())
    assert model.peft_config["default"].switch_step is None
    made.save_model(str(tmp_path / "end"))
    loaded = PeftModel.from_pretrained(rig.backbone(FAMILY).model, tmp_path / "end")
    best = PeftModel.from_pretrained(rig.backbone(FAMILY).model, tmp_path / "checkpoint-2")
    expected = rig.outputs(best, FAMILY)
    assert torch.equal(rig.outputs(loaded, FAMILY), expected)
    assert torch.equal(rig.outputs(model, FAMILY), expected)


def test_no_gradient_is_left_in_the_adapter_and_a_switch_that_never_came_is_told(tmp_path, caplog):
    logging.getLogger("graftlab").propagate = True
    model = adapted()
    made = trainer(tmp_path, model, [JellyCallback(latest=1.0, minimum=1.0)], save_steps=STEPS)
    with caplog.at_level(logging.WARNING, "graftlab"):
        made.train()
    assert "JELLY never switched" in caplog.text
    assert any("jelly_gradient" in n for n in _names(tmp_path / f"checkpoint-{STEPS}"))
    made.save_model(str(tmp_path / "end"))
    assert not any("jelly_gradient" in n for n in _names(tmp_path / "end"))


def _names(folder: Path) -> list[str]:
    from safetensors.torch import load_file

    return list(load_file(folder / "adapter_model.safetensors"))


@pytest.mark.slow
def test_a_checkpoint_of_a_run_without_the_callback_is_refused(tmp_path):
    trainer(tmp_path, adapted(), [], save_steps=4).train()
    made = trainer(tmp_path, adapted(), [JellyCallback()])
    with pytest.raises(ValueError, match=r"written.*JellyCallback"):
        made.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


@pytest.mark.slow
def test_an_adapter_of_another_checkpoint_is_refused(tmp_path):
    trainer(tmp_path, adapted("seq2par"), [JellyCallback(**SEQ2PAR)], save_steps=3).train()
    file = "adapter_model.safetensors"
    (tmp_path / "checkpoint-6" / file).write_bytes(weights(tmp_path / "checkpoint-3"))
    made = trainer(tmp_path, adapted("seq2par"), [JellyCallback(**SEQ2PAR)])
    with pytest.raises(ValueError, match="of the checkpoint are of different steps"):
        made.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))


@pytest.mark.slow
def test_other_settings_are_refused_when_a_run_is_resumed(tmp_path):
    trainer(tmp_path, adapted(), [JellyCallback(drop_ratio=0.1)], save_steps=4).train()
    made = trainer(tmp_path, adapted(), [JellyCallback()])
    with pytest.raises(ValueError, match=r"had JellyCallback\(drop_ratio=0.1\)"):
        made.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


@pytest.mark.slow
def test_a_callback_that_the_trainer_restores_itself_resumes_too_or_says_what_it_has_lost(tmp_path):
    probe = rig.batch(FAMILY)
    fields = {"save_steps": 4, "restore_callback_states_from_checkpoint": True}
    callback = JellyCallback(probe, **DYNAMIC)
    trainer(tmp_path, adapted(), [callback], **fields).train()
    made = trainer(tmp_path, adapted(), [JellyCallback(probe, **DYNAMIC)], **fields)
    with pytest.raises(ValueError, match=r"JellyCallback.*without"):
        made.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    whole = trainer(tmp_path / "b", adapted(), [JellyCallback(**DYNAMIC)], **fields)
    whole.train()
    whole.save_model(str(tmp_path / "whole"))
    made = trainer(tmp_path / "b", adapted(), [JellyCallback(**DYNAMIC)], **fields)
    made.train(resume_from_checkpoint=str(tmp_path / "b" / "checkpoint-4"))
    made.save_model(str(tmp_path / "end"))
    assert weights(tmp_path / "end") == weights(tmp_path / "whole")


@pytest.mark.slow
def test_an_optimizer_of_other_parameters_is_refused(tmp_path):
    model = adapted()
    made = trainer(tmp_path, model, [JellyCallback()])
    made.optimizer = torch.optim.SGD(model.get_base_model().classifier.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="jelly_A"):
        made.train()


@pytest.mark.slow
def test_a_probe_without_labels_is_refused_at_the_start(tmp_path):
    probe = rig.batch(FAMILY)
    del probe["labels"]
    with pytest.raises(ValueError, match="the model returns no loss for the probe"):
        trainer(tmp_path, adapted(), [JellyCallback(probe)]).train()


@pytest.mark.slow
def test_a_second_run_of_an_adapter_that_has_switched_is_refused(tmp_path):
    model = adapted("seq2par")
    trainer(tmp_path, model, [JellyCallback(**SEQ2PAR)], save_strategy="no").train()
    made = trainer(tmp_path, model, [JellyCallback(**SEQ2PAR)], save_strategy="no")
    with pytest.raises(ValueError, match="step 4"):
        made.train()


def _lora() -> nn.Module:
    return get_peft_model(rig.backbone(FAMILY).model, LoraConfig(target_modules=["query"]))


REFUSED = {
    "no adapter": (lambda: rig.backbone(FAMILY).model, {}, {}, "switches a PeftModel"),
    "lora": (_lora, {}, {}, r"active here: default \(LORA\)"),
    "parallel": (lambda: adapted("parallel"), {}, {}, "nothing to do in mode parallel"),
    "sequential": (lambda: adapted("sequential"), {}, {}, "nothing to do in mode sequential"),
    "at once": (
        lambda: adapted("seq2par"),
        {"switch_epoch": 0.0},
        {},
        "LoRA from the start",
    ),
    "of another mode": (adapted, SEQ2PAR, {}, "switch_step does nothing with mode dynamic"),
    "out of range": (adapted, {"drop_ratio": 2.0}, {}, "drop_ratio"),
    "halves of one": (
        adapted,
        {"criterion": "halves"},
        {"gradient_accumulation_steps": 1},
        "Set gradient_accumulation_steps to 2 or more",
    ),
    "none": (lambda: adapted(switch_method="none"), {}, {}, "is not square. Choose another one"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_switch_is_refused_when_the_trainer_is_made(case, tmp_path):
    make, settings, fields, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, make(), [JellyCallback(**settings)], **fields)


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="'drop_ratio'"):
        JellyCallback(drop_ration=0.1)
    with pytest.raises(ValueError, match=r"JellyConfig\(mode=...\)"):
        JellyCallback(mode="dynamic")


@pytest.mark.slow
def test_a_switch_that_would_come_too_late_is_refused(tmp_path):
    made = trainer(tmp_path, adapted("seq2par"), [JellyCallback(switch_epoch=3)])
    with pytest.raises(ValueError, match=r"step 12.*has 9"):
        made.train()


def train_in_two_processes(case: str, folder: Path) -> None:
    callback, rank = JellyCallback(**PROCESSES[case]), os.environ["RANK"]
    fields: dict[str, Any] = {"ddp_backend": "gloo", "save_strategy": "no"}
    with pytest.raises(ValueError, match="wrapping for several processes does not notice"):
        trainer(folder, adapted(), [JellyCallback()], **fields)
    with pytest.raises(ValueError, match="FSDP, DeepSpeed and tensor parallelism"):
        trainer(folder, without_dropout(), [JellyCallback()], fsdp="full_shard", **fields)
    made = trainer(folder, without_dropout(), [callback], **fields)
    made.train_dataset = rows(32)
    made.train()
    made.model.save_pretrained(folder / f"end-{rank}")
    if rank == "0":
        found = {"switch_step": callback.facts["switch_step"], "coherences": coherences(made)}
        (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    name, place, die = sys.argv[1:]
    if name in PROCESSES:
        train_in_two_processes(name, Path(place))
    else:
        make_model, config, given = CASES[name]
        trainer(Path(place), make_model(**config), [JellyCallback(**given), Die(int(die))]).train()
