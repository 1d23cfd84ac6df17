"""Read a manifest's YAML file, and say what is wrong with it."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError

from forgetbench.core.errors import UserError, reason
from forgetbench.core.nested import misplaced
from forgetbench.core.options import nearest
from forgetbench.core.paths import is_relative
from forgetbench.core.reading import read_text
from forgetbench.core.records import AnswerKind, Metric
from forgetbench.core.references import check_references, literal
from forgetbench.core.yaml_files import MAX_BYTES, parse_yaml
from forgetbench.data.adapters import ADAPTERS
from forgetbench.data.manifest import Manifest, Source, SourceKind, Split

MAX_ITEMS = 10**9
"""Largest size of a split that a manifest may declare; places are drawn from that range."""


def load_manifest(path: Path) -> Manifest:
    """Read and check one manifest.

    Raises:
        UserError: a key or a value is invalid; names the file.
    """
    return copy.deepcopy(_parse_manifest(path, read_text(path, MAX_BYTES)))


@lru_cache(maxsize=1024)
def _parse_manifest(path: Path, text: str) -> Manifest:
    """Parse the text of a manifest file; cached, because the points of a grid load the same manifests."""
    file_fields = literal({"name": path.stem, "path": str(path)})
    content = parse_yaml(text, path) or {}
    if not isinstance(content, dict):
        # The content is not shown, because a link may lead to any file.
        raise _manifest_error(path, "it holds no keys with values.")
    check_references(content, path)
    try:
        raw = OmegaConf.create(content)
        manifest = OmegaConf.to_object(OmegaConf.merge(_schema(), raw, file_fields))
        assert isinstance(manifest, Manifest)
        problem = next(_problems(manifest, raw), None)
    except Exception as error:  # OmegaConf raises its own errors and Python's
        raise _manifest_error(path, _parse_error_text(error)) from error
    if problem:
        raise _manifest_error(path, problem)
    return manifest


@lru_cache
def _schema() -> Any:
    # Cached, because commands read over a hundred manifests; a merge does not modify its first argument.
    return OmegaConf.structured(Manifest)


def _problems(manifest: Manifest, raw: Any) -> Iterator[str]:
    """Problems of a manifest whose values have the right types; `raw` holds only the file's keys."""
    for key, value in misplaced(manifest):
        yield f"`{key}` holds {value!r}, where a text or a number is expected."
    source, name = manifest.source, raw.get("name", manifest.name)
    if bool(source) == bool(manifest.mixture):
        yield "give either `source` or `mixture`, not both and not neither."
    if name != manifest.name:
        yield f"`name` is '{name}', but a manifest is named by its file; drop it or rename the file."
    if source and not manifest.splits:
        yield "`splits` is empty; name a split and its files."
    if manifest.mixture and manifest.splits:
        yield "a mixture has the splits of its parts; drop `splits`."
    if source and (source.kind is SourceKind.hub) != bool(source.hub_id):
        yield "`source.hub_id` goes with `kind: hub`, and only with it."
    yield from _split_problems(manifest, raw)
    yield from _source_problems(manifest)
    yield from _mixture_problems(manifest)
    if not manifest.image_domains or not manifest.text_tasks:
        yield "list `image_domains` ([text] where there are no pictures) and `text_tasks`; quadrants need both."
    yield from _answer_problems(manifest)
    if len(manifest.cluster_by) not in (1, 2):
        yield f"`cluster_by` names {len(manifest.cluster_by)} fields; name one or two."


def _mixture_problems(manifest: Manifest) -> Iterator[str]:
    invalid = {part: weight for part, weight in manifest.mixture.items() if not 0 <= weight < math.inf}
    for part, weight in invalid.items():
        yield f"mixture: the weight of '{part}' is {weight}; give 0 or more."
    total = sum(manifest.mixture.values())
    if manifest.mixture and not invalid and not 0 < total < math.inf:
        yield f"mixture: the weights sum to {total}; give shares, not all 0."


def _split_problems(manifest: Manifest, raw: Any) -> Iterator[str]:
    source = manifest.source
    for key in ("train_split", "eval_split"):
        # A default split may be absent: the dataset is not for training or for evaluation. A named split must exist.
        if (named := raw.get(key)) and source and named not in manifest.splits:
            yield (
                f"`{key}: {named}` is none of its splits ({', '.join(manifest.splits)}); "
                f"name one of them, or write {key}: '' if none is for this."
            )
        elif named and manifest.mixture:
            yield f"a mixture has the splits of its parts; drop `{key}`, or name a part as `name:split`."


def _source_problems(manifest: Manifest) -> Iterator[str]:
    source = manifest.source
    place, _, folder = (source.root if source else "").rpartition(":")
    if place in ("embedded", "downloads") and not is_relative(folder):
        yield f"`source.root: {place}:{folder}` leads out of that folder; name a folder in it."
    for split, split_info in manifest.splits.items():
        if split_info.n is not None and not 0 <= split_info.n <= MAX_ITEMS:
            yield f"`splits.{split}.n: {split_info.n}` is no number of items; give what the split has, or drop it."
        if split_info.limit is not None and split_info.limit < 1:
            yield f"`splits.{split}.limit: {split_info.limit}` leaves no items; give 1 or more, or drop it."
    if source and source.adapter and source.adapter not in ADAPTERS:
        known = sorted(ADAPTERS)
        yield f"`source.adapter: {source.adapter}` is unknown. {nearest(source.adapter, known, known)}"


def _answer_problems(manifest: Manifest) -> Iterator[str]:
    if manifest.metric is not Metric.accuracy and manifest.answer is not AnswerKind.text:
        yield f"`metric: {manifest.metric}` scores open answers; with `answer: {manifest.answer}` leave it out."
    if manifest.answer_is and manifest.answer is AnswerKind.text:
        yield f"`answer_is: {manifest.answer_is}` says which option is right; with `answer: text` leave it out."
    if manifest.answer_is and manifest.source and manifest.source.adapter:
        yield f"`answer_is` is said by the adapter '{manifest.source.adapter}'; leave it out."
    if manifest.max_new_tokens is not None and manifest.max_new_tokens < 1:
        yield f"`max_new_tokens: {manifest.max_new_tokens}` leaves no room for an answer; give 1 or more."
    if not all(manifest.stop):
        yield "`stop` holds an empty text, which would end every answer before it begins."


_PARSE_ERRORS = (
    (r".*is not a ListConfig.*", "a list is expected; write [a, b]."),
    (r"Value (.+) of type .* could not be converted to Integer", r"a whole number is expected, not \1."),
    (r"Value (.+) of type .* could not be converted to Float", r"a number is expected, not \1."),
    (r"Value (.+) is not a valid bool.*", r"true or false is expected, not \1."),
    (r"Invalid value (.+), expected one of \[(.*)\]", r"there is no \1; it may be \2."),
    (r".*not Optional|Incompatible value 'None'.*", "null is no value of this field; leave it out."),
    (r"Invalid type assigned.*|Cannot assign .*", "keys with values are expected below it."),
    (r"Cannot merge DictConfig with ListConfig", "a list stands where keys with values are expected, or these for it."),
    (r"Cannot convert '(?:List|Dict)Config' to string.*", "a text is expected."),
)
"""Pattern of an OmegaConf message -> its meaning in a manifest."""


def _parse_error_text(error: Exception) -> str:
    message = reason(error)
    key = getattr(error, "full_key", None)
    if isinstance(error, ConfigKeyError) and key:
        kind = next((kind for kind in (Source, Split) if f"'{kind.__name__}'" in message), Manifest)
        known = [key_field.name for key_field in fields(kind)]
        return f"there is no key '{key}'. {nearest(str(key).rpartition('.')[2], known, known)}"
    explanation = next(
        (match.expand(text) for pattern, text in _PARSE_ERRORS if (match := re.fullmatch(pattern, message))), message
    )
    return f"{key}: {explanation}" if key else explanation


def _manifest_error(path: Path, problem: str) -> UserError:
    return UserError(f"{path}: {problem}\nA manifest's fields are listed in docs/data.md.")
