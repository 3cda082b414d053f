"""Every file of a run that reads vectors, damaged as in `test_corruption`: seen, or harmless."""

import pytest
import vector_runs
from test_corruption import Place, judged, warnings_are_shown

from graftlab.tasks.elm import tree

__all__ = ["warnings_are_shown"]  # a fixture of every test here
COMMANDS = ("predict", "words")


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    run = vector_runs.finish_reader(tmp_path_factory.mktemp("reader")).path
    vectors = run.parents[1] / "vectors" / "test" / tree.VECTORS
    return Place(run, {
        "predict": ["predict", run, "--input", vectors, "--task", "summary"],
        "words": ["predict", run, "--input", "a b c", "--task", "summary"],
    })  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_damage_to_a_run_that_reads_vectors_is_named_or_harmless(reader, command):
    whole, _ = reader.read_by(command)
    assert whole.exit_code == 0, whole.output  # else any damage would be harmless
    wrong = judged(reader, command, lambda a, b: (a.exit_code, a.stdout) == (b.exit_code, b.stdout))
    assert not wrong, "\n".join(map(str, wrong))
