"""How near `graftlab plan` comes to the memory that a run's steps really take.

python bench/plan_accuracy.py [--data-dir FOLDER] [--models FOLDER] [--only TEXT] [--go-on]

Each case is predicted from its run file, and then trained for an epoch of 24 examples. On CUDA that is
`max_memory_allocated`; on CPU the bytes of live tensors, counted by a dispatch mode over the real run.
"""

import argparse
import contextlib
import gc
import importlib.util
import io
import json
import tempfile
from pathlib import Path
from typing import Any

from harness import RESULTS, Goal, write

CLAIM = (
    "The predicted peak of live tensor bytes is within 10 % of the measured one. Predicted from the run "
    "file, on tensors without memory; measured over an epoch of the real run, all of its steps. Beside it: "
    "what the process holds before it has loaded a model."
)
ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
ROWS = 24
NAME, ALL = "plan_accuracy", "all cases"
ENCODER, DECODER, VISION, DEEP = "encoder", "decoder", "vision", "24 blocks"
METHODS = ("full", "lora", "dora", "jelly", "bitfit", "prompt")
LACKING = (
    (VISION, "prompt"),
    (DECODER, "bitfit"),
)  # images have no words, and this Llama no biases
FURTHER = (
    (ENCODER, "lora", "precision=bf16"),
    (ENCODER, "full", "precision=bf16"),
    (DECODER, "lora", "precision=bf16"),
    (DECODER, "full", "precision=bf16"),
    (VISION, "lora", "precision=bf16"),
    (ENCODER, "lora", "gradient_checkpointing=true"),
    (DECODER, "lora", "gradient_checkpointing=true"),
    (DECODER, "full", "gradient_checkpointing=true"),
    (DECODER, "lora", "backbone.quantization.bits=4"),
    (DECODER, "lora", "backbone.quantization.bits=8"),
    (DECODER, "lora", "batch_size=2"),
    (DECODER, "lora", "micro_batch_size=2"),
    (ENCODER, "lora", "batch_size=24"),
    (ENCODER, "full", "optimizer.name=sgd"),
    (ENCODER, "full", "optimizer.name=adafactor"),
    (ENCODER, "full", "optimizer.name=adagrad"),
    (ENCODER, "full", "optimizer.name=adamw_8bit"),
    (ENCODER, "lora", "task.max_length=16"),
    (DEEP, "lora", ""),
    (DEEP, "full", ""),
    (DEEP, "full", "gradient_checkpointing=true"),
)


def cases() -> list[tuple[str, str, str]]:
    """Return backbone, method and setting of each case."""
    plain = [
        (backbone, method, "")
        for backbone in (ENCODER, DECODER, VISION)
        for method in METHODS
        if (backbone, method) not in LACKING
    ]
    further = [case for case in FURTHER if "bit" not in case[2] or _has("bitsandbytes")]
    return [*further, *plain]


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def run_file(case: tuple[str, str, str], folder: Path, asked: argparse.Namespace) -> Any:
    """Return the resolved run file of a case."""
    from graftlab import config, runfile

    backbone, method, setting = case
    sst2 = f"{{name: sst2, data_dir: {asked.data_dir / 'sst2'}, max_train_samples: {ROWS}}}"
    models, tasks = {
        ENCODER: "minilm",
        DECODER: str(asked.models / "small-llama"),
    }, {
        ENCODER: sst2,
        DECODER: f"{{name: gsm8k, data_dir: {asked.data_dir / 'gsm8k'}, max_train_samples: {ROWS}}}",
        VISION: f"{{name: digits, max_train_samples: {ROWS}}}",
        DEEP: sst2,
    }  # fmt: skip
    made = {
        VISION: "{kind: tiny, modality: images, width: 128, layers: 6, heads: 4, image_size: 64, "
        "patch_size: 8, channels: 1}",
        DEEP: "{kind: tiny, width: 64, layers: 24, heads: 4}",
    }
    section = made.get(backbone) or f"{{model: {models[backbone]}}}"
    path = folder / "case.yaml"
    path.write_text(
        f"backbone: {section}\ntask: {tasks[backbone]}\nmethod: {{name: {method}}}\n"
        "training: {batch_size: 8, epochs: 1}\n"
    )
    key, _, value = setting.partition("=")
    prefix = "" if key.startswith(("task.", "backbone.")) else "training."
    overrides = [f"{prefix}{key}={value}"] if setting else []
    return runfile.resolve(config.read(str(path), overrides))


def predicted(file: Any) -> int:
    """Return the predicted peak."""
    from graftlab.planning import forecast

    return forecast.plan(file)["memory"]["peak"]


def measured(file: Any) -> int:
    """Return the most bytes of live tensors over an epoch's steps."""
    import torch

    from graftlab.planning.live_tensors import WEIGHTS, Live
    from graftlab.planning.rehearsal import build_loop, frozen
    from graftlab.runs import attachment
    from graftlab.seeds import mix
    from graftlab.training import devices
    from graftlab.training.parallel.processes import Processes

    module = file.task.module
    data = module.read(file.task.config, file.paths, file.seed)
    backbone = file.backbone.module.load(
        file.backbone.config, data.problem, mix(file.seed, "backbone")
    )
    task = module.bind(data, backbone, file.task.config, mix(file.seed, "task"))
    accelerator = devices.accelerator(file.training.precision)
    backbone.model.to(accelerator.device)
    attached = attachment.attach(file, backbone, task, None, Processes())
    loop = build_loop(file, file.training, attached, task, backbone.head, accelerator)
    loop.model.train()
    on_gpu = accelerator.device.type == "cuda"
    gc.collect()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(accelerator.device)
    with Live() as live:
        live.hold([*loop.model.parameters(), *frozen(loop.model)], WEIGHTS)
        loop.begin()
        for step in range(1, loop.num_steps + 1):
            gc.collect()
            loop.stepper.step(step, file.training.learning_rate)
    return torch.cuda.max_memory_allocated(accelerator.device) if on_gpu else live.peak.total


def main(asked: argparse.Namespace) -> None:
    import peft  # noqa: F401
    import torch
    import transformers  # noqa: F401

    from graftlab.planning import memory

    torch.set_num_threads(asked.threads)
    baseline = round(memory.resident() / 2**20)
    turns = known() if asked.go_on else {}
    with tempfile.TemporaryDirectory() as folder:
        for case in cases():
            label = ", ".join(part for part in case if part)
            if asked.only not in label or label in turns:
                continue
            file = run_file(case, Path(folder), asked)
            foreseen, real = predicted(file), measured(file)
            gc.collect()
            error = 100 * (foreseen / real - 1)
            print(
                f"{label}: {foreseen / 2**20:.1f} {real / 2**20:.1f} MiB, {error:+.2f} %",
                flush=True,
            )
            turns[label] = [
                {
                    "predicted (MiB)": round(foreseen / 2**20, 1),
                    "measured (MiB)": round(real / 2**20, 1),
                    "error (%)": round(error, 2),
                }
            ]
            if not asked.only:
                record(turns, baseline, asked.threads)


def known() -> dict:
    """Return the cases that an earlier call has measured."""
    path = RESULTS / f"{NAME}.json"
    turns = json.loads(path.read_text(encoding="utf-8"))["turns"] if path.is_file() else {}
    return {label: rows for label, rows in turns.items() if label != ALL}


def record(turns: dict, baseline: int, threads: int) -> None:
    """Write what has been measured so far."""
    import torch

    largest = max(abs(rows[0]["error (%)"]) for rows in turns.values())
    summary = [{"largest error (%)": largest, "process before (MiB)": baseline}]
    goals = [Goal("largest error (%)", ALL, compare="value", at_most=10)]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    settings = {"device": device, "examples": ROWS, "batch": 8, "cases": len(turns)}
    with contextlib.redirect_stdout(io.StringIO()):
        write(NAME, CLAIM, {**turns, ALL: summary}, goals, settings | {"threads": threads})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=SHARED / "data")
    parser.add_argument("--models", type=Path, default=SHARED / "models")
    parser.add_argument(
        "--only", default="", help="cases whose name holds this text; nothing is written"
    )
    parser.add_argument(
        "--go-on", action="store_true", help="measure only what is not measured yet"
    )
    parser.add_argument("--threads", type=int, default=1)
    main(parser.parse_args())
