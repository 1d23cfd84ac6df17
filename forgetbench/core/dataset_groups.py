"""The group of every dataset, read from YAML alone, so that `--help` needs neither Hydra nor torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from forgetbench.core.errors import UserError
from forgetbench.core.options import USER_MANIFESTS, config_files, manifest_files
from forgetbench.core.paths import shipped
from forgetbench.core.records import Role
from forgetbench.core.yaml_files import read_yaml


class DatasetGroup(StrEnum):
    """Groups of datasets, in the order of lists; the last three are shown where all are asked for."""

    yours = "yours"
    embedded = "embedded"
    """Shipped, their files too."""
    public = "public"
    """Shipped manifests of sets that are downloaded."""
    curriculum = Role.curriculum.value
    control = Role.control.value
    validation = Role.validation.value

    @property
    def by_role(self) -> bool:
        """Whether its sets are left out of lists unless all are asked for."""
        return self.value in {role.value for role in Role}


def manifest_groups(folders: Iterable[str | Path] = USER_MANIFESTS) -> dict[str, DatasetGroup]:
    """Name -> group of every manifest, shipped or in `folders`; a role goes before the place."""
    shipped_folder = shipped("data_manifests").resolve()
    return {
        name: _group(_read(path), path.resolve().parent == shipped_folder)
        for name, path in manifest_files(folders).items()
    }


def sequence_groups(manifests: Mapping[str, DatasetGroup]) -> dict[str, DatasetGroup | None]:
    """Option -> group of every file of conf/data: the role that all its sets have, or None."""
    by_option: dict[str, DatasetGroup | None] = {}
    for name, path in config_files("data").items():
        stages = _read(path).get("stages")
        sets = [stage.get("set") for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []
        groups = {manifests.get(str(set_name).partition(":")[0]) for set_name in sets}
        shared = groups.pop() if len(groups) == 1 else None
        by_option[name] = shared if shared and shared.by_role else None
    return by_option


def _group(manifest: Mapping[str, Any], is_shipped: bool) -> DatasetGroup:
    if (role := manifest.get("role")) in tuple(Role):
        return DatasetGroup(role)
    if not is_shipped:
        return DatasetGroup.yours
    source = manifest.get("source")
    is_embedded = source is None or str(source.get("root")).startswith("embedded:")
    return DatasetGroup.embedded if is_embedded else DatasetGroup.public


def _read(path: Path) -> dict[str, Any]:
    """A file's keys; empty where it cannot be read, which is reported when the file is used."""
    try:
        content = read_yaml(path)
    except UserError:
        return {}
    return content if isinstance(content, dict) else {}
