"""What a search is known by, so that two of them are never mixed in one directory."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graftlab.errors import ConfigError
from graftlab.rundir import files
from graftlab.search.design import Plan
from graftlab.search.objective import Objective

RECORD, WORKERS = "search.json", "workers"


def remember(plan: Plan, out: Path, wanted: Sequence[Objective], widen: bool) -> None:
    """Write what is searched for, or refuse to mix two searches; workers may begin at once.

    Raises:
        ConfigError: the directory holds something else, or another search.
    """
    if not (out / WORKERS).is_dir():
        _refuse_other(out)
    with files.alone(out / WORKERS / "choosing"):
        _remember(plan, out, wanted, widen)


def _refuse_other(out: Path) -> None:
    """Refuse a file, and a folder that holds something and no search. `Raises:` ConfigError."""
    there = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if (out.exists() and not out.is_dir()) or (RECORD not in there and there - {WORKERS}):
        raise ConfigError(
            f"{out} is there already and holds no search.", kind="taken", given=str(out)
        )


def _remember(plan: Plan, out: Path, wanted: Sequence[Objective], widen: bool) -> None:
    now = {
        "name": plan.name,
        "base": {
            k: v for k, v in plan.file.resolved.items() if k not in ("name", "paths", "tracking")
        },
        "space": {k: v.model_dump(exclude_defaults=True) for k, v in plan.search.space.items()},
        "objective": [vars(one) for one in wanted],
        "seed": plan.search.seed,
    }
    now = json.loads(files.dump_json(now))
    path = out / RECORD
    if path.is_file():
        before = files.read_json(path)
        changed = sorted(key for key in now if before.get(key) != now[key])
        widened = widen and changed == ["space"] and _wider(before["space"], now["space"])
        if changed and not widened:
            advice = " A space that only grew goes on with widen." if changed == ["space"] else ""
            raise ConfigError(
                f"{out} holds a search with {_difference(before, now, changed[0])}.{advice} Give the "
                f"changed search a name or a directory of its own.",
                kind="conflict",
            )
    else:
        _refuse_other(out)
    files.write_json(path, now)


def _wider(before: Any, now: Any) -> bool:
    """Say whether every range holds what it held: choices may not change, as optuna keeps them."""
    if before.keys() != now.keys():
        return False
    for key, old in before.items():
        new = now[key]
        if old == new:
            continue
        kind = next((kind for kind in ("float", "int") if kind in old), None)
        same = {k: v for k, v in old.items() if k != kind} == {
            k: v for k, v in new.items() if k != kind
        }
        if kind is None or not same or kind not in new:
            return False
        if new[kind][0] > old[kind][0] or new[kind][1] < old[kind][1]:
            return False
    return True


def _difference(before: Any, now: Any, key: str) -> str:
    """Return what has changed, down to the first key that differs."""
    old, new, path = before.get(key), now[key], [key]
    while isinstance(old, dict) and isinstance(new, dict):
        inner = next((k for k in [*old, *new] if old.get(k) != new.get(k)), None)
        if inner is None:
            break
        path.append(inner)
        old, new = old.get(inner), new.get(inner)
    return f"{'.'.join(path)} {json.dumps(old)}, and the file has {json.dumps(new)}"
