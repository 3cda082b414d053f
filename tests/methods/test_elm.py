"""What only ELM promises: a vector becomes tokens by its equation, and the language model does not move."""

import json
import logging
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from graftlab import config, inference, runfile
from graftlab.config import merge
from graftlab.contracts import Attached, MicroBatch
from graftlab.data.vectors import store
from graftlab.errors import ConfigError, ModelError
from graftlab.methods import elm
from graftlab.methods.elm import losses
from graftlab.methods.elm.adapter import Adapter, Form
from graftlab.planning import forecast
from graftlab.rundir.run import Run
from graftlab.runs import session
from graftlab.tasks.elm import tree
from graftlab.testing import examples, rig
from graftlab.testing.resume import OPTIONS, in_child, killed_after, outcome

FAMILY = rig.FAMILIES["vectors"]
LLM_WIDTH = 32  # of the tiny Qwen
WIDTH = 6  # of the vectors of a run
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "own width": {"width": LLM_WIDTH},
    "several": {"num_tokens": 3},
    "no residual": {"residual": 0.0},
    "trained residual": {"train_residual": True, "residual": 0.5},
}


def attach(seed: int = 0, vectors: dict[str, Any] | None = None, **fields: Any) -> Attached:
    setting = rig.setting(FAMILY, seed)
    if vectors:
        setting = rig.setting(
            FAMILY,
            seed,
            {"vectors": {"width": FAMILY.vectors, "num_tokens": 1, "origin": None, **vectors}},
        )
    section = elm.Config.model_validate({"hidden": 16, **fields})
    return elm.attach(rig.backbone(FAMILY), section, setting)


def form(**fields: Any) -> Form:
    return Form(
        **{
            "width": 24,
            "hidden": 16,
            "token_width": LLM_WIDTH,
            "num_tokens": 1,
            "dropout": 0.1,
            "residual": 1.0,
            "train_residual": False,
            **fields,
        }
    )


def batch(width: int = FAMILY.vectors, num_tokens: int = 1) -> dict[str, Tensor]:
    found = rig.batch(FAMILY)
    found["vectors"] = torch.randn(rig.EXAMPLES, width, generator=torch.Generator().manual_seed(3))
    found["vector_mask"] = torch.zeros_like(found["vector_mask"])
    for row in range(rig.EXAMPLES):  # anywhere, each row elsewhere
        found["vector_mask"][row, row % 4 : row % 4 + num_tokens] = 1
    return found


def test_of_qwens_widths_the_adapter_has_as_many_weights_as_the_source_says() -> None:
    with torch.device("meta"):
        adapter = Adapter(form(width=2560, hidden=4096, token_width=2560))
    assert sum(p.numel() for p in adapter.parameters()) == 20_983_296


@pytest.mark.parametrize("case", FORMS)
def test_a_vector_becomes_tokens_by_the_equation(case: str) -> None:
    adapter = Adapter(form(**FORMS[case])).eval()
    with torch.no_grad():
        for weight in adapter.parameters():
            if weight.dim():
                weight.normal_()
    vectors = torch.randn(5, adapter.form.width)
    own = dict(adapter.named_parameters())
    inner = vectors @ own["inner.weight"].T + own["inner.bias"]
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    made = (inner @ own["outer.weight"].T + own["outer.bias"]).reshape(5, -1, LLM_WIDTH)
    kept = vectors @ own["project.weight"].T if "project.weight" in own else vectors
    if adapter.form.residual:
        made = made + adapter.form.residual * kept[:, None, :]
    centred = made - made.mean(-1, keepdim=True)
    made = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    expected = made * own["norm.weight"] + own["norm.bias"]
    torch.testing.assert_close(adapter(vectors), expected, rtol=1e-4, atol=1e-5)
    assert adapter(vectors).shape == (5, adapter.form.num_tokens, LLM_WIDTH)


def test_tokens_of_vectors_begin_as_long_as_the_tokens_of_words() -> None:
    for norm in ("tokens", "source"):
        model: Any = attach(norm=norm).model.eval()
        lengths = model.get_input_embeddings().weight.norm(dim=1)
        expected = lengths.median() if norm == "tokens" else math.sqrt(LLM_WIDTH)
        made = model.adapter(batch()["vectors"]).norm(dim=-1)
        torch.testing.assert_close(made, torch.full_like(made, float(expected)), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("start", "factor"), [("he", 1), ("source", 3), ("identity", 0)])
def test_the_layers_begin_as_the_section_says(start: str, factor: float) -> None:
    adapter: Any = attach(start=start, hidden=4000).model.adapter
    inner = max(factor, 1) * math.sqrt(2 / FAMILY.vectors)
    assert adapter.inner.weight.std().item() == pytest.approx(inner, rel=0.02)
    assert adapter.outer.weight.std().item() == pytest.approx(
        factor * math.sqrt(2 / 4000), rel=0.02
    )
    if start == "identity":
        vectors = batch()["vectors"]
        expected = F.normalize(F.layer_norm(adapter.project(vectors), (LLM_WIDTH,)), dim=-1)
        torch.testing.assert_close(F.normalize(adapter.eval()(vectors)[:, 0], dim=-1), expected)


@pytest.mark.parametrize("num_tokens", [1, 3])
def test_the_llm_reads_the_adapters_tokens_in_the_places_that_are_marked(num_tokens: int) -> None:
    attached = attach(vectors={"num_tokens": num_tokens})
    model: Any = attached.model.eval()
    given = batch(num_tokens=num_tokens)
    llm = rig.backbone(FAMILY).model
    with torch.no_grad():
        made = model.adapter(given["vectors"])
        embedded = llm.get_input_embeddings()(given["input_ids"])
        for row in range(rig.EXAMPLES):
            embedded[row, row % 4 : row % 4 + num_tokens] = made[row]
        expected = llm(inputs_embeds=embedded, attention_mask=given["attention_mask"]).logits
        labels = given.pop("labels")
        found = model(**given).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert labels.shape == found.shape[:2]


def test_without_vectors_it_is_the_language_model() -> None:
    given = {k: v for k, v in batch().items() if k in ("input_ids", "attention_mask")}
    model = attach().model.eval()
    with torch.no_grad():
        expected = rig.backbone(FAMILY).model(**given).logits
        torch.testing.assert_close(model(**given).logits, expected, rtol=0, atol=0)


def test_vectors_of_another_width_or_places_that_are_too_few_are_refused() -> None:
    model = attach().model
    given = batch()
    with pytest.raises(ModelError):
        model(**{**given, "vectors": given["vectors"][:, 1:]})
    for marked in (0, 2):
        other = given["vector_mask"].clone()
        other[3] = 0
        other[3, :marked] = 1
        with pytest.raises(ModelError):
            model(**{**given, "vector_mask": other})


def gradients(model: Any) -> dict[str, Tensor]:
    model.train()
    torch.manual_seed(0)
    given = batch()
    given.pop("labels")
    model(**given).logits.square().mean().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_checkpointing_gives_the_same_gradients_though_nothing_of_the_llm_trains() -> None:
    expected = gradients(attach().model)
    owner = rig.backbone(FAMILY)
    owner.model.gradient_checkpointing_enable(
        gradient_checkpointing_kwargs={"use_reentrant": False}
    )
    model = elm.attach(owner, elm.Config(hidden=16), rig.setting(FAMILY)).model
    found = gradients(model)
    assert set(found) == set(expected)
    assert all(name.startswith("adapter.") for name in found)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)


def test_weights_are_float32_on_an_llm_of_bfloat16_and_small_steps_are_not_lost() -> None:
    owner = rig.backbone(FAMILY)
    owner.model.to(torch.bfloat16)
    attached = elm.attach(owner, elm.Config(hidden=16, norm="source"), rig.setting(FAMILY))
    model: Any = attached.model
    before = model.adapter.norm.weight.detach().clone()
    rig.train(attached, FAMILY, steps=1, rate=1e-4)
    moved = (model.adapter.norm.weight - before).abs()
    assert model.adapter.norm.weight.dtype == torch.float32
    torch.testing.assert_close(moved, torch.full_like(moved, 1e-4), rtol=0.02, atol=0)


def test_a_quantized_llm_trains_an_adapter_and_is_opened_again(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from graftlab.backbones import decoder
    from graftlab.contracts import Problem

    folder = examples.text_model(tmp_path / "llm", "decoder")
    section = decoder.Config(model=folder, quantization={"bits": 4, "compute_dtype": "float32"})
    owner = decoder.load(section, Problem("tokens"), 0)
    attached = elm.attach(owner, elm.Config(hidden=16), rig.setting(FAMILY))
    rig.train(attached, FAMILY, steps=2)
    given = batch()
    given.pop("labels")
    with torch.no_grad():
        expected = attached.model.eval()(**given).logits
    elm.save(attached.model, tmp_path / "adapter")
    from transformers import AutoModelForCausalLM

    import graftlab.auto  # noqa: F401

    again = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        torch.testing.assert_close(again(**given).logits, expected, rtol=0, atol=0)


# Losses beside cross-entropy: values by hand


def test_drift_of_the_adapter_is_what_its_cosine_lacks() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])
    tokens = torch.tensor(
        [[[1.0, 0.0], [3.0, 0.0]], [[2.0, 0.0], [0.0, 2.0]], [[-3.0, -4.0], [-3.0, -4.0]]]
    )
    # cosines 1, 1/sqrt 2 and -1; what they lack of .75
    expected = 0 + (0.75 - math.sqrt(0.5)) + 1.75
    assert losses.adapter_drift(vectors, tokens, 0.75).item() == pytest.approx(expected, abs=1e-6)


def test_drift_of_the_states_is_the_sources_over_all_positions() -> None:
    states = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[5.0, 0.0], [-1.0, 0.0]]])
    vectors = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    expected = (1 - math.sqrt(0.5)) + 2.0
    assert losses.hidden_drift(states, vectors).item() == pytest.approx(expected, abs=1e-6)


def test_info_nce_has_its_positives_on_the_diagonal() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    tokens = torch.tensor([[[2.0, 0.0]], [[3.0, 4.0]]])
    # cosines: (1, 0) and (.6, .8), divided by .5
    expected = math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-0.4))
    assert losses.info_nce(vectors, tokens, 0.5).item() == pytest.approx(expected, abs=1e-6)
    assert losses.info_nce(vectors[:1], tokens[:1], 0.5).item() == 0


def test_a_vector_that_stands_twice_is_no_other_of_itself() -> None:
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    tokens = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]])
    first = math.log(1 + math.exp(-1))
    third = math.log(1 + 2 * math.exp(-1))
    assert losses.info_nce(vectors, tokens, 1.0).item() == pytest.approx(
        2 * first + third, abs=1e-6
    )


def test_losses_are_means_over_examples_weighed_as_asked() -> None:
    """Two micro-batches of one step, which is divided by its 40 trained tokens."""
    vectors = {"width": LLM_WIDTH}
    attached = attach(
        vectors=vectors, drift="adapter", drift_weight=0.5, contrastive=2.0, dropout=0.0
    )
    rig.start(attached, torch.optim.SGD(attached.model.parameters()))
    hook, model = attached.hooks[0], attached.model.train()
    given = batch(width=LLM_WIDTH)
    found: dict[str, float] = {"drift": 0.0, "contrastive": 0.0}
    by_hand: dict[str, float] = {"drift": 0.0, "contrastive": 0.0}
    for number, rows in enumerate((slice(0, 3), slice(3, 8))):
        part = {name: tensor[rows] for name, tensor in given.items()}
        outputs = model(**{name: tensor for name, tensor in part.items() if name != "labels"})
        micro = MicroBatch(1, number, part, outputs, total=40, examples=8)
        for name, loss in hook.micro_batch_losses(micro).items():
            found[name] += loss.item() / 40
        with torch.no_grad():
            cosine = (
                F.normalize(model.adapter(part["vectors"])[:, 0]) @ F.normalize(part["vectors"]).T
            )
        by_hand["drift"] += 0.5 * sum(max(0.0, 0.75 - c) for c in cosine.diag().tolist()) / 8
        by_hand["contrastive"] += 2 * -(cosine / 0.07).log_softmax(1).diag().sum().item() / 8
    assert found == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize(
    "fields", [{"drift": "adapter"}, {"drift": "hidden"}, {"contrastive": 0.1}]
)
def test_losses_that_compare_are_refused_where_widths_differ(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        attach(**fields)
    assert error.value.problems[0].kind == "conflict"
    attach(vectors={"width": LLM_WIDTH}, **fields)


IDLE: list[tuple[dict[str, Any], str]] = [
    ({"drift_weight": 0.1}, "drift_weight"),
    ({"drift": "hidden", "drift_target": 0.5}, "drift_target"),
    ({"temperature": 0.1}, "temperature"),
    ({"lora": {"rank": 2}}, "lora"),
    ({"start": "identity", "residual": 0}, "residual"),
    ({"train_residual": True, "residual": 0}, "residual"),
]


@pytest.mark.parametrize(("fields", "key"), IDLE)
def test_a_field_that_would_do_nothing_is_refused(fields: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError) as error:
        elm.Config.model_validate(fields)
    [raised] = error.value.errors()
    assert raised["ctx"]["error"].key == key


def test_outputs_that_have_become_alike_are_logged_and_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    attached = attach(dropout=0.0)
    rig.start(attached, torch.optim.SGD(attached.model.parameters()))
    model: Any = attached.model.train()
    watch = attached.hooks[-1]

    def logged(step: int) -> dict[str, float]:
        given = batch()
        given.pop("labels")
        model(**given)
        return watch.after_optimizer_step(step)

    with caplog.at_level(logging.WARNING, "graftlab"):
        healthy = logged(1)
        with torch.no_grad():
            model.adapter.norm.bias.fill_(300)
        collapsed, again = logged(2), logged(3)
    made = model.adapter(batch()["vectors"])[:, 0].detach()
    unit = F.normalize(made)
    pairs = (unit @ unit.T)[~torch.eye(8, dtype=torch.bool)]
    assert again["elm/cosine"] == pytest.approx(pairs.mean().item(), abs=1e-5)
    assert again["elm/norm"] == pytest.approx(made.norm(dim=1).mean().item(), rel=1e-5)
    away = (made - made.mean(0)).norm(dim=1).square().mean().sqrt()
    assert again["elm/spread"] == pytest.approx(
        (away / made.norm(dim=1).square().mean().sqrt()).item(), rel=1e-3
    )
    assert healthy["elm/cosine"] < 0.9 < 0.99 < collapsed["elm/cosine"]
    assert [record.args[0] for record in caplog.records] == [2]  # type: ignore[index]


# Runs


def written(folder: Path, **rows: Any) -> str:
    for seed, (split, count) in enumerate({"train": 40, "validation": 8, "test": 8}.items()):
        (folder / split).mkdir(parents=True, exist_ok=True)
        vectors = np.random.default_rng(seed).normal(size=(count, WIDTH))
        store.write(folder / split / tree.VECTORS, vectors)
        lines = (
            {
                "task_type": "category",
                "embedding_file_idx": i,
                "query": "so " * (i % 3) + "?",
                "response": "up" if vectors[i, 0] > 0 else "down",
            }
            for i in range(count)
        )
        (folder / split / tree.ROWS).write_text("".join(json.dumps(row) + "\n" for row in lines))
    return str(folder)


def run_file(folder: Path, changes: dict[str, Any] | None = None) -> runfile.RunFile:
    values: dict[str, Any] = {
        "name": "tiny",
        "backbone": {"kind": "tiny", "width": 16, "layers": 1, "max_length": 48, "dropout": 0.1},
        "task": {
            "kind": "elm",
            "prompts": "rows",
            "data_dir": written(folder / "data"),
            "metrics": ["exact_match", "perplexity"],
            "generation": {"max_new_tokens": 5},
        },
        "method": {"name": "elm", "hidden": 8},
        "training": {
            "max_steps": 12,
            "batch_size": 8,
            "micro_batch_size": 4,
            "learning_rate": 0.01,
            "logging_every": 1,
            "evaluate_every": 4,
            "save_every": 3,
        },
        "paths": {"runs": str(folder / "runs")},
    }
    path = folder / "run.yaml"
    path.write_text(config.dump(merge(values, changes or {})), encoding="utf-8")
    return runfile.resolve(config.read(path))


@pytest.mark.slow  # killed for good, several times
@pytest.mark.parametrize(
    "changes",
    [{}, {"llm": "lora", "lora": {"rank": 2, "dropout": 0.1}}, {"contrastive": 0.1}],
    ids=["frozen", "lora", "losses"],
)
def test_killed_and_resumed_equals_never_killed(changes: dict[str, Any], tmp_path: Path) -> None:
    backbone = {"width": WIDTH, "heads": 1} if "contrastive" in changes else {}
    file = run_file(tmp_path, {"method": changes, "backbone": backbone})
    whole, path = tmp_path / "whole", tmp_path / "killed"
    session.run(file, whole, options=OPTIONS)
    assert killed_after(2, lambda: session.run(file, path, options=OPTIONS))
    for step in (5, 11):
        assert killed_after(step, lambda: session.resume(path, OPTIONS))
    assert in_child(lambda: session.resume(path, OPTIONS)) == 0
    assert outcome(Run(path)) == outcome(Run(whole))
    assert Run(path).read_result()["exact"]


@pytest.mark.slow  # processes of their own
def test_a_run_on_a_model_of_files_leaves_it_as_it_was_and_opens_anywhere(tmp_path: Path) -> None:
    """Only the adapter is saved; a fresh process opens it with transformers, to the same bits."""
    llm = examples.text_model(tmp_path / "llm", "decoder")
    for name, method in {"frozen": {}, "lora": {"llm": "lora", "lora": {"rank": 2}}}.items():
        changes = {"backbone": {"kind": "decoder", "model": llm}, "method": method, "name": name}
        values = merge(config.read(_plain(tmp_path / name)).values, changes)
        del values["backbone"]["width"], values["backbone"]["layers"], values["backbone"]["dropout"]
        (tmp_path / name / "run.yaml").write_text(config.dump(values))
        run = session.run(
            runfile.resolve(config.read(tmp_path / name / "run.yaml")), options=OPTIONS
        )
        adapted = inference.load(run.path, "cpu")
        loaded: Any = adapted.model
        before = load_file(Path(llm) / "model.safetensors")
        after = {
            key.replace(".base_layer", ""): value for key, value in loaded.llm.state_dict().items()
        }
        assert all(torch.equal(after[key], value) for key, value in before.items())
        saved = load_file(run.adapter / "model.safetensors")
        assert {key.partition(".")[0] for key in saved} == {"adapter"} | (
            {"lora"} if method else set()
        )
        about = json.loads((run.adapter / "config.json").read_text())
        assert about["llm"]["model"] == llm
        assert about["llm"]["sha256"] == adapted.backbone.record["sha256"]
        assert about["vectors"] == {"width": WIDTH, "num_tokens": 1, "origin": None}
        inputs = {
            "input_ids": torch.tensor([[2, 0, 80, 81]]), "attention_mask": torch.ones(1, 4, dtype=torch.long),
            "vectors": torch.linspace(-1, 1, WIDTH)[None], "vector_mask": torch.tensor([[0, 1, 0, 0]]),
        }  # fmt: skip
        torch.save(inputs, tmp_path / "inputs.pt")
        code = (
            "import sys, torch, graftlab.auto; from transformers import AutoModelForCausalLM as A\n"
            "model = A.from_pretrained(sys.argv[1]); inputs = torch.load(sys.argv[2])\n"
            "with torch.no_grad(): logits = model(**inputs).logits\n"
            "torch.save((logits, model.generate(**inputs, max_new_tokens=4)), sys.argv[3])"
        )
        out = tmp_path / "out.pt"
        subprocess.run(
            [sys.executable, "-c", code, run.adapter, tmp_path / "inputs.pt", out], check=True
        )
        logits, ids = torch.load(out)
        with torch.no_grad():
            # LoRA's products of rank 2 round otherwise where their weights lie otherwise in memory
            off = 1e-6 if method else 0
            torch.testing.assert_close(logits, loaded(**inputs).logits, rtol=0, atol=off)
            assert torch.equal(ids, loaded.generate(**inputs, max_new_tokens=4))
        _, scores = adapted.evaluate("test")
        recorded = run.read_result()["metrics"]["test"]
        assert {name: score.value for name, score in scores.items()} == {
            name: recorded[name]["value"] for name in scores
        }
        new = [{"vector": [1.0] * WIDTH, "task_type": "category", "query": "?"}]
        [answer] = adapted.predict(new)
        assert isinstance(answer["completion"], str)
        with pytest.raises(ConfigError):
            adapted.predict(new, raw=True)
        if not method:
            continue
        about["llm"]["sha256"] = {"model.safetensors": "another"}
        (run.adapter / "config.json").write_text(json.dumps(about))
        with pytest.raises(ModelError):
            inference.load(run.path, "cpu")


def _plain(folder: Path) -> Path:
    folder.mkdir()
    run_file(folder)
    return folder / "run.yaml"


@pytest.mark.parametrize(
    "changes",
    [{"method": {"name": "lora"}}, {"task": {"kind": "generation", "data_dir": "."}}],
    ids=["another method", "another task"],
)
def test_a_method_and_rows_that_do_not_go_together_are_refused_before_anything_is_loaded(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    values = config.read(_plain(tmp_path / "plain")).values
    for section, fields in changes.items():
        values[section] = fields
    if "task" in changes:
        values["task"] = {"kind": "generation", "template": "text", "data_dir": str(tmp_path)}
        for split in ("train", "validation", "test"):
            (tmp_path / f"{split}.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    (tmp_path / "run.yaml").write_text(config.dump(values))
    with pytest.raises(ConfigError) as error:
        runfile.resolve(config.read(tmp_path / "run.yaml"))
    assert [(fault.kind, fault.place.key or fault.place.line) for fault in error.value.problems]
    assert error.value.problems[0].kind == "conflict"


@pytest.mark.slow
@pytest.mark.parametrize("longest", [None, 40])
def test_a_plan_foresees_what_trains_and_rehearses_its_steps(
    longest: int | None, tmp_path: Path
) -> None:
    """Also for examples that are longer than those at hand: their vectors have as many places."""
    file = run_file(tmp_path, {"task": {"num_tokens": 2}})
    plan = forecast.plan(file, longest=longest)
    adapter = Adapter(form(width=WIDTH, hidden=8, token_width=16, num_tokens=2))
    assert plan["parameters"]["trainable"] == sum(p.numel() for p in adapter.parameters())
    assert plan["memory"]["peak"] > plan["memory"]["evaluation"] > 0
    assert plan["data"]["longest"] == (longest or plan["data"]["longest"])
