"""Conversations of several turns with pictures in them, and what is worked out of them another way."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from PIL import Image

from forgetbench.core.records import AnswerKind, ImageRef, Part, Sample, Speaker, Turn
from forgetbench.data.pictures import decode_image


@cache
def picture(red: int, side: int = 16) -> ImageRef:
    """One colour throughout."""
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (red, 0, 0)).save(stream, "PNG")
    return ImageRef("memory", f"{red}.png", stream.getvalue())


def talk(name: str, *said: Part | tuple[Part, ...], system: str | None = None) -> Sample:
    """User and assistant in turns, the answer last."""
    turns = [] if system is None else [Turn(Speaker.system, (system,))]
    for number, one in enumerate(said[:-1]):
        speaker = Speaker.assistant if number % 2 else Speaker.user
        turns.append(Turn(speaker, one if isinstance(one, tuple) else (one,)))
    answer = said[-1]
    assert isinstance(answer, str)
    return Sample(name, tuple(turns), answer, AnswerKind.text, references=(answer,))


TALKS = [
    talk("two", (picture(10), "\nWhat is it?"), "A red hat.", "Is it dark?", "yes"),
    talk("three", "Hello.", "Hello! How can I help?", ("Look: ", picture(60), " What is it?"), "dark red", "Why?", "A"),
    talk(
        "pictures", ("First ", picture(10), ", then ", picture(90), ": which is darker?"), "The first.", "Why?", "So."
    ),
    talk("one", (picture(200), "What is in this picture?"), "light blue"),
    talk("words", "Name a colour.", "red", "And another?", "The answer is light blue."),
]


def told_one_by_one(sample: Sample) -> list[Sample]:
    """An item for every reply, with all that was said before it, and nothing but that reply to train on."""
    found = []
    for number, turn in enumerate(sample.turns):
        if turn.speaker is Speaker.assistant:
            found.append(replace(sample, turns=sample.turns[:number], answer=turn.text))
    return [*found, sample]


@torch.no_grad()
def loss_of_last_reply(model: Any, processor: Any, sample: Sample) -> tuple[float, int]:
    """Summed loss and number of tokens of the last reply, by transformers' own template, labels and loss."""
    turns = [
        {
            "role": turn.speaker.value,
            "content": [
                {"type": "text", "text": one} if isinstance(one, str) else {"type": "image"} for one in turn.parts
            ],
        }
        for turn in sample.turns
    ]
    head = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    reply = {"role": "assistant", "content": [{"type": "text", "text": sample.answer}]}
    whole = processor.apply_chat_template([*turns, reply], tokenize=False)
    images = [decode_image(image) for image in sample.images] or None
    inputs = processor(text=[whole], images=images, return_tensors="pt")
    labels = inputs["input_ids"].clone()
    labels[:, : processor(text=[head], images=images, return_tensors="pt")["input_ids"].shape[1]] = -100
    n = int((labels != -100).sum())
    return float(model(**inputs, labels=labels).loss) * n, n
