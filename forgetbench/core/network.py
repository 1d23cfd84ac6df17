"""Whether the Hub answers: one short request, where the Hub's client would retry for most of a minute."""

from __future__ import annotations

from functools import cache


def hub_unreachable_reason(timeout_s: float | None = None) -> str | None:
    """Why the Hub at `HF_ENDPOINT` does not answer; None where it does.

    Args:
        timeout_s: how long to wait; None for the timeout of the Hub's client.
    """
    import huggingface_hub as hub

    if hub.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    return _unreachable_reason(hub.constants.ENDPOINT, timeout_s or hub.constants.HF_HUB_ETAG_TIMEOUT)


def connection_failure(error: Exception) -> str | None:
    """The message for an error that means that no HTTP answer came; None for any other error."""
    from huggingface_hub import constants

    if isinstance(error, OSError) or type(error).__module__.partition(".")[0].startswith("httpx"):
        return f"{constants.ENDPOINT} cannot be reached ({str(error) or type(error).__name__})"
    return None


def not_found_message(repository: str, unreachable_reason: str, options: str = "") -> str:
    """The message for a repository that is not on this machine and cannot be downloaded.

    Args:
        repository: its id.
        unreachable_reason: why the Hub does not answer, from `hub_unreachable_reason`; or that a variable is set.
        options: of the command that downloads it, such as ` --repo-type dataset`.
    """
    step = "Unset it, or run" if unreachable_reason.endswith(" is set") else "Run"
    return (
        f"{unreachable_reason}, and {repository} is neither a folder nor downloaded.\n"
        f"{step} where there is a network: hf download {repository}{options}"
    )


@cache
def _unreachable_reason(endpoint: str, timeout_s: float) -> str | None:
    from huggingface_hub import get_session

    try:
        get_session().head(endpoint, timeout=timeout_s)
    except Exception as error:
        if unreachable_reason := connection_failure(error):
            return unreachable_reason
        raise
    return None
