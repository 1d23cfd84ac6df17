"""Read a manifest's items, of any layout, as frozen samples."""

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
"""A task with more distinct answers is open-ended; ImageNet has 1000 labels."""
MAX_REFUSED = 20
"""Reading stops after so many invalid items."""
_FIELD = re.compile(r"\w[\w -]*")
"""Name of a field in a prompt template."""
_MAX_NAMED = 5
"""Invalid items, or left-out records, that a message names (`data check` names up to MAX_REFUSED)."""
_reported: set[tuple[str, str]] = set()
"""Manifests and splits whose left-out records this process has reported."""


@dataclass(frozen=True)
class RefusedItem:
    """An item that does not fit its manifest, and why."""

    place: int
    """Index of its row in the split, from 0."""
    id: str
    reason: str
    fields: tuple[str, ...]

    def __str__(self) -> str:
        known = self.id == str(self.place) or f"'{self.id}'" in self.reason
        return self.reason if known else f"{self.reason} (id '{self.id}')"


@dataclass(frozen=True)
class SplitItems:
    """The items of a split, and the rows that are no items."""

    samples: list[Sample] = field(default_factory=list)
    """The items, in file order."""
    places: list[int] = field(default_factory=list)
    """Index of each item's row in the split."""
    drawn: list[int] = field(default_factory=list)
    """Indices of all drawn rows, also of rows that make no item."""
    layouts: dict[str, str] = field(default_factory=dict)
    """Id -> layout, for items that are conversations."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Id -> reason, for records that make no item."""
    refused: list[RefusedItem] = field(default_factory=list)
    may_show_pictures: bool = False
    """Whether a read item shows a picture, or a row that was not drawn may show one."""


def load_samples(manifest: Manifest, split: str, limit: int | None = None, distract: bool = False) -> list[Sample]:
    """Read one split's items in file order, as `load_split` does."""
    return load_split(manifest, split, limit, distract).samples


def load_split(manifest: Manifest, split: str, limit: int | None = None, distract: bool = False) -> SplitItems:
    """Read a split in file order; records that make no item are left out and reported on stderr.

    Args:
        manifest: a manifest with a source.
        split: name of one of its splits.
        limit: at most so many rows, drawn over the whole file because files are often sorted by class or subject. The
            rows are the same every time, and a larger limit keeps the rows of a smaller one. The split's `limit`
            applies, too.
        distract: put the class name among the wrong options (see `probe`); items where this is impossible are left out.

    Raises:
        UserError: a file is missing, or items do not fit the manifest; names them.
    """
    result = read_split(manifest, split, limit, distract)
    if result.refused:
        raise UserError(refusal(manifest, split, result.refused, _MAX_NAMED))
    if not result.samples:
        reason = "; in each, the class name is the right answer or there is one wrong option" if distract else ""
        reason += f"; {left_out(split, result.left_out, _MAX_NAMED)}" if result.left_out else ""
        raise UserError(f"{manifest.path}: split '{split}' has no items{' for a probe' if distract else ''}{reason}.")
    if not result.may_show_pictures and "text" not in manifest.image_domains:
        raise UserError(f"{manifest.path}: {without_pictures(manifest, split)}.")
    if result.left_out and (manifest.path, split) not in _reported and os.environ.get("RANK", "0") == "0":
        _reported.add((manifest.path, split))
        print(f"{manifest.name}: {left_out(split, result.left_out, _MAX_NAMED)}.", file=sys.stderr)
    return result


def read_split(manifest: Manifest, split: str, limit: int | None = None, distract: bool = False) -> SplitItems:
    """Read a split as `load_split` does, but return invalid items instead of raising an error.

    Raises:
        UserError: a file is missing or not readable.
    """
    if manifest.source is None:
        raise UserError(f"{manifest.path}: a mixture has no items of its own; name its parts.")
    result, ids = SplitItems(), set[str]()
    reader = _Reader(manifest, split, distract)
    drafts = list[_Readings]()
    for index, row in chosen_rows(manifest, split, limit, reader.observe):
        item_id = str(index if row.get("id") is None else row["id"])
        result.drawn.append(index)
        try:
            layout, samples = reader.read(row, item_id)
            if item_id in ids and any(samples.values()):
                raise ValueError(f"id '{item_id}' is not unique")
        except NoItemError as error:
            result.left_out[printable(item_id)] = str(error)
        except (KeyError, ValueError, TypeError) as error:
            result.refused.append(_refused_item(index, item_id, row, error))
            if len(result.refused) == MAX_REFUSED:
                break
        else:
            ids.add(item_id)
            ambiguous = _refused_item(index, item_id, row, _ambiguous_answer(row)) if len(samples) > 1 else None
            drafts.append(_Readings(index, samples, ambiguous))
            if layout:
                result.layouts[item_id] = layout
    resolved = _resolve_readings(result, drafts, reader.agreed)
    is_whole = limit is None and manifest.split(split).limit is None
    shows_pictures = any(sample.images for sample in resolved.samples) or (not is_whole and reader.may_show)
    return replace(resolved, may_show_pictures=shows_pictures)


def _refused_item(place: int, item_id: str, row: Row, error: Exception) -> RefusedItem:
    detail = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
    return RefusedItem(place, printable(item_id), printable(detail), tuple(map(printable, row)))


@dataclass(frozen=True)
class _Readings:
    """The possible items of a row: one per reading of its answer that names a different option."""

    place: int
    samples: Mapping[AnswerIs | None, Sample | None]
    """Usually a single sample; None if no probe can be made."""
    refused: RefusedItem | None
    """The error to report for an ambiguous answer if the split's items agree on no reading."""


def _resolve_readings(result: SplitItems, drafts: Sequence[_Readings], agreed: AnswerIs | None) -> SplitItems:
    """Add the items of `drafts`, with ambiguous answers read by the `agreed` reading."""
    ambiguous = [draft.refused for draft in drafts if draft.refused and agreed is None]
    refused = sorted([*result.refused, *ambiguous], key=lambda draft: draft.place)[:MAX_REFUSED]
    chosen = [
        draft.samples[agreed] if draft.refused and agreed else next(iter(draft.samples.values())) for draft in drafts
    ]
    places = [draft.place for draft, sample in zip(drafts, chosen, strict=True) if sample]
    return replace(result, refused=refused, samples=[sample for sample in chosen if sample], places=places)


def _ambiguous_answer(row: Row) -> ValueError:
    return ValueError(
        f"answer {row['answer']!r} is the text of one of its options and the place or letter of another, and the "
        "split's items agree on neither; write `answer_is: text`, `letter`, `index_from_0` or `index_from_1` "
        "into the manifest"
    )


def refusal(manifest: Manifest, split: str, refused: Sequence[RefusedItem], named: int = MAX_REFUSED) -> str:
    """The message for invalid items; names the first `named` of them by place and id."""
    first = refused[0]
    hint = f"The item's fields: {', '.join(first.fields)}. Map columns under `source.columns`."
    if len(refused) == 1:
        return f"{manifest.path}: item {first.place} of split '{split}': {first}.\n{hint}"
    count = f"{len(refused)} or more" if len(refused) == MAX_REFUSED else str(len(refused))
    lines = [f"{manifest.path}: {count} items of split '{split}' do not fit:"]
    lines += [f"  item {item.place}: {item}." for item in refused[:named]]
    if len(refused) > named:
        lines.append(f"  ... `forgetbench data check {manifest.name}` names {len(refused)} of them.")
    return "\n".join([*lines, hint.replace("The item's", "The first one's")])


def without_pictures(manifest: Manifest, split: str) -> str:
    """The message for a split that should have pictures and has none."""
    return (
        f"split '{split}': no item has a picture, but `image_domains` are {', '.join(manifest.image_domains)}; "
        "name the column that holds them under `source.columns` (image: ...), or write [text]"
    )


def left_out(split: str, records: Mapping[str, str], named: int = MAX_REFUSED) -> str:
    """The message for records that make no item; names the first `named` of them."""
    shown = ", ".join(f"'{id}' ({reason})" for id, reason in list(records.items())[:named])
    count = f"{len(records)} records make" if len(records) > 1 else "1 record makes"
    more = f" and {len(records) - named} more" if len(records) > named else ""
    return f"split '{split}': {count} no item and {'are' if len(records) > 1 else 'is'} left out: {shown}{more}"


def task_labels(samples: Sequence[Sample]) -> list[str]:
    """The distinct answers of a task, sorted; for lettered answers, the texts of the right options.

    A fine-tuned model may give these answers to other questions. Open-ended tasks, which have more than MAX_LABELS
    distinct answers or answers that hardly repeat, have no labels.
    """
    labels = {
        sample.options[sample.target]
        if sample.kind is AnswerKind.letter and sample.target is not None
        else sample.answer
        for sample in samples
    }
    return sorted(labels) if len(labels) <= min(MAX_LABELS, len(samples) // 2) else []


class _Reader:
    """Makes items from rows."""

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
        """Record how a row's answer can be read and whether it may show pictures, whether or not the row is used."""
        self._answers.observe(row)
        self.may_show = self.may_show or self._pictures.may_show(row)

    @property
    def agreed(self) -> AnswerIs | None:
        """The reading of ambiguous answers on which all rows agree."""
        return self._answers.agreed()

    def read(self, row: Row, item_id: str) -> tuple[str, dict[AnswerIs | None, Sample | None]]:
        """The layout of a row's conversation (or ""), and the row's item for each reading of its answer that differs.

        An item is None if no probe can be made of it.

        Raises:
            NoItemError: the turns do not end in a reply.
            KeyError, ValueError, TypeError: the row does not fit the manifest.
        """
        images = self._pictures.from_row(row)
        conversation = None
        if is_conversation(row):
            conversation = read_conversation(row, self._pictures.from_value, self._has_marks)
            reply = row["answer"] if self._has_references else conversation.reply
            row = row | {"question": conversation.before[-1].text, "answer": reply}
        options = self._answers.options(row)
        open_ended = self._manifest.answer is AnswerKind.text
        readings = [None] if open_ended else self._answers.readings(row, options)
        samples = {reading: self._sample(row, item_id, images, conversation, options, reading) for reading in readings}
        for sample in filter(None, samples.values()):
            check_texts(sample)
        return conversation.layout if conversation else "", samples

    def _sample(
        self,
        row: Row,
        item_id: str,
        images: tuple[ImageRef, ...],
        conversation: Conversation | None,
        options: tuple[str, ...],
        reading: AnswerIs | None,
    ) -> Sample | None:
        manifest = self._manifest
        answer, references = self._answers.answer(row, options, reading)
        class_name = str(row.get("class_name") or "")
        class_place: int | None
        if self._distract:
            right = options.index(answer) if manifest.answer is AnswerKind.option else LETTERS.index(answer)
            if not class_name:
                raise ValueError("a probe needs the item's `class_name`")
            replaced = with_class_name(options, right, class_name, item_id)
            if replaced is None:
                return None
            options, class_place = replaced
        else:
            class_place = class_option(manifest, row, answer, options)
        turns = place(self._question_turns(row, options, conversation), images)
        pictures = [*images, *(part for turn in turns for part in turn.parts if isinstance(part, ImageRef))]
        if not turns[-1].text.strip():
            raise NoItemError("its last question is empty")
        labels = {name: value for name, value in row.items() if value is not None}
        labels |= {"image": pictures[0].name if pictures else item_id}
        return Sample(
            id=item_id,
            turns=turns,
            # A conversation's texts are kept unchanged; the answers of other items are stripped.
            answer=answer.strip() if manifest.answer is AnswerKind.text and not conversation else answer,
            kind=manifest.answer,
            references=references,
            options=options,
            clusters=tuple(f"{name}={labels[name]}" for name in manifest.cluster_by),
            class_option=class_place,
            class_name=class_name,
        )

    def _question_turns(self, row: Row, options: tuple[str, ...], conversation: Conversation | None) -> list[RawTurn]:
        """All turns before the answer; the manifest's prompt formats the last turn."""
        question = conversation.before[-1].pieces if conversation else (str(row.get("question")),)
        if isinstance(row.get("question"), bytes | list | dict):
            raise ValueError(f"`question` must be a text, not {str(row['question'])[:80]!r}")
        pieces = _fill_prompt(self._manifest.prompt, row, options, question)
        if not conversation:
            text = "".join(map(str, pieces)).strip()
            if not text:
                raise ValueError("the prompt is empty")
            pieces = (text,)
        last = RawTurn(Speaker.user, pieces)
        needs_options = self._manifest.answer is AnswerKind.letter and not self._shows_options
        if needs_options and not all(option in last.text for option in options):
            raise ValueError("`answer: letter`, but its prompt shows no options; write {options} into `prompt`")
        return [*(conversation.before[:-1] if conversation else ()), read_marks(last) if self._has_marks else last]


def _fill_prompt(template: str, row: Row, options: tuple[str, ...], question: Sequence[Piece]) -> tuple[Piece, ...]:
    """Fill in the manifest's prompt template; `{question}` becomes the pieces of the question.

    Only field names are filled in. `str.format` would evaluate `{image.__class__}`, and a manifest may come from an
    untrusted source.
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
