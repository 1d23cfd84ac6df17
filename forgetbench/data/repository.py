"""Ask the Hub about a dataset repository: its commit, files, configurations, splits, columns and sizes.

Commit and files come from the repository API. Splits and columns come from the card at the requested commit
(`dataset_info` in its front matter), else from the dataset viewer, which counts the main branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from forgetbench.core.errors import UserError
from forgetbench.core.network import connection_failure

TIMEOUT_S = 60.0


class UnreachableError(Exception):
    """A repository is not accessible; the message says why."""


@dataclass(frozen=True)
class ConfigInfo:
    """A configuration's columns and split sizes; empty if unknown."""

    columns: tuple[str, ...] = ()
    sizes: dict[str, int | None] = field(default_factory=dict)
    """Split -> number of rows."""


@dataclass(frozen=True)
class Repository:
    """A dataset repository at one commit."""

    id: str
    commit: str
    """Full hash of the requested revision."""
    gated: bool
    files: tuple[str, ...]
    configs: dict[str, ConfigInfo]
    """Empty if neither the card nor the viewer describes them."""


class Hub:
    """Asks the Hub that `HF_ENDPOINT` names, with the token that `hf auth login` stored."""

    def __init__(self) -> None:
        """Raises UserError where `HF_HUB_OFFLINE` forbids it."""
        import huggingface_hub as hub

        if hub.is_offline_mode():
            raise UserError("The Hub cannot be asked: HF_HUB_OFFLINE is set. Unset it, or leave out --remote.")
        self._api = hub.HfApi()

    def repository(self, names: Sequence[str], revision: str | None) -> Repository:
        """The repository of the first id that exists.

        Raises:
            UnreachableError: no id exists, or the repository is closed to this user or has no such revision.
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
            files = tuple(sibling.rfilename for sibling in info.siblings or ())
            card = info.card_data
            configs = _parse_configs(card.get("dataset_info") if card else None) or self._viewer_configs(name)
            return Repository(name, str(info.sha), bool(info.gated), files, configs)
        raise UnreachableError(
            f"there is no {' or '.join(names)}, or it is private: `hf auth login` if you have access"
        )

    def _viewer_configs(self, name: str) -> dict[str, ConfigInfo]:
        """The configurations as counted by the dataset viewer; empty if it has none."""
        from huggingface_hub import get_session
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        url = self._api.endpoint.replace("https://", "https://datasets-server.") + "/info"
        answer = get_session().get(url, params={"dataset": name}, headers=build_hf_headers(), timeout=TIMEOUT_S)
        if answer.status_code != 200:
            return {}
        return _parse_configs(
            [{"config_name": key, **config} for key, config in answer.json().get("dataset_info", {}).items()]
        )


def _parse_configs(described: Any) -> dict[str, ConfigInfo]:
    """Parse the configurations of a card (a list or a single one) or of the viewer."""
    configs = {}
    for entry in described if isinstance(described, list) else [described] if isinstance(described, dict) else []:
        features, splits = entry.get("features") or (), entry.get("splits") or ()
        columns = [feature["name"] for feature in features] if isinstance(features, list) else list(features)
        split_items = splits.items() if isinstance(splits, dict) else [(split["name"], split) for split in splits]
        sizes = {split: split_info.get("num_examples") for split, split_info in split_items}
        configs[str(entry.get("config_name") or "default")] = ConfigInfo(tuple(columns), sizes)
    return configs
