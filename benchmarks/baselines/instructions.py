"""Conversations as long and as different as mixed instructions, the same for us, for TRL and for LLaMA-Factory.

The shares are those of the sources in LLaVA-1.5's mix (Liu et al. 2023, arXiv:2310.03744): mostly one picture, most
turns short answers, some texts without pictures. Turns and words of each source are round figures: six turns and 180
tokens on average; texts are kept so short that a conversation fits the 512 positions of the embedded model. The words
mean nothing.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, List, Value, disable_progress_bars

from benchmarks.baselines.export import train_samples
from benchmarks.baselines.llamafactory import described
from forgetbench.core.records import AnswerKind, ImageRef, Sample, Speaker, Turn
from forgetbench.data.pictures import read_image

SETS = ("emoji_yesno", "emoji_use", "emoji_caption")
"""Embedded sets whose pictures are shown and whose words are said."""
MESSAGES = Features(
    {
        "messages": List({"role": Value("string"), "content": Value("string")}),
        "images": List(Image()),
    }
)


@dataclass(frozen=True)
class Kind:
    """A source of the mix; each pair of numbers is the fewest and the most."""

    records: int
    """Of the mix, in thousands."""
    turns: tuple[int, int]
    asked: tuple[int, int]
    """Words of a question."""
    answered: tuple[int, int]
    """Words of a reply."""
    pictured: bool = True


KINDS = (
    Kind(235, (2, 12), (5, 10), (1, 2)),  # short answers: VQAv2, GQA, OCR-VQA
    Kind(134, (5, 20), (3, 8), (3, 6)),  # regions: RefCOCO, Visual Genome
    Kind(100, (1, 1), (8, 15), (60, 120)),  # descriptions and reasoning: LLaVA
    Kind(75, (1, 1), (20, 40), (1, 1)),  # one question, often with options: OKVQA, A-OKVQA
    Kind(58, (3, 5), (6, 14), (10, 40)),  # talks: LLaVA
    Kind(40, (2, 5), (5, 20), (20, 55), pictured=False),  # ShareGPT
    Kind(22, (1, 1), (8, 12), (8, 16)),  # captions: TextCaps
)


def conversations(count: int, seed: int = 0) -> list[Sample]:
    """The first `count` conversations of a seed."""
    draw = random.Random(seed)
    held = [sample for name in SETS for sample in train_samples(name)]
    words = sorted({word for sample in held for word in re.findall(r"\b[a-z]+\b", f"{sample.prompt} {sample.answer}")})
    pictures = sorted({image for sample in held for image in sample.images}, key=lambda image: image.name)
    return [_conversation(draw, f"{place:06d}", words, pictures) for place in range(count)]


def _conversation(draw: random.Random, name: str, words: Sequence[str], pictures: Sequence[ImageRef]) -> Sample:
    (kind,) = draw.choices(KINDS, [kind.records for kind in KINDS])

    def text(length: tuple[int, int]) -> str:
        return " ".join(draw.choices(words, k=draw.randint(*length)))

    turns: list[Turn] = []
    for _ in range(draw.randint(*kind.turns)):
        turns.append(Turn(Speaker.user, (f"{text(kind.asked)}?",)))
        turns.append(Turn(Speaker.assistant, (text(kind.answered),)))
    if kind.pictured:
        turns[0] = Turn(Speaker.user, (draw.choice(pictures), *turns[0].parts))
    answer = turns.pop().text
    return Sample(name, tuple(turns), answer, AnswerKind.text, references=(answer,))


def turn_by_turn(samples: Sequence[Sample]) -> list[Sample]:
    """Each reply as an item of its own: all pictures and its question, without the turns before."""
    return [
        Sample.question(f"{sample.id}-{place}", _text(asked), reply.text, AnswerKind.text, sample.images, (reply.text,))
        for sample in samples
        for place, (asked, reply) in enumerate(_exchanges(sample))
    ]


def n_replies(sample: Sample) -> int:
    """How many of its turns are trained."""
    return len(_exchanges(sample))


def _whole(sample: Sample) -> tuple[Turn, ...]:
    return (*sample.turns, Turn(Speaker.assistant, (sample.answer,)))


def _exchanges(sample: Sample) -> list[tuple[Turn, Turn]]:
    return [pair for pair in pairwise(_whole(sample)) if pair[1].speaker is Speaker.assistant]


def _text(turn: Turn) -> str:
    return "".join(part for part in turn.parts if isinstance(part, str))


def export_messages(samples: Sequence[Sample], path: Path) -> None:
    """Write the columns `messages` and `images` of TRL to a Parquet file.

    Contents are texts: TRL puts a conversation's pictures before its first question, where they stand here.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    disable_progress_bars()
    rows = [
        {
            "messages": [{"role": str(turn.speaker), "content": _text(turn)} for turn in _whole(sample)],
            "images": [{"bytes": read_image(image), "path": None} for image in sample.images],
        }
        for sample in samples
    ]
    Dataset.from_list(rows, features=MESSAGES).to_parquet(path)


def export_sharegpt(samples: Sequence[Sample], folder: Path, name: str) -> None:
    """Write `<name>.json`, its pictures and dataset_info.json for LLaMA-Factory."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_sharegpt(sample, folder / "pictures") for sample in samples]
    (folder / f"{name}.json").write_text(json.dumps(rows), "utf-8")
    (folder / "dataset_info.json").write_text(json.dumps({name: described(name)}), "utf-8")


def _sharegpt(sample: Sample, pictures: Path) -> dict[str, Any]:
    paths = [pictures / image.name for image in sample.images]
    for path, image in zip(paths, sample.images, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read_image(image))
    return {
        "messages": [{"role": str(turn.speaker), "content": turn.text} for turn in _whole(sample)],
        "images": [str(path.resolve()) for path in paths],
    }
