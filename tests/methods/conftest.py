"""Tiny backbones for the tests of what only one method promises."""

from collections.abc import Callable
from typing import Any

import pytest

from graftlab import registry
from graftlab.contracts import Attached
from graftlab.testing import rig


@pytest.fixture
def attach() -> Callable[..., Attached]:
    """Return a function that attaches a method with some settings to a tiny backbone of a family."""

    def attach(name: str, family: str = "encoder", **settings: Any) -> Attached:
        method, fitted = registry.find("methods", name), rig.FAMILIES[family]
        config = method.Config(**settings)
        attached: Attached = method.attach(rig.backbone(fitted), config, rig.setting(fitted))
        return attached

    return attach


@pytest.fixture
def encoder() -> rig.Family:
    return rig.FAMILIES["encoder"]
