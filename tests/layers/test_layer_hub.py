"""Layers from a hub: by ranges, counted by the server; kept and checked; and what may go wrong on the way."""

import hashlib
import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from decoders import make
from faults import fault
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.utils import close_session
from range_hub import COMMIT, RangeHub

from graftlab.contracts import Note
from graftlab.errors import DiskError, ModelError, Refused
from graftlab.weights import layers
from graftlab.weights.layers import ranges

INDEX = "model.safetensors.index.json"
WIDE = {"hidden_size": 256, "intermediate_size": 704}  # its layers are large beside the headers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("origin") / "model"
    make(path, "llama", shard="4MB", **WIDE)
    return path


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    """A hub with `acme/llama`, and a home of its own; tests may damage the folder that it serves."""
    served = shutil.copytree(folder, tmp_path / "served")
    for name in ("http_proxy", "https_proxy", "all_proxy", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(ranges, "PAUSE", 0.0)
    close_session()
    with RangeHub({"acme/llama": served}).running() as server:
        url = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)  # made on import
        yield server
    close_session()


@pytest.fixture
def served(hub):
    return hub.folders["acme/llama"]


def weights(hub):
    """Return the bytes of weight files that the hub has sent."""
    return sum(number for name, number in hub.sent.items() if name.endswith(".safetensors"))


def same(layer, folder, index=1):
    other = layers.load_layer(str(folder), index)
    pairs = zip(layer.state_dict().values(), other.state_dict().values(), strict=True)
    return layer.sha256 == other.sha256 and all(torch.equal(a, b) for a, b in pairs)


def test_a_layer_comes_by_ranges_and_nothing_else_does(hub, folder):
    checkpoint = layers.open("acme/llama")
    layer = checkpoint.load_layer(1)
    assert same(layer, folder)
    assert layer.record["source"] == "acme/llama"
    assert layer.record["revision"] == checkpoint.revision == COMMIT
    assert checkpoint.remote
    assert checkpoint.layer_bytes(1) <= sum(hub.sent.values()) <= 1.01 * checkpoint.layer_bytes(1)
    assert sum(hub.sent.values()) == checkpoint.bytes_read
    whole = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert weights(hub) < whole / 3  # of three layers, an embedding and a head


def test_pooled_mode_fetches_less(hub):
    checkpoint = layers.open("acme/llama")
    checkpoint.load_layer(1, pooled=True)
    less = checkpoint.layer_bytes(1, pooled=True)
    assert weights(hub) <= 1.01 * less < checkpoint.layer_bytes(1)


def test_a_layer_that_is_kept_is_not_fetched_again_and_needs_no_network(hub, folder, monkeypatch):
    layers.load_layer("acme/llama", 1)
    hub.forget()
    assert same(layers.load_layer("acme/llama", 1), folder)
    assert weights(hub) == 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    checkpoint = layers.open("acme/llama")
    assert same(checkpoint.load_layer(1), folder)
    assert checkpoint.notes[0].kind == "from_the_cache"
    assert "HF_HUB_OFFLINE" in checkpoint.notes[0].fields["reason"]
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE forbids"):
        checkpoint.load_layer(0)


def test_nothing_is_kept_where_that_is_not_wanted(hub, tmp_path):
    checkpoint = layers.open("acme/llama", cache=tmp_path / "kept", keep=False)
    checkpoint.load_layer(1)
    assert not (tmp_path / "kept").exists()
    layers.load_layer("acme/llama", 1, cache=tmp_path / "kept")
    kept = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in kept)
    assert checkpoint.layer_bytes(1) <= size <= 1.01 * checkpoint.layer_bytes(1)
    assert {path.parent.parent.name for path in kept} == {COMMIT}


def test_what_is_kept_is_checked_by_its_hash(hub, tmp_path):
    layers.load_layer("acme/llama", 1, cache=tmp_path / "kept")
    largest = max((tmp_path / "kept").rglob("*.*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[1000] ^= 1
    largest.write_bytes(content)
    with pytest.raises(ModelError, check=fault("damaged"), match=largest.name):
        layers.load_layer("acme/llama", 1, cache=tmp_path / "kept")
    largest.write_bytes(content[:-1])
    with pytest.raises(ModelError, check=fault("damaged")):
        layers.load_layer("acme/llama", 1, cache=tmp_path / "kept")
    largest.unlink()
    layers.load_layer("acme/llama", 1, cache=tmp_path / "kept")


def test_a_file_that_the_hubs_cache_has_is_read_there(hub, folder):
    for file in folder.glob("*.safetensors"):
        hf_hub_download("acme/llama", file.name, token=False)
    hub.forget()
    assert same(layers.load_layer("acme/llama", 1), folder)
    assert weights(hub) == 0


def test_rows_of_the_embedding_are_fetched_alone_and_those_near_together(hub, folder):
    checkpoint = layers.open("acme/llama")
    checkpoint.embedding_rows(torch.tensor([0]))
    hub.forget()
    ids = torch.tensor([50, 3, 4, 50])
    expected = layers.open(str(folder)).embedding_rows(ids)
    assert torch.equal(checkpoint.embedding_rows(ids), expected)
    row = 256 * 4
    assert weights(hub) == 48 * row  # 3 to 50: the gap is cheaper than a request
    assert len(hub.requests) == 1
    assert torch.equal(checkpoint.embedding_rows(ids[1:]), expected[1:])
    assert len(hub.requests) == 1  # nothing is fetched twice


def test_a_broken_connection_is_gone_on_with_where_it_broke(hub, folder):
    hub.breaks_after = 100_000
    checkpoint = layers.open("acme/llama")
    assert same(checkpoint.load_layer(1), folder)
    assert hub.breaks_after is None  # it did break
    assert weights(hub) <= 1.01 * checkpoint.layer_bytes(1)


def test_a_hub_that_is_busy_is_asked_again(hub, folder):
    checkpoint = layers.open("acme/llama")
    hub.statuses = [503, 429, 500]
    assert same(checkpoint.load_layer(1), folder)
    hub.statuses = [503] * ranges.TRIES
    with pytest.raises(ModelError, match="failed with 503"):
        checkpoint.load_layer(0)


def test_without_ranges_the_shard_is_fetched_whole_that_is_said_and_no_other_is(
    hub, folder, caplog
):
    hub.knows_ranges = False
    checkpoint = layers.open("acme/llama")
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    needed = {file for name, file in weight_map.items() if ".layers.0." in name}
    assert needed < set(weight_map.values())
    assert same(checkpoint.load_layer(0), folder, 0)
    asked = {name for name, _ in hub.requests if name.endswith(".safetensors")}
    assert asked == needed
    for file in needed:
        assert Note.of("fetched_whole", file=file, model="acme/llama") in checkpoint.notes
        assert file in caplog.text
    fetched = sum((folder / file).stat().st_size for file in needed)
    small = sum((folder / name).stat().st_size for name in ("config.json", INDEX))
    headers = checkpoint.bytes_read - small - fetched - checkpoint.layer_bytes(0)
    assert (
        0 < headers < 10_000
    )  # beside the files fetched, the layer and the headers read from them


def test_a_shard_that_the_hub_lacks_is_named(hub, served):
    checkpoint = layers.open("acme/llama")
    shard = json.loads((served / INDEX).read_text())["weight_map"]["model.norm.weight"]
    (served / shard).unlink()
    with pytest.raises(ModelError, match=shard):
        checkpoint.load_layer(2)


@pytest.mark.parametrize("kept", [-1, 200, 4])
def test_a_shard_that_is_cut_short_on_the_hub_is_named_with_its_size(hub, served, kept):
    weight_map = json.loads((served / INDEX).read_text())["weight_map"]
    for shard in {file for name, file in weight_map.items() if ".layers.1." in name}:
        content = (served / shard).read_bytes()[:kept]
        (served / shard).write_bytes(content)
    with pytest.raises(ModelError, check=fault("damaged"), match="model-"):
        layers.load_layer("acme/llama", 1)


def test_a_single_file_is_read_by_ranges_too(hub, folder, tmp_path):
    single = tmp_path / "single"
    make(single, "llama", shard="1GB", **WIDE)
    hub.folders["acme/single"] = single
    checkpoint = layers.open("acme/single")
    assert same(checkpoint.load_layer(2), folder, 2)
    assert sum(hub.sent.values()) <= 1.01 * checkpoint.layer_bytes(2)


def test_pickles_and_models_that_are_not_there_are_refused(hub, served):
    with pytest.raises(ModelError, match="'acme/none'"):
        layers.open("acme/none")
    for file in served.glob("*.safetensors*"):
        file.unlink()
    with pytest.raises(ModelError, check=fault("no_weights")):
        layers.open("acme/llama")
    (served / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(Refused, match="pickles only"):
        layers.open("acme/llama")


def test_a_full_disk_is_said_to_be_full_and_nothing_half_is_kept(hub, tmp_path):
    checkpoint = layers.open("acme/llama", cache=tmp_path / "kept")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))  # a layer is larger
    try:
        with pytest.raises(DiskError, match="HF_HOME"):
            checkpoint.load_layer(1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    for path in filter(Path.is_file, (tmp_path / "kept").rglob("*")):
        assert path.suffix[1:] == hashlib.sha256(path.read_bytes()).hexdigest()
