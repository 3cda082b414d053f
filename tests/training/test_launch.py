"""What a launcher has set: which process this is, and what is refused or said before a run begins."""

import pytest
import tiny_runs

from graftlab import registry
from graftlab.errors import ConfigError
from graftlab.runs import session
from graftlab.training.parallel import launch
from graftlab.training.parallel.share import Share


@pytest.mark.parametrize(
    ("variable", "name"),
    [("ACCELERATE_USE_MEGATRON_LM", "Megatron-LM"), ("ACCELERATE_USE_TP", "tensor parallelism")],
)
def test_other_ways_of_sharing_are_refused_before_anything_is_written(
    tmp_path, monkeypatch, variable, name
):
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ConfigError, match=f"asks for {name}, which is not there") as caught:
        session.run(tiny_runs.run_file(tmp_path), tmp_path / "run", options=tiny_runs.quiet())
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_what_a_launcher_sets_and_a_run_does_not_heed_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert launch.join().alone
    assert "ACCELERATE_MIXED_PRECISION=bf16" in caplog.text
    assert "asked for several processes and has started one" in caplog.text


@pytest.mark.parametrize("command", registry.names("commands"))
def test_only_run_and_resume_may_be_launched_in_several(monkeypatch, command):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (launch.only_one(command) is None) == (command in ("run", "resume"))


def test_mpi_counts_where_the_cpu_is_asked_for(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    assert launch.place() == Share()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert launch.place() == Share(1, 4)
