"""What a name leads to is fast to import: nothing heavy before it is used."""

import json
import subprocess
import sys

import pytest

from graftlab import registry

HEAVY = ("torch", "transformers", "peft", "datasets", "accelerate", "sklearn", "scipy", "pandas")

BLOCKED = """
import sys
for name in {heavy}:
    sys.modules[name] = None
import importlib, json
from graftlab import registry
failed = {{}}
for kind in registry.KINDS:
    for name in registry.names(kind):
        try:
            registry.find(kind, name)
        except Exception as error:
            failed[f"{{kind}}.{{name}}"] = repr(error)
for name in ("config", "runfile", "runfile.schema", "training.config", "training.trackers"):
    try:
        importlib.import_module("graftlab." + name)
    except Exception as error:
        failed[name] = repr(error)
print(json.dumps(failed))
"""


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_every_module_behind_a_name_imports_without_anything_heavy():
    """One process for all names: each would cost the start of an interpreter."""
    assert json.loads(run(BLOCKED.format(heavy=HEAVY))) == {}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["check", "--help"], ["list"]])
def test_the_command_line_answers_without_importing_anything_heavy(arguments):
    code = (
        f"import sys; sys.argv = ['graftlab', *{arguments!r}]\n"
        "from graftlab.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('IMPORTED', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert run(code).splitlines()[-1] == "IMPORTED []"


def test_a_run_file_is_checked_without_importing_anything_heavy(tmp_path):
    """With rows to look at: their columns are checked too."""
    (tmp_path / "train.csv").write_text("text,label\na,x\nb,y\n")
    code = (
        "import sys\n"
        "from graftlab import config, runfile\n"
        "for name in ('glue/sst2-lora', 'vision/digits-lora', 'trec/full', 'template'):\n"
        "    runfile.resolve(config.read(name))\n"
        "own = ['task={kind: classification, data_dir: %s}']\n"
        "runfile.resolve(config.read('quickstart/sst2', own))\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert run(code % tmp_path).splitlines()[-1] == "[]"


def test_help_does_not_import_a_single_command():
    code = (
        "import sys; sys.argv = ['graftlab', '--help']\n"
        "from graftlab.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "print([m for m in sys.modules if m.startswith('graftlab.commands.')])"
    )
    assert run(code).splitlines()[-1] == "[]"


def test_every_module_behind_a_name_says_what_it_is_in_its_first_line():
    silent = [
        (k, n) for k in registry.KINDS for n in registry.names(k) if not registry.describe(k, n)
    ]
    assert silent == []
