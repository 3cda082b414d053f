"""Requests with vectors in their prompts: a server that decodes them as vLLM does answers as `predict`."""

import base64
import io
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import fault
from finished_runs import finish
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner
from vector_runs import finish_reader, make_llm

import graftlab
from graftlab import cli
from graftlab.errors import ConfigError
from graftlab.inference import Inputs
from graftlab.release import prompt_embeds
from graftlab.tasks.elm import tree

PAGE = Path(__file__).parents[1] / "docs" / "methods" / "elm.md"


class Server:
    """A language model behind the Completions API, which reads prompts of embeddings and nothing else."""

    def __init__(self, models: dict[str, Any], tokenizer: Any) -> None:
        server = self
        self.models, self.tokenizer = models, tokenizer
        self.asked: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.path == "/v1/completions"
                server.asked.append(asked)
                body = json.dumps(
                    {"choices": [{"index": 0, "text": server.answer(asked)}]}
                ).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, asked: dict[str, Any]) -> str:
        """Decode the prompt as vLLM's `safe_load_prompt_embeds` does, and go on from it, greedily."""
        model = self.models[asked["model"]]
        raw = base64.b64decode(asked["prompt_embeds"].encode(), validate=True)
        tokens = torch.load(io.BytesIO(raw), weights_only=True, map_location="cpu")
        assert isinstance(tokens, torch.Tensor)
        assert tokens.is_floating_point()
        assert tokens.dim() == 2
        assert tokens.shape[1] == model.config.hidden_size
        assert len(raw) < 4096 + tokens.numel() * tokens.itemsize, "more is stored than the prompt"
        assert asked["temperature"] == 0
        with torch.no_grad():
            ids = model.generate(
                inputs_embeds=tokens[None],
                max_new_tokens=asked["max_tokens"],
                do_sample=False,
                eos_token_id=asked["stop_token_ids"],
            )
        text: str = self.tokenizer.decode(ids[0], skip_special_tokens=True)
        return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    made: Path = tmp_path_factory.mktemp("served")
    make_llm(made / "llm")
    return made


def finished(folder: Path, name: str, **method: Any) -> Any:
    backbone = {"kind": "decoder", "model": str(folder / "llm")}
    task = {"prompt_format": "chat", "num_tokens": 2}
    return finish_reader(folder, name, backbone=backbone, task=task, method=method)


@pytest.fixture
def served(folder: Path) -> Iterator[Server]:
    llm = str(folder / "llm")
    found = Server(
        {llm: AutoModelForCausalLM.from_pretrained(llm).eval()}, AutoTokenizer.from_pretrained(llm)
    )
    yield found
    found.http.shutdown()
    found.http.server_close()


def client(requests: Path, url: str) -> list[str]:
    """Send requests as the page of the method shows it, and return what it prints."""
    [code] = re.findall(r"```python\n(import json\n.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    code = code.replace("http://localhost:8000/v1", url).replace(
        "prompts/requests.jsonl", str(requests)
    )
    said: list[str] = []
    exec(code, {"print": said.append})
    return said


@pytest.mark.slow
def test_the_documented_call_of_a_server_writes_what_predict_does(
    folder: Path, served: Server, tmp_path: Path
) -> None:
    run = finished(folder, "frozen")
    rows = folder / "vectors" / "test" / tree.ROWS
    expected = [answer["completion"] for answer in graftlab.load(run.path).predict(rows)]
    out = tmp_path / "prompts"
    asked = ["export", str(run.path), "--format", "prompt-embeds", "--input", str(rows)]
    done = CliRunner().invoke(cli.app, [*asked, "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["llm"] == str(folder / "llm")
    assert client(out / prompt_embeds.REQUESTS, served.url) == expected
    assert len(set(expected)) > 1
    assert [len(asked) > 5 for asked in served.asked] == [True] * 3
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "requests.jsonl"]


@pytest.mark.slow
def test_the_lora_of_a_language_model_goes_with_the_requests(
    folder: Path, served: Server, tmp_path: Path
) -> None:
    from peft import PeftModel

    run = finished(folder, "adapted", llm="lora", lora={"rank": 2})
    vectors = folder / "vectors" / "test" / tree.VECTORS
    adapted = graftlab.load(run.path)
    expected = [answer["completion"] for answer in adapted.predict(vectors, task="summary")]
    out = tmp_path / "prompts"
    written = prompt_embeds.export(run.path, out, Inputs(vectors, "summary"))
    base = served.models[written.llm]
    plain = base.get_parameter("model.layers.0.mlp.up_proj.weight").clone()
    served.models[written.model] = PeftModel.from_pretrained(base, out / prompt_embeds.LORA).eval()
    assert client(out / prompt_embeds.REQUESTS, served.url) == expected
    merged = served.models[written.model].merge_and_unload()
    moved = (merged.get_parameter("model.layers.0.mlp.up_proj.weight") - plain).abs().max()
    assert moved > 1e-4, "LoRA has learned something"


@pytest.mark.slow
def test_what_is_no_form_of_a_run_is_refused_and_leaves_nothing(
    folder: Path, tmp_path: Path
) -> None:
    run = finish(tmp_path, {"name": "lora"})
    out = tmp_path / "out"
    with pytest.raises(ConfigError, check=fault("conflict")):
        prompt_embeds.export(run.path, out, Inputs("fine"))
    reader = finish_reader(folder, "refused")
    commands = [
        [str(reader.path), "--format", "prompt-embeds", "--out", str(out)],
        [str(reader.path), "--format", "prompt-embed", "--out", str(out)],
        [str(run.path), "--input", "fine", "--out", str(out)],
        [str(run.path), "--audit", "--task", "summary"],
        [
            str(reader.path),
            "--format",
            "prompt-embeds",
            "--input",
            "a",
            "--task",
            "sumary",
            "--out",
            str(out),
        ],
        [str(reader.path), "--out", str(out)],
    ]
    for command in commands:
        done = CliRunner().invoke(cli.app, ["export", *command])
        assert done.exit_code == 2, (command, done.output)
    assert not out.exists()
