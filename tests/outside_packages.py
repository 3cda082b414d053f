"""Packages from outside as pip installs them: their modules, and their entry points."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path


def install(source: Path, folder: Path) -> Path:
    """Put the package whose pyproject.toml lies in `source` into `folder`, and return that."""
    about = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))
    name, version = about["project"]["name"], about["project"]["version"]
    for module in about["tool"]["setuptools"]["py-modules"]:
        shutil.copy(source / f"{module}.py", folder)
    record = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, points in about["project"]["entry-points"].items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in points.items())]
    (record / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


def install_module(folder: Path, name: str, code: str) -> Path:
    """Put a distribution of one module into `folder`, with the list of its files as pip writes it."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    about = folder / f"{name}-1.5.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (about / "RECORD").write_text(f"{name}.py,,\n{about.name}/METADATA,,\n{about.name}/RECORD,,\n")
    return folder


def run(folder: Path, *command: object) -> str:
    """Return what `python -m ...` says where the packages in `folder` are installed."""
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
