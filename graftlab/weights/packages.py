"""Models that installed packages carry: they stand in where the hub is out of reach.

No package is imported for it: its file is found by the installer's records, and told by its sha256.
"""

import contextlib
import importlib.metadata
import logging
import shutil
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from graftlab.config import Paths
from graftlab.errors import DiskError, ModelError
from graftlab.rundir import files

log = logging.getLogger("graftlab")

ORIGIN = "origin.json"
_kept_in: ContextVar[Path | None] = ContextVar("kept_in", default=None)


@dataclass(frozen=True)
class Package:
    """A package that carries a model, as the catalogue of backbones has it."""

    name: str
    file: str
    """Its weights, relative to where packages are installed: safetensors, or GGUF to be turned into it."""
    sha256: str
    install: str
    """The command that brings it."""

    @property
    def path(self) -> Path | None:
        """The file; None where the package is not installed."""
        try:
            found = importlib.metadata.distribution(self.name).locate_file(self.file)
        except importlib.metadata.PackageNotFoundError:
            return None
        return Path(str(found))


@contextlib.contextmanager
def kept_in(cache: Path) -> Iterator[None]:
    """Have models of packages turned into folders under `cache`, a run file's `paths.cache`."""
    token = _kept_in.set(cache)
    try:
        yield
    finally:
        _kept_in.reset(token)


def folder(package: Package) -> Path:
    """Return the folder with a package's model, as transformers opens it.

    A GGUF file is turned into one once, by one process at a time; what a crash leaves is made again.

    Raises:
        ModelError: the package is not installed, or its file is another.
        DiskError: the folder cannot be written.
    """
    if not package.file.endswith(".gguf"):
        return _installed(package).parent
    place = (_kept_in.get() or Paths().cache) / "models"
    out = place / f"{package.name}-{package.sha256[:16]}"
    if not out.is_dir():
        file = _installed(package)
        try:
            with files.alone(out.with_name(f"{out.name}.lock")):
                if not out.is_dir():
                    _turn(package, file, out)
        except OSError as error:
            raise DiskError(
                f"{out} cannot be written: {error}. Free some room, or give another paths.cache."
            ) from error
    return out


def check(package: Package, folder: Path, sha256: dict[str, str]) -> None:
    """Compare the hashes of a folder's weights with what they are to be.

    Raises:
        ModelError: they are other weights.
    """
    if not package.file.endswith(".gguf"):
        expected = {Path(package.file).name: package.sha256}
        advice = f"Reinstall {package.name}."
    else:
        expected = files.read_json(folder / ORIGIN)["weights"]
        advice = "Delete the folder: it is made again."
    if sha256 != expected:
        raise ModelError(
            f"{folder} is not the model of {package.name}: sha256 {sha256}, not {expected}. {advice}"
        )


def _installed(package: Package) -> Path:
    """Return the package's file, or say how to get it."""
    path = package.path
    needed = [package.name] if path is None else []
    if package.file.endswith(".gguf") and find_spec("gguf") is None:
        needed.append("gguf")
    if needed or path is None:
        raise ModelError(
            f"Without the hub it comes with the package {package.name}, but here is no "
            f"{' and no '.join(needed)}. Install with: {package.install}."
        )
    if not path.is_file():
        raise ModelError(
            f"{package.name} is installed, but {path} is not there. Reinstall it: {package.install}."
        )
    return path


def _turn(package: Package, file: Path, out: Path) -> None:
    """Write the model in a GGUF file as a folder beside `out`, and move it there whole."""
    from graftlab.weights import gguf

    if (found := files.sha256(file)) != package.sha256:
        raise ModelError(
            f"{file} is not the one that is known: its sha256 is {found}, not {package.sha256}. "
            f"Reinstall it: {package.install}."
        )
    log.info("the model of %s is turned into safetensors, once, in %s", package.name, out)
    partial = out.with_name(out.name + files.PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    gguf.convert(file, partial)
    weights = {path.name: files.sha256(path) for path in partial.glob("*.safetensors")}
    version = importlib.metadata.version(package.name)
    origin = {"package": package.name, "version": version, "file": file.name}
    files.write_json(partial / ORIGIN, {**origin, "sha256": package.sha256, "weights": weights})
    for path in partial.iterdir():
        files.sync(path)
    partial.replace(out)
    files.sync(out.parent)
