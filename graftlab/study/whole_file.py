"""A study file that needs no other: what its base, its `extends` and its overrides came to stands in it."""

from graftlab import config
from graftlab.config import Document
from graftlab.rundir.records import Json
from graftlab.study.design import Plan, based_on

FILE = "study.yaml"
"""What it is called in the study's directory."""


def text(plan: Plan) -> str:
    """Return the file: `graftlab compare` of it asks for the same runs."""
    given: dict[str, Json] = plan.study.model_dump(mode="json", exclude_unset=True)
    base = based_on(plan.study.base, Document(plan.path, {}, {})).values
    return config.dump({**given, "name": plan.name, "base": base})
