"""What of a run is shared: files that other machines can use, without the folders of this one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from graftlab import config, runfile
from graftlab.errors import ConfigError
from graftlab.rundir import files, manifest
from graftlab.rundir import run as rundir
from graftlab.rundir.records import Result
from graftlab.rundir.run import Run
from graftlab.runfile import RunFile, measures
from graftlab.runs import integrity

Content = bytes | Path
ADAPTER_CONFIG = "adapter_config.json"
MODEL_CONFIG = "config.json"
MODELS = ("model", "llm", "_name_or_path")
"""Keys that name a model: by its id on the hub, or by a folder of this machine."""
CARD = "README.md"
ENVIRONMENT = ("packages", "python", "graftlab", "peft", "seed", "processes", "deterministic")
DATA = (
    *("problem", "labels", "parts", "sizes", "original_sizes", "fingerprint", "revision"),
    "vectors",  # of what model, which texts go through where the run is used
)
BACKBONE = ("source", "revision", "sha256")


@dataclass(frozen=True)
class Shared:
    """A finished run, and what others are told of it."""

    run: Run
    file: RunFile
    result: Result
    environment: dict[str, Any]
    """Packages, data and weights that `graftlab.load` compares; nothing of this machine."""

    @property
    def base_is_local(self) -> bool:
        """The backbone is a folder of this machine, which nobody else has."""
        return Path(str(self.file.backbone.config.model)).is_absolute()

    @property
    def peft(self) -> dict[str, object] | None:
        """The adapter's config in PEFT's format; None for a method that PEFT does not load."""
        path = self.run.adapter / ADAPTER_CONFIG
        return files.read_json(path) if path.is_file() else None

    def config(self) -> str:
        """Return the run file with every path but its name cut off, and nothing about where runs go."""
        file = self.file
        values = {k: file.resolved[k] for k in ("name", "training", "seed", "deterministic")}
        values["backbone"] = {"kind": file.backbone.name, **_portable(file.backbone.config)}
        values["task"] = {**_portable(file.task.config), "kind": file.task.name}
        if file.task.parts:  # each whole: what `each` says stands in them
            own = [(n, p.name, _portable(p.config)) for n, p in file.task.parts.items()]
            values["task"] |= {"tasks": [{"as": n, **v, "kind": kind} for n, kind, v in own]}
            values["task"]["each"] = {}
        if file.hooks:
            values["hooks"] = [{"name": h.name, **_portable(h.config)} for h in file.hooks]
        values["method"] = {"name": file.method.name, **_portable(file.method.config)}
        return config.dump({key: values[key] for key in file.resolved if key in values})


def read(path: Path) -> Shared:
    """Return the finished run at `path`.

    Raises:
        ConfigError: it is no run, or not finished.
        CheckpointError, ModelError: a file of it is damaged, or a number in its adapter is not finite.
    """
    run = rundir.find(path)
    if not run.finished:
        raise ConfigError(
            f"{path} is not finished, so it has no scores to show. `graftlab resume {path}`."
        )
    integrity.check(run)
    before = run.read_environment()
    environment = {key: before[key] for key in ENVIRONMENT if key in before}
    environment["data"] = _portable({k: before["data"][k] for k in DATA if k in before["data"]})
    environment["backbone"] = {key: before["backbone"].get(key) for key in BACKBONE}
    file = runfile.of_run(run)
    return Shared(run, file, _portable(run.read_result()), environment)


def gather(shared: Shared) -> dict[str, Content]:
    """Return what is uploaded beside the card, by its name in the repository.

    Downloaded into one folder it is an adapter folder for PEFT, and a run for `graftlab.load`.
    """
    contents: dict[str, Content] = {
        str(path.relative_to(shared.run.adapter)): path
        for path in sorted(shared.run.adapter.rglob("*"))
        if path.is_file() and path.name not in (CARD, manifest.NAME)
    }
    if (model := shared.run.adapter / MODEL_CONFIG).is_file():
        described = files.read_json(model)
        if (named := _portable(described)) != described:
            contents[MODEL_CONFIG] = files.dump_json(named).encode()
    for task in (shared.file.task, *shared.file.task.parts.values()):
        if (template := getattr(task.config, "chat_template_file", None)) is not None:
            contents[template.name] = template
    environment = shared.environment
    if shared.base_is_local:
        source = portable_model(environment["backbone"]["source"])
        environment = {**environment, "backbone": {**environment["backbone"], "source": source}}
        if (peft := shared.peft) is not None:
            renamed = {**peft, "base_model_name_or_path": source}
            contents[ADAPTER_CONFIG] = files.dump_json(renamed).encode()
    contents["config.yaml"] = shared.config().encode()
    contents["environment.json"] = files.dump_json(environment).encode()
    contents["result.json"] = files.dump_json(_shown(shared.result)).encode()
    sums = {name: hash_of(content) for name, content in contents.items()}
    return {**contents, manifest.NAME: manifest.text(sums).encode()}


def hash_of(content: Content) -> str:
    """Return the sha256 of what is uploaded."""
    return manifest.hash_of(content) if isinstance(content, bytes) else files.sha256(content)


def portable_model(model: str) -> str:
    """Return the folder of a model as others may have it: beside where they start."""
    return f"./{Path(model).name}"


def _shown(result: Result) -> Result:
    backbone = str(result["backbone"])
    return {**result, "backbone": portable_model(backbone) if backbone[:1] == "/" else backbone}


def _portable(value: object) -> Any:
    """Return a section, or JSON, as plain values: of a path only its last part, and so in a metric's name."""
    if isinstance(value, BaseModel):
        value = {key: getattr(value, key) for key in type(value).model_fields}
    if isinstance(value, Mapping):
        return {
            measures.moved(str(key), portable_model): portable_model(item)
            if key in MODELS and str(item)[:1] == "/"
            else _portable(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_portable(item) for item in value]
    if isinstance(value, str):
        return measures.moved(value, portable_model)
    return f"./{value.name}" if isinstance(value, Path) else value
