"""Why a hub did not take files, and what to do."""

import socket

from graftlab.terminal import redact


def explain(repo: str, error: BaseException) -> str:
    """Return why the hub did not take files, and what to do."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    chain = list(_causes(error))
    if any(isinstance(e, OfflineModeIsEnabled) for e in chain):
        return f"HF_HUB_OFFLINE forbids to ask the hub about {repo}. Unset it to push."
    status = next((s for e in chain if (s := _status(e))), None)
    if status is None:
        return _unreachable(repo, error, chain)
    said = redact(str(getattr(error, "server_message", None) or "")).strip()
    why = {
        400: f"the hub does not take what is sent to {repo} (400): {said or 'it does not say why'}.",
        401: f"the hub does not know the account behind HF_TOKEN (401), asked for {repo}: it has expired, "
        f"or was mistyped.",
        403: f"HF_TOKEN may not write to {repo} (403). Make a token with the right to write there, or "
        f"choose another repository.",
        404: f"the hub has no place for {repo} (404): its owner does not exist, or HF_TOKEN may not see it.",
        409: f"{repo} was changed by somebody else in the meantime (409). Push again.",
        412: f"{repo} was changed by somebody else in the meantime (412). Push again.",
        413: f"the hub finds a file for {repo} too large (413).",
        429: "the hub has had too many requests from this account (429). Wait some minutes.",
    }
    return why.get(status) or (
        f"the hub failed with {status} for {repo}. Nothing was committed; push again later."
        if status >= 500
        else f"the hub answered {status} for {repo}: {said}"
    )


def _unreachable(repo: str, error: BaseException, chain: list[BaseException]) -> str:
    if any(isinstance(cause, socket.gaierror) for cause in chain):
        why = "its name cannot be resolved (DNS)"
    else:
        why = redact(str(error)) or type(error).__name__
    return f"the hub is out of reach for {repo}: {why}. Check the network (HF_ENDPOINT, proxies)."


def _causes(error: BaseException | None) -> "list[BaseException]":
    found = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
