"""A run file resolved: names, conflicts and files, all said at once, before anything is loaded."""

import json
import re
from dataclasses import replace
from typing import get_args

import jsonschema
import pytest
from faults import fault

from graftlab import config, registry, runfile
from graftlab.errors import Argument, ConfigError, DataError, GraftlabError
from graftlab.runfile import checks
from graftlab.tasks import elm
from graftlab.training.schedule import Config as Schedule
from graftlab.training.schedule import Plateau, factor

SCHEMA = jsonschema.Draft202012Validator(runfile.schema())
GOOD = """
backbone: {model: minilm}
task: {name: sst2}
method: {name: lora, rank: 4}
training: {epochs: 1}
"""


@pytest.fixture
def resolve(tmp_path):
    def resolve(text=GOOD, *overrides):
        path = tmp_path / "my-run.yaml"
        path.write_text(text, encoding="utf-8")
        return runfile.resolve(config.read(path, overrides))

    return resolve


@pytest.fixture
def refusal(resolve):
    def refusal(*arguments, error=ConfigError):
        with pytest.raises(error) as caught:
            resolve(*arguments)
        return str(caught.value)

    return refusal


def test_a_run_is_named_by_its_file_unless_it_says_otherwise(resolve):
    assert resolve().name == "my-run"
    assert resolve(GOOD, "name=other").name == "other"


@pytest.mark.parametrize(
    "name", ["../up", "a/b", ".hidden", '""', "' '", "a\\b", "x" * 250, "é" * 125]
)
def test_a_name_never_leaves_the_folder_of_runs(refusal, name):
    assert "name" in refusal(GOOD, f"name={name}")


def test_what_is_resolved_is_read_back_the_same(resolve, tmp_path):
    first = resolve()
    path = tmp_path / "elsewhere" / "config.yaml"
    path.parent.mkdir()
    path.write_text(config.dump(first.resolved), encoding="utf-8")
    again = runfile.resolve(config.read(path))
    assert again.resolved == first.resolved
    assert (again.name, again.training, again.method.config) == (
        first.name, first.training, first.method.config,
    )  # fmt: skip


def complete_recipes():
    """Return the recipes of a run; the others are what recipes extend, and studies."""
    keys = {
        name: set(re.findall(r"^(\w+):", path.read_text(encoding="utf-8"), re.M))
        for name, path in config.recipes().items()
        if name.rpartition("/")[2].split("-")[0] != "base"
    }
    runs = {name: k for name, k in keys.items() if not k & {"base", "methods"}}
    return [name for name, k in runs.items() if k & {"backbone", "extends"}]


def given(name, folder):
    """Return what a recipe wants of its user: vectors come from nowhere but a folder."""
    return [f"task.data_dir={elm.example(folder).data_dir}"] if name.startswith("elm/") else []


@pytest.mark.quick("quickstart/*", "glue/*", "template")
@pytest.mark.parametrize("name", complete_recipes())
def test_every_recipe_can_be_run_and_its_config_too(name, tmp_path):
    first = runfile.resolve(config.read(name, given(name, tmp_path)))
    path = tmp_path / "config.yaml"
    path.write_text(config.dump(first.resolved), encoding="utf-8")
    assert runfile.resolve(config.read(path)).resolved == first.resolved


@pytest.mark.parametrize("name", registry.names("methods"))
def test_every_method_can_be_named_without_a_field_and_keeps_its_defaults(name, resolve, tmp_path):
    given = GOOD.replace("lora, rank: 4", name)
    if registry.find("methods", name).PROMISES.reads_vectors:
        task = f"{{kind: elm, data_dir: {elm.example(tmp_path).data_dir}}}"
        given = given.replace("{name: sst2}", task).replace("minilm", "smollm2_135m")
    method = resolve(given).method
    assert method.config == method.module.Config()


def test_paths_are_absolute_so_that_a_run_resumes_from_anywhere(resolve, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUT", "out")
    resolved = resolve(GOOD, "paths.runs=$OUT/runs").resolved
    assert resolved["paths"]["runs"] == str(tmp_path / "out/runs")


def test_a_catalogue_entry_gives_what_the_file_leaves_out(resolve):
    task = resolve(GOOD, "task.max_train_samples=5").task
    assert task.name == "classification"
    assert task.config.labels == ("negative", "positive")
    assert task.config.max_train_samples == 5


def test_a_catalogue_entry_goes_by_all_its_names(resolve):
    spelled = {s: entry["name"] for s, entry in runfile.catalogue().items() if s != entry["name"]}
    assert spelled, "no entry has another spelling"
    for spelling, name in spelled.items():
        entry = runfile.catalogue()[name]
        if entry["kind"] == "classification" and {"hub", "source"} & entry.keys():
            assert resolve(GOOD, f"task.name={spelling}").resolved["task"]["name"] == name


def test_the_kind_of_a_backbone_follows_from_its_alias_or_its_folder(resolve, tmp_path):
    assert resolve().backbone.name == "encoder"
    folder = tmp_path / "with space" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        '{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'
    )
    run = resolve(GOOD, f"backbone.model={folder}")
    assert run.backbone.name == "decoder"
    assert run.resolved["backbone"]["model"] == str(folder)


def test_a_model_that_nobody_knows_is_refused_with_the_nearest_alias(resolve):
    with pytest.raises(ConfigError, match="'minilm'") as caught:
        resolve(GOOD, "backbone.model=minilmm")
    (problem,) = caught.value.problems
    assert (problem.kind, problem.given) == ("unknown", "minilmm")
    assert problem.place.argument == Argument("overrides", "backbone.model")


def test_all_that_is_wrong_is_said_at_once(refusal):
    message = refusal(
        "backbone: {model: minilm, lenght: 3}\n"
        "task: {name: sst22}\n"
        "method: {nmae: lora}\n"
        "trainig: {epochs: 1}\n"
        "training: {epochs: 0, schedule: {warmpu: 1}}\n"
        "seed: -1\n"
    )
    for part in (
        "7 problems:",
        ":1:27: unknown key in backbone: 'lenght'. Did you mean 'max_length'?",
        ":2:8: task.name: unknown task 'sst22'. Did you mean 'sst2'?",
        ":3:10: method.name is missing. Did you mean 'name' by 'nmae'?",
        ":4:1: unknown key: 'trainig'. Did you mean 'training'?",
        ":5:12: training.epochs is 0; allowed: a number above 0",
        ":5:34: unknown key in training.schedule: 'warmpu'. Did you mean 'warmup'?",
        ":6:1: seed is -1; allowed: a whole number at least 0",
    ):
        assert part in message


def test_conflicts_between_parts_are_said_together(refusal):
    message = refusal(
        "backbone: {model: minilm}\n"
        "task: {name: digits, metrics: [acuracy]}\n"
        "method: {name: lora}\n"
        "training: {max_steps: 5, schedule: {warmup: 9}, batch_size: 2, micro_batch_size: 4}\n"
    )
    assert "4 problems:" in message
    assert "'images'" in message
    assert "'accuracy'" in message
    assert "training.schedule.warmup (9 steps)" in message
    assert "training.micro_batch_size (4)" in message


def test_a_method_that_does_not_fit_the_backbone_says_so_before_loading(refusal):
    images = "backbone: {model: vit}\ntask: {name: digits}\nmethod: {name: prefix}\n"
    assert "'prefix'" in refusal(images)
    assert "albert" in refusal(GOOD.replace("lora, rank: 4", "prefix"), "backbone.model=albert")


def test_the_metric_that_chooses_must_be_one_of_the_tasks(refusal, resolve):
    assert "training.best_by: unknown metric 'f1'" in refusal(GOOD, "training.best_by=f1")
    assert resolve(GOOD, "training.best_by=loss").training.best_by == "loss"


def test_wrong_data_alone_is_a_data_error_and_with_others_a_config_error(refusal, tmp_path):
    missing = f"task.data_dir={tmp_path / 'nowhere'}"
    assert "nowhere" in refusal(GOOD, missing, error=DataError)
    assert "2 problems:" in refusal(GOOD, missing, "method.rank=0")


def test_a_wrong_column_is_found_without_loading(refusal, tmp_path):
    (tmp_path / "train.jsonl").write_text('{"sentnce": "good", "label": 1}\n')
    message = refusal(GOOD, f"task.data_dir={tmp_path}", error=DataError)
    assert "'sentnce'" in message


# spec: lr = 0, negative, 1e3; epochs 0; dropout 1.0; rank and batch out of range
@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("training.learning_rate=0", "most 100"),
        ("training.learning_rate=-1e-3", "most 100"),
        ("training.learning_rate=1e3", "most 100"),
        ("training.epochs=0", "above 0"),
        ("training.epochs=.inf", "a number above 0"),
        ("training.batch_size=0", "at least 1"),
        ("training.max_steps=-1", "at least 0"),
        ("training.schedule.warmup=-1", "at least 0"),
        ("training.label_smoothing=1", "least 0"),
        ("method.rank=0", "at least 1"),
        ("method.dropout=1.0", "least 0"),
        ("method.alpha=0", "above 0"),
        ("training.precision=fp8", "'fp32', 'bf16' or 'fp16'"),
    ],
)
def test_a_number_out_of_range_is_refused_with_the_range(refusal, override, allowed):
    assert f"allowed: {'' if allowed[0] == chr(39) else 'a '}" in refusal(GOOD, override)
    assert allowed in refusal(GOOD, override)


@pytest.mark.parametrize("section", ["backbone", "task", "method"])
def test_a_section_that_is_missing_or_no_section_is_said(refusal, section):
    without = "".join(line + "\n" for line in GOOD.splitlines() if not line.startswith(section))
    assert f"{section} is missing" in refusal(without)
    assert f"{section} is 'x'; allowed: a section" in refusal(without + f"{section}: x\n")
    assert f"{section}" in refusal(without + f"{section}: null\n")


@pytest.mark.parametrize("name", get_args(Schedule.model_fields["name"].annotation))
def test_keys_that_another_schedule_reads_are_noted(resolve, name):
    """What each reads is seen in the rates and in the plateau's scale, not taken from the list."""
    other = {"cycles": 3, "factor": 0.5, "step_every": 2, "patience": 0}

    def rates(**changed):
        config = Schedule(name=name, warmup=0, **changed)
        plateau = Plateau(config, True)
        for _ in range(5):
            plateau.update(0.5)
        return plateau.scale, [factor(step, 12, config) for step in range(1, 13)]

    read = {key for key, value in other.items() if rates(**{key: value}) != rates()}
    given = [f"training.schedule.{key}={value}" for key, value in other.items()]
    run = resolve(GOOD, f"training.schedule.name={name}", *given)
    noted = {note.fields["key"].rpartition(".")[2] for note in run.notes}
    assert noted == other.keys() - read


def test_epochs_that_an_override_sets_go_before_the_files_steps(resolve):
    steps = GOOD.replace("epochs: 1", "max_steps: 9")
    run = resolve(steps, "training.epochs=2")
    assert (run.training.epochs, run.training.max_steps) == (2, 0)
    [note] = run.notes
    assert (note.kind, note.fields["key"]) == ("no_effect", "training.max_steps")
    again = resolve(steps, "training.epochs=2", "training.max_steps=5")
    assert again.training.max_steps == resolve(GOOD, "training.max_steps=5").training.max_steps == 5
    assert resolve(steps, "training={epochs: 2}").notes == ()


def test_keys_without_effect_are_noted_with_their_place(resolve):
    run = resolve(GOOD, "training.max_steps=5", "tracking.project=mine")
    found = {note.fields["key"]: note for note in run.notes}
    assert {note.kind for note in run.notes} == {"no_effect"}
    assert found["training.epochs"].fields["because"] == "training.max_steps"
    assert found["tracking.project"].fields["because"] == "tracking.to"
    assert found["training.epochs"].fields["place"].endswith("my-run.yaml:5:12")
    assert found["tracking.project"].fields["place"] is None  # an override has set it
    assert resolve().notes == ()


def test_a_source_function_is_never_imported(resolve, tmp_path, monkeypatch):
    (tmp_path / "explodes.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = "{kind: classification, source: 'explodes:rows', labels: [a, b]}"
    assert resolve(GOOD.replace("{name: sst2}", own)).task.config.source == "explodes:rows"


def test_the_schema_knows_every_name_and_every_field():
    schema = json.loads(json.dumps(runfile.schema()))
    properties = schema["properties"]
    methods = {v["properties"]["name"]["const"]: v for v in properties["method"]["anyOf"]}
    assert sorted(methods) == registry.names("methods")
    for name, variant in methods.items():
        fields = registry.find("methods", name).Config.model_fields
        assert set(variant["properties"]) == {"name", *fields}
    kinds = {v["properties"]["kind"]["const"] for v in properties["backbone"]["anyOf"]}
    assert sorted(kinds) == registry.names("backbones")
    entries = [v["properties"]["name"]["enum"] for v in properties["task"]["anyOf"]]
    assert {name for names in entries for name in names if name} == set(runfile.catalogue())


def test_every_field_of_a_run_file_is_documented():
    def undocumented(node, path):
        for key, field in node.get("properties", {}).items():
            if not {"const", "enum", "description", "$ref"} & set(
                field
            ):  # what it refers to says it
                yield f"{path}.{key}"
        for key, value in node.items():
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, dict):
                    yield from undocumented(item, f"{path}.{key}")

    assert list(undocumented(runfile.schema(), "")) == []


def test_the_schema_refers_only_to_what_it_defines():
    text = json.dumps(runfile.schema())
    referred = {part.partition('"')[0] for part in text.split("#/$defs/")[1:]}
    assert referred == set(runfile.schema()["$defs"])


@pytest.mark.parametrize(
    "text",
    [
        "backbone: []", "task: {name: [1]}", "method: {name: {a: 1}}", "backbone: {kind: 3}",
        "backbone: {model: 3}", "task: {kind: null}", "training: []", "tracking: 1", "paths: x",
        "task: {kind: [a]}", "method: {name: null}", "backbone: {kind: {}}", "name: [a]",
    ],
)  # fmt: skip
def test_errors_are_ours_whatever_the_file_says(resolve, text):
    with pytest.raises(GraftlabError):
        resolve(text)


def test_a_section_that_only_an_override_names_is_placed_there(resolve):
    with pytest.raises(ConfigError) as caught:
        resolve(GOOD, "trainig.epochs=1")
    (problem,) = caught.value.problems
    assert problem.place.argument == Argument("overrides", "trainig.epochs")
    assert (problem.kind, problem.given) == ("unknown", "trainig")


def test_a_wrong_file_and_a_wrong_column_are_told_with_their_keys(refusal, tmp_path):
    (tmp_path / "rows.csv").write_text("sentence,label\na,x\nb,y\n")
    files = f"{{train: {tmp_path}/rows.csv, test: {tmp_path}/none.csv}}"
    text = GOOD.replace("{name: sst2}", f"{{kind: classification, files: {files}}}")
    message = refusal(text, error=DataError)
    assert ":3:38: task.files.train: " in message  # where `train` stands
    assert "task.columns" in message
    assert "task.files.test:" in message


@pytest.mark.parametrize("name", complete_recipes())
def test_every_recipe_fits_the_schema_that_editors_use(name):
    SCHEMA.validate(config.read_yaml(config.recipes()[name]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": "x"}, {"trainig": {}}, {"training": {"lr": 1}}, {"training": {"batch_size": 0}},
        {"method": {"name": "loar"}}, {"method": {"name": "lora", "rnak": 4}},
        {"task": {"name": "sst22"}}, {"backbone": {"model": 3}}, {"paths": {"runs": 1}},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_does_not_fit_the_schema(wrong):
    good = config.read_yaml(config.recipes()["quickstart/sst2"])
    SCHEMA.validate(good)
    assert not SCHEMA.is_valid({**good, **wrong})


def test_the_schema_is_one():
    SCHEMA.check_schema(SCHEMA.schema)


def test_a_study_is_told_apart_from_a_run(refusal):
    message = refusal("base: {extends: glue/sst2-lora}\nmethods: [lora, full]\n")
    assert ":1:1: this is a study" in message
    assert "graftlab compare " in message


def unusual(file):
    return [note.fields for note in checks.unusual_rate(file)]


def test_a_rate_that_a_method_does_not_usually_train_with_is_said():
    """The recipe's own method is LoRA, whose rate a full fine-tuning does not stand."""
    given = ["method={name: full}"]
    [note] = unusual(runfile.resolve(config.read("multitask/similar", given)))
    assert (note["method"], note["rate"]) == ("full", 2e-4)
    assert note["high"] < 2e-4
    assert unusual(runfile.resolve(config.read("multitask/similar"))) == []
    fine = [*given, "training.learning_rate=2e-5"]
    assert unusual(runfile.resolve(config.read("multitask/similar", fine))) == []


@pytest.mark.parametrize("name", registry.names("methods"))
def test_each_method_has_a_range_of_rates_and_both_its_ends_are_usual(name):
    low, high = registry.find("methods", name).PROMISES.usual_rates
    assert 0 < low < high <= 1
    file = runfile.resolve(config.read("trec/lora"))
    file = replace(file, method=replace(file.method, module=registry.find("methods", name)))

    def said(rate):
        training = file.training.model_copy(update={"learning_rate": rate})
        return bool(unusual(replace(file, training=training)))

    assert [said(rate) for rate in (low, high, low / 2, high * 2)] == [False, False, True, True]


def test_rates_of_sgd_are_its_own(resolve):
    given = ("training.learning_rate=0.5", "training.optimizer.name=sgd")
    assert unusual(resolve(GOOD, *given)) == []
    assert unusual(resolve(GOOD, *given[:1])) != []


@pytest.mark.parametrize("name", complete_recipes())
def test_no_recipe_leaves_the_usual_range_of_its_method(name, tmp_path):
    assert unusual(runfile.resolve(config.read(name, given(name, tmp_path)))) == []


@pytest.fixture
def chat(tmp_path):
    """A folder with a model whose tokenizer has no chat template, and conversations."""
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"messages": turns, "question": "q", "answer": "a"}) + "\n"
    )
    return (
        f"backbone: {{model: {tmp_path}}}\nmethod: {{name: lora}}\n"
        "task: {kind: generation, files: {train: rows.jsonl}, template: chat}\n"
    )


def test_chats_on_a_model_without_a_chat_template_are_refused_before_it_is_loaded(resolve, chat):
    with pytest.raises(ConfigError, check=fault("no_template", "task.template")):
        resolve(chat)
    columns = ["template=null", 'prompt="{question}"', 'completion="{answer}"']
    filled = [f"task.{key}" for key in (*columns, "chat_template=true")]
    with pytest.raises(ConfigError, check=fault("no_template", "task.chat_template")):
        resolve(chat, *filled)
    one = "{kind: generation, template: chat, as: one, files: {train: rows.jsonl}}"
    two = one.replace("one", "two").replace("chat,", "text, columns: {text: answer},")
    with pytest.raises(ConfigError, check=fault("no_template", "task.tasks.1.template")):
        resolve(chat.partition("task:")[0] + f"task: {{kind: mixture, tasks: [{two}, {one}]}}")


@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_chat_template_is_found_where_tokenizers_keep_it(resolve, chat, tmp_path, place):
    text = '{"chat_template": "x"}' if place.endswith(".json") else "x"
    (tmp_path / place).write_text(text)
    assert resolve(chat).task.config.template == "chat"


def test_a_chat_template_of_the_run_file_is_enough(resolve, chat, tmp_path):
    (tmp_path / "own.jinja").write_text("x")
    own = f"task.chat_template_file={tmp_path / 'own.jinja'}"
    assert resolve(chat, own).task.config.template == "chat"
