"""Files brought to a repository of the Hugging Face hub in one commit, where they differ from what is there.

The token is `HF_TOKEN` of the environment, and nothing repeats it.
"""

import hashlib
import logging
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from graftlab import config, runfile
from graftlab.errors import Argument, ConfigError, ModelError, Place
from graftlab.release.push import card, contents
from graftlab.release.push.contents import Content
from graftlab.release.push.refusals import explain
from graftlab.runs import material

if TYPE_CHECKING:
    from huggingface_hub import DatasetInfo, HfApi, ModelInfo, SpaceInfo
    from huggingface_hub.hf_api import KernelInfo, RepoFile, RepoSibling

REPO = Argument("repo")
log = logging.getLogger("graftlab")
CHUNK = 2**20


class Options(NamedTuple):
    """How a push is carried out."""

    force: bool = False
    """Commit all files, also those that are there already."""
    private: bool = False
    """A new repository is seen by its owners alone; a public one that is there is refused."""
    dry_run: bool = False
    """Read what is there, and write nothing to the hub."""


@dataclass(frozen=True)
class Pushed:
    """What a push did, or would do."""

    repo: str
    kind: str
    """`model` or `dataset`."""
    uploaded: tuple[str, ...]
    """Names of files that were new or different (or forced)."""
    unchanged: tuple[str, ...]
    commit: str | None
    """None where there was nothing to commit, and in a dry run."""
    url: str

    def record(self) -> dict[str, object]:
        return {**vars(self), "uploaded": list(self.uploaded), "unchanged": list(self.unchanged)}


def push(run: Path, repo: str | None, data: bool, options: Options) -> list[Pushed]:
    """Upload the adapter of a finished run with its card; with `data`, also its rows, to `<repo>-data`.

    `repo` is the token's own account and the run's name unless given.

    Raises:
        ConfigError: the run is not finished, or the name is none that the hub takes.
        DataError: the run's data are gone or have changed.
        ModelError: the hub did not take it; the message says why.
    """
    shared = contents.read(run)
    if repo is not None:
        checked(repo)  # before the account is asked for
    api = _api(options.dry_run and repo is not None)
    repo = checked(repo or f"{_account(api)}/{_slug(shared.file.name)}")
    text = card.write(shared, repo)
    if shared.base_is_local:
        log.warning(
            "the base model is a folder of this machine (%s): others can use the adapter only with the "
            "same folder. Train with the model's id on the hub as backbone.model.",
            shared.file.backbone.config.model,
        )
    found = {contents.CARD: text.encode(), **contents.gather(shared)}
    rows: dict[str, Content] = {}
    if data:
        from graftlab.release.push import rows as prepared

        read = material.read_again(shared.file, shared.run)
        # before anything is uploaded: it may fail
        rows = prepared.gather(shared.file, read, f"{repo}-data")
    done = [upload(api, repo, "model", found, options)]
    if data:
        done.append(upload(api, f"{repo}-data", "dataset", rows, options))
    return done


def push_rows(source: str, repo: str | None, options: Options) -> Pushed:
    """Upload the rows of a run file that need not have been run, to `<repo>-data`; `repo` as in `push`.

    Raises:
        ConfigError, DataError, ModelError: as `push`, or `source` is no run file that can be used.
    """
    from graftlab.release.push import rows

    file = runfile.resolve(config.read(source))
    if repo is not None:
        checked(repo)
    api = _api(options.dry_run and repo is not None)
    target = checked(f"{repo or f'{_account(api)}/{_slug(file.name)}'}-data")
    return upload(api, target, "dataset", rows.gather(file, material.read(file), target), options)


def upload(
    api: "HfApi", repo: str, kind: str, found: Mapping[str, Content], options: Options
) -> Pushed:
    """Commit the files that differ from those in the repository, which is made if it is not there.

    Raises:
        ConfigError: `private`, and the repository is public.
        ModelError: the hub did not take it.
    """
    try:
        info = _info(api, repo, kind)
        if info is not None and options.private and not info.private:
            raise ConfigError(
                f"{repo} is there already and public; only a new one is made private.",
                ("Change it in its settings on the hub, or choose another ", REPO, "."),
                place=Place(argument=Argument("private", True)),
                kind="conflict",
            )
        siblings = getattr(info, "siblings", None) or ()
        there = {file.rfilename: file for file in siblings}
        same = tuple(name for name in found if _is_same(found[name], there.get(name)))
        wanted = tuple(name for name in found if options.force or name not in same)
        unchanged = tuple(name for name in found if name not in wanted)
        commit = None
        if wanted and not options.dry_run:
            if info is None:
                api.create_repo(
                    repo, repo_type=kind, private=options.private or None, exist_ok=True
                )
            commit = _commit(api, repo, kind, {n: found[n] for n in wanted}, set(same), info)
    except (ConfigError, ModelError):
        raise
    except Exception as error:  # of httpx, of huggingface_hub and of its threads
        raise ModelError(explain(repo, error)) from None
    prefix = "datasets/" if kind == "dataset" else ""
    return Pushed(repo, kind, wanted, unchanged, commit, f"{api.endpoint}/{prefix}{repo}")


def checked(repo: str) -> str:
    """Return the id of a repository. `Raises:` ConfigError: the hub takes no such name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise _misnamed(repo, f"that is no name for the hub: {error}") from None
    if repo.count("/") != 1:
        raise _misnamed(repo, f"give it with its owner, as in me/{repo}.")
    return repo


def _misnamed(repo: str, said: str) -> ConfigError:
    place = Place(argument=Argument("repo", repo))
    return ConfigError(said, place=place, kind="not_allowed", given=repo)


def _api(anonymous: bool) -> "HfApi":
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    token = os.environ.get("HF_TOKEN")
    if not token and not anonymous:
        raise ConfigError(
            "HF_TOKEN is not set: the hub takes files only from accounts it knows. Make a token that may "
            "write at https://huggingface.co/settings/tokens and put it into the environment."
        )
    if not sys.stderr.isatty():
        disable_progress_bars()
    return HfApi(token=token or False)


def _account(api: "HfApi") -> str:
    try:
        return str(api.whoami()["name"])
    except Exception as error:  # as in `upload`
        raise ModelError(explain("the account of HF_TOKEN", error)) from None


def _slug(name: str) -> str:
    """Return a run's name as the hub takes it: letters, digits, dots, dashes."""
    slug = re.sub(r"[-.]{2,}", "-", re.sub(r"[^A-Za-z0-9._-]+", "-", name)).strip("-.")
    return slug[:90] or "adapter"


def _info(
    api: "HfApi", repo: str, kind: str
) -> "ModelInfo | DatasetInfo | SpaceInfo | KernelInfo | None":
    """Return what the hub knows of a repository and its files; None where there is none."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return api.repo_info(repo, repo_type=kind, files_metadata=True)
    except RepositoryNotFoundError as error:
        if error.response.status_code == 404:
            return None
        raise


def _is_same(content: Content, there: "RepoSibling | RepoFile | None") -> bool:
    if there is None:
        return False
    if there.lfs is not None:
        return bool(contents.hash_of(content) == there.lfs.sha256)
    return bool(_git_hash(content) == there.blob_id)


def _git_hash(content: Content) -> str:
    """Return what git calls a file of this content."""
    if isinstance(content, bytes):
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    hashed = hashlib.sha1(b"blob %d\0" % content.stat().st_size)
    with content.open("rb") as file:
        while chunk := file.read(CHUNK):
            hashed.update(chunk)
    return hashed.hexdigest()


def _commit(
    api: "HfApi", repo: str, kind: str, wanted: Mapping[str, Content], same: set[str], info: object
) -> str:
    """Commit files, on top of what was compared with; return the commit.

    The library leaves out of a commit what is there already, unless it is removed in the same commit.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationDelete(name) for name in wanted if name in same
    ]
    operations += [CommitOperationAdd(name, content) for name, content in wanted.items()]
    done = api.create_commit(
        repo,
        operations,
        repo_type=kind,
        commit_message=f"graftlab push: {len(wanted)} files",
        parent_commit=getattr(info, "sha", None),
    )
    return str(done.oid)
