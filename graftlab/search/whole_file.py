"""A search file that needs no other: what its base, its `extends` and its overrides came to stands in it."""

from graftlab import config
from graftlab.rundir.records import Json
from graftlab.search.design import Plan

FILE = "search.yaml"
"""What it is called in the search's directory."""


def text(plan: Plan) -> str:
    """Return the file: `graftlab tune` of it searches the same space from the same base."""
    given: dict[str, Json] = plan.search.model_dump(mode="json", exclude_unset=True)
    return config.dump({**given, "name": plan.name, "base": plan.base.values})
