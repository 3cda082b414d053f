"""What the pages and model cards promise of an interpreter that has seen nothing of graftlab before.

In the tests' own process every method is registered long since. Here the code that is shown runs as it
stands, each in a fork of an interpreter that has imported torch, transformers and peft and nothing else.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from finished_runs import LABELS, finish
from test_merging import finish_writing

from graftlab.release import merge, push
from graftlab.release.push import card, contents
from graftlab.runs import prediction
from graftlab.testing import examples

pytestmark = pytest.mark.slow  # runs, and a process of its own

ROOT = Path(__file__).parents[1]
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
METHODS = ("lora", "bitfit", "jelly", "full", "pifi")
INTERPRETER = """
import json, os, sys
import peft, torch, transformers

asked = json.load(sys.stdin)
assert not [name for name in sys.modules if name.startswith("graftlab")]
for name, code in asked["codes"].items():
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0, name
        continue
    scope = {}
    exec(code, scope)
    ours = sorted({name.partition(".")[0] for name in sys.modules} & {"graftlab"})
    tokenizer = transformers.AutoTokenizer.from_pretrained("./bert")
    with torch.no_grad():
        inputs = tokenizer(asked["texts"], padding=True, return_tensors="pt")
        logits = scope["model"](**inputs).logits if "model" in scope else torch.zeros(1, 1)
    print("FOUND", json.dumps([name, ours, logits.softmax(-1).tolist()]), flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return tmp_path_factory.mktemp("fresh")


@pytest.fixture(scope="module")
def runs(here):
    examples.donor(here / "donor")
    sections = {
        name: {"name": name, **({"llm": str(here / "donor")} if name == "pifi" else {})}
        for name in METHODS
    }
    return {name: finish(here, section) for name, section in sections.items()}


@pytest.fixture(scope="module")
def uploaded(runs, here):
    """Lay each run out as it is downloaded from the hub, as me/NAME; return the code on its card."""
    codes = {}
    for name, run in runs.items():
        shared = push.contents.read(run.path)
        for path, content in contents.gather(shared).items():
            target = here / "me" / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        codes[name] = "".join(PYTHON.findall(card.make(shared, f"me/{name}")))
    return codes


def fresh(folder, codes, texts=("a text",)):
    """Return for each code which of our packages it imported, and the probabilities its model gives."""
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETER],
        input=json.dumps({"codes": codes, "texts": texts}),
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    found = (json.loads(line.removeprefix("FOUND ")) for line in lines)
    return {name: (ours, probabilities) for name, ours, probabilities in found}


def test_the_code_on_a_card_gives_the_runs_predictions(runs, uploaded, here):
    lines = (here / "data" / "test.csv").read_text(encoding="utf-8").splitlines()[1:]
    found = fresh(here, uploaded, [line.rpartition(",")[0] for line in lines])
    assert {name for name, (ours, _) in found.items() if ours} == {"bitfit", "jelly", "pifi"}
    for name, run in runs.items():
        rows = prediction.read(run.predictions("test"))
        for given, row in zip(found[name][1], rows, strict=True):
            assert given == pytest.approx(row["probabilities"], abs=1e-5), name


def test_no_folder_of_this_machine_is_in_what_is_uploaded(uploaded, here):
    files = [path for path in (here / "me").rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(METHODS)
    assert [path for path in files if str(here).encode() in path.read_bytes()] == []
    assert str(here) not in "".join(uploaded.values())


def test_the_page_of_pifi_opens_a_saved_model(runs, here):
    (code,) = PYTHON.findall((ROOT / "docs" / "methods" / "pifi.md").read_text(encoding="utf-8"))
    assert runs["pifi"].adapter == here / "runs" / "pifi" / "adapter"
    ours, (row,) = fresh(here, {"pifi": code})["pifi"]
    assert (ours, len(row)) == (["graftlab"], len(LABELS))


def test_the_page_of_merging_writes_with_a_merged_folder(here, tmp_path):
    llama = examples.text_model(here / "llama", "decoder")
    run = finish_writing(tmp_path, {"name": "lora"}, {"model": llama})
    merge.merge(run.path, here / "DIR")
    (code,) = PYTHON.findall((ROOT / "docs" / "merging.md").read_text(encoding="utf-8"))
    assert fresh(here, {"merged": code})["merged"][0] == []


def test_a_method_in_a_package_of_its_own_is_registered_too(here):
    """By the constant that `graftlab.auto` reads, not by where its files lie."""
    package = here / "outside" / "graftlab_mine-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: graftlab-mine\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[graftlab.methods]\nmine = graftlab_mine\n")
    module = (ROOT / "graftlab" / "methods" / "full.py").read_text(encoding="utf-8")
    named = f'{module}\nREGISTERS = "graftlab_mine_tuner"\n'
    (package.parent / "graftlab_mine.py").write_text(named, encoding="utf-8")
    (package.parent / "graftlab_mine_tuner.py").write_text("")
    code = (
        "import sys; sys.path.insert(0, 'outside')\n"
        "import graftlab.auto\n"
        "assert 'graftlab_mine_tuner' in sys.modules\n"
    )
    assert fresh(here, {"mine": code})["mine"][0] == ["graftlab"]
