"""Every line of docs/security.md: what a file asks for, and that nothing of it runs."""

import ast
import contextlib
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from finished_runs import make_bert
from outside_packages import install_module
from safetensors.torch import save_file
from typer.testing import CliRunner

import graftlab
from graftlab import cli, config, study
from graftlab.adapters import files
from graftlab.backbones import encoder, tiny
from graftlab.config import Paths
from graftlab.contracts import Problem
from graftlab.data import foreign_code, hub
from graftlab.data.labels import Unusable
from graftlab.data.section import Hub
from graftlab.errors import ConfigError, DataError, Refused
from graftlab.methods import lora
from graftlab.programs import sandbox
from graftlab.tasks import classification
from graftlab.tasks.generation import chat

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
CODE = """
from pathlib import Path
from os import system
Path({imported!r}).touch()


def rows(count=12):
    Path({called!r}).touch()
    row = lambda i: {{"text": f"row {{i}}", "label": "ab"[i % 2]}}
    starts = {{"train": 0, "validation": 50, "test": 90}}
    return {{s: [row(n + i) for i in range(count)] for s, n in starts.items()}}
"""
TASK = {"kind": "classification", "source": "stranger_rows:rows", "labels": ["a", "b"]}
FILE = {
    "backbone": {"kind": "tiny", "width": 16, "layers": 1},
    "task": TASK,
    "method": {"name": "lora", "rank": 2},
    "training": {"max_steps": 1, "batch_size": 4},
}


def invoke(*arguments, env=None):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], env=env)


class Place:
    """A folder with a run file whose rows a package makes, and with what that package has done."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "run.yaml"
        self.imported, self.called = folder / "imported", folder / "called"
        self.code = CODE.format(imported=str(self.imported), called=str(self.called))
        self.write()

    def write(self, **task):
        self.file.write_text(config.dump({**FILE, "task": {**TASK, **task}}))

    def forget(self):
        """Have the module imported anew, and its traces gone."""
        sys.modules.pop("stranger_rows", None)
        self.imported.unlink(missing_ok=True)
        self.called.unlink(missing_ok=True)

    @property
    def untouched(self):
        return not self.imported.exists() and not self.called.exists()


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Place(tmp_path)
    yield place
    place.forget()


@pytest.fixture
def place(empty, monkeypatch, tmp_path_factory):
    """`empty`, with the package installed."""
    installed = install_module(tmp_path_factory.mktemp("site"), "stranger_rows", empty.code)
    monkeypatch.syspath_prepend(installed)
    return empty


def test_the_page_and_these_tests_name_each_other():
    tests = set(re.findall(r"^def (test_\w+)", Path(__file__).read_text(encoding="utf-8"), re.M))
    named = re.findall(r"`(test_\w+)`", PAGE)
    assert sorted(named) == sorted(tests - {"test_the_page_and_these_tests_name_each_other"})


def test_no_command_calls_a_function_that_a_file_names_without_the_flag(place):
    with foreign_code.allowed():
        done = graftlab.run(place.file, out="done")
    study_file = {"base": "run.yaml", "methods": ["lora"]}
    (place.folder / "study.yaml").write_text(config.dump(study_file))
    unfinished = place.folder / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.yaml").write_bytes((done.path / "config.yaml").read_bytes())
    place.forget()
    for command in (
        ("run", place.file, "--out", "new"), ("plan", place.file), ("prepare", place.file),
        ("show", "batch", place.file), ("compare", "study.yaml", "--out", "compared"),
        ("resume", unfinished), ("evaluate", "done"),
        ("push", "done", "--data", "--dry-run", "--repo", "me/it"),
    ):  # fmt: skip
        result = invoke(*command, "--json")
        assert result.exit_code == Refused.exit_code, (command, result.output)
        error = json.loads(result.stdout)["error"]
        assert error["problems"][0]["kind"] == "foreign_code", command
        for word in ("stranger_rows:rows", "stranger_rows 1.5", "--allow-code"):
            assert word in error["message"], command
        assert place.untouched, command
    assert not Path("new").exists()
    assert not list(Path("compared").glob("runs/*"))
    assert invoke("merge", "done", "--out", "merged").exit_code == 0  # compares made-up inputs
    assert place.untouched


def test_with_the_flag_it_is_called_and_named(place, caplog):
    place.write(options={"count": 6})
    result = invoke("run", place.file, "--out", "done", "--allow-code", "--json")
    assert result.exit_code == 0, result.output
    assert place.called.exists()
    assert "calling stranger_rows:rows(count=6) of stranger_rows 1.5" in caplog.text
    assert invoke("evaluate", "done", "--allow-code").exit_code == 0
    assert not foreign_code.is_allowed(), "the leave outlasts the command"
    with pytest.raises(Refused):
        graftlab.load("done").evaluate("test")
    assert graftlab.load("done", allow_code=True).evaluate("test")
    (place.folder / "study.yaml").write_text(config.dump({"base": "run.yaml", "methods": ["lora"]}))
    with pytest.raises(Refused):
        study.carry_out(study.read("study.yaml"), Path("compared"), quiet=True)


def test_neither_a_file_nor_the_environment_gives_the_flag(place):
    for key in ("allow_code=true", "task.allow_code=true", "training.allow_code=true"):
        assert invoke("run", place.file, "--set", key).exit_code == ConfigError.exit_code
    names = ("ALLOW_CODE", "GRAFTLAB_ALLOW_CODE", "GRAFTLAB_RUN_ALLOW_CODE")
    result = invoke("run", place.file, env=dict.fromkeys(names, "1"))
    assert result.exit_code == Refused.exit_code
    assert place.untouched


def test_pythons_own_library_is_never_called(empty):
    for source in ("os:system", "subprocess:run", "builtins:eval", "posix:system", "os.path:join"):
        empty.write(source=source, options={"command": f"touch {empty.called}"})
        for command in ("run", "check"):
            more = ("--allow-code",) if command == "run" else ()
            assert invoke(command, empty.file, *more).exit_code == Refused.exit_code, source
    assert empty.untouched


def test_what_lies_in_the_working_folder_is_never_called(empty, monkeypatch):
    monkeypatch.syspath_prepend(empty.folder)
    (empty.folder / "stranger_rows.py").write_text(empty.code)
    assert invoke("run", empty.file, "--allow-code").exit_code == Refused.exit_code
    install_module(empty.folder, "stranger_rows", empty.code)  # as if pip had put it there
    assert invoke("run", empty.file, "--allow-code").exit_code == Refused.exit_code
    assert empty.untouched


def test_a_module_before_an_installed_one_of_its_name_is_never_called(place, monkeypatch):
    shadow = place.folder / "shadow"
    shadow.mkdir()
    (shadow / "stranger_rows.py").write_text(place.code)
    monkeypatch.syspath_prepend(shadow)
    assert invoke("run", place.file, "--allow-code").exit_code == Refused.exit_code
    assert place.untouched


def test_a_function_that_a_package_only_passes_on_is_not_called(place):
    place.write(source="stranger_rows:system", options={"command": f"touch {place.called}"})
    assert invoke("run", place.file, "--allow-code").exit_code == Refused.exit_code
    assert not place.called.exists()


def test_check_names_what_would_be_called_and_does_not_import_it(place):
    place.write(options={"count": 8})
    result = invoke("check", place.file, "--json")
    assert result.exit_code == 0, result.output
    (call,) = json.loads(result.stdout)["code"]
    assert (call["source"], call["options"]) == ("stranger_rows:rows", {"count": 8})
    assert call["distribution"] == "stranger_rows 1.5"
    assert Path(call["file"]).name == "stranger_rows.py"
    assert "stranger_rows:rows(count=8)" in invoke("check", place.file).stdout
    assert place.untouched


@pytest.mark.slow
def test_the_projects_own_sources_need_no_flag():
    for path in ROOT.glob("graftlab/tasks/catalogue/*.yaml"):
        sources = re.findall(r"^source: *(\S+)", path.read_text(encoding="utf-8"), re.M)
        assert set(sources) <= set(foreign_code.OWN), path.name
    assert not foreign_code.is_allowed()
    task = classification.Config(source="graftlab.rundir.files:write_text", labels=["a", "b"])
    with pytest.raises(Refused):
        classification.read(task, Paths(), 0)


def test_programs_that_a_file_wants_run_need_the_flag_and_the_sandbox(empty, monkeypatch):
    rows = [{"prompt": f"{i}", "code": "pass", "tests": ["assert f()"]} for i in range(12)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (empty.folder / "train.jsonl").write_text(text)
    task = {
        "kind": "generation", "files": {"train": "train.jsonl"}, "prompt": "{prompt}",
        "completion": "{code}", "columns": {"reference": ["tests"]}, "metrics": ["pass_at_1"],
        "execute_code": True,
    }  # fmt: skip
    empty.file.write_text(config.dump({**FILE, "task": task}))
    monkeypatch.setattr(sandbox, "check", lambda: None)
    result = invoke("run", empty.file, "--out", "new", "--json")
    assert result.exit_code == Refused.exit_code, result.output
    assert json.loads(result.stdout)["error"]["problems"][0]["key"] == "task.execute_code"
    assert not Path("new").exists()


def test_python_m_graftlab_imports_nothing_from_the_working_folder(empty):
    (empty.folder / "typer.py").write_text(empty.code)
    (empty.folder / "wandb.py").write_text(empty.code)
    done = subprocess.run(
        [sys.executable, "-m", "graftlab", "list", "methods"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert empty.untouched


def test_a_run_file_holds_values_and_no_objects(empty):
    for tag in ("!!python/object/apply:os.system ['touch called']", "!!python/name:os.system"):
        empty.file.write_text(f"backbone: {tag}\n")
        assert invoke("check", empty.file).exit_code == ConfigError.exit_code
    assert empty.untouched


class Exploit:
    """Its pickle makes a file where it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickled_weights_of_a_model_are_refused(empty):
    made = make_bert(empty.folder / "bert")
    (made / "model.safetensors").unlink()
    (made / "pytorch_model.bin").write_bytes(pickle.dumps(Exploit(empty.called)))
    with pytest.raises(Refused):
        encoder.load(encoder.Config(model=str(made)), Problem("classes", ("a", "b")), 0)
    assert empty.untouched


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_in_a_model_folder_is_not_run(empty, file):
    made = make_bert(empty.folder / "bert")
    (made / "modeling_own.py").write_text(empty.code + "\nclass Own: pass\n")
    told = json.loads((made / file).read_text())
    auto = dict.fromkeys(("AutoConfig", "AutoModelForSequenceClassification"), "modeling_own.Own")
    told |= {"model_type": "own", "tokenizer_class": "Own", "auto_map": auto}
    told["auto_map"] |= {"AutoTokenizer": ["modeling_own.Own", None]}
    (made / file).write_text(json.dumps(told))
    # transformers has a tokenizer of its own for this model, and takes that
    refused = pytest.raises(Refused) if file == "config.json" else contextlib.nullcontext()
    with refused:
        encoder.load(encoder.Config(model=str(made)), Problem("classes", ("a", "b")), 0)
    assert empty.untouched


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_kernels_that_a_model_folder_asks_for_are_refused(empty, key):
    made = make_bert(empty.folder / "bert")
    told = json.loads((made / "config.json").read_text())
    for asked in ({key: "stranger/kernel@main"}, {"text_config": {key: {"": "stranger/kernel"}}}):
        (made / "config.json").write_text(json.dumps({**told, **asked}))
        with pytest.raises(Refused):
            encoder.load(encoder.Config(model=str(made)), Problem("classes", ("a", "b")), 0)


def test_a_chat_template_runs_in_a_sandbox(empty):
    problem = Problem("classes", ("a", "b"))
    tokenizer = tiny.load(tiny.Config(), problem, 0).processor
    attacks = (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.system('touch " + str(empty.called) + "') }}",
        "{% if messages.append(1) %}{% endif %}",
    )
    for attack in attacks:
        with pytest.raises(Unusable):
            chat.Renderer(tokenizer, attack).text([{"role": "user", "content": "x"}])
    assert empty.untouched


def test_a_pickled_adapter_is_refused(empty):
    folder = empty.folder / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Exploit(empty.called)))
    with pytest.raises(Refused):
        files.read(folder)
    assert empty.untouched


def test_a_module_that_an_adapter_or_a_method_names_is_not_imported(empty, monkeypatch):
    import torch

    folder = empty.folder / "adapter"
    folder.mkdir()
    told = {"peft_type": "LORA", "megatron_config": {"a": 1}, "megatron_core": "stranger_rows"}
    (folder / "adapter_config.json").write_text(json.dumps(told))
    save_file({"a": torch.zeros(1)}, folder / "adapter_model.safetensors")
    with pytest.raises(Refused):
        files.read(folder)
    for name in ("megatron_config", "megatron_core"):
        with pytest.raises(ValueError, match=name):
            lora.Config(peft={name: told[name]})


def test_a_data_set_with_a_script_is_refused(tmp_path):
    said = RuntimeError("Dataset scripts are no longer supported, but found set.py")
    assert isinstance(hub.explain(said, Hub(path="a/set"), tmp_path), Refused)


def test_pickles_among_data_are_no_rows(empty):
    for name in ("train.pkl", "train.pickle", "train.pt", "train.npy"):
        data = empty.folder / name.replace(".", "-")
        data.mkdir()
        (data / name).write_bytes(pickle.dumps(Exploit(empty.called)))
        for where in ({"data_dir": data}, {"files": {"train": data / name}}):
            with pytest.raises((DataError, ConfigError)):
                classification.read(classification.Config(**where, labels=["a"]), Paths(), 0)
    assert empty.untouched


UNSAFE = {
    "pickle.load", "pickle.loads", "torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
    "os.system", "os.popen", "marshal.loads", "shelve.open", "joblib.load", "eval", "exec",
    "runpy.run_path", "runpy.run_module",
}  # fmt: skip


def test_nothing_here_opens_a_pickle_or_evaluates_a_text():
    found = []
    for path in ROOT.glob("graftlab/**/*.py"):
        if "programs/inside" in path.as_posix():  # runs in the sandbox, and is what it is for
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in UNSAFE:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
            told = {k.arg: ast.unparse(k.value) for k in getattr(node, "keywords", ())}
            if {told.get("shell"), told.get("allow_pickle"), told.get("trust_remote_code")} & {
                "True"
            }:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []
