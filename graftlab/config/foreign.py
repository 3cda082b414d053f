"""What axolotl, LLaMA-Factory, transformers and PEFT call our keys, and what is no run file but known.

One table for both who ask: an unknown key of a run file is answered with ours, and a file of theirs is made a
run file by it (`graftlab init --from`).
"""

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from graftlab.config import readings
from graftlab.errors import Argument, ConfigError, Place, Words


class Ours(NamedTuple):
    """The key that stands for one of another program."""

    key: str
    """From the top of a run file: `training.batch_size`."""
    write: str = ""
    """What is written there, where it is not the same value."""
    read: readings.Read | None = lambda value: value
    """None: it takes other keys beside this one to know."""


STEP = "the examples of a step, micro-batch x accumulation x processes; micro_batch_size is what is in memory"
# fmt: off
TABLE: tuple[tuple[str, Ours], ...] = (  # all their names for it, and ours
    # the model
    ("base_model base_model_name_or_path model_name model_name_or_path model_id model_path "
     "pretrained_model_name_or_path", Ours("backbone.model")),
    ("model_revision revision_of_model", Ours("backbone.revision")),
    ("torch_dtype model_dtype",
     Ours("backbone.dtype", "bfloat16, float16 or float32", readings.named(readings.DTYPES))),
    ("attn_implementation", Ours("backbone.attention")),
    ("flash_attention flash_attn use_flash_attention_2",
     Ours("backbone.attention", "flash_attention_2", readings.named(readings.FLASH))),
    ("load_in_4bit", Ours("backbone.quantization", "{bits: 4}", readings.if_true({"bits": 4}))),
    ("load_in_8bit", Ours("backbone.quantization", "{bits: 8}", readings.if_true({"bits": 8}))),
    ("quantization_bit", Ours("backbone.quantization", "{bits: 4}", lambda bits: {"bits": bits})),
    ("quantization_config", Ours("backbone.quantization", "{bits: 4}", None)),
    ("momentum", Ours("training.optimizer.arguments.momentum")),
    ("bnb_4bit_quant_type", Ours("backbone.quantization.type")),
    ("bnb_4bit_compute_dtype", Ours("backbone.quantization.compute_dtype")),
    ("bnb_4bit_use_double_quant double_quantization", Ours("backbone.quantization.double")),
    # the method
    ("adapter finetuning_type peft_type",
     Ours("method.name", "lora, full, ... (graftlab list methods)", readings.named(readings.METHODS))),
    ("lora_r lora_rank r", Ours("method.rank")),
    ("lora_alpha", Ours("method.alpha")),
    ("lora_dropout", Ours("method.dropout")),
    ("target_modules lora_target_modules lora_target",
     Ours("method.targets", "names, or all-linear", readings.targets)),
    ("lora_target_linear", Ours("method.targets", "all-linear", readings.if_true("all-linear"))),
    ("use_rslora peft_use_rslora", Ours("method.rslora", "true", readings.if_true(True))),
    ("use_dora peft_use_dora", Ours("method.name", "dora", readings.if_true("dora"))),
    ("pissa_init", Ours("method.name", "pissa", readings.if_true("pissa"))),
    ("loraplus_lr_ratio", Ours("method.lora_plus_ratio")),
    ("init_lora_weights peft_init_lora_weights",
     Ours("method.init", "default, gaussian, pissa, ...", readings.named(readings.INITS))),
    ("lora_model_dir adapter_name_or_path lora_weights", Ours("method.start_from")),
    ("num_virtual_tokens", Ours("method.num_tokens")),
    ("bias", Ours("method.peft.bias")),
    ("alpha_pattern", Ours("method.peft.alpha_pattern")),
    ("rank_pattern", Ours("method.peft.rank_pattern")),
    ("layers_to_transform peft_layers_to_transform", Ours("method.peft.layers_to_transform")),
    ("layers_pattern", Ours("method.peft.layers_pattern")),
    ("exclude_modules", Ours("method.peft.exclude_modules")),
    ("lora_bias", Ours("method.peft.lora_bias", "true", readings.if_true(True))),
    ("lora_fan_in_fan_out fan_in_fan_out",
     Ours("method.peft.fan_in_fan_out", "true", readings.if_true(True))),
    # training
    ("lr learning_rate", Ours("training.learning_rate")),
    ("num_train_epochs num_epochs n_epochs", Ours("training.epochs")),
    ("max_steps num_train_steps max_train_steps",
     Ours("training.max_steps", read=lambda n: n if n and n > 0 else readings.NOTHING)),
    ("per_device_train_batch_size per_gpu_train_batch_size micro_batch_size",
     Ours("training.micro_batch_size", "what is in memory at once; training.batch_size is all of a step")),
    ("gradient_accumulation_steps", Ours("training.batch_size", STEP, None)),
    ("train_batch_size bs global_batch_size", Ours("training.batch_size")),
    ("warmup_ratio",
     Ours("training.schedule.warmup", "a share below 1", lambda n: n or readings.NOTHING)),
    ("warmup_steps num_warmup_steps",
     Ours("training.schedule.warmup", "a number of steps, 1 or more", lambda n: n or readings.NOTHING)),
    ("lr_scheduler_type lr_scheduler scheduler",
     Ours("training.schedule.name", "linear, cosine, constant, ...", readings.schedule)),
    ("optim optimizer",
     Ours("training.optimizer.name", "adamw, adamw_8bit, sgd, ...", readings.optimizer)),
    ("weight_decay", Ours("training.optimizer.weight_decay")),
    ("adam_beta1 adam_beta2 betas",
     Ours("training.optimizer.arguments.betas", "[0.9, 0.999]", None)),
    ("adam_epsilon", Ours("training.optimizer.arguments.eps")),
    ("max_grad_norm grad_clip gradient_clipping clip_grad_norm max_norm", Ours("training.clip_norm")),
    ("bf16 bfloat16 pure_bf16", Ours("training.precision", "bf16", readings.precision("bf16"))),
    ("fp16 float16 amp", Ours("training.precision", "fp16", readings.precision("fp16"))),
    ("mixed_precision", Ours("training.precision", "bf16, fp16 or fp32")),
    ("gradient_checkpointing", Ours("training.gradient_checkpointing", read=bool)),
    ("disable_gradient_checkpointing",
     Ours("training.gradient_checkpointing", "false", readings.if_true(False))),
    ("torch_compile", Ours("training.compile", "true", readings.if_true(True))),
    ("label_smoothing_factor", Ours("training.label_smoothing")),
    ("logging_steps log_every log_steps", Ours("training.logging_every", read=readings.every)),
    ("eval_steps eval_every eval_interval", Ours("training.evaluate_every", read=readings.every)),
    ("eval_strategy evaluation_strategy",
     Ours("training.evaluate_every", "epoch, a number of steps, or 0 for never", readings.when)),
    ("save_steps save_interval", Ours("training.save_every", read=readings.every)),
    ("save_strategy",
     Ours("training.save_every", "epoch, a number of steps, or 0 for the end", readings.when)),
    ("save_total_limit", Ours("training.keep_checkpoints")),
    ("load_best_model_at_end",
     Ours("training.select", "best or last", lambda on: "best" if on else "last")),
    ("metric_for_best_model", Ours("training.best_by")),
    ("early_stopping_patience", Ours("training.early_stopping.patience")),
    ("dataloader_num_workers num_workers", Ours("training.workers")),
    ("group_by_length", Ours("training.group_by_length")),
    # the data
    ("max_seq_length max_seq_len sequence_len cutoff_len model_max_length block_size",
     Ours("task.max_length")),
    ("sample_packing packing neat_packing",
     Ours("task.packing", "packed", readings.if_true("packed"))),
    ("train_on_inputs train_on_prompt", Ours("task.loss_on", "all", readings.if_true("all"))),
    ("val_set_size val_size validation_split_percentage",
     Ours("task.validation_share", "a share below 1", readings.share)),
    ("max_samples max_train_samples", Ours("task.max_train_samples")),
    ("max_eval_samples", Ours("task.max_validation_samples")),
    ("dataset datasets dataset_name data_path train_data",
     Ours("task", "{name: ...} of the catalogue, or {kind: ..., files: {train: ...}}", None)),
    ("train_file train_files", Ours("task.files.train")),
    ("validation_file eval_file val_file", Ours("task.files.validation")),
    ("test_file", Ours("task.files.test")),
    ("dataset_dir", Ours("task.data_dir", read=None)),
    ("text_column text_column_name", Ours("task.columns.text")),
    ("label_column label_column_name", Ours("task.columns.label")),
    ("num_labels id2label", Ours("task.labels", "the names of the classes, in their order", None)),
    ("chat_template_jinja", Ours("task.chat_template_file", "a file with the template", None)),
    ("default_system", Ours("task.system")),
    ("compute_metrics", Ours("task.metrics", "names (graftlab list metrics)", None)),
    ("max_new_tokens", Ours("task.generation.max_new_tokens")),
    ("temperature", Ours("task.generation.temperature")),
    ("top_p", Ours("task.generation.top_p")),
    ("top_k", Ours("task.generation.top_k")),
    ("repetition_penalty", Ours("task.generation.repetition_penalty")),
    # where things go
    ("output_dir out_dir save_dir",
     Ours("paths.runs", "the folder of all runs (`--out` names that of one)", None)),
    ("run_name", Ours("name")),
    ("report_to", Ours("tracking.to", "[tensorboard, wandb, trackio]", readings.trackers)),
    ("wandb_project", Ours("tracking.project")),
    ("wandb_name", Ours("tracking.name")),
    ("full_determinism use_deterministic_algorithms",
     Ours("deterministic", "true", readings.if_true(True))),
    ("seed random_seed", Ours("seed")),
    ("cache_dir", Ours("paths.cache")),
)
# fmt: on
OWN = {  # keys of ours that are looked for in other sections too
    "backbone": "model quantization dtype attention",
    "task": "files data_dir hub source columns labels metrics max_length template prompt completion "
    "test_share validation_share max_train_samples generation packing loss_on",
    "method": "rank alpha dropout targets rslora init llm layer",
    "training": "epochs max_steps batch_size micro_batch_size learning_rate head_learning_rate schedule "
    "optimizer clip_norm label_smoothing precision gradient_checkpointing compile evaluate_every "
    "save_every logging_every keep_checkpoints early_stopping best_by select workers",
    "training.schedule": "warmup",
    "paths": "runs cache",
}  # fmt: skip
FOREIGN = {
    **{key: Ours(f"{section}.{key}") for section, keys in OWN.items() for key in keys.split()},
    **{name: ours for names, ours in TABLE for name in names.split()},
}

HEAD = "nothing to write: the task's new head trains and is saved with every adapter, and nothing else does"
ABSENT = {  # keys of theirs that there is nothing for, and why
    "modules_to_save": HEAD, "lora_modules_to_save": HEAD, "additional_target": HEAD,
    "trust_remote_code": "code that comes with a model is never run",
    "rl": "preferences are out of scope: examples alone are learned",
    "device": "the freest GPU is taken, else the CPU; CUDA_VISIBLE_DEVICES says which there are",
    "deepspeed": "several GPUs: docs/several-processes.md",
    "fsdp": "several GPUs: docs/several-processes.md",
    "neftune_noise_alpha": "no noise is added to embeddings here",
    "special_tokens": "the tokenizer's own are taken",
    "evals_per_epoch": "training.evaluate_every: a number of steps, or epoch",
    "saves_per_epoch": "training.save_every: a number of steps, or epoch",
    "per_device_eval_batch_size": "evaluation takes the micro-batch",
    "push_to_hub": "graftlab push RUN uploads a run",
}  # fmt: skip

PROGRAMS: dict[str, tuple[frozenset[str], int]] = {
    # keys that tell a file, and how many of them it takes
    "PEFT adapter_config.json": (frozenset({"peft_type"}), 1),
    "LLaMA-Factory": (
        frozenset({"model_name_or_path", "stage", "finetuning_type", "template", "cutoff_len", "do_train",
                   "lora_target", "dataset_dir", "adapter_name_or_path"}), 3),
    "axolotl": (
        frozenset({"base_model", "datasets", "adapter", "sequence_len", "micro_batch_size", "num_epochs",
                   "val_set_size", "sample_packing", "lora_target_linear", "dataset_prepared_path"}), 3),
    "TrainingArguments": (
        frozenset({"output_dir", "per_device_train_batch_size", "per_device_eval_batch_size",
                   "num_train_epochs", "lr_scheduler_type", "gradient_accumulation_steps", "warmup_ratio",
                   "warmup_steps", "logging_steps", "save_strategy", "eval_strategy", "optim",
                   "max_grad_norm"}), 3),
}  # fmt: skip
DATA = frozenset({"csv", "tsv", "jsonl", "parquet", "txt", "arrow"})
OTHERS = {
    **dict.fromkeys(
        ("xlsx", "xls", "ods"), "a workbook of a spreadsheet program: save its sheet as CSV"
    ),
    **dict.fromkeys(
        ("safetensors", "bin", "pt", "pth", "ckpt", "gguf", "onnx"), "a file of weights"
    ),
    **dict.fromkeys(("py", "ipynb", "sh"), "a program"),
    **dict.fromkeys(("zip", "tar", "tgz"), "an archive: unpack it"),
}
BEGUN = frozenset(("backbone", "task", "method", "extends", "base", "training", "methods", "space"))
"""Keys at the top of run files, studies and searches, two of which any has."""
BEGINNING = 2**16  # bytes of a file that tell what it is
SECTIONS = frozenset({"backbone", "task", "method", "extends", "base"})


def program_of(values: Mapping[str, object]) -> str | None:
    """Return which program a mapping is a whole file of; None for a run file and what is not known."""
    if SECTIONS & values.keys():
        return None
    for program, (keys, wanted) in PROGRAMS.items():
        if len(keys & values.keys()) >= wanted:
            return program
    return None


def refuse(path: Path, values: Mapping[str, object] | None = None) -> None:
    """Refuse what is no run file but something that we know; `values` are what stands in it, once it is read.

    Raises:
        ConfigError: it is a folder, data, a file of another program, ...
    """
    draft: Words = (
        "Make a run file of it: `graftlab init ",
        Argument("origins", str(path)),
        "`.",
    )
    if values is not None:
        if (program := program_of(values)) is not None:
            raise _no_run_file(path, f"this is a file of {program}", draft)
    elif path.is_dir():
        if (path / "config.yaml").is_file() and (path / "environment.json").is_file():
            named, its = shlex.quote(str(path)), path / "config.yaml"
            shown = f"`graftlab show {named}` shows it, `graftlab resume {named}` goes on. Its file is {its}."
            raise _no_run_file(path, "this is the folder of a run", (shown,))
        kind = "an adapter of PEFT" if (path / "adapter_config.json").is_file() else "a folder"
        raise _no_run_file(path, f"this is {kind}", draft)
    elif _says_its_sections(path):
        return
    elif (suffix := path.name.lower().removesuffix(".gz").rpartition(".")[2]) in DATA:
        raise _no_run_file(path, "this is data", draft)
    elif suffix in OTHERS:
        template = "`graftlab init template` writes a run file."
        raise _no_run_file(path, f"this is {OTHERS[suffix]}", (template,))


def _says_its_sections(path: Path) -> bool:
    """Return whether a file of text holds what only a run file does, whatever it is called: texts may begin
    with `task:`, but not with that and with another section."""
    if not path.name.lower().endswith(".txt"):
        return False
    with path.open("rb") as file:
        head = file.read(BEGINNING).decode("utf-8", "replace")
    return len(set(re.findall(r"^(\w+):", head, re.M)) & BEGUN) > 1


def _no_run_file(path: Path, said: str, remedy: Words) -> ConfigError:
    return ConfigError(f"{said}, not a run file.", remedy, place=Place(str(path)), kind="foreign")


def word(name: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` that another program's key `name` stands for."""
    ours = FOREIGN.get(name)
    last = ours.key.rpartition(".")[2] if ours else None
    return last if last in set(known) else None


def answer(key: str, section: str, known: Iterable[str]) -> str | None:
    """Return in words which key of ours stands for one of another program, or one of ours elsewhere, that a
    section does not know; None where there is none to tell."""
    if (why := ABSENT.get(key)) is not None:
        return f"Here: {why}."
    if (ours := FOREIGN.get(key)) is None:
        return None
    parent, _, last = ours.key.rpartition(".")
    if parent == section and last not in known:
        return None  # this part has none
    if ours.key == key:
        return f"It stands at the top of a run file, not in {section}."
    return f"Here it is {ours.key}" + (f": {ours.write}." if ours.write else ".")
