"""Read a manifest's items as frozen samples, whatever layout they come from."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from string import Formatter

from forgetbench.core.errors import UserError
from forgetbench.core.records import LETTERS, AnswerKind, ImageRef, Sample, Speaker
from forgetbench.data.conversations import Conversation, NoItemError, Row, is_conversation, read_conversation
from forgetbench.data.item_answers import ItemAnswers, class_option
from forgetbench.data.item_pictures import ItemPictures
from forgetbench.data.item_texts import check_texts, printable
from forgetbench.data.layouts import chosen_rows
from forgetbench.data.manifest import AnswerIs, Manifest
from forgetbench.data.marks import Piece, RawTurn, place, read_marks
from forgetbench.data.probe import with_class_name

MAX_LABELS = 5000
"""A task with more different answers has no set of labels; ImageNet has 1000."""
MAX_REFUSED = 20
"""So many items that do not fit are collected; then reading stops."""
_FIELD = re.compile(r"\w[\w -]*")
"""Name of a field that a prompt may ask for."""
_NAMED = 5
"""So many of them, or of the records that make no item, are named where they are not what was asked about."""
_told: set[tuple[str, str]] = set()
"""Manifests and splits whose left-out records were told of in this process."""


@dataclass(frozen=True)
class Refused:
    """An item that does not fit its manifest."""

    place: int
    """Of its row in the split, from 0."""
    id: str
    reason: str
    fields: tuple[str, ...]

    def __str__(self) -> str:
        known = self.id == str(self.place) or f"'{self.id}'" in self.reason
        return self.reason if known else f"{self.reason} (id '{self.id}')"


@dataclass(frozen=True)
class Read:
    """What was found in a split."""

    samples: list[Sample] = field(default_factory=list)
    """The items, in file order."""
    places: list[int] = field(default_factory=list)
    """Of the items' rows in the split."""
    drawn: list[int] = field(default_factory=list)
    """Places of all rows that were drawn, also of those that make no item."""
    layouts: dict[str, str] = field(default_factory=dict)
    """Id -> layout, of the items that are conversations."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Id -> reason, of the records that make no item."""
    refused: list[Refused] = field(default_factory=list)
    may_show_pictures: bool = False
    """Whether an item that was read shows a picture, or one that was not drawn could."""


def load_samples(manifest: Manifest, split: str, limit: int | None = None, distract: bool = False) -> list[Sample]:
    """Read one split's items in file order, as `load_split` does."""
    return load_split(manifest, split, limit, distract).samples


def load_split(manifest: Manifest, split: str, limit: int | None = None, distract: bool = False) -> Read:
    """Read one split in file order; records that make no item are left out and told of on stderr.

    Args:
        manifest: a manifest with a source.
        split: name of one of its splits.
        limit: only so many of them, drawn over the whole file: files are often sorted by class or subject. The same
            ones every time, and a larger limit keeps those of a smaller one. The split's own `limit` holds, too.
        distract: put the class name among the wrong options (see `probe`); items where it cannot be are left out.

    Raises:
        UserError: a file is missing, or items do not fit the manifest; names them.
    """
    read = read_split(manifest, split, limit, distract)
    if read.refused:
        raise UserError(refusal(manifest, split, read.refused, _NAMED))
    if not read.samples:
        why = "; in each, the class name is the right answer or there is one wrong option" if distract else ""
        why += f"; {left_out(split, read.left_out, _NAMED)}" if read.left_out else ""
        raise UserError(f"{manifest.path}: split '{split}' has no items{' for a probe' if distract else ''}{why}.")
    if not read.may_show_pictures and "text" not in manifest.image_domains:
        raise UserError(f"{manifest.path}: {without_pictures(manifest, split)}.")
    if read.left_out and (manifest.path, split) not in _told and os.environ.get("RANK", "0") == "0":
        _told.add((manifest.path, split))
        print(f"{manifest.name}: {left_out(split, read.left_out, _NAMED)}.", file=sys.stderr)
    return read


def read_split(manifest: Manifest, split: str, limit: int | None = None, distract: bool = False) -> Read:
    """Read one split as `load_split` does, and say what does not fit instead of refusing it.

    Raises:
        UserError: a file is missing or not readable.
    """
    if manifest.source is None:
        raise UserError(f"{manifest.path}: a mixture has no items of its own; name its parts.")
    read, seen = Read(), set[str]()
    reader = _Reader(manifest, split, distract)
    found = list[_Drafts]()
    for index, row in chosen_rows(manifest, split, limit, reader.observe):
        item_id = str(index if row.get("id") is None else row["id"])
        read.drawn.append(index)
        try:
            layout, samples = reader.read(row, item_id)
            if item_id in seen and any(samples.values()):
                raise ValueError(f"id '{item_id}' is not unique")
        except NoItemError as error:
            read.left_out[printable(item_id)] = str(error)
        except (KeyError, ValueError, TypeError) as error:
            read.refused.append(_refused(index, item_id, row, error))
            if len(read.refused) == MAX_REFUSED:
                break
        else:
            seen.add(item_id)
            unsure = _refused(index, item_id, row, _several(row)) if len(samples) > 1 else None
            found.append(_Drafts(index, samples, unsure))
            if layout:
                read.layouts[item_id] = layout
    decided = _decided(read, found, reader.agreed)
    is_whole = limit is None and manifest.split(split).limit is None
    may_show = any(sample.images for sample in decided.samples) or (not is_whole and reader.may_show)
    return replace(decided, may_show_pictures=may_show)


def _refused(place: int, item_id: str, row: Row, error: Exception) -> Refused:
    detail = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
    return Refused(place, printable(item_id), printable(detail), tuple(map(printable, row)))


@dataclass(frozen=True)
class _Drafts:
    """A row's item by each reading of its answer that makes another option right."""

    place: int
    samples: Mapping[AnswerIs | None, Sample | None]
    """One, as a rule; None where no probe can be made."""
    refused: Refused | None
    """Of several, what to say if the split's items agree on no reading."""


def _decided(read: Read, found: Sequence[_Drafts], agreed: AnswerIs | None) -> Read:
    """What was read, with the items whose answers are read as the split's items agree."""
    unsure = [one.refused for one in found if one.refused and agreed is None]
    refused = sorted([*read.refused, *unsure], key=lambda one: one.place)[:MAX_REFUSED]
    chosen = [one.samples[agreed] if one.refused and agreed else next(iter(one.samples.values())) for one in found]
    places = [one.place for one, sample in zip(found, chosen, strict=True) if sample]
    return replace(read, refused=refused, samples=[sample for sample in chosen if sample], places=places)


def _several(row: Row) -> ValueError:
    return ValueError(
        f"answer {row['answer']!r} is the text of one of its options and the place or letter of another, and the "
        "split's items agree on neither; write `answer_is: text`, `letter`, `index_from_0` or `index_from_1` "
        "into the manifest"
    )


def refusal(manifest: Manifest, split: str, refused: Sequence[Refused], named: int = MAX_REFUSED) -> str:
    """Why items cannot be read: one message for all of them, the first `named` by place and id."""
    first = refused[0]
    hint = f"The item's fields: {', '.join(first.fields)}. Map columns under `source.columns`."
    if len(refused) == 1:
        return f"{manifest.path}: item {first.place} of split '{split}': {first}.\n{hint}"
    count = f"{len(refused)} or more" if len(refused) == MAX_REFUSED else str(len(refused))
    lines = [f"{manifest.path}: {count} items of split '{split}' do not fit:"]
    lines += [f"  item {one.place}: {one}." for one in refused[:named]]
    if len(refused) > named:
        lines.append(f"  ... `forgetbench data check {manifest.name}` names {len(refused)} of them.")
    return "\n".join([*lines, hint.replace("The item's", "The first one's")])


def without_pictures(manifest: Manifest, split: str) -> str:
    """What is wrong with a split of pictures in which there is none."""
    return (
        f"split '{split}': no item has a picture, but `image_domains` are {', '.join(manifest.image_domains)}; "
        "name the column that holds them under `source.columns` (image: ...), or write [text]"
    )


def left_out(split: str, records: Mapping[str, str], named: int = MAX_REFUSED) -> str:
    """How many records of a split make no item, and the first `named` of them."""
    shown = ", ".join(f"'{id}' ({reason})" for id, reason in list(records.items())[:named])
    some = f"{len(records)} records make" if len(records) > 1 else "1 record makes"
    more = f" and {len(records) - named} more" if len(records) > named else ""
    return f"split '{split}': {some} no item and {'are' if len(records) > 1 else 'is'} left out: {shown}{more}"


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


class _Reader:
    """Makes items of rows."""

    def __init__(self, manifest: Manifest, split: str, distract: bool) -> None:
        self._manifest = manifest
        self._pictures = ItemPictures(manifest, split)
        self._answers = ItemAnswers(manifest)
        self._distract = distract
        self._has_marks = manifest.image_domains != ["text"]
        self._has_references = manifest.split(split).references is not None
        self._shows_options = "{options}" in manifest.prompt
        self.may_show = False

    def observe(self, row: Row) -> None:
        """Take note of a row, whether it is wanted or not."""
        self._answers.observe(row)
        self.may_show = self.may_show or self._pictures.may_show(row)

    @property
    def agreed(self) -> AnswerIs | None:
        """How answers are read that could be read in several ways."""
        return self._answers.agreed()

    def read(self, row: Row, item_id: str) -> tuple[str, dict[AnswerIs | None, Sample | None]]:
        """The layout of a row's conversation, if it has one, and its item, for each reading of its answer that differs.

        An item is None where no probe can be made of it.

        Raises:
            NoItemError: its turns ask for no reply.
            KeyError, ValueError, TypeError: it does not fit.
        """
        images = self._pictures.of(row)
        said = None
        if is_conversation(row):
            said = read_conversation(row, self._pictures.one, self._has_marks)
            reply = row["answer"] if self._has_references else said.reply
            row = row | {"question": said.before[-1].text, "answer": reply}
        options = self._answers.options(row)
        open_ended = self._manifest.answer is AnswerKind.text
        ways = [None] if open_ended else self._answers.readings(row, options)
        samples = {way: self._sample(row, item_id, images, said, options, way) for way in ways}
        for sample in filter(None, samples.values()):
            check_texts(sample)
        return said.layout if said else "", samples

    def _sample(
        self,
        row: Row,
        item_id: str,
        images: tuple[ImageRef, ...],
        said: Conversation | None,
        options: tuple[str, ...],
        way: AnswerIs | None,
    ) -> Sample | None:
        manifest = self._manifest
        answer, references = self._answers.answer(row, options, way)
        class_name = str(row.get("class_name") or "")
        class_place: int | None
        if self._distract:
            right = options.index(answer) if manifest.answer is AnswerKind.option else LETTERS.index(answer)
            if not class_name:
                raise ValueError("a probe needs the item's `class_name`")
            found = with_class_name(options, right, class_name, item_id)
            if found is None:
                return None
            options, class_place = found
        else:
            class_place = class_option(manifest, row, answer, options)
        turns = place(self._asked(row, options, said), images)
        shown = [*images, *(part for turn in turns for part in turn.parts if isinstance(part, ImageRef))]
        if not turns[-1].text.strip():
            raise NoItemError("its last question is empty")
        labels = {name: value for name, value in row.items() if value is not None}
        labels |= {"image": shown[0].name if shown else item_id}
        return Sample(
            id=item_id,
            turns=turns,
            # A conversation's texts are kept as they are; of other items blanks around the answer never counted.
            answer=answer.strip() if manifest.answer is AnswerKind.text and not said else answer,
            kind=manifest.answer,
            references=references,
            options=options,
            clusters=tuple(f"{name}={labels[name]}" for name in manifest.cluster_by),
            class_option=class_place,
            class_name=class_name,
        )

    def _asked(self, row: Row, options: tuple[str, ...], said: Conversation | None) -> list[RawTurn]:
        """All turns before the answer, the last one as the manifest's prompt writes it."""
        question = said.before[-1].pieces if said else (str(row.get("question")),)
        if isinstance(row.get("question"), bytes | list | dict):
            raise ValueError(f"`question` must be a text, not {str(row['question'])[:80]!r}")
        pieces = _prompt(self._manifest.prompt, row, options, question)
        if not said:
            text = "".join(map(str, pieces)).strip()
            if not text:
                raise ValueError("the prompt is empty")
            pieces = (text,)
        last = RawTurn(Speaker.user, pieces)
        needs_options = self._manifest.answer is AnswerKind.letter and not self._shows_options
        if needs_options and not all(option in last.text for option in options):
            raise ValueError("`answer: letter`, but its prompt shows no options; write {options} into `prompt`")
        return [*(said.before[:-1] if said else ()), read_marks(last) if self._has_marks else last]


def _prompt(template: str, row: Row, options: tuple[str, ...], question: Sequence[Piece]) -> tuple[Piece, ...]:
    """The manifest's prompt, filled; where it asks for `{question}`, the pieces of the question.

    Names of fields alone are filled in: `str.format` would read `{image.__class__}` and what it leads to, and a
    manifest may be somebody else's.
    """
    fields = {name: value for name, value in row.items() if value is not None}
    fields["options"] = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    pieces: list[Piece] = []
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"`prompt` is no template ({error}); a brace that is meant is written twice") from error
    for text, name, form, conversion in parsed:
        pieces.append(text)
        if name is None:
            continue
        if form or conversion or (name not in fields and not _FIELD.fullmatch(name)):
            shown = f"{name}{'!' if conversion else ''}{conversion or ''}{':' if form else ''}{form}"
            raise ValueError(
                f"`prompt` is no template: {{{shown}}} is no name of a field; a brace that is meant is written twice"
            )
        if name not in fields:
            raise ValueError(f"`prompt` asks for {{{name}}}, which the item lacks")
        pieces += question if name == "question" else [str(fields[name])]
    return tuple(pieces)
