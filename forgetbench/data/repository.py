"""What the Hub says about a dataset repository: its commit, files, configurations, splits, columns and sizes.

Commit and files come from the repository's own API. Splits and columns are those of the card (`dataset_info` in its
front matter) at the commit asked for, or else what the dataset viewer counted on the main branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from forgetbench.core.errors import UserError
from forgetbench.core.network import connection_failure

TIMEOUT_S = 60.0


class UnreachableError(Exception):
    """A repository that cannot be looked into, and why."""


@dataclass(frozen=True)
class Described:
    """One configuration; what is not told is empty."""

    columns: tuple[str, ...] = ()
    sizes: dict[str, int | None] = field(default_factory=dict)
    """Split -> its rows."""


@dataclass(frozen=True)
class Repository:
    """A dataset repository at one commit."""

    id: str
    commit: str
    """Full hash of the revision asked for."""
    gated: bool
    files: tuple[str, ...]
    configs: dict[str, Described]
    """Empty where neither the card nor the viewer tells."""


class Hub:
    """Asks the Hub that `HF_ENDPOINT` names, with the token that `hf auth login` stored."""

    def __init__(self) -> None:
        """Raises UserError where `HF_HUB_OFFLINE` forbids it."""
        import huggingface_hub as hub

        if hub.is_offline_mode():
            raise UserError("The Hub cannot be asked: HF_HUB_OFFLINE is set. Unset it, or leave out --remote.")
        self._api = hub.HfApi()

    def repository(self, names: Sequence[str], revision: str | None) -> Repository:
        """The first of several ids that exists.

        Raises:
            UnreachableError: none of them does, or what was found is closed to this user or has no such revision.
            UserError: there is no connection.
        """
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        for name in names:
            try:
                info = self._api.dataset_info(name, revision=revision, timeout=TIMEOUT_S)
            except GatedRepoError as error:
                raise UnreachableError(
                    f"{name} is gated: ask for access at {self._api.endpoint}/datasets/{name}, then `hf auth login`"
                ) from error
            except RepositoryNotFoundError:
                continue
            except RevisionNotFoundError as error:
                raise UnreachableError(f"{name} has no revision {revision}") from error
            except HfHubHTTPError as error:
                raise UnreachableError(f"{name}: {str(error).splitlines()[0]}") from error
            except Exception as error:
                if unreachable_reason := connection_failure(error):
                    raise UserError(f"{unreachable_reason}. Is there a network?") from error
                raise
            files = tuple(one.rfilename for one in info.siblings or ())
            card = info.card_data
            configs = _configs(card.get("dataset_info") if card else None) or self._viewed(name)
            return Repository(name, str(info.sha), bool(info.gated), files, configs)
        raise UnreachableError(
            f"there is no {' or '.join(names)}, or it is private: `hf auth login` if you have access"
        )

    def _viewed(self, name: str) -> dict[str, Described]:
        """What the dataset viewer counted; nothing where it has not."""
        from huggingface_hub import get_session
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        url = self._api.endpoint.replace("https://", "https://datasets-server.") + "/info"
        answer = get_session().get(url, params={"dataset": name}, headers=build_hf_headers(), timeout=TIMEOUT_S)
        if answer.status_code != 200:
            return {}
        return _configs([{"config_name": key, **one} for key, one in answer.json().get("dataset_info", {}).items()])


def _configs(described: Any) -> dict[str, Described]:
    """Configurations as a card (a list, or one alone) or the viewer tells them."""
    found = {}
    for one in described if isinstance(described, list) else [described] if isinstance(described, dict) else []:
        features, splits = one.get("features") or (), one.get("splits") or ()
        columns = [feature["name"] for feature in features] if isinstance(features, list) else list(features)
        listed = splits.items() if isinstance(splits, dict) else [(split["name"], split) for split in splits]
        sizes = {split: split_info.get("num_examples") for split, split_info in listed}
        found[str(one.get("config_name") or "default")] = Described(tuple(columns), sizes)
    return found
