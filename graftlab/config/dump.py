"""Plain values as YAML that `read` takes back unchanged."""

import io
from collections.abc import Mapping

from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from graftlab.config.parser import scalar


class _Representer(SafeRepresenter):
    """Quotes text that would be read as something else, and writes floats in full."""


def _text(representer: SafeRepresenter, value: str) -> ScalarNode:
    marks = value.startswith(("?", ":"))  # of a key, within braces
    plain = isinstance(scalar(value), str) and value.isprintable() and not marks
    return representer.represent_scalar("tag:yaml.org,2002:str", value, None if plain else '"')


_Representer.add_representer(str, _text)


def dump(values: Mapping[str, object]) -> str:
    """Return values as YAML in their own order."""
    return _written(dict(values), on_one_line=False)


def inline(value: object) -> str:
    """Return a value as YAML on one line, as `--set` takes it: `{name: adamw, arguments: {}}`."""
    return _written(value, on_one_line=True).removesuffix("...\n").strip()


def _written(value: object, on_one_line: bool) -> str:
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = on_one_line
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 100_000  # a folded line is hard to compare
    yaml.allow_unicode = True
    stream = io.StringIO()
    yaml.dump(value, stream)
    return stream.getvalue()
