"""Read a manifest's items as frozen samples, whatever layout they come from."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from forgetbench.core.errors import UserError
from forgetbench.core.files import replacing
from forgetbench.core.records import LETTERS, AnswerKind, ImageRef, Metric, Sample, Speaker, Turn
from forgetbench.data.layouts import Row, chosen_rows
from forgetbench.data.manifest import Manifest, downloads
from forgetbench.data.probe import with_class_name
from forgetbench.data.tables import Stored, content_name

MAX_LABELS = 5000
"""A task with more different answers has no set of labels; ImageNet has 1000."""
IN_MEMORY = 512 * 2**20
"""Bytes of a split's pictures that stay in memory where tables hold them; the others are read when they are needed."""
_BASE64 = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk", "SUkq", "TU0A")
"""How JPEG, PNG, GIF, WebP, BMP and TIFF (of either byte order) begin in base64."""
_LONGEST_NAME = 255
"""Characters of a file's name; longer texts that begin so are pictures."""


def load_samples(manifest: Manifest, split: str, limit: int | None = None, distract: bool = False) -> list[Sample]:
    """Read one split's items in file order.

    Args:
        manifest: a manifest with a source.
        split: name of one of its splits.
        limit: only so many of them, drawn over the whole file: files are often sorted by class or subject. The same
            ones every time, and a larger limit keeps those of a smaller one. The split's own `limit` holds, too.
        distract: put the class name among the wrong options (see `probe`); items where it cannot be are left out.

    Raises:
        UserError: a file is missing, or an item does not fit the manifest; names the item.
    """
    if manifest.source is None:
        raise UserError(f"{manifest.path}: a mixture has no items of its own; name its parts.")
    folder = str(manifest.root / manifest.source.images)
    samples: dict[str, Sample] = {}
    held = _Held(manifest)
    for index, row in chosen_rows(manifest, split, limit):
        try:
            sample = _sample(manifest, row, index, tuple(_images(row, folder, held)), distract)
            if sample is None:
                continue
            if sample.id in samples:
                raise ValueError(f"id '{sample.id}' is not unique")
        except (KeyError, ValueError, TypeError) as error:
            detail = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
            raise UserError(
                f"{manifest.path}: item {index} of split '{split}': {detail}.\n"
                f"The item's fields: {', '.join(row)}. Map columns under `source.columns`."
            ) from error
        samples[sample.id] = sample
    if not samples:
        why = "; in each, the class name is the right answer or there is one wrong option" if distract else ""
        raise UserError(f"{manifest.path}: split '{split}' has no items{' for a probe' if distract else ''}{why}.")
    return list(samples.values())


def task_labels(samples: Sequence[Sample]) -> list[str]:
    """The different answers of a task in words (the right option's text, where letters are answered), sorted.

    A fine-tuned model may answer with these where something else is asked. There are none in open-ended tasks: those of
    more than MAX_LABELS different answers, or of answers that hardly repeat.
    """
    found = {
        sample.options[sample.target]
        if sample.kind is AnswerKind.letter and sample.target is not None
        else sample.answer
        for sample in samples
    }
    return sorted(found) if len(found) <= min(MAX_LABELS, len(samples) // 2) else []


class _Held:
    """The pictures that a split's tables hold, each once, and as many of them in memory as `IN_MEMORY` allows."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._known: dict[str, ImageRef] = {}
        self._n_bytes = 0

    def image(self, data: bytes) -> ImageRef:
        # Named by content: a picture of several rows is one cluster, and no two splits' pictures are confused.
        name = content_name(data)
        if name not in self._known:
            self._known[name] = self._new(name, data)
        return self._known[name]

    def _new(self, name: str, data: bytes) -> ImageRef:
        if self._n_bytes + len(data) > IN_MEMORY:
            if isinstance(data, Stored):
                return ImageRef(data.cell, name)
            if self._manifest.source and self._manifest.source.streaming:
                return self._stored(name, data)
        self._n_bytes += len(data)
        return ImageRef(self._manifest.path, name, bytes(data))

    def _stored(self, name: str, data: bytes) -> ImageRef:
        """A streamed picture in a file of its own, which the next pass over the stream finds there."""
        path = downloads() / ".streamed" / self._manifest.name / name
        if not path.is_file():
            with replacing(path) as temporary:
                temporary.write_bytes(data)
        return ImageRef(str(path.parent), name)


def _sample(manifest: Manifest, row: Row, index: int, images: tuple[ImageRef, ...], distract: bool) -> Sample | None:
    options = _options(manifest, row)
    answer, references = _answer(manifest, row, options)
    item_id = str(index if row.get("id") is None else row["id"])
    class_name = str(row.get("class_name") or "")
    class_option: int | None
    if distract:
        right = options.index(answer) if manifest.answer is AnswerKind.option else LETTERS.index(answer)
        if not class_name:
            raise ValueError("a probe needs the item's `class_name`")
        found = with_class_name(options, right, class_name, item_id)
        if found is None:
            return None
        options, class_option = found
    else:
        class_option = _class_option(manifest, row, answer, options)
    labels = {**row, "image": images[0].name if images else item_id}
    return Sample(
        id=item_id,
        turns=(Turn(Speaker.user, (*images, _prompt(manifest.prompt, row, options))),),
        answer=answer,
        kind=manifest.answer,
        references=references,
        options=options,
        clusters=tuple(f"{name}={labels[name]}" for name in manifest.cluster_by),
        class_option=class_option,
        class_name=class_name,
    )


def _prompt(template: str, row: Row, options: tuple[str, ...]) -> str:
    fields = {name: value for name, value in row.items() if value is not None}
    fields["options"] = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    try:
        text = template.format_map(fields).replace("<image>", "").strip()
    except KeyError as error:
        raise ValueError(f"`prompt` asks for {{{error.args[0]}}}, which the item lacks") from error
    except (ValueError, IndexError, AttributeError, TypeError) as error:
        raise ValueError(f"`prompt` is no template ({error}); a brace that is meant is written twice") from error
    if not text:
        raise ValueError("the prompt is empty")
    return text


def _options(manifest: Manifest, row: Row) -> tuple[str, ...]:
    given = row.get("options") or manifest.options
    if not isinstance(given, list):
        raise ValueError(f"`options` must be a list, not {given!r}")
    options = tuple(str(option) for option in given)
    if None in given or not all(option.strip() for option in options):
        raise ValueError(f"an option is empty: {given}")
    if twice := [option for option, n in Counter(map(str.strip, options)).items() if n > 1]:
        raise ValueError(f"two options read '{twice[0]}', so only one could be right")
    if manifest.answer is not AnswerKind.text and len(options) < 2:
        raise ValueError(f"answer kind '{manifest.answer}' needs `options`, two or more")
    if len(options) > len(LETTERS) and (manifest.answer is AnswerKind.letter or "{options}" in manifest.prompt):
        raise ValueError(f"{len(options)} options, but only {len(LETTERS)} letters")
    return options


def _images(row: Row, folder: str, kept: _Held) -> Iterator[ImageRef]:
    value = row.get("image")
    values = value if isinstance(value, list) else [] if value is None else [value]
    for one in values:
        held = one if isinstance(one, dict) else {"bytes": one} if isinstance(one, bytes) else {"path": one}
        data, name = held.get("bytes"), held.get("path")
        if data is None and isinstance(name, str) and len(name) > _LONGEST_NAME and name.startswith(_BASE64):
            data = base64.b64decode(name, validate=True)
        if data is not None:
            yield kept.image(data)
            continue
        if not isinstance(name, str) or not name:
            raise ValueError(f"`image` must be a file's name or a picture's bytes, not {one!r}")
        path = PurePath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"picture '{name}' is outside the dataset's folder")
        yield ImageRef(folder, name)


def _answer(manifest: Manifest, row: Row, options: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    kind, value = manifest.answer, row["answer"]
    if value is None:
        raise ValueError("`answer` is null")
    if kind is AnswerKind.text:
        given = value if isinstance(value, list) else [value]
        references = tuple(str(one) for one in given if isinstance(one, str | int | float))
        # One of several people may have answered nothing: VQA's metric counts them.
        if (
            not references
            or len(references) < len(given)
            or not references[0].strip()
            or (manifest.metric is not Metric.vqa_accuracy and not all(text.strip() for text in references))
        ):
            raise ValueError(f"`answer` must be a text or a list of accepted texts, not {value!r}")
        return references[0], references
    if kind is AnswerKind.option:
        if str(value) not in options:
            raise ValueError(f"answer '{value}' is not one of the options {options}")
        return str(value), (str(value),)
    letter = _letter(value, options)
    return letter, (letter,)


def _letter(value: object, options: tuple[str, ...]) -> str:
    """The letter of an answer given as an index from 0, an option's text, or a letter."""
    text = str(value)
    if text in options and not isinstance(value, int):
        return LETTERS[options.index(text)]
    if text.isdecimal() and not (isinstance(value, str) and any(option.isdecimal() for option in options)):
        if int(text) >= len(options):
            raise ValueError(f"answer {value} is not an index of {len(options)} options")
        return LETTERS[int(text)]
    if len(text) == 1 and text.upper() in LETTERS[: len(options)]:
        return text.upper()
    raise ValueError(f"answer '{text}' is no letter, index or text of the options {options}")


def _class_option(manifest: Manifest, row: Row, answer: str, options: tuple[str, ...]) -> int | None:
    value = row.get("class_option")
    if value is None:
        if manifest.probe:
            raise ValueError("a probe's items need `class_option`, the index of the option that is the class name")
        return None
    if not isinstance(value, int) or not 0 <= value < len(options):
        raise ValueError(f"class_option {value!r} is not an index of {len(options)} options")
    if answer in (LETTERS[value], options[value]):
        raise ValueError(f"class_option {value} is the right answer; the class name must be a wrong option")
    return value
