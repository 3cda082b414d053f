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


def test_help_imports_neither_a_command_nor_what_reads_run_files():
    code = (
        "import sys; sys.argv = ['graftlab', '--help']\n"
        "from graftlab.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "print([m for m in sys.modules if m.startswith(('graftlab.commands.', 'pydantic', 'ruamel'))])"
    )
    assert run(code).splitlines()[-1] == "[]"


def test_every_module_behind_a_name_says_what_it_is_in_its_first_line():
    silent = [
        (k, n) for k in registry.KINDS for n in registry.names(k) if not registry.describe(k, n)
    ]
    assert silent == []


@pytest.mark.slow
def test_peft_is_imported_without_torchs_compiler():
    """It imports bitsandbytes, which asks for two compiled functions at once."""
    code = (
        "import sys\n"
        "import graftlab.adapters, peft, torch\n"
        "print('bitsandbytes.backends.default.ops' in sys.modules)\n"
        "print('torch._inductor.compile_fx' in sys.modules, torch.compile.__module__)"
    )
    assert run(code).splitlines() == ["True", "False torch"]


def test_a_deferred_function_is_compiled_at_its_first_call_and_once():
    import torch

    from graftlab.adapters.deferral import deferred

    seen = []

    def backend(graph, inputs):
        seen.append(len(inputs))
        return graph.forward

    doubled = deferred(lambda x: 2 * x + 1, backend=backend)
    assert seen == []
    for _ in range(2):
        assert doubled(torch.tensor([1.0, 3.0])).tolist() == [3.0, 7.0]
    assert seen == [1]


def test_only_the_files_of_the_catalogue_that_have_a_word_are_read():
    from graftlab import runfile
    from graftlab.weights import pretrained

    for whole in (pretrained.aliases, runfile.catalogue):
        assert {name: whole(name)[name] for name in whole()} == whole()
        assert whole("a name that stands nowhere") == {}


def test_a_command_that_ends_looks_for_no_garbage():
    code = (
        "import atexit, gc, sys; sys.argv = ['graftlab', '--version']\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 1000, len(gc.get_objects()) < 1000))\n"
        "from graftlab.cli import main\n"
        "main()"
    )
    assert run(code).splitlines()[-1] == "True True"
