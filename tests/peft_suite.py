"""peft's own tests of a tuner, `tests/test_custom_models.py` of its release, over JELLY, BitFit and LoRA.

    python tests/peft_suite.py [options of pytest]

The file comes from peft's source distribution on the package index and stays in the user's cache. Its
cases for LoRA become cases of our tuners: the same model and the same layers, where the tuner knows the
layer and has the case's fields. Tests of other tuners are left out. `make peft-suite` runs it.
"""

import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
from torch import nn

import graftlab.auto  # noqa: F401
from graftlab.methods.bitfit import LAYERS
from graftlab.methods.bitfit.tuner import BitfitConfig
from graftlab.methods.jelly.tuner import JellyConfig
from graftlab.weights.surgery import is_conv1d

SUITE = "tests/test_custom_models.py"
OURS = (JellyConfig, BitfitConfig, peft.LoraConfig)
RENAMED = {"lora_alpha": "alpha", "lora_dropout": "dropout"}
FORMS: dict[str, dict[str, Any]] = {
    "parallel": {"mode": "parallel"},
    "sequential": {"mode": "sequential"},
    "sequential where square": {"mode": "sequential", "nonsquare": "parallel"},
    "switched": {"mode": "seq2par", "switch_step": 3},
    "switched with a frozen pair": {
        "mode": "seq2par", "switch_step": 3, "switch_method": "merge_reinit",
    },
}  # fmt: skip

EXCUSED = {
    (
        "test_safe_merge",
        "Conv2dGroups2",
        BitfitConfig,
    ): "sums of inputs up to 57,600 in float32 are off by "
    "more than 1e-6; peft allows its own tuners on this model 1e-3"
}


def source() -> Path:
    """Return the unpacked source distribution of the installed peft, fetched on first use."""
    version = importlib.metadata.version("peft")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graftlab"
    folder = cache / f"peft-{version}"
    if (folder / SUITE).is_file():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as work:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary", "peft", "--dest", work, f"peft=={version}"]
        subprocess.run(command, check=True)
        (archive,) = Path(work).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(work, filter="data")
        (Path(work) / folder.name / "tests" / "__init__.py").touch()  # left out of the distribution
        (Path(work) / folder.name).rename(folder)
    return folder


class Cases:
    """A plugin of pytest that puts our cases in the place of peft's."""

    def __init__(self) -> None:
        self.seen: set[Any] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Change the lists that the marks of the module hold, before the first of them is read."""
        suite: Any = metafunc.module
        if suite in self.seen:
            return
        self.seen.add(suite)
        suite.TEST_CASES[:] = single(suite)
        suite.MULTIPLE_ACTIVE_ADAPTERS_TEST_CASES[:] = several(
            suite.MULTIPLE_ACTIVE_ADAPTERS_TEST_CASES
        )
        suite.ALL_PEFT_CONFIG_CLASSES[:] = OURS

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[Any]) -> None:
        """Keep what is asked of one of ours; the rest asks for a tuner by its name."""
        kept = [item for item in items if _is_of_ours(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept
        for item in items:
            params = item.callspec.params
            asked = item.originalname, params.get("model_id"), params.get("config_cls")
            if asked in EXCUSED:
                item.add_marker(pytest.mark.skip(reason=EXCUSED[asked]))


def _is_of_ours(item: Any) -> bool:
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return any(
        value in OURS if isinstance(value, type) else type(value) in OURS for value in values
    )


def single(suite: Any) -> list[tuple[Any, ...]]:
    """Return peft's cases for LoRA, and what they become for our tuners."""
    sources = (peft.LoraConfig, peft.LNTuningConfig)  # the latter for BitFit: it fits norms
    theirs = [row for row in suite.TEST_CASES if row[2] in sources]
    ours = []
    for name, model_id, _, fields in theirs:
        model = suite.MockTransformerWrapper.from_pretrained(model_id)
        for config_class, added in _forms():
            if (given := translated(config_class, fields, model)) is not None:
                what = _named(name, config_class, added)
                ours.append((what, model_id, config_class, {**given, **added}))
    return [*(row for row in theirs if row[2] is peft.LoraConfig), *ours]


def several(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return peft's cases of two active adapters for LoRA, and what they become for our tuners."""
    theirs = [row for row in rows if row[2] is peft.LoraConfig]
    ours = []
    for name, _, _, first, second in theirs:
        for config_class, added in _forms():
            given = [translated(config_class, fields, None) for fields in (first, second)]
            if None not in given:
                one, other = ({**fields, **added} for fields in given if fields is not None)
                what = _named(name, config_class, added)
                ours.append((what, what, config_class, one, other))
    return [*theirs, *ours]


def _named(case: str, config_class: type[Any], added: dict[str, Any]) -> str:
    return f"{case} as {config_class.__name__} {' '.join(map(str, added.values()))}".rstrip()


def _forms() -> Iterator[tuple[type[Any], dict[str, Any]]]:
    for fields in FORMS.values():
        yield JellyConfig, fields
    yield BitfitConfig, {}


def translated(
    config_class: type[Any], fields: dict[str, Any], model: nn.Module | None
) -> dict[str, Any] | None:
    """Return the fields of a case of LoRA as a tuner of ours has them; None where it cannot be one."""
    given = {RENAMED.get(name, name): value for name, value in fields.items()}
    if given.get("init_lora_weights") is False:
        given["init_weights"] = given.pop("init_lora_weights")
    if not set(given) <= set(config_class.__dataclass_fields__):
        return None
    targets = given["target_modules"]
    names = (targets,) if isinstance(targets, str) else targets
    if model is not None and not all(_fits(config_class, model.get_submodule(n)) for n in names):
        return None
    return given


def _fits(config_class: type[Any], layer: Any) -> bool:
    if config_class is JellyConfig:
        return isinstance(layer, nn.Linear) or is_conv1d(layer)
    has_bias = getattr(layer, "bias", None) is not None
    return has_bias and any(cls.__name__ in LAYERS for cls in type(layer).__mro__)


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"  # no case of these wants a model from the hub
    folder = source()
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "--override-ini",
        "addopts=",
        "--rootdir",
        str(folder),
    ]
    os.chdir(folder)
    # imported at the top of what the cases share, for pictures that no case of these draws
    absent = types.ModuleType("diffusers")
    absent.StableDiffusionPipeline = None  # type: ignore[attr-defined]
    sys.modules.setdefault("diffusers", absent)
    sys.exit(pytest.main([*options, *sys.argv[1:], SUITE], plugins=[Cases()]))
