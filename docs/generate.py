"""Write the tables of these pages that come from the package: `python docs/generate.py`.

A table stands between `<!-- NAME: begin ... -->` and `<!-- NAME: end -->`; a test keeps it current.
"""

import ast
import dataclasses
import inspect
import json
import re
import runpy
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from graftlab import cli, contracts, registry
from graftlab.analyses import columns
from graftlab.config import Paths, Section
from graftlab.contracts import Hook
from graftlab.data.section import DataSection, Files, Hub
from graftlab.runfile import Root, catalogue, measures
from graftlab.training import config as training
from graftlab.training import trackers
from graftlab.weights import pretrained

ROOT = Path(__file__).parents[1]
PAGES = (
    "docs/run-files.md",
    "docs/tasks.md",
    "docs/backbones.md",
    "docs/metrics.md",
    "docs/analysis.md",
    "docs/methods.md",
    "docs/add-a-method.md",
    "docs/add-a-part.md",
    "docs/commands.md",
    "docs/hooks.md",
    "docs/architecture.md",
)
BLOCK = re.compile(r"(<!-- (\w[\w-]*): begin[^>]*-->\n).*?(<!-- \2: end -->)", re.S)
NOUNS = {bool: "`true`, `false`", int: "integer", float: "number", str: "text", Path: "path"}
SIGNS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """Return a Markdown table; a bar in a cell is escaped."""
    lines = [head, tuple("---" for _ in head), *rows]
    cells = ([" ".join(cell.split()).replace("|", r"\|") for cell in row] for row in lines)
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def words(kind: Any) -> str:
    """Return a field's type as a reader of YAML says it."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return words(inner[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(words(item) for item in inner if item is not type(None))
    if origin is tuple:
        return f"list of {words(inner[0])}"
    if origin is dict or kind is Any or kind is dict or is_section(kind):
        return "mapping"
    return NOUNS[kind]


def allowed(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {_number(getattr(item, key))}"
        for item in field.metadata
        for key, sign in SIGNS
        if getattr(item, key, None) is not None
    ]
    return " ".join([words(field.annotation), *bounds])


def _number(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e6 else f"2^{int(value).bit_length() - 1}"


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Path):
        return f"`{str(value).replace(str(Path.home()), '~')}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    if value is None or isinstance(value, bool):
        return f"`{ {None: 'null', True: 'true', False: 'false'}[value] }`".replace(" ", "")
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return f"`{shown}`".replace("\n", r"\n")


def rows(config: type[Section], leave: Mapping[str, Any], before: str = "") -> Iterator[Any]:
    """Yield key, what it may be, default and meaning of each field, those of inner sections too."""
    for name, field in config.model_fields.items():
        if name in leave:
            continue
        inner = [
            kind for kind in (field.annotation, *get_args(field.annotation)) if is_section(kind)
        ]
        if inner and field.default is not None:
            yield from rows(inner[0], {}, f"{before}{name}.")
        else:
            about = field.description or ""
            yield f"`{before}{name}`", allowed(field), default(field), about


def fields(config: type[Section], leave: Mapping[str, Any] | None = None) -> str:
    head = ("key", "value", "default", "meaning")
    return table(head, rows(config, leave or {}))


def methods() -> str:
    parts = []
    for name in registry.own("methods"):
        config = registry.find("methods", name).Config
        text = (
            fields(config, {"name": 0}) if set(config.model_fields) - {"name"} else "No fields.\n"
        )
        parts.append(f"### {name}\n\n{registry.describe('methods', name)}\n\n{text}")
    return "\n".join(parts)


def hooks() -> str:
    parts = []
    for name in registry.own("hooks"):
        module = registry.find("hooks", name)
        about = inspect.cleandoc(module.__doc__ or "")
        kind = "It observes." if module.OBSERVES else "It changes the training."
        parts.append(f"## {name}\n\n{about} {kind}\n\n{fields(module.Config)}")
    return "\n".join(parts)


def moments() -> str:
    """Return what a hook may override, in the order in which the loop comes by."""
    written = {name: value for name, value in vars(Hook).items() if name[0] != "_"}
    rows = ((f"`{name}`", inspect.cleandoc(value.__doc__ or "")) for name, value in written.items())
    return table(("moment", "what"), rows)


def backbones() -> str:
    """Return the fields of all pretrained kinds, those of the text kinds, and those of `tiny`."""
    shared = registry.find("backbones", "vision").Config.model_fields
    parts = [
        f"### encoder, decoder, vision\n\n{fields(registry.find('backbones', 'vision').Config)}"
    ]
    for name in registry.own("backbones"):
        config = registry.find("backbones", name).Config
        left_out = shared if set(shared) < set(config.model_fields) else {}
        if name != "vision":
            parts.append(f"### {name}\n\n{fields(config, left_out)}")
    return "\n".join(parts)


def tasks() -> str:
    """Return the fields that all kinds share, and those of each kind."""
    parts = [f"### Every kind\n\n{fields(DataSection)}"]
    parts += [f"`hub:`\n\n{fields(Hub)}", f"`files:`\n\n{fields(Files)}"]
    for name in registry.own("tasks"):
        config = registry.find("tasks", name).Config
        parts.append(f"### {name}\n\n{fields(config, DataSection.model_fields)}")
    return "\n".join(parts)


def task_catalogue() -> str:
    entries = {entry["name"]: entry for entry in catalogue().values()}
    return table(
        ("name", "also", "what", "classes", "metrics", "rows from"),
        (
            (
                f"`{name}`",
                ", ".join(f"`{other}`" for other in entry.get("aliases", ())),
                entry["about"],
                _outputs(entry),
                ", ".join(entry.get("metrics", ("accuracy", "macro_f1"))),
                _rows_from(entry),
            )
            for name, entry in sorted(entries.items(), key=lambda item: (item[1]["kind"], item[0]))
        ),
    )


def _outputs(entry: Mapping[str, Any]) -> str:
    """Return the number of classes, or what a task has in their place."""
    if entry.get("regression"):
        return "scores"
    labels = entry.get("labels")
    if labels is None:
        return "texts"
    return str(len(set(labels.values() if isinstance(labels, Mapping) else labels)))


def _rows_from(entry: Mapping[str, Any]) -> str:
    if "hub" in entry:
        return " ".join(f"`{entry['hub'][key]}`" for key in ("path", "name") if key in entry["hub"])
    return f"`{entry['source']}`" if "source" in entry else "your own files"


def aliases() -> str:
    """Return one row a model: its first alias, other spellings, hub id."""
    models: dict[int, list[str]] = {}
    for alias, entry in pretrained.aliases().items():
        models.setdefault(id(entry), []).append(alias)
    known = pretrained.aliases()
    return table(
        ("alias", "also", "model", "kind", "what"),
        (
            (
                f"`{first}`",
                ", ".join(f"`{name}`" for name in others),
                f"`{known[first]['id']}`" if known[first]["id"] else "",
                known[first]["kind"],
                known[first]["about"] + ("; gated" if known[first].get("gated") else ""),
            )
            for first, *others in models.values()
        ),
    )


def metrics() -> str:
    """Return what each metric is, what it reads, and the package that it is computed by; then settings."""
    entries, modules = measures.catalogue(), registry.own("metrics")
    named = {n: e for n, e in entries.items() if e.module in modules}
    rows = (
        (
            f"`{name}`",
            named[name].about if name in named else registry.describe("metrics", name),
            f"`{_asked(named[name])}`" if name in named else "",
            measures.measure(name).module.READS,
            (measures.measure(name).module.PACKAGE or "").replace("_", "-"),
        )
        for name in sorted({*named, *modules})
    )
    parts = [table(("name", "what", "the same as", "reads", "package"), rows)]
    for name in modules:
        if config := registry.find("metrics", name).Config:
            parts.append(f"### {name}\n\n{registry.describe('metrics', name)}\n\n{fields(config)}")
    return "\n".join(parts)


def _asked(entry: measures.Entry) -> str:
    """Return a name of the catalogue as the mapping that it stands for."""
    settings = ", ".join(f"{key}: {json.dumps(v)}" for key, v in entry.settings.items())
    return f"{{name: {entry.module}, {settings}}}".replace('"', "")


def excuses() -> str:
    """Return every promise that a method does not make, and why."""
    return table(
        ("method", "promise", "why it is excused"),
        (
            (f"`{name}`", f"`{promise}`", why)
            for name in registry.own("methods")
            for promise, why in sorted(registry.find("methods", name).PROMISES.excuses().items())
        ),
    )


def rates() -> str:
    """Return at which learning rates each method usually trains."""
    found = {
        name: registry.find("methods", name).PROMISES.usual_rates
        for name in registry.own("methods")
    }
    return table(
        ("method", "usual learning rates"),
        ((f"`{name}`", f"{low:g} to {high:g}") for name, (low, high) in found.items()),
    )


def members(kind: type) -> Iterator[tuple[str, str]]:
    """Yield what a class of the contracts has, as it is written, and what its docstring says of it."""
    body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
    for node, after in zip(body, [*body[1:], None], strict=True):
        match node, after:
            case ast.FunctionDef(), _:
                given = [*node.args.posonlyargs, *node.args.args]
                arguments = [a.arg for a in given if a.arg != "self"]
                yield (
                    f"{node.name}({', '.join(arguments)})",
                    (ast.get_docstring(node) or "").partition("\n\n")[0],
                )
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(about))):
                yield name, about


def contract(kind: type) -> str:
    """Return what a module of a kind has: needed or not, and what it is, in the words of its Protocol."""
    needed = getattr(kind, "__abstractmethods__", frozenset())

    def is_needed(name: str) -> bool:
        return name in needed or not hasattr(kind, name)

    found = [(is_needed(shown.partition("(")[0]), shown, about) for shown, about in members(kind)]
    found.sort(key=lambda row: not row[0])
    return table(
        ("name", "needed", "what"),
        ((f"`{shown}`", "yes" if need else "", about) for need, shown, about in found),
    )


def promises() -> str:
    """Return what a method promises unless it says otherwise."""
    plain = {field.name: field.default for field in dataclasses.fields(contracts.Promises)}
    return table(
        ("name", "promised", "what"),
        (
            (f"`{name}`", "yes" if plain[name] is True else "", about)
            for name, about in members(contracts.Promises)
            if name in plain
        ),
    )


def analyses() -> str:
    """Return the columns of the tables that analyses make."""
    parts = []
    for name in registry.own("analyses"):
        analysis = registry.find("analyses", name)
        row = analysis.row(contracts.Asked(quantities=_quantities()))
        found_in = members(analysis.Row) if analysis.Row else ()
        about = {c: _about_column(c) for c, _ in columns(row)} | dict(found_in)
        found = ((f"`{c}`", NOUNS[kind], about.get(c, "")) for c, kind in columns(row))
        parts.append(
            f"{registry.describe('analyses', name)}\n\n{table(('column', 'value', 'what'), found)}"
        )
    return "\n".join(parts)


def _quantities() -> dict[str, contracts.Quantity]:
    return {name: registry.find("quantities", name) for name in registry.own("quantities")}


ABOUT = {
    "model": "What the model is called among those analysed.",
    "checkpoint": "Training steps taken, where that is known.",
    "layer": "The weight's name.",
    "type": "How it was adapted: lora, full, ...",
    "task_type": "Family of tasks, or the task's name: figures are grouped by it.",
    "rank": "Of the adapter, where it has one.",
    "sv_0": "Singular values of the weight, the largest first: `sv_0` to `sv_9`.",
    "number": "The first number in its name: which layer.",
    "module": "The layer's own name, as in `q_proj`.",
    "rows": "Of the weight as it lies in the model.",
    "columns": "Of the same; 1 of a bias.",
    "change_sv_0": "Singular values of its change.",
    "angle_0": "Principal angles (radians) between the top left singular vectors now and before.",
    "null_angle_0": "The same of a random change of the same rank and size.",
    "route": "How they were found: gram, factors, or full where a Gram matrix is too coarse.",
    "note": "Why numbers are missing, if they are; `dense` of a change that is no product of factors.",
}


def _about_column(name: str) -> str:
    """Return what a column of spectra holds: of a quantity, its own first line."""
    if name in ABOUT or re.fullmatch(r"((change_)?sv|(null_)?angle)_\d", name):
        return ABOUT.get(name, "the same")
    if name.startswith("null_"):
        return "The same of a random change of the same rank and size."
    about = registry.own("quantities")
    if name in about:
        return registry.describe("quantities", name)
    return f"`{name.removeprefix('change_')}` of the change."


def commands() -> str:
    """Return a section for each command: how it is typed, what it says of itself, its options."""
    group = typer.main.get_command(cli.app)
    assert isinstance(group, cli.Commands)
    parts = []
    for name in registry.own("commands"):
        command = group.get_command(None, name)
        assert command is not None
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        typed = " ".join(["graftlab", name, *(p.metavar or p.name.upper() for p in arguments)])
        about = inspect.cleandoc(command.help or "")
        parts.append(f"## {name}\n\n`{typed}`\n\n{about}\n\n{_options(command.params)}")
    return "\n".join(parts)


def _options(parameters: Iterable[Any]) -> str:
    return table(
        ("option", "what"),
        (
            (
                f"`{', '.join(p.opts)}{'' if p.is_flag else f' {p.metavar or p.name.upper()}'}`"
                f"{', several times' if p.multiple else ''}",
                p.help or "",
            )
            for p in parameters
            if p.param_type_name == "option"
        ),
    )


def ladder() -> str:
    """Return the rooms, from the top rung down, as `tests/house.py` has them."""
    rungs = runpy.run_path(str(ROOT / "tests" / "house.py"))["LADDER"]
    top_down = reversed(list(enumerate(rungs)))
    rows = ((str(n), f"`{room}`", what) for n, rooms in top_down for room, what in rooms.items())
    return table(("rung", "room", "what stands there"), rows)


def tree() -> str:
    """Return every module of the package, in its folder, with the first line of its docstring."""
    package = ROOT / "graftlab"
    files = [p for p in package.rglob("*.py") if "recipes" not in p.parts]
    depth_first = sorted(files, key=_place)
    lines = []
    for path in depth_first:
        level = len(path.relative_to(package).parts) - 1
        inside = path.name == "__init__.py"
        name = f"{path.parent.name}/" if inside else path.name
        lines.append(f"{'  ' * (level - inside)}{name:<{34 - 2 * (level - inside)}}{_about(path)}")
    return "```text\n" + "\n".join(lines[1:]) + "\n```\n"


def _place(path: Path) -> list[tuple[bool, str]]:
    """Return where a file stands in the tree: a folder's own file first, then files, then folders."""
    *folders, name = path.relative_to(ROOT / "graftlab").parts
    return [*((True, folder) for folder in folders), (False, "" if name == "__init__.py" else name)]


def _about(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


TABLES: dict[str, Callable[[], str]] = {
    "commands": commands,
    "root": lambda: fields(Root),
    "backbone": backbones,
    "task": tasks,
    "method": methods,
    "hooks": hooks,
    "moments": moments,
    "training": lambda: fields(training.Config),
    "tracking": lambda: fields(trackers.Config),
    "paths": lambda: fields(Paths),
    "catalogue": task_catalogue,
    "aliases": aliases,
    "metrics": metrics,
    "excuses": excuses,
    "rates": rates,
    "promises": promises,
    "contract-method": lambda: contract(contracts.Method),
    "contract-task": lambda: contract(contracts.TaskKind),
    "contract-hook": lambda: contract(contracts.HookKind),
    "contract-backbone": lambda: contract(contracts.BackboneKind),
    "contract-metric": lambda: contract(contracts.Metric),
    "contract-plot": lambda: contract(contracts.Plot),
    "contract-analysis": lambda: contract(contracts.Analysis),
    "contract-quantity": lambda: contract(contracts.Quantity),
    "analyses": analyses,
    "contract-score": lambda: contract(contracts.LayerScore),
    "ladder": ladder,
    "tree": tree,
}


def current(text: str) -> str:
    """Return a page's text with its tables as they are made now."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}", text)


def main() -> None:
    for page in PAGES:
        path = ROOT / page
        text = path.read_text(encoding="utf-8")
        path.write_text(current(text), encoding="utf-8")


if __name__ == "__main__":
    main()
