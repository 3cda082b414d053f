"""What a push uploads, when it does, and what it says when the hub does not take it."""

import base64
import gzip
import json
import socket

import huggingface_hub.constants
import numpy as np
import pytest
from faults import fault
from PIL import Image
from push_hub import LARGE, TOKEN, PushHub
from safetensors.numpy import save_file
from typer.testing import CliRunner

from graftlab import cli, config, runfile
from graftlab.errors import Argument, ConfigError, DataError, ModelError
from graftlab.release.push import Options
from graftlab.release.push import push as push_run
from graftlab.rundir import files
from graftlab.rundir.run import Run
from graftlab.runfile import measures

SCORE = {"value": 0.75, "standard_error": 0.125, "reason": None}
UNDEFINED = {"value": None, "standard_error": None, "reason": "one | class"}
ROWS = [{"sentence": f"a film {i}", "label": i % 2} for i in range(12)]


def finished(folder, **changes):
    """Write what a finished run has left of itself, without carrying it out."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    for number, split in enumerate(("train", "validation", "test")):
        rows = [{**row, "sentence": f"{row['sentence']} {number}"} for row in ROWS]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "name": "a film critic",
        "backbone": {"kind": "encoder", "model": "acme/base", "revision": "abc"},
        "task": {"name": "sst2", "data_dir": str(data)},
        "method": {"name": "lora", "rank": 4},
        "paths": {"runs": str(folder / "runs")},
    }
    values = config.merge(values, changes)
    values["method"] = {key: value for key, value in values["method"].items() if value is not None}
    path = folder / "run.yaml"
    path.write_text(config.dump(values), encoding="utf-8")
    file = runfile.resolve(config.read(path))
    run = Run(folder / "runs" / "one")
    run.adapter.mkdir(parents=True)
    run.config.write_text(config.dump(file.resolved), encoding="utf-8")
    record = file.task.module.read(file.task.config, file.paths, file.seed).record
    backbone = {
        "source": file.resolved["backbone"]["model"],
        "revision": "abc123",
        "sha256": {"m": "f00d"},
    }
    files.write_json(
        run.environment,
        {
            "packages": {"graftlab": "0.1.0"}, "platform": "secret machine", "backbone": backbone,
            "data": {"problem": "classes", "labels": ["negative", "positive"], **record},
        },
    )  # fmt: skip
    scores = {"accuracy": SCORE, "macro_f1": UNDEFINED, "loss": {"value": 0.5}}
    files.write_json(
        run.result,
        {
            "name": "a film critic", "task": "sst2", "method": "lora", "seed": 0, "steps": 4,
            "backbone": backbone["source"], "selected_step": 3, "selected_by": "accuracy",
            "parameters": {"trainable": 10, "total": 1000}, "not_exact": ["memory ran out"],
            "data": record["sizes"], "metrics": {"validation": scores, "test": scores},
        },
    )  # fmt: skip
    save_file({"a": np.arange(6, dtype=np.float32)}, run.adapter / "adapter_model.safetensors")
    adapter = {"peft_type": "LORA", "base_model_name_or_path": backbone["source"], "r": 4}
    files.write_json(run.adapter / "adapter_config.json", adapter)
    return run


@pytest.fixture
def run(tmp_path):
    return finished(tmp_path)


@pytest.fixture
def hub(monkeypatch):
    constants = huggingface_hub.constants
    with PushHub().running() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        for proxy in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(proxy, raising=False)
            monkeypatch.delenv(proxy.upper(), raising=False)
        yield server


def push(run, repo="me/critic", data=False, **options):
    return push_run(run.path, repo, data, Options(**options))


def test_adapter_card_run_file_and_scores_are_in_the_new_repository(run, hub):
    [done] = push(run)
    files = hub.repos["model", "me/critic"]["files"]
    assert sorted(files) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "config.yaml",
        "environment.json", "manifest.json", "result.json",
    ]  # fmt: skip
    for path in run.adapter.iterdir():
        assert files[path.name] == path.read_bytes()
    assert json.loads(files["result.json"]) == run.read_result()
    assert done.url == f"{hub.address}/me/critic"
    assert (sorted(done.uploaded), done.unchanged) == (sorted(files), ())
    assert not hub.repos["model", "me/critic"]["private"]


def test_nothing_is_uploaded_twice_unless_it_has_changed(run, hub):
    push(run)
    before = len(hub.asked)
    [again] = push(run)
    assert (again.uploaded, again.commit) == ((), None)
    assert [command for command, _ in hub.asked[before:]] == ["GET"]
    save_file({"a": np.ones(6, dtype=np.float32)}, run.adapter / "adapter_model.safetensors")
    [changed] = push(run)
    assert changed.uploaded == ("adapter_model.safetensors", "manifest.json")
    commits = hub.repos["model", "me/critic"]["commits"]
    assert sorted(commits[1]) == [
        ("file", "manifest.json"),
        ("lfsFile", "adapter_model.safetensors"),
    ]


def test_force_commits_what_is_there_already(run, hub):
    push(run)
    before = dict(hub.repos["model", "me/critic"]["files"])
    [done] = push(run, force=True)
    repo = hub.repos["model", "me/critic"]
    assert repo["files"] == before
    assert {name for _, name in repo["commits"][1]} == set(before) == set(done.uploaded)


def test_a_dry_run_says_what_would_go_and_writes_nothing(run, hub):
    [done] = push(run, dry_run=True)
    assert "adapter_model.safetensors" in done.uploaded
    assert not hub.repos
    assert {command for command, _ in hub.asked} == {"GET"}


def test_without_a_name_it_is_the_accounts_and_the_runs(run, hub):
    [done] = push(run, repo=None)
    assert done.repo == "me/a-film-critic"


def test_a_private_repository_is_private_and_a_public_one_is_not_taken_for_it(run, hub):
    push(run, private=True)
    assert hub.repos["model", "me/critic"]["private"]
    push(run, repo="me/open")
    with pytest.raises(ConfigError, check=fault("conflict")):
        push(run, repo="me/open", private=True)


def test_data_go_to_a_data_set_of_their_own_and_read_back_as_the_runs(run, hub, tmp_path):
    _, done = push(run, data=True)
    found = hub.repos["dataset", "me/critic-data"]["files"]
    assert (done.repo, done.kind) == ("me/critic-data", "dataset")
    assert sorted(found) == ["README.md", "test.jsonl.gz", "train.jsonl.gz", "validation.jsonl.gz"]
    folder = tmp_path / "fetched"
    folder.mkdir()
    for name, content in found.items():
        (folder / name).write_bytes(content)
    file = runfile.resolve(config.read(run.config, [f"task.data_dir={folder}"]))
    again = file.task.module.read(file.task.config, file.paths, file.seed)
    assert again.record["fingerprint"] == files.read_json(run.environment)["data"]["fingerprint"]
    card = huggingface_hub.DatasetCard(found["README.md"].decode())
    [listed] = card.data["configs"]
    assert {file["path"] for file in listed["data_files"]} == {
        n for n in found if n.endswith(LARGE)
    }
    assert push(run, data=True)[1].uploaded == ()


def test_rows_of_a_run_file_go_without_a_run_and_are_those_of_its_run(run, hub, tmp_path):
    args = ["push", f"{tmp_path}/run.yaml", "--data", "--repo", "me/critic", "--json"]
    result = CliRunner().invoke(cli.app, args)
    assert result.exit_code == 0, result.output
    [done] = json.loads(result.stdout)["pushed"]
    assert (done["repo"], done["kind"]) == ("me/critic-data", "dataset")
    assert [*hub.repos] == [("dataset", "me/critic-data")]
    assert push(run, data=True)[1].uploaded == ()


def test_the_rows_of_a_mixture_go_in_a_folder_a_task_and_read_back_as_those_of_the_file(
    hub, tmp_path
):
    for task in ("films", "books"):
        (tmp_path / task).mkdir()
        finished(tmp_path / task)
    tasks = [
        {"name": "sst2", "as": task, "data_dir": str(tmp_path / task / "data")}
        for task in ("films", "books")
    ]
    values = {
        "name": "both",
        "backbone": {"kind": "tiny"},
        "task": {"kind": "mixture", "tasks": tasks},
        "method": {"name": "lora"},
    }
    path = tmp_path / "both.yaml"
    path.write_text(config.dump(values))
    args = ["push", str(path), "--data", "--repo", "me/both", "--json"]
    assert CliRunner().invoke(cli.app, args).exit_code == 0
    found = hub.repos["dataset", "me/both-data"]["files"]
    card = huggingface_hub.DatasetCard(found["README.md"].decode())
    assert {listed["config_name"]: listed["data_files"] for listed in card.data["configs"]} == {
        task: [
            {"split": s, "path": f"{task}/{s}.jsonl.gz"} for s in ("train", "validation", "test")
        ]
        for task in ("films", "books")
    }
    for name, content in found.items():
        (tmp_path / "fetched" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fetched" / name).write_bytes(content)
    fetched = [
        f"task.tasks.{task}.data_dir={tmp_path}/fetched/{task}" for task in ("films", "books")
    ]
    prints = []
    for overrides in ([], fetched):
        file = runfile.resolve(config.read(path, overrides))
        data = file.task.module.read(file.task.config, file.paths, file.seed)
        prints.append(data.record["fingerprint"])
    assert prints[0] == prints[1]


def test_a_run_file_without_its_data_is_told_what_can_be_done(tmp_path, hub):
    finished(tmp_path)
    result = CliRunner().invoke(cli.app, ["push", f"{tmp_path}/run.yaml", "--json"])
    assert result.exit_code == 2
    [problem] = json.loads(result.stdout)["error"]["problems"]
    assert problem["kind"] == "not_a_run"
    assert not hub.repos


def test_images_go_to_the_hub_with_their_bytes(hub, tmp_path):
    for i in range(24):
        file = tmp_path / "parts" / ("rust", "clean")[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 6), (9 * i, i, 7)).save(file)
    task = {
        "name": None,
        "kind": "images",
        "data_dir": None,
        "files": {"train": f"{tmp_path}/parts"},
    }
    run = finished(tmp_path, backbone={"kind": "vision"}, task=task)
    push(run, data=True)
    found = hub.repos["dataset", "me/critic-data"]["files"]
    lines = gzip.decompress(found["train.jsonl.gz"]).decode().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) > 12
    for row in rows:
        kept = tmp_path / "parts" / row["label"] / row["image"]["path"]
        assert base64.b64decode(row["image"]["bytes"]) == kept.read_bytes()


def test_data_that_have_changed_are_not_uploaded_and_neither_is_anything_else(run, hub, tmp_path):
    path = tmp_path / "data" / "test.jsonl"
    path.write_text(path.read_text().replace("film 3", "book 3"))
    with pytest.raises(DataError, check=fault("changed", given=["test"])):
        push(run, data=True)
    assert not hub.repos


FAILURES = {
    ("critic", 401): "does not know the account",
    ("critic", 403): "may not write to me/critic",
    ("create", 404): "has no place for me/critic",
    ("create", 403): "may not write to me/critic",
    ("create", 429): "too many requests",
    ("create", 500): "failed with 500",
    ("commit", 400): "does not take what is sent",
    ("commit", 412): "changed by somebody else",
    ("commit", 413): "too large",
    ("batch", 403): "may not write",
}


@pytest.mark.quick("create-403", "commit-413")
@pytest.mark.parametrize(("place", "status"), FAILURES)
def test_each_failure_has_a_message_of_its_own_and_no_token(run, hub, place, status):
    hub.statuses[place] = status
    with pytest.raises(ModelError, match=FAILURES[place, status]) as caught:
        push(run)
    assert TOKEN not in str(caught.value)


def test_what_somebody_else_commits_in_the_meantime_is_not_written_over(run, hub):
    push(run)
    save_file({"a": np.ones(6, dtype=np.float32)}, run.adapter / "adapter_model.safetensors")
    hub.is_shared = True
    with pytest.raises(ModelError, match=r"meantime \(412\)"):
        push(run)
    assert hub.repos["model", "me/critic"]["commits"][1:] == [["another's"]]


def test_a_token_that_is_wrong_or_missing_is_called_so(run, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_anotherSecretToken")
    with pytest.raises(ModelError, match=r"HF_TOKEN \(401\)") as caught:
        push(run)
    assert "hf_another" not in str(caught.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match="HF_TOKEN"):
        push(run)


def test_offline_and_out_of_reach_are_told_apart(run, hub, monkeypatch):
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.invalid")
    with pytest.raises(ModelError, match=r"cannot be resolved \(DNS\)"):
        push(run)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ModelError, match="out of reach"):
            push(run)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE forbids"):
        push(run)


@pytest.mark.parametrize("repo", ["critic", "me/a b", "a/b/c", "me/../x", "me/-x"])
def test_a_name_that_the_hub_does_not_take_is_refused_before_it_is_asked(run, hub, repo):
    with pytest.raises(ConfigError) as caught:
        push(run, repo=repo)
    (problem,) = caught.value.problems
    assert (problem.kind, problem.place.argument) == ("not_allowed", Argument("repo", repo))
    assert hub.asked == []


def test_the_card_tells_base_data_and_scores_in_the_hubs_own_words(run, hub):
    push(run)
    card = huggingface_hub.ModelCard.load(run.adapter / "README.md")
    data = card.data
    assert (data.base_model, data.library_name) == ("acme/base", "peft")
    assert data.base_model_relation == "adapter"
    assert data.pipeline_tag == "text-classification"
    assert data.tags == ["graftlab", "lora"]
    assert data.metrics == ["accuracy"]
    scores = {(r.dataset_split, r.metric_type): r.metric_value for r in data.eval_results}
    assert scores == {(s, m): v for s in ("validation", "test")
                      for m, v in (("accuracy", 0.75), ("loss", 0.5))}  # fmt: skip
    assert "| test | accuracy | 0.7500 | 0.1250 | 0.5050 to 0.9950 | 12 |" in card.text
    assert "one \\| class" in card.text
    assert (
        'AutoModelForSequenceClassification.from_pretrained("acme/base", num_labels=2)' in card.text
    )
    assert 'PeftModel.from_pretrained(base, "me/critic")' in card.text
    assert "Not exactly repeatable: memory ran out" in card.text


def test_how_to_load_it_fits_what_the_method_saves(tmp_path, hub):
    def card(name, **changes):
        (tmp_path / name).mkdir()
        run = finished(tmp_path / name, **changes)
        if name == "pissa":
            save_file({"a": np.ones(2)}, run.adapter / "initial_adapter.safetensors")
        if name in ("head", "full"):
            (run.adapter / "adapter_config.json").unlink()
        if name == "full":
            files.write_json(run.adapter / "config.json", {"model_type": "bert"})
        push(run, repo=f"me/{name}")
        return huggingface_hub.ModelCard.load(run.adapter / "README.md")

    assert "import graftlab.auto" in card("jelly", method={"name": "jelly"}).text
    pissa = card("pissa", method={"name": "pissa"})
    assert "graftlab export" in pissa.text
    assert "PeftModel" not in pissa.text
    head = card("head", method={"name": "head", "rank": None})
    assert "`head`" in head.text
    assert head.data.library_name == "graftlab"
    full = card("full", method={"name": "full", "rank": None})
    assert 'AutoModelForSequenceClassification.from_pretrained("me/full")' in full.text
    assert (full.data.library_name, full.data.base_model_relation) == ("transformers", "finetune")


def test_the_rows_of_a_hub_data_set_are_named_by_its_id(tmp_path, hub):
    run = finished(tmp_path)
    values = config.read(run.config).values
    values["task"]["data_dir"] = None
    run.config.write_text(config.dump(values))
    push(run)
    card = huggingface_hub.ModelCard.load(run.adapter / "README.md")
    assert card.data.datasets == [values["task"]["hub"]["path"]]
    assert {r.dataset_config for r in card.data.eval_results} == {values["task"]["hub"]["name"]}


def test_a_card_that_was_made_ones_own_is_kept_and_checked(run, hub):
    own = run.adapter / "README.md"
    own.write_text("---\nlicense: mit\n---\n\n# Mine\n")
    push(run)
    assert own.read_text().endswith("# Mine\n")
    assert hub.repos["model", "me/critic"]["files"]["README.md"] == own.read_bytes()
    own.write_text("---\nmodel-index: 3\n---\n\n# Mine\n")
    with pytest.raises(ConfigError, match="metadata in"):
        push(run)


OF_FOLDERS = {  # tasks that say where something lies on this machine
    "one": lambda _: {},
    "mixture": lambda folder: {
        "name": None, "data_dir": None, "kind": "mixture", "each": {"data_dir": f"{folder}/data"},
        "tasks": [{"name": "sst2", "as": name} for name in ("films", "books")],
    },
    "metric": lambda folder: {
        "name": None, "kind": "generation", "prompt": "{sentence}", "completion": "{label}",
        "metrics": [{"name": "semantic_consistency", "embedder": f"{folder}/embedder"}, "bleu"],
    },
}  # fmt: skip


@pytest.mark.parametrize("task", OF_FOLDERS)
def test_folders_of_this_machine_are_in_nothing_that_is_uploaded(tmp_path, hub, caplog, task):
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "bert"}')
    model = {"model": str(base), "revision": None}
    model |= {"kind": "decoder"} if task == "metric" else {}
    run = finished(tmp_path, backbone=model, task=OF_FOLDERS[task](tmp_path))
    named = getattr(runfile.of_run(run).task.config, "metrics", ())
    result = run.read_result()
    scores = {**result["metrics"]["test"], **dict.fromkeys(named, SCORE)}
    files.write_json(run.result, {**result, "metrics": {"test": scores}, "selected_by": named[:1]})
    push(run)
    assert "a folder of this machine" in caplog.text
    found = hub.repos["model", "me/critic"]["files"]
    for name, content in found.items():  # however its slashes are spelled
        assert tmp_path.name.encode() not in content, name
    (tmp_path / "config.yaml").write_bytes(found["config.yaml"])
    shared = config.read(tmp_path / "config.yaml").values["task"]
    if task == "metric":
        [kept, other] = shared["metrics"]
        assert measures.measure(kept).config.embedder == "./embedder"
        assert {kept, other} <= json.loads(found["result.json"])["metrics"]["test"].keys()
    if task == "mixture":
        assert [(one["as"], one["data_dir"]) for one in shared["tasks"]] == [
            ("films", "./data"), ("books", "./data"),
        ]  # fmt: skip
    assert json.loads(found["adapter_config.json"])["base_model_name_or_path"] == "./base"
    card = huggingface_hub.ModelCard(found["README.md"].decode())
    assert card.data.base_model is None
    assert "f00d" in card.text


def test_a_run_that_is_not_finished_is_refused(run, hub):
    run.result.unlink()
    with pytest.raises(ConfigError, match="not finished"):
        push(run)


def test_names_are_no_markup_and_no_fence_is_broken(run, hub):
    result = run.read_result()
    files.write_json(run.result, {**result, "name": "<img src=x>|`", "not_exact": ["a\n# b"]})
    push(run)
    text = (run.adapter / "README.md").read_text()
    assert "\\<img src=x\\>\\|\\`" in text
    assert "\n# b" not in text


def test_the_command_says_what_it_did_and_never_the_token(run, hub):
    def invoke(*more):
        return CliRunner().invoke(cli.app, ["push", str(run.path), "--repo", "me/critic", *more])

    first, second = invoke(), invoke("--json")
    assert "uploaded, 0" in first.stdout
    assert json.loads(second.stdout)["pushed"][0]["uploaded"] == []
    assert "changed (7 files)" in invoke().stdout
    assert TOKEN not in first.output + second.output
