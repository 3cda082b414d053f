"""No key of a run file is idle: changed, it shows in what is read, built, sent or written, or is refused.

The table is field_cases.py; `training:` has its own in tests/training. A field without a case fails here.
"""

import base64
import hashlib
import io
import json
import os
import sys
import tempfile
import types
import typing
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import datasets
import field_cases as cases
import numpy as np
import pytest
import torch
from outside_packages import install_module
from PIL import Image
from pydantic import BaseModel
from safetensors.torch import load_file, save_file
from vector_runs import write_split

from graftlab import config, registry, runfile
from graftlab.backbones import tiny
from graftlab.config import Paths, merge
from graftlab.data import foreign_code
from graftlab.errors import GraftlabError, Refused
from graftlab.programs import sandbox
from graftlab.runfile import Root
from graftlab.runs import session
from graftlab.testing import examples, rig
from graftlab.training import trackers

pytestmark = pytest.mark.slow  # every field of every part

SECTIONS = {"backbone", "task", "method", "hooks", "training", "tracking", "paths"}
CLASSES = rig.CLASSES
ROWS = {"train": 12, "validation": 6, "test": 6}


def leaves(section: type[BaseModel], before: str = "") -> set[str]:
    """Return the dotted names of a section's fields, those of the sections inside it included."""
    found = set()
    for name, field in section.model_fields.items():
        inside = [
            t for t in (field.annotation, *typing.get_args(field.annotation)) if is_section(t)
        ]
        below = {leaf for part in inside for leaf in leaves(part, f"{before}{name}.")}
        found |= below or {before + name}
    return found


def is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


PARTS = [
    (kind, name, table[name])
    for kind, table in (
        ("tasks", cases.TASKS), ("backbones", cases.BACKBONES), ("methods", cases.METHODS)
    )
    for name in registry.names(kind) if name in table
]  # fmt: skip


def test_what_is_in_the_table_is_there() -> None:
    assert len(PARTS) == len(cases.TASKS) + len(cases.BACKBONES) + len(cases.METHODS)


@pytest.mark.parametrize(("kind", "name", "table"), PARTS, ids=[f"{k}-{n}" for k, n, _ in PARTS])
def test_every_field_of_a_part_has_a_case(kind: str, name: str, table: Any) -> None:
    found = leaves(registry.find(kind, name).Config)
    # how a layer is selected has a table of its own, in tests/selection
    assert set(table) == {leaf for leaf in found if not leaf.startswith("selection.")}


def test_every_other_field_has_a_case() -> None:
    assert set(cases.TRACKING) == leaves(trackers.Config)
    assert set(cases.PATHS) == leaves(Paths)
    assert set(cases.ROOT) == set(Root.model_fields) - SECTIONS


# What a run is made from


def rows(start: int, count: int) -> list[dict[str, Any]]:
    """Return rows that texts and images can be read from; those from number 0 on are the same."""
    found = []
    for i in range(start, start + count):
        pixels = np.full((8, 8, 3), (i % 256, i // 2, 50), dtype=np.uint8)
        pixels[: i % 8, i % 5] = 255
        image, picture = ({"bytes": png(p)} for p in (pixels, pixels[::-1, ::-1]))
        text = f"row number {i} {'so ' * (i % 5)}"
        found.append({"text": text, "other": f"{i} otherwise", "label": "abc"[i % 3],
                      "score": i % 4, "image": image, "picture": picture,
                      "answers": ["yes"] * (i % 2), "messages": chat("role", "content", i),
                      "turns": chat("from", "value", i + 1)})  # fmt: skip
    return found


def chat(role: str, content: str, i: int) -> list[dict[str, str]]:
    return [{role: "user", content: f"what is {i}?"}, {role: "assistant", content: f"it is {i}"}]


def png(pixels: Any) -> str:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def splits(start: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Return three splits; the first train row stands in test too."""
    found = {s: rows(start + 30 * i, count) for i, (s, count) in enumerate(ROWS.items())}
    found["test"][0] = found["train"][0]
    return found


def write(folder: Path, found: dict[str, list[dict[str, Any]]]) -> None:
    folder.mkdir(exist_ok=True)
    for split, split_rows in found.items():
        lines = "".join(json.dumps(row) + "\n" for row in split_rows)
        (folder / f"{split}.jsonl").write_text(lines)


def write_vectors(made: Path) -> None:
    """Write folders of vectors: of three splits, of which the first train vector stands in test too; of
    others; of train alone; and with a row that cannot be used."""
    folders = {"vectors": ROWS, "others": ROWS, "train_alone": {"train": 12}, "one_bad": ROWS}
    for number, (name, counts) in enumerate(folders.items()):
        for split, count in counts.items():
            drawn = np.random.default_rng([number, len(split)]).normal(size=(count, 6))
            if split == "test":
                drawn[0] = np.random.default_rng([number, len("train")]).normal(size=(12, 6))[0]
            found = [
                {"task_type": ("category", "keywords")[i % 2], "embedding_file_idx": i,
                 "query": f"{split} {i}?", "response": "so " * (1 + 4 * (i % 5))}
                for i in range(count)
            ]  # fmt: skip
            if name == "one_bad" and split == "train":
                found[3]["embedding_file_idx"] = count
            write_split(made / name / split, drawn, found)


def move(weights: Path) -> None:
    """Add one half to each weight in a file."""
    moved = {name: weight + 0.5 for name, weight in load_file(weights).items()}
    save_file(moved, weights, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    made: Path = tmp_path_factory.mktemp("fields")
    write(made, splits())
    write(made / "folder", splits(100))
    bad = [{**rows(1, 1)[0], "label": "z"}, *rows(2, 8)]
    (made / "bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bad))
    twice = [rows(1, 1)[0], *rows(1, 9)]
    (made / "twice.jsonl").write_text("".join(json.dumps(row) + "\n" for row in twice))
    odd = [*rows(1, 6), {**rows(9, 1)[0], "text": " ", "other": " "}, *rows(10, 5)]
    (made / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in odd))
    broken = [{**rows(1, 1)[0], "text": None}, *rows(2, 8)]
    (made / "broken.jsonl").write_text("".join(json.dumps(row) + "\n" for row in broken))
    write_vectors(made)
    for name, mark in (("chat", ":"), ("other", "=")):
        (made / f"{name}.jinja").write_text(
            "{% for m in messages %}{{ m.role + '"
            + mark
            + "' + m.content + eos_token }}{% endfor %}"
            "{% if add_generation_prompt %}assistant" + mark + "{% endif %}"
        )
    for kind in ("encoder", "decoder", "vision"):
        for name in ("model", "other"):
            (made / kind / name).mkdir(parents=True)
            examples.BACKBONES[kind](made / kind / name)
        move(made / kind / "other" / "model.safetensors")
    for method in ("pifi",):
        (made / method / "other").mkdir(parents=True)
        examples.METHODS[method](made / method / "other")
        move(made / method / "other" / "model.safetensors")
    for method in ("lora", "dora", "pissa"):
        module = registry.find("methods", method)
        attached = module.attach(backbone(), module.Config(), rig.setting(FAMILY, seed=9))
        rig.train(attached, FAMILY)
        module.save(attached.model, made / method / "adapter")
    return made


@pytest.fixture
def place(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stand in the folder, with a package of rows and with stand-ins for what is far away."""
    monkeypatch.chdir(folder)
    source: Any = types.ModuleType("field_rows")
    source.few = lambda count=9: {s: found[:count] for s, found in splits().items()}
    source.many = lambda count=9: {s: found[:count] for s, found in splits(200).items()}
    source.noting = lambda: (
        source.seen.append(torch.are_deterministic_algorithms_enabled()) or source.few()
    )
    source.seen = []
    for made in (source.few, source.many, source.noting):
        made.__module__ = "field_rows"
    monkeypatch.syspath_prepend(install_module(tmp_path / "installed", "field_rows", ""))
    monkeypatch.setitem(sys.modules, "field_rows", source)
    monkeypatch.setattr(datasets, "load_dataset", hub)
    wandb: Any = types.ModuleType("wandb")
    wandb.__spec__ = ModuleSpec("wandb", None)
    wandb.setup = lambda: types.SimpleNamespace(settings=types.SimpleNamespace(mode="online"))
    wandb.login = lambda **_: True
    wandb.Settings = dict
    wandb.init = lambda **asked: (
        SENT.append(asked) or types.SimpleNamespace(summary={}, finish=lambda: None)
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with foreign_code.allowed():
        yield folder


ASKED: list[Any] = []
SENT: list[dict[str, Any]] = []


def hub(*asked: Any, **options: Any) -> Any:
    """Stand in for the hub: note what is asked for, and give the same rows whatever it is."""
    ASKED.append((asked, options))
    given = {**splits(), "extra": rows(300, 8)}
    return {split: datasets.Dataset.from_list(found) for split, found in given.items()}


# What is seen of a run


def digest(tensors: dict[str, torch.Tensor]) -> str:
    hashed = hashlib.sha256()
    for name, tensor in tensors.items():
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hashed.update(tensor.detach().float().contiguous().numpy().tobytes())
    return hashed.hexdigest()


def seen_of_task(run: Any) -> Any:
    data = run.task.module.read(run.task.config, run.paths, run.seed)
    backbone = run.backbone.module.load(run.backbone.config, data.problem, 0)
    task = run.task.module.bind(data, backbone, run.task.config, 0)
    batches = {
        (split, epoch): digest(task.batch(split, range(task.size(split)), epoch))
        for split in ("train", "validation", "test") if task.size(split)
        for epoch in (0, None)
    }  # fmt: skip
    golds = [row["label"] for rows in data.splits.values() for row in rows]
    writing = getattr(task, "final_metrics", ()), getattr(task, "template", {})
    skipped = data.record["skipped"]
    drawn = (task.draws(0, 0).tolist(), run.task.config.name) if run.task.parts else ()
    weights = str(getattr(task, "class_weights", None))
    return list(ASKED), drawn, data.problem, task.metrics, batches, skipped, golds, writing, weights


def seen_of_backbone(run: Any) -> Any:
    loaded = run.backbone.module.load(run.backbone.config, CLASSES, 0)
    model: Any = loaded.model
    drops = [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    return (
        digest(model.state_dict()), drops, model.config.num_attention_heads,
        model.config._attn_implementation, loaded.max_length,
        [layer.compute_dtype for layer in model.modules() if hasattr(layer, "compute_dtype")],
    )  # fmt: skip


def backbone() -> Any:
    return tiny.load(tiny.Config(layers=1, dropout=0), CLASSES, 0)


FAMILY = rig.Family("tiny", CLASSES, "bert", lambda: backbone().model)


READING = rig.FAMILIES["vectors"]._replace(vectors=32)  # as many numbers as its tokens have


def seen_of_method(run: Any) -> Any:
    reads = run.method.module.PROMISES.reads_vectors
    family, owner = (READING, rig.backbone(READING)) if reads else (FAMILY, backbone())
    attached = run.method.module.attach(owner, run.method.config, rig.setting(family))
    start = digest(attached.model.state_dict())
    reached = rig.train(attached, family, steps=rig.NUM_STEPS)
    after = digest(attached.model.state_dict())
    hooks = [sorted(hook.state_dict()) and repr(hook.state_dict()) for hook in attached.hooks]
    return start, after, reached, attached.rates, hooks


def seen_of_tracking(run: Any) -> Any:
    with trackers.Trackers(run.tracking, Path("somewhere")) as sent:
        Path("somewhere").mkdir(exist_ok=True)
        sent.start({"config": {}, "model": "Model"})
    return [{**asked, "id": None} for asked in SENT]


def seen_of_paths(run: Any) -> Any:
    run.task.module.read(run.task.config, run.paths, run.seed)
    return list(ASKED), session.directory(run)


def seen_of_run(run: Any) -> Any:
    with tempfile.TemporaryDirectory() as place:
        options = session.Options(quiet=True)
        done = session.run(run, Path(place) / run.name, options=options)
        adapter = (done.adapter / "adapter_model.safetensors").read_bytes()
        tables = sorted(path.name for path in (Path(place) / run.name).glob("*.jsonl"))
    return run.name, hashlib.sha256(adapter).hexdigest(), tables, sys.modules["field_rows"].seen[-1]


def laid_over(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    for dotted, value in changes.items():
        for key in reversed(dotted.split(".")):
            value = {key: value}
        values = merge(values, value)
    return values


def seen(look: Callable[[Any], Any], values: dict[str, Any]) -> str:
    """Return what `look` finds of a run file's values, or the refusal."""
    ASKED.clear()
    SENT.clear()
    Path("run.yaml").write_text(config.dump(values))
    try:
        return repr(look(runfile.resolve(config.read("run.yaml"))))
    except GraftlabError as error:
        return f"refused: {error}"


def assert_not_idle(look: Callable[[Any], Any], values: Any, key: str, case: cases.Case) -> None:
    """Assert that the case's change is refused with its words, or seen."""
    values = laid_over(values, case.base)
    after = seen(look, laid_over(values, {key: case.value}))
    if case.refused:
        assert after.startswith("refused: ")
        assert case.refused in after
    else:
        assert not after.startswith("refused: "), after
        before = seen(look, values)
        assert after != before
        assert seen(look, values) == before, "it differs without a change too"


CASES = [(kind, name, key) for kind, name, table in PARTS for key in table]
LOOKS = {
    "tasks": ("task", seen_of_task),
    "backbones": ("backbone", seen_of_backbone),
    "methods": ("method", seen_of_method),
}


@pytest.mark.parametrize(("kind", "name", "key"), CASES, ids=[f"{n}.{k}" for _, n, k in CASES])
def test_no_field_of_a_part_is_idle(kind: str, name: str, key: str, place: Path) -> None:
    if key == "execute_code":
        try:
            sandbox.check()
        except Refused as why:
            pytest.skip(str(why))
    section, look = LOOKS[kind]
    case = next(table for k, n, table in PARTS if (k, n) == (kind, name))[key]
    values = cases.IMAGES if name in ("images", "vision") else cases.TEXTS
    own = {
        "multiple_choice": cases.QUESTIONS,
        "generation": cases.GENERATION,
        "mixture": cases.MIXTURE,
        "elm": cases.READER,
    }
    values = own.get(name, values)
    if kind == "methods" and name != "elm":
        example = rig.config(name).model_dump(mode="json", exclude_unset=True)
        values = {**values, "method": {"name": name, **example}}
        os.chdir(place / name if (place / name).is_dir() else place)
        values = {**values, "task": {**values["task"], "files": None, "data_dir": str(place)}}
    if kind == "backbones" and name != "tiny":
        values = {**values, "backbone": {"kind": name, "model": "model"}}
        os.chdir(place / name)
        values = {**values, "task": {**values["task"], "files": None, "data_dir": str(place)}}
    assert_not_idle(look, values, f"{section}.{key}", case)


@pytest.mark.parametrize("key", cases.TRACKING)
def test_no_field_of_tracking_is_idle(key: str, place: Path) -> None:
    assert_not_idle(seen_of_tracking, cases.TEXTS, f"tracking.{key}", cases.TRACKING[key])


@pytest.mark.parametrize("key", cases.PATHS)
def test_no_path_is_idle(key: str, place: Path) -> None:
    assert_not_idle(seen_of_paths, cases.TEXTS, f"paths.{key}", cases.PATHS[key])


@pytest.mark.parametrize("key", cases.ROOT)
def test_no_key_of_the_whole_run_is_idle(key: str, place: Path) -> None:
    short = {"training.max_steps": 1, "training.batch_size": 4}
    values = laid_over(cases.TEXTS, {**cases.SOURCE, "task.source": "field_rows:noting", **short})
    assert_not_idle(seen_of_run, values, key, cases.ROOT[key])
