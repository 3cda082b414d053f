"""Over the network each layer comes once, what that takes is said before, and nothing stays."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from plugged_models import NUM_LAYERS, write_run

from graftlab.weights import layers

sys.path.insert(0, str(Path(__file__).parents[1] / "layers"))
from range_hub import COMMIT, Answering, RangeHub


class WithTree(Answering):
    """Lists a repository's files too, as fetching a tokenizer wants."""

    def do_GET(self):
        if "/tree/" not in self.path:
            return super().do_GET()
        names = sorted(self.server.folders["acme/llama"].iterdir())
        found = [
            {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": COMMIT} for p in names
        ]
        return self.reply(200, json.dumps(found).encode(), {"Content-Type": "application/json"})


@pytest.mark.slow  # tests/layers/test_layer_hub.py has the quick ones
def test_a_model_of_the_hub_is_read_once_layer_by_layer_and_not_kept(tmp_path):
    path = write_run(tmp_path)
    folder, home = tmp_path / "llm", tmp_path / "home"
    local = layers.open(str(folder))
    expected = sum(local.layer_bytes(index) for index in range(NUM_LAYERS))
    with RangeHub({"acme/llama": folder}).running() as hub:
        hub.RequestHandlerClass = WithTree
        settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        kept = {k: v for k, v in os.environ.items() if k[:3] != "HF_" and "proxy" not in k.lower()}
        done = subprocess.run(
            [sys.executable, "-m", "graftlab", "select", path, "--set", "method.llm=acme/llama"],
            env={**kept, **settings}, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        sent = sum(number for name, number in hub.sent.items() if name.endswith("safetensors"))
    assert done.returncode == 0, done.stderr
    assert f"{expected:,} bytes are read of acme/llama, layers 0 to {NUM_LAYERS - 1}" in done.stderr
    assert re.search(r"over the network: the 3 that are left about \d+ s", done.stderr)
    said = done.stderr.index("bytes are read") < done.stderr.index("layer 0 of 0 to")
    assert said, "it is said after the first layer"
    embedding = sum(path.stat().st_size for path in folder.glob("*.safetensors")) - expected
    batches = 1  # thirty short texts
    assert expected < sent <= expected + batches * embedding
    assert [path for path in home.rglob("*") if path.suffix == ".safetensors"] == []
    assert not (home / "graftlab-layers").exists()
