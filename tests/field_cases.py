"""For every key of a run file a change that must be seen, or refused."""

from typing import Any, NamedTuple


class Case(NamedTuple):
    """A key's new value, and what else stands in the file before and after."""

    value: Any
    base: dict[str, Any] = {}  # noqa: RUF012  never changed
    refused: str = ""
    """Words of the refusal, where the change is refused."""


HUB = {
    "task.files": None, "task.hub.path": "acme/set", "task.hub.name": "plain",
    "task.labels": ["a", "b", "c"],
}  # fmt: skip
NO_VALIDATION = {"task.files.validation": None}
LABELS = {"task.labels": ["a", "b", "c"]}
SOURCE = {"task.files": None, "task.source": "field_rows:few", "task.labels": ["a", "b", "c"]}
ADAPTER = {"method.start_from": "adapter"}

# What a run file has where a case does not say otherwise. The files are written by test_fields.py.
TEXTS = {
    "backbone": {"kind": "tiny", "width": 16, "layers": 1, "dropout": 0.0},
    "task": {
        "kind": "classification",
        "files": {s: f"{s}.jsonl" for s in ("train", "validation", "test")},
    },
    "method": {"name": "lora", "rank": 2},
}
IMAGES = {
    "backbone": {"kind": "tiny", "modality": "images", "width": 16, "layers": 1, "dropout": 0.0},
    "task": {**TEXTS["task"], "kind": "images"},
    "method": {"name": "lora", "rank": 2},
}

QUESTIONS = {
    **TEXTS,
    "task": {
        **TEXTS["task"],
        "kind": "multiple_choice",
        "labels": ["a", "b", "c"],
        "columns": {"question": "text", "choices": ["other", "text", "label"]},
    },
}
LIKELIHOOD = {"task.form": "likelihood"}
GENERATION = {
    **TEXTS,
    "task": {
        **TEXTS["task"],
        "kind": "generation",
        "prompt": "{other} {text}",
        "completion": "{label}",
        "max_length": 60,
        "generation": {"max_new_tokens": 4},
    },
}
PARTS = [  # of a mixture
    {"as": "folder", **TEXTS["task"]},
    {"as": "other", **TEXTS["task"], "max_train_samples": 5, "max_length": 40},
]
MIXTURE = {**TEXTS, "task": {"kind": "mixture", "tasks": PARTS}}
NO_FORM = {"task.prompt": None, "task.completion": None}
PLAIN = NO_FORM | {"task.template": "text"}
CHAT = NO_FORM | {"task.template": "chat", "task.chat_template_file": "chat.jinja"}
SHORT = {"task.max_length": 36}
DRAWN = {"task.generation.temperature": 1.0}

DATA = {  # of every task kind
    "data_dir": Case("folder", {"task.files": None, "task.data_dir": "."}),
    "files.train": Case("folder/train.jsonl"),
    "files.validation": Case("folder/validation.jsonl"),
    "files.test": Case("folder/test.jsonl"),
    "hub.path": Case("acme/other", HUB),
    "hub.name": Case("fancy", HUB),
    "hub.revision": Case("abc123", HUB),
    "hub.train": Case("extra", HUB),
    "hub.validation": Case("extra", HUB),
    "hub.test": Case("extra", HUB),
    "source": Case("field_rows:many", SOURCE),
    "options": Case({"count": 7}, SOURCE),
    "labels": Case(["c", "b", "a"]),
    "drop_labels": Case(["c"], {"task.labels": ["a", "b"]}),
    "metrics": Case(["accuracy"]),
    "overlap": Case("refuse", refused="train row 1 = test row 1"),
    "encoding": Case("utf-16", refused="utf-16"),
    "delimiter": Case(";", refused="delimiter"),
    "quoting": Case("none", refused="quoting"),
    "empty": Case("refuse", {"task.files.train": "odd.jsonl", **LABELS}, refused="empty"),
    "duplicates": Case("drop", {"task.files.train": "twice.jsonl", **LABELS}),
    "test_share": Case(0.3, {"task.files.test": None, "task.files.validation": None}),
    "skip_bad": Case(1, {"task.files.train": "bad.jsonl", "task.labels": ["a", "b", "c"]}),
    "validation_share": Case(0.4, NO_VALIDATION),
    "validation_last": Case(3, NO_VALIDATION),
    "split_seed": Case(7, NO_VALIDATION | {"task.validation_share": 0.4}),
    "train_data_ratio": Case(0.5),
    "max_train_samples": Case(5),
    "max_validation_samples": Case(2),
    "max_test_samples": Case(2),
    "columns.label": Case("score"),
}
TASKS = {
    "classification": DATA | {
        "name": Case("mr", refused="is not one of neg, pos"),
        "kind": Case("images", refused="the backbone reads text"),
        "columns.text": Case("other"),
        "columns.pair": Case("other"),
        "regression": Case(True, {"task.columns.label": "score"}),
        "clean": Case(True),
        "class_weights": Case({"a": 5.0}),
        "max_length": Case(9),
    },
    "images": DATA | {
        "class_weights": Case({"a": 5.0}),
        "empty": Case("drop", refused="rows of images have none"),
        "name": Case("mnist", refused="is not one of 0, 1"),
        "kind": Case("classification", refused="the backbone reads images"),
        "columns.image": Case("picture"),
        "augment": Case(["crop"]),
    },
    "multiple_choice": DATA | {
        "name": Case("hellaswag", LIKELIHOOD),  # its prompt
        "kind": Case("classification", refused="unknown key in task.columns: 'question'"),
        "labels": Case(["c", "b", "a"]),
        "drop_labels": Case(
            ["c"], {"task.labels": ["a", "b"], "task.columns.choices": ["other", "text"]}
        ),
        "metrics": Case(["macro_f1"]),
        "columns.question": Case("{text} or {other}"),
        "columns.choices": Case(["text", "other", "label"]),
        "columns.label": Case("score", {"task.skip_bad": 9}),
        "layout": Case("instruction", refused="has no column 'instruction'"),
        "form": Case("likelihood"),
        "prompt": Case("Q: {question}\nA:", LIKELIHOOD),
        "normalise": Case("tokens", LIKELIHOOD),
        "max_length": Case(9),
    },
}  # fmt: skip
NO_LABELS = "labels and drop_labels are for classes"
TASKS["generation"] = {key: case for key, case in DATA.items() if key != "columns.label"} | {
    **{
        key: DATA[key]._replace(base={**DATA[key].base, "task.labels": None})
        for key in ("hub.path", "hub.name", "hub.revision", "hub.train", "hub.validation", "hub.test",
                    "source", "options")
    },
    "name": Case("mr", refused=NO_LABELS),
    "kind": Case("classification", refused="unknown key"),
    "labels": Case(["a"], refused=NO_LABELS),
    "drop_labels": Case(["a"], refused=NO_LABELS),
    "metrics": Case(["exact_match"]),
    "encoding": Case("utf-16", refused="utf-16"),
    "delimiter": Case(";", refused="delimiter"),
    "quoting": Case("none", refused="quoting"),
    "empty": Case("refuse", {"task.files.train": "odd.jsonl", **LABELS}, refused="empty"),
    "duplicates": Case("drop", {"task.files.train": "twice.jsonl", **LABELS}),
    "test_share": Case(0.3, {"task.files.test": None, "task.files.validation": None}),
    "skip_bad": Case(1, {"task.files.train": "broken.jsonl"}),
    "template": Case("chat", PLAIN, refused="has no chat template"),
    "prompt": Case("{text}: "),
    "completion": Case("{other}"),
    "columns.messages": Case("turns", CHAT),
    "columns.text": Case("other", PLAIN),
    "columns.reference": Case("score"),
    "no_answer": Case("none", {"task.completion": "{answers}"}),
    "chat_template": Case(True, refused="has no chat template"),
    "chat_template_file": Case("other.jinja", CHAT),
    "system": Case("Be brief.", CHAT),
    "loss_on": Case("all"),
    "cut": Case(["text"], SHORT),
    "max_length": Case(33, {"task.cut": ["text"]}),
    "max_left_out": Case(0.9, SHORT),
    "packing": Case("packed"),
    "generation.max_new_tokens": Case(5),
    "generation.temperature": Case(0.5),
    "generation.top_p": Case(0.5, DRAWN),
    "generation.top_k": Case(3, DRAWN),
    "generation.repetition_penalty": Case(1.5),
    "generation.stop": Case(["x"]),
    "generation.samples": Case(2, DRAWN),
    "generation.seed": Case(1, DRAWN),
    "generation.splits": Case(["validation"]),
    "generation.at_evaluations": Case(2, {"task.metrics": ["rougeL"]}),
    "execute_code": Case(
        True, {"task.metrics": ["pass_at_1"]}, refused="no label holds tests"
    ),
}  # fmt: skip

TASKS["generation"] |= {
    "empty": Case("refuse", {"task.files.train": "odd.jsonl"}, refused="empty"),
    "duplicates": Case("drop", {"task.files.train": "twice.jsonl"}),
    "columns.tools": Case("turns", CHAT, refused="which the chat template does not write"),
}

TASKS["mixture"] = {
    "name": Case("both"),
    "kind": Case("classification", refused="unknown key in task: 'tasks'"),
    "tasks": Case([PARTS[0], {**PARTS[1], "max_length": 9}]),
    "each": Case({"max_length": 9}),
    "data_dir": Case(
        "absent",
        {
            "task.data_dir": ".",
            "task.tasks": [{"as": "folder", "kind": "classification"}, PARTS[1]],
        },
        refused="absent/folder",
    ),
    "sampling": Case("proportional"),
    "temperature": Case(1.0, {"task.sampling": "temperature"}),
    "weights": Case([1.0, 3.0]),
    "head": Case("per_task"),
    "tag": Case(False),
}

READER = {
    **TEXTS,
    "backbone": {**TEXTS["backbone"], "max_length": 256},
    "task": {"kind": "elm", "data_dir": "vectors", "generation": {"max_new_tokens": 4}},
    "method": {"name": "elm", "hidden": 8},
}
ELSEWHERE = "for other tasks"  # what fields of other sources of rows are
TASKS["elm"] = {key: Case(*DATA[key][:1], refused=ELSEWHERE) for key in DATA if key != "columns.label"} | {
    **{key: TASKS["generation"][key] for key in TASKS["generation"] if key.startswith("generation.")},
    **{
        key: Case(DATA[key].value, {"task.files.train": "train.jsonl"}, refused="data_dir and files")
        for key in ("files.train", "files.validation", "files.test")
    },
    **{
        key: Case(DATA[key].value, {"task.hub.path": "acme/set"}, refused=ELSEWHERE)
        for key in ("hub.path", "hub.name", "hub.revision", "hub.train", "hub.validation", "hub.test")
    },
    "options": Case({"count": 7}, refused="come from elsewhere"),
    "name": Case("mr", refused=ELSEWHERE),
    "kind": Case("classification", refused="unknown key"),
    "data_dir": Case("others"),
    "metrics": Case(["exact_match"]),
    "overlap": Case("refuse", refused="train row 1 = test row 1"),
    "test_share": Case(0.3, {"task.data_dir": "train_alone"}),
    "validation_share": Case(0.4, {"task.data_dir": "train_alone"}),
    "validation_last": Case(3, {"task.data_dir": "train_alone"}),
    "split_seed": Case(7, {"task.data_dir": "train_alone", "task.validation_share": 0.4}),
    "skip_bad": Case(1, {"task.data_dir": "one_bad"}),
    **{
        key: DATA[key]
        for key in ("train_data_ratio", *(f"max_{s}_samples" for s in ("train", "validation", "test")))
    },
    "prompts": Case("rows"),
    "prompt_format": Case("chat", refused="has no chat template"),
    "num_tokens": Case(2),
    "max_length": Case(120, {"task.max_left_out": 0.9}),
    "max_left_out": Case(0.9, {"task.max_length": 120}),
}  # fmt: skip

SOURCES = {  # of a pretrained model
    "model": Case("other"),
    "revision": Case("main", refused="backbone.revision 'main' is for models on the hub"),
    "dtype": Case("bfloat16"),
    "attention": Case("eager"),
}
FOUR_BITS = {"backbone.quantization.bits": 4}
PICTURES = {"backbone.modality": "images"}
BACKBONES = {
    "encoder": SOURCES | {"max_length": Case(16)},
    "decoder": SOURCES
    | {
        "max_length": Case(16),
        "quantization.bits": Case(8, FOUR_BITS),
        "quantization.type": Case("fp4", FOUR_BITS),
        "quantization.double": Case(False, FOUR_BITS),
        "quantization.compute_dtype": Case("float32", FOUR_BITS),
    },
    "vision": SOURCES,
    "tiny": {
        "model": Case("minilm", refused="allowed: 'tiny'"),
        "modality": Case("images"),
        "width": Case(32),
        "layers": Case(2),
        "heads": Case(4),
        "dropout": Case(0.5),
        "max_length": Case(16),
        "image_size": Case(16, PICTURES),
        "patch_size": Case(4, PICTURES),
        "channels": Case(1, PICTURES),
        "seed": Case(1),
    },
}

LINEAR = {
    "alpha": Case(32.0),
    "dropout": Case(0.5),
    "targets": Case(["query"]),
    "peft": Case({"bias": "all"}),
}
LOW_RANK = LINEAR | {
    "rank": Case(4),
    "rslora": Case(True),
    "lora_plus_ratio": Case(16.0),
    "start_from": Case("adapter"),
    "start_head": Case(False, ADAPTER),
}
WITH_LORA, DRIFT = {"method.llm": "lora"}, {"method.drift": "adapter"}
MEAN, LORA = {"method.pooling": "mean"}, {"method.encoder": "lora"}
FIXED_SWITCH = {"method.mode": "seq2par"}
METHODS = {
    "full": {},
    "head": {},
    "bitfit": {},
    "lora": LOW_RANK | {"init": Case("pissa")},
    "dora": LOW_RANK,
    "pissa": LOW_RANK,
    "adalora": LINEAR | {
        "target_rank": Case(4),
        "initial_rank": Case(10),
        "warmup_share": Case(0.4),
        "final_share": Case(0.5),
        "allocate_share": Case(0.5),
        "smoothing": Case(0.5),
        "orthogonality": Case(0.1),
    },
    "elm": {  # of vectors as wide as tokens
        "hidden": Case(16),
        "dropout": Case(0.5),
        "residual": Case(0.5),
        "train_residual": Case(True),
        "start": Case("identity"),
        "norm": Case("source"),
        "llm": Case("lora"),
        "lora.rank": Case(2, WITH_LORA),
        "lora.alpha": Case(2.0, WITH_LORA),
        "lora.dropout": Case(0.5, WITH_LORA),
        "lora.targets": Case(["q_proj"], WITH_LORA),
        "drift": Case("adapter"),
        "drift_weight": Case(0.5, DRIFT),
        "drift_target": Case(1.0, DRIFT),
        "contrastive": Case(0.1),
        "temperature": Case(0.5, {"method.contrastive": 0.1}),
    },
    "jelly": {  # six steps, three an epoch; dynamic switches after four at the latest
        **{name: case for name, case in LINEAR.items() if name != "peft"},
        "rank": Case(4),
        "rslora": Case(True),
        "lora_plus_ratio": Case(16.0),
        "init": Case("gaussian"),
        "mode": Case("sequential"),
        "switch_method": Case("tip"),
        "switch_epoch": Case(0.5, FIXED_SWITCH),
        "switch_step": Case(1, FIXED_SWITCH),
        "nonsquare": Case("parallel"),
        "reset_optimizer": Case(False),
        "rewarmup_steps": Case(1),
        "criterion": Case("halves", refused="training.micro_batch_size to half"),
        "ema": Case(0.5),
        "drop_ratio": Case(0.5),
        "patience": Case(2),
        "warmup": Case(2),
        "minimum": Case(0.5),
        "latest": Case(2),
    },
    "pifi": {  # on a small donor, of which layer 1 is plugged in
        "plug": Case("random"),
        "projections": Case(False, {"method.plug": "none", "method.layer": "last"}),
        "llm": Case("other"),
        "revision": Case("main", refused="revision"),
        "layer": Case(2),
        "plug_mode": Case("sequence", MEAN),
        "pooling": Case("mean"),
        "pad_to": Case(100, {"method.pooling": "mean_with_padding", "method.pad_to": 120}),
        "residual": Case(True),
        "train_layer": Case(True),
        "dtype": Case("bfloat16"),
        "encoder": Case("frozen"),
        "lora.rank": Case(2, LORA),
        "lora.alpha": Case(2.0, LORA),
        "lora.dropout": Case(0.5, LORA),
        "lora.targets": Case(["query"], LORA),
        "head_dropout": Case(0.5),
    },
    "prefix": {
        "num_tokens": Case(5),
        "init": Case("random"),
        "peft": Case(
            {"prefix_projection": True, "encoder_hidden_size": 8}, {"method.init": "random"}
        ),
    },
    "prompt": {
        "num_tokens": Case(5),
        "init": Case("random"),
        "init_text": Case("good or bad?"),
        "peft": Case(
            {"num_transformer_submodules": 2},
            refused="peft.num_transformer_submodules is set from the backbone",
        ),
    },
}  # fmt: skip

WANDB = {"tracking.to": ["wandb"]}
TRACKING = {
    "to": Case(["wandb"]),
    "project": Case("mine", WANDB),
    "name": Case("first", WANDB),
    "tags": Case(["a"], WANDB),
    "offline": Case(True, WANDB),
}
PATHS = {
    "cache": Case("elsewhere", HUB),
    "prepared": Case("elsewhere", HUB),
    "runs": Case("elsewhere"),
}
ROOT = {
    "name": Case("another"), "seed": Case(1), "deterministic": Case(True),
    "analysis": Case({"every": 7}),
}  # fmt: skip
