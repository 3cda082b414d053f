"""What a launcher has set: which process this is, and what is refused or said before a run begins."""

import json
import os

import pytest
import tiny_runs
from accelerate.utils import str_to_bool

from graftlab import registry
from graftlab.errors import ConfigError
from graftlab.runs import session
from graftlab.training.parallel import launch, request, zero_settings
from graftlab.training.parallel.processes import Processes
from graftlab.training.parallel.sharding import Whole
from graftlab.training.parallel.share import Share


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch):
    """What launches the tests themselves does not count."""
    ours = ("ACCELERATE_", "FSDP_", "PMI_", "OMPI_COMM_WORLD_", "MV2_COMM_WORLD_", "MASTER_")
    for name in [*os.environ]:
        if name.startswith(ours) or name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("ACCELERATE_USE_MEGATRON_LM", "Megatron-LM"),
        ("ACCELERATE_USE_TP", "tensor parallelism"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "parallelism config"),
    ],
)
def test_other_ways_of_sharing_are_refused_before_anything_is_written(
    tmp_path, monkeypatch, variable, name
):
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ConfigError, match=name) as caught:
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


def test_a_command_is_for_one_process_alone_however_many_it_is_started_as(monkeypatch):
    assert launch.only_one("plan") is None
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert launch.only_one("plan") is None
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert all(part in launch.only_one("plan") for part in ("graftlab plan", "4"))


def test_torchrun_and_accelerate_say_the_rank_of_all_machines(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert launch.place() == Share()  # of something else, such as a queue
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert launch.place() == Share(3, 4)
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    assert launch.place() == Share(0, 1)


@pytest.mark.parametrize("prefix", ["PMI", "OMPI_COMM_WORLD", "MV2_COMM_WORLD"])
def test_each_mpi_says_its_rank_by_its_own_names(monkeypatch, prefix):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "yes")
    monkeypatch.setenv(f"{prefix}_RANK", "2")
    monkeypatch.setenv(f"{prefix}_SIZE", "3")
    assert launch.place() == Share(2, 3)


def test_the_first_of_a_machine_speaks_and_the_others_wait_for_it(monkeypatch):
    waited = []
    monkeypatch.setattr(launch.time, "sleep", waited.append)
    assert not launch.said_elsewhere(1)
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not launch.said_elsewhere(143)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert [launch.said_elsewhere(code) for code in (130, 143)] == [True, True]
    assert waited == []
    assert not launch.said_elsewhere(1)
    assert waited == [30.0]
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not launch.said_elsewhere(143)


@pytest.mark.parametrize(
    ("variable", "usual", "other", "key"),
    [
        ("ACCELERATE_MIXED_PRECISION", "No", "fp16", "training.precision"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1", "4", "training.micro_batch_size"),
        ("ACCELERATE_DYNAMO_BACKEND", "NO", "inductor", "training.compile"),
    ],
)
def test_what_the_run_file_says_for_itself_is_said_to_have_no_effect(
    monkeypatch, caplog, variable, usual, other, key
):
    monkeypatch.setenv(variable, usual)
    assert launch.join().alone
    assert caplog.records == []
    monkeypatch.setenv(variable, other)
    assert launch.join().alone
    assert [record.args for record in caplog.records] == [(variable, other, key)]


@pytest.mark.parametrize("there", [("LOCAL_RANK", "0"), ("PMI_SIZE", "1"), None])
def test_one_process_that_a_launcher_did_start_is_not_taken_for_a_fault(monkeypatch, caplog, there):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert launch.join().alone
    assert caplog.records == []
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("PMI_RANK", "0")
    if there:
        monkeypatch.setenv(*there)
    assert launch.join().alone
    assert len(caplog.records) == (0 if there else 1)


def test_a_way_of_sharing_has_no_effect_on_one_process(monkeypatch, caplog):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "on")
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("OF_SOMEBODY_ELSE", "1")
    request.asked.cache_clear()
    try:
        alone = launch.join()
        assert isinstance(alone.sharding, Whole)
        assert [record.args for record in caplog.records] == [("fsdp",)]
        assert request.asked() == request.Asked("fsdp", {"FSDP_VERSION": "2"})
        assert not {"ACCELERATE_USE_FSDP", "FSDP_VERSION"} & os.environ.keys()
        assert "OF_SOMEBODY_ELSE" in os.environ
    finally:
        request.asked.cache_clear()
    assert isinstance(launch.sharding(request.Asked(), Processes()), Whole)


@pytest.mark.parametrize("value", ["1", "true", "yes", "y", "on", "t", "True", "ON"])
def test_yes_is_what_accelerate_takes_for_it(value):
    assert bool(str_to_bool(value))
    asked = request.Asked("fsdp", {"a": value, "b": "no"})
    assert (asked.on("a"), asked.on("b"), asked.on("b", True)) == (True, False, False)
    assert (asked.on("c"), asked.on("c", True)) == (False, True)


OFF = {"offload_optimizer": {"device": "none"}, "offload_param": {"device": "none"}}


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({}, {"zero_optimization": {"stage": 2}}),
        ({"ZERO_STAGE": "3"}, {"zero_optimization": {"stage": 3}}),
        (
            {"CONFIG_FILE": "none", "OFFLOAD_PARAM_DEVICE": "none"},
            {"zero_optimization": {"stage": 2}},
        ),
    ],
)
def test_accelerates_variables_become_deepspeeds_settings(said, found):
    assert zero_settings.read({f"ACCELERATE_DEEPSPEED_{k}": v for k, v in said.items()}) == found


@pytest.mark.parametrize("key", ["OFFLOAD_PARAM", "OFFLOAD_OPTIMIZER"])
def test_offloading_is_refused(key):
    with pytest.raises(ConfigError, match=key.lower()):
        zero_settings.read({f"ACCELERATE_DEEPSPEED_{key}_DEVICE": "cpu"})


def of_file(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return zero_settings.read({"ACCELERATE_DEEPSPEED_CONFIG_FILE": str(path)})


def test_of_deepspeeds_own_file_stays_what_the_run_file_does_not_say(tmp_path):
    counted = {
        "train_batch_size": 8, "train_micro_batch_size_per_gpu": 2, "gradient_clipping": 1.0,
        "gradient_accumulation_steps": 4, "steps_per_print": 1,
    }  # fmt: skip
    off = {"bf16": {"enabled": False}, "fp16": {"enabled": "auto"}, "optimizer": {}}
    zero = {"stage": 3, "overlap_comm": True, "reduce_bucket_size": "auto", **OFF}
    other = {"wall_clock_breakdown": True, "comms_logger": "auto"}
    found = of_file(tmp_path / "ds.json", {**counted, **off, **other, "zero_optimization": zero})
    assert found == {
        "wall_clock_breakdown": True,
        "zero_optimization": {"stage": 3, "overlap_comm": True},
    }
    assert of_file(tmp_path / "ds.json", {}) == {"zero_optimization": {}}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"optimizer": {"type": "AdamW"}}, "optimizer"),
        ({"bf16": {"enabled": True}}, "bf16"),
        ({"scheduler": {"type": "WarmupLR"}}, "scheduler"),
        ({"zero_optimization": {"offload_param": {"device": "nvme"}}}, "offload_param"),
        ("{", r"ds\.json"),
    ],
)
def test_what_the_run_file_says_and_what_is_not_there_is_refused(tmp_path, content, named):
    with pytest.raises(ConfigError, match=named):
        of_file(tmp_path / "ds.json", content)


def test_deepspeeds_file_is_looked_for_beside_the_recipes_too(tmp_path):
    found = zero_settings.read(
        {"ACCELERATE_DEEPSPEED_CONFIG_FILE": "recipes/accelerate/zero3.json"}
    )
    assert found["zero_optimization"]["stage"] == 3
    with pytest.raises(ConfigError, match=r"no\.json"):
        zero_settings.read({"ACCELERATE_DEEPSPEED_CONFIG_FILE": str(tmp_path / "no.json")})


def test_mpi_counts_where_the_cpu_is_asked_for(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    assert launch.place() == Share()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert launch.place() == Share(1, 4)
