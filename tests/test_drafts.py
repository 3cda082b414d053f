"""`graftlab init --from`: run files from data and from files of other programs pass `graftlab check`."""

import gzip
import json
from pathlib import Path

import pytest

from graftlab import config, drafts, runfile
from graftlab.config import foreign
from graftlab.drafts.settled import settle
from graftlab.errors import Argument, ConfigError, DataError
from graftlab.runs import material

QLORA = """
base_model: NousResearch/Llama-3.2-1B
load_in_4bit: true
datasets:
  - path: teknium/GPT4-LLM-Cleaned
    type: alpaca
dataset_prepared_path: last_run_prepared
val_set_size: 0.1
output_dir: ./outputs/qlora-out
adapter: qlora
lora_model_dir:
sequence_len: 2048
sample_packing: true
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_modules:
  - q_proj
  - v_proj
wandb_project:
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 1
optimizer: adamw_torch
lr_scheduler: cosine
learning_rate: 0.0002
bf16: auto
gradient_checkpointing: true
attn_implementation: flash_attention_2
warmup_ratio: 0.1
evals_per_epoch: 4
weight_decay: 0.0
special_tokens:
  pad_token: "<|end_of_text|>"
"""
SFT = """
### model
model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct
trust_remote_code: true
### method
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
### dataset
dataset: tickets
template: llama3
cutoff_len: 2048
max_samples: 1000
overwrite_cache: true
### output
output_dir: saves/llama3-8b/lora/sft
save_steps: 500
### train
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
"""
ADAPTER = {
    "base_model_name_or_path": "meta-llama/Llama-3.2-1B", "bias": "none", "inference_mode": True,
    "init_lora_weights": True, "lora_alpha": 32, "lora_dropout": 0.1, "modules_to_save": ["embed_tokens"],
    "peft_type": "LORA", "r": 16, "rank_pattern": {}, "target_modules": ["v_proj", "q_proj"],
    "task_type": "CAUSAL_LM", "use_dora": False, "use_rslora": True,
}  # fmt: skip
TRAINER = {
    "output_dir": "out", "per_device_train_batch_size": 16, "gradient_accumulation_steps": 2,
    "learning_rate": 2e-5, "num_train_epochs": 4, "lr_scheduler_type": "cosine", "warmup_steps": 100,
    "weight_decay": 0.01, "eval_strategy": "epoch", "eval_steps": 500, "save_strategy": "steps",
    "save_steps": 200, "save_total_limit": 3, "optim": "adamw_torch_fused", "bf16": True, "fp16": False,
    "load_best_model_at_end": True, "seed": 7, "report_to": ["tensorboard"], "hub_model_id": "me/mine",
    "adam_beta1": 0.9, "max_grad_norm": 0.5, "logging_steps": 5, "max_steps": -1,
}  # fmt: skip


@pytest.fixture
def drafted(tmp_path, monkeypatch):
    """Return the text that `init --from` writes, and the run file that it resolves to."""
    monkeypatch.chdir(tmp_path)

    def drafted(*origins: str | Path, ok: bool = True):
        target = tmp_path / "drafted.yaml"
        settled = settle(drafts.together([drafts.read(Path(o)) for o in origins]), target)
        assert ok == (not settled.problems), settled.problems
        target.write_text(settled.text, encoding="utf-8")
        return settled, runfile.resolve(config.read(target))

    return drafted


def keys(settled):
    return {left.key for left in settled.draft.left}


def table(path: Path, rows: int = 40, delimiter: str = ",") -> Path:
    lines = [delimiter.join(("id", "subject", "queue"))]
    lines += [
        delimiter.join((str(i), f"ticket {i} says", ("billing", "tech", "Billing ")[i % 3]))
        for i in range(rows)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_an_axolotl_file_keeps_its_settings(drafted, tmp_path):
    (tmp_path / "qlora.yml").write_text(QLORA)
    settled, file = drafted("qlora.yml")
    resolved = file.resolved
    assert (resolved["backbone"]["model"], resolved["backbone"]["kind"]) == (
        "NousResearch/Llama-3.2-1B",
        "decoder",
    )
    assert resolved["task"]["hub"]["path"] == "teknium/GPT4-LLM-Cleaned"
    task = {
        key: resolved["task"][key]
        for key in ("template", "max_length", "packing", "validation_share")
    }
    assert task == {
        "template": "alpaca",
        "max_length": 2048,
        "packing": "packed",
        "validation_share": 0.1,
    }
    method = {
        key: resolved["method"][key] for key in ("name", "rank", "alpha", "dropout", "targets")
    }
    assert method == {
        "name": "lora",
        "rank": 32,
        "alpha": 16,
        "dropout": 0.05,
        "targets": ["q_proj", "v_proj"],
    }
    training = resolved["training"]
    assert (training["batch_size"], training["micro_batch_size"]) == (8, 2)
    assert (training["learning_rate"], training["epochs"], training["precision"]) == (
        2e-4,
        1,
        "bf16",
    )
    assert (training["schedule"]["name"], training["schedule"]["warmup"]) == ("cosine", 0.1)
    assert keys(settled) >= {"output_dir", "evals_per_epoch", "special_tokens"}
    for key in keys(settled):
        assert f"#   {key}: " in settled.text


def test_what_needs_a_package_that_is_not_there_becomes_a_comment(drafted, tmp_path):
    from importlib.util import find_spec

    (tmp_path / "qlora.yml").write_text(QLORA)
    settled, file = drafted("qlora.yml")
    held = file.resolved["backbone"]["quantization"]
    if find_spec("bitsandbytes"):
        assert held["bits"] == 4
    else:
        assert held is None
        assert "backbone.quantization" in keys(settled)


def test_data_sets_of_axolotl_that_lie_here_are_files_and_several_are_a_mixture(drafted, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"q": "1+1?", "a": "2"}\n' * 3)
    (tmp_path / "chat.jsonl").write_text(
        json.dumps(
            {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}]}
        )
        + "\n"
    )
    (tmp_path / "two.yml").write_text(
        """
base_model: TinyLlama/TinyLlama_v1.1
adapter: lora
micro_batch_size: 2
datasets:
  - path: json
    data_files: rows.jsonl
    type: {field_instruction: q, field_output: a, no_input_format: "Q: {instruction}\\nA:"}
  - path: chat.jsonl
    type: chat_template
    field_messages: conversations
"""
    )
    _, file = drafted("two.yml", ok=False)  # three rows of one question are too few to split
    first, second = file.task.parts.values()
    assert (first.config.prompt, first.config.completion) == ("Q: {q}\nA:", "{a}")
    assert first.config.files.train == tmp_path / "rows.jsonl"
    assert (second.config.template, second.config.columns.messages) == ("chat", "conversations")


def test_a_llama_factory_file_keeps_its_settings_with_its_data_set(drafted, tmp_path):
    (tmp_path / "data").mkdir()
    rows = [{"ask": f"question {i}", "more": "m", "say": f"answer {i}"} for i in range(40)]
    (tmp_path / "data/tickets.json").write_text(json.dumps(rows))
    columns = {"prompt": "ask", "query": "more", "response": "say"}
    entry = {"tickets": {"file_name": "tickets.json", "columns": columns}}
    (tmp_path / "data/dataset_info.json").write_text(json.dumps(entry))
    (tmp_path / "sft.yaml").write_text(SFT)
    settled, file = drafted("sft.yaml")
    resolved = file.resolved
    task = resolved["task"]
    assert (task["prompt"], task["completion"], task["chat_template"]) == (
        "{ask}\n{more}",
        "{say}",
        True,
    )
    assert task["files"]["train"] == str(tmp_path / "data/tickets.json")
    assert (task["max_length"], task["max_train_samples"]) == (2048, 1000)
    method = resolved["method"]
    assert (method["rank"], method["alpha"], method["targets"]) == (8, 16, "all-linear")
    training = resolved["training"]
    assert (training["batch_size"], training["save_every"], training["schedule"]["warmup"]) == (
        8,
        500,
        0.1,
    )
    assert keys(settled) == {"trust_remote_code", "output_dir"}


def test_a_data_set_that_is_not_here_is_said_and_another_stands_in(drafted, tmp_path):
    (tmp_path / "sft.yaml").write_text(SFT)
    settled, file = drafted("sft.yaml")
    assert "dataset" in keys(settled)
    assert file.resolved["task"]["name"] == "alpaca"


def test_an_adapter_and_training_arguments_and_data_make_one_run_file(drafted, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps(ADAPTER))
    (tmp_path / "training_args.json").write_text(json.dumps(TRAINER, indent=2))
    rows = [{"instruction": f"do {i}", "output": f"done {i}"} for i in range(60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settled, file = drafted("rows.jsonl", "adapter_config.json", "training_args.json")
    resolved = file.resolved
    assert (resolved["backbone"]["model"], file.backbone.name) == (
        "meta-llama/Llama-3.2-1B",
        "decoder",
    )
    method = {
        key: resolved["method"][key]
        for key in ("name", "rank", "alpha", "dropout", "rslora", "targets")
    }
    assert method == {"name": "lora", "rank": 16, "alpha": 32, "dropout": 0.1, "rslora": True,
                      "targets": ["v_proj", "q_proj"]}  # fmt: skip
    training = resolved["training"]
    assert (training["batch_size"], training["micro_batch_size"], training["epochs"]) == (32, 16, 4)
    assert (training["evaluate_every"], training["save_every"], training["keep_checkpoints"]) == (
        "epoch",
        200,
        3,
    )
    assert (training["schedule"]["name"], training["schedule"]["warmup"]) == ("cosine", 100)
    assert (training["clip_norm"], training["precision"], training["select"]) == (
        0.5,
        "bf16",
        "best",
    )
    assert (resolved["seed"], resolved["task"]["template"]) == (7, "alpaca")
    assert {"modules_to_save", "hub_model_id"} <= keys(settled)


@pytest.mark.parametrize("name", ["adapter_config.json", "training_args.json"])
def test_each_alone_passes_too(drafted, tmp_path, name):
    given = ADAPTER if name == "adapter_config.json" else TRAINER
    (tmp_path / name).write_text(json.dumps(given))
    drafted(name)


@pytest.mark.parametrize(
    ("fields", "name"),
    [({"use_dora": True}, "dora"), ({"init_lora_weights": "pissa"}, "pissa"),
     ({"peft_type": "ADALORA", "init_r": 24, "target_r": 6}, "adalora"), ({"peft_type": "IA3"}, "lora"),
     ({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 5}, "prefix")],
)  # fmt: skip
def test_the_method_of_an_adapter(drafted, tmp_path, fields, name):
    (tmp_path / "adapter_config.json").write_text(json.dumps({**ADAPTER, **fields}))
    settled, file = drafted(tmp_path)  # the folder does as well
    assert file.method.name == name
    if name == "adalora":
        assert (file.method.config.initial_rank, file.method.config.target_rank) == (24, 6)
    if fields.get("peft_type") == "IA3":
        assert "peft_type" in keys(settled)


def test_a_table_is_a_task_of_classes_with_noisy_labels_made_one(drafted, tmp_path):
    settled, file = drafted(table(tmp_path / "tickets.csv", delimiter=";"))
    config = file.task.config
    assert file.task.name == "classification"
    assert (config.columns.text, config.columns.label) == ("subject", "queue")
    assert set(config.labels.values()) == {"billing", "tech"}
    data = material.read(file)
    assert data.problem.labels == ("billing", "tech")
    assert len(data.splits["test"])
    assert "train: tickets.csv" in settled.text


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("reviews.csv", "reviews"),
        ("Export 1.2.jsonl.gz", "Export 1.2"),
        (".csv", "run"),
        ("a?.csv", "a-"),
        ("pictures.v2/", "pictures.v2"),
    ],
)
def test_a_run_file_is_called_after_its_data(tmp_path, file, name):
    path = tmp_path / file
    if file.endswith("/"):
        path.mkdir()
        path = table(path / "train.csv", delimiter=",").parent
    elif file.endswith(".gz"):
        path.write_bytes(gzip.compress(b'{"text": "so"}\n' * 40))
    else:
        table(path, delimiter=",")
    assert drafts.read(path).name == name


CHAT = [{"from": "human", "value": "Can I pay?"}, {"from": "gpt", "value": "Yes."}]
TURNS = [{"role": "user", "content": "Can I pay?"}, {"role": "assistant", "content": "Yes."}]
QUIZ = {"question": "Which?", "options": ["a", "b", "c"], "answer": 0}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"conversations": CHAT},
         {"kind": "generation", "template": "chat", "columns": {"messages": "conversations"}}),
        ({"messages": TURNS}, {"kind": "generation", "template": "chat"}),
        ({"instruction": "Say", "input": "", "output": "Yes"}, {"kind": "generation", "template": "alpaca"}),
        ({"prompt": "Say", "completion": "Yes"},
         {"kind": "generation", "prompt": "{prompt}", "completion": "{completion}"}),
        ({"question": "Why?", "answer": "So."}, {"kind": "generation", "template": "question_answer"}),
        ({"text": "A plain text."}, {"kind": "generation", "template": "text"}),
        (QUIZ, {"kind": "multiple_choice", "labels": ["0", "1", "2"],
                "columns": {"question": "question", "choices": ["options"], "label": "answer"}}),
    ],
    ids=["sharegpt", "messages", "alpaca", "completion", "questions", "plain", "quiz"],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_rows_tell_what_they_are_for(drafted, tmp_path, row, expected, suffix):
    def numbered(value, i):
        if isinstance(value, str):
            return f"{value} {i}"
        if isinstance(value, list):
            return [numbered(item, i) for item in value]
        if isinstance(value, dict):
            same = ("from", "role")
            return {k: item if k in same else numbered(item, i) for k, item in value.items()}
        return value

    rows = [numbered(row, i) for i in range(60)]
    path = tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows)))
    _, file = drafted(path)
    read = drafts.read(path).values["task"]
    assert {key: read[key] for key in expected} == expected
    assert file.task.config.files.train == path


@pytest.mark.parametrize("layout", ["classes", "splits"])
def test_a_folder_of_images_and_a_folder_of_splits(drafted, tmp_path, layout):
    from PIL import Image

    root = tmp_path / "pictures"
    for split in ("train", "test") if layout == "splits" else ("",):
        for number in range(40):
            folder = root / split / ("cat", "dog")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, 7 * number % 256, len(split))).save(
                folder / f"{number}.png"
            )
    (root / ".DS_Store").write_text("")
    _, file = drafted(root)
    assert file.task.name == "images"
    assert material.read(file).problem.labels == ("cat", "dog")
    assert (file.task.config.data_dir is None) == (layout == "classes")


def test_numbers_that_are_no_classes_are_scores(drafted, tmp_path):
    lines = ["sentence1,sentence2,score", *(f"a {i},b {i},{i / 7}" for i in range(40))]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    _, file = drafted("pairs.csv")
    config = file.task.config
    assert config.regression
    assert (config.columns.text, config.columns.pair, config.columns.label) == (
        "sentence1",
        "sentence2",
        "score",
    )


def test_preferences_are_named_as_out_of_scope(tmp_path):
    path = tmp_path / "dpo.jsonl"
    path.write_text(json.dumps({"prompt": "p", "chosen": "c", "rejected": "r"}))
    with pytest.raises(DataError) as error:
        drafts.read(path)
    assert error.value.problems[0].kind == "preferences"


def test_data_that_check_refuses_are_drafted_with_what_is_left_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ids.csv").write_text("text,label\n" + "".join(f"t {i},id{i}\n" for i in range(60)))
    settled = settle(drafts.read(Path("ids.csv")), tmp_path / "ids.yaml")
    assert settled.problems or "label" not in settled.text.partition("files")[0]


@pytest.mark.parametrize(
    "text", ["backbone: {model: minilm}\n", "one: 1\n"], ids=["run file", "anything"]
)
def test_a_file_of_no_known_kind_is_refused(tmp_path, text):
    (tmp_path / "it.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        drafts.read(tmp_path / "it.yaml")
    assert error.value.problems[0].kind == "foreign"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (QLORA, "a.yml"),
        (SFT, "b.yaml"),
        (json.dumps(ADAPTER), "c.json"),
        (json.dumps(TRAINER), "d.json"),
    ],
)
def test_a_whole_foreign_file_is_recognised_where_a_run_file_is_wanted(tmp_path, text, name):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as error:
        config.read(tmp_path / name)
    [problem] = error.value.problems
    assert (problem.kind, problem.place.file) == ("foreign", str(tmp_path / name))
    assert Argument("origins", str(tmp_path / name)) in problem.remedies[0]


def test_every_key_that_stands_for_a_foreign_one_is_in_the_schema():
    schema = runfile.schema()

    def found(node, key):
        if not key:
            return True
        options = [node, *node.get("anyOf", ())]
        options += [schema["$defs"][o["$ref"].rpartition("/")[2]] for o in options if "$ref" in o]
        options += [
            inner for option in options for inner in option.get("anyOf", ()) if option is not node
        ]
        options += [schema["$defs"][o["$ref"].rpartition("/")[2]] for o in options if "$ref" in o]
        return any(
            (
                key[0] in option.get("properties", {})
                and found(option["properties"][key[0]], key[1:])
            )
            or (not option.get("properties") and option.get("type") == "object")
            for option in options
        )

    for name, ours in foreign.FOREIGN.items():
        assert found(schema, ours.key.split(".")), (name, ours.key)
