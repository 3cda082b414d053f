"""Faults that people have met elsewhere: small inputs, and a script that ends with 0 where graftlab is right.

Ours stand in tests/cases and make their inputs. GRAFTLAB_CASES names a folder of others, each with its
`run.sh`; unless given it is ../shared/cases, beside the clone.

Slow: each case is some commands in fresh processes, which all import torch.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
OTHERS = Path(os.environ.get("GRAFTLAB_CASES", HERE.parents[1] / "shared" / "cases"))
SCRIPTS = sorted([*(HERE / "cases").glob("*/run.sh"), *OTHERS.glob("*/run.sh")])


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.parent.name)
def test_a_case_of_a_known_fault_ends_well(script):
    """Slow: each is several processes."""
    graftlab = Path(sys.executable).with_name("graftlab")
    env = {**os.environ, "GRAFTLAB": str(graftlab), "PYTHON": sys.executable}
    done = subprocess.run(["bash", script], env=env, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.startswith("right: ")


@pytest.mark.skipif(not OTHERS.is_dir(), reason=f"there is no folder {OTHERS}")
def test_cases_of_others_have_scripts():
    assert any(script.is_relative_to(OTHERS) for script in SCRIPTS)
