"""Tiny backbones for the tests of what only one method promises."""

from collections.abc import Callable
from typing import Any

import pytest

from graftlab import registry
from graftlab.contracts import Attached
from graftlab.testing import fitting


@pytest.fixture
def attach() -> Callable[..., Attached]:
    """Return a function that attaches a method with some settings to a tiny backbone of a family."""

    def attach(name: str, family: str = "encoder", **settings: Any) -> Attached:
        method, fitted = registry.find("methods", name), fitting.FAMILIES[family]
        config = method.Config(**settings)
        attached: Attached = method.attach(
            fitting.backbone(fitted), config, fitting.setting(fitted)
        )
        return attached

    return attach


@pytest.fixture
def encoder() -> fitting.Family:
    return fitting.FAMILIES["encoder"]
