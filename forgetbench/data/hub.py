"""Rows of a dataset on the Hub, or of a local folder of the same layout.

A dataset is looked for under its id, then under its aliases. Downloaded datasets are read from the cache if there is no
network or `HF_HUB_OFFLINE=1` is set. A streamed dataset is not stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from forgetbench.core.errors import UserError
from forgetbench.core.network import hub_unreachable_reason, not_found_message
from forgetbench.core.paths import leads_out
from forgetbench.data.manifest import Manifest, Source
from forgetbench.data.tables import BATCH, Row, arrow_rows, table_length


def hub_rows(manifest: Manifest, split: str) -> Iterator[Row]:
    """The rows of a split; pictures stay encoded, also those in lists.

    Raises:
        UserError: the dataset does not exist or is not readable; says what to do.
    """
    source = manifest.source
    assert source is not None
    locations = local_places(manifest) or [str(source.hub_id), *source.hub_aliases]
    name = manifest.split(split).hub_split or split
    errors: list[Exception] = []
    for location in locations:
        try:
            table = _load(source, location, name)
        except (FileNotFoundError, ConnectionError) as error:  # FileNotFoundError: there is no such repository
            errors.append(error)
            continue
        except Exception as error:  # the library raises a different class for each failure
            raise _load_error(manifest, location, error) from error
        yield from _table_rows(manifest, location, table, source.streaming)
        return
    raise _load_error(manifest, locations[0], errors[0]) from errors[0]


def local_places(manifest: Manifest) -> list[str]:
    """The folder that `hub_id` names, relative to the manifest, if it is one."""
    source = manifest.source
    assert source is not None
    assert source.hub_id
    local = (Path(manifest.path).parent / source.hub_id).resolve()
    return [str(local)] if local.is_dir() else []


def _load(source: Source, location: str, split: str) -> Any:
    import datasets
    import huggingface_hub as hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    revision, offline = source.revision, _unreachable_reason(location) is not None
    if Path(location).is_dir():
        revision = None
    elif offline:
        # `datasets` does not look for files that `hf download` has stored.
        with suppress(LocalEntryNotFoundError):
            location = hub.snapshot_download(location, repo_type="dataset", revision=revision, local_files_only=True)
            revision = None
    with _offline_mode(offline):
        builder = datasets.load_dataset_builder(location, source.hub_config, revision=revision)
        _check_files(location, builder.config.data_files or {})
        if source.streaming:
            return builder.as_streaming_dataset(split=split)
        builder.download_and_prepare()
        return builder.as_dataset(split=split)


def _check_files(location: str, files: Mapping[str, Sequence[str]]) -> None:
    """Refuse data files outside of the repository, which its card may name.

    Raises:
        ValueError: names the file.
    """
    is_local = Path(location).is_dir()
    for file in map(str, (name for names in files.values() for name in names)):
        at_hub = not is_local and file.startswith("hf://datasets/")
        if not at_hub and (not is_local or "://" in file or leads_out(location, file)):
            raise ValueError(f"its card names {file} as data, which is outside of the repository")


def _unreachable_reason(location: str) -> str | None:
    """Why the Hub cannot be reached; None for a local folder or if it can."""
    import datasets
    import huggingface_hub as hub

    if Path(location).is_dir():
        return None
    if datasets.config.HF_HUB_OFFLINE and not hub.is_offline_mode():
        return "HF_DATASETS_OFFLINE is set"
    return hub_unreachable_reason()


@contextmanager
def _offline_mode(is_offline: bool) -> Iterator[None]:
    """Let `datasets` read only its cache if `is_offline`, instead of retrying an unreachable Hub."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = is_offline or before
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _table_rows(manifest: Manifest, location: str, table: Any, streaming: bool) -> Iterator[Row]:
    files = [] if streaming else [cache_file["filename"] for cache_file in table.cache_files]
    try:
        # Rows are addressed in cache files only if the table is all of its files; a slice such as train[:10%] is not.
        if files and sum(table_length(file) for file in files) == len(table):
            for file in files:
                yield from arrow_rows(file)
            return
        for batch in table.with_format("arrow").iter(batch_size=BATCH):
            yield from batch.to_pylist()
    except (OSError, ValueError, RuntimeError) as error:  # a stream may break off anywhere
        raise _load_error(manifest, location, error) from error


def _load_error(manifest: Manifest, location: str, error: Exception) -> UserError:
    assert manifest.source is not None
    detail = (str(error) or type(error).__name__).splitlines()[0]
    message = f"{manifest.path}: cannot load '{location}': {detail}"
    unreachable_reason = _unreachable_reason(location)
    if "scripts are no longer supported" in detail:
        message += (
            "\nThe repository is a Python script, which is not run. Use the Hub's own conversion, "
            "`revision: refs/convert/parquet`, or another copy of the set as `hub_id`."
        )
    elif "gated" in detail:
        message += f"\nAsk for access at https://huggingface.co/datasets/{location}, then run `hf auth login`."
    elif unreachable_reason:
        revision = f" --revision {manifest.source.revision}" if manifest.source.revision else ""
        message = message.removesuffix(detail) if isinstance(error, ConnectionError) else f"{message}\n"
        message += not_found_message(location, unreachable_reason, f" --repo-type dataset{revision}")
    return UserError(message)
