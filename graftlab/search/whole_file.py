"""A search file that needs no other: what its base, its `extends` and its overrides came to stands in it."""

from typing import Any

from graftlab import config
from graftlab.rundir.records import Json
from graftlab.runfile import absolute
from graftlab.search.design import Plan

FILE = "search.yaml"
"""What it is called in the search's directory."""


def text(plan: Plan) -> str:
    """Return the file: `graftlab tune` of it, wherever it lies, searches what this plan does."""
    given: dict[str, Any] = plan.search.model_dump(mode="json", exclude_unset=True)
    space = {key: _range(plan, key, kept) for key, kept in dict(given["space"]).items()}
    return config.dump(
        {**given, "name": plan.name, "base": absolute.values(plan.file), "space": space}
    )


def _range(plan: Plan, key: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return what a field may take; what others' have to be is written as theirs."""
    found = dict(given)
    if given.get("choice") is not None:
        found["choice"] = [_value(plan, key, one) for one in given["choice"]]
    if "when" in given:
        found["when"] = {other: _value(plan, other, one) for other, one in given["when"].items()}
    return found


def _value(plan: Plan, key: str, value: Json) -> Json:
    """Return a value that a trial may take, absolute where it is a path."""
    found: Any = absolute.values(plan.file, plan.document({key: value}, plan.name))
    for part in key.split("."):
        if not isinstance(found, dict) or part not in found:
            return value
        found = found[part]
    return found
