"""The class-label-distractor probe of any multiple-choice set: the pictured object's class name among wrong options.

A model that stopped reading the question picks the name. One wrong option makes way for it; the right one and the
others stay, as in the authors' version of ImageWikiQA (arXiv 2603.14493).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from forgetbench.core.errors import UserError
from forgetbench.core.records import AnswerKind
from forgetbench.data.manifest import Manifest


def check_probe(manifest: Manifest) -> None:
    """Whether a probe can be made from a dataset, as far as its manifest tells.

    Raises:
        UserError: it has no options, or is a probe as it is.
    """
    if manifest.answer is AnswerKind.text or manifest.probe:
        what = "is a probe as it is; list it under matrix.datasets" if manifest.probe else "has no options"
        raise UserError(f"'{manifest.name}' {what}; name multiple-choice sets whose items carry a `class_name`.")
    if manifest.answer is AnswerKind.letter and "{options}" not in manifest.prompt:
        raise UserError(
            f"'{manifest.name}' does not show {{options}} in its `prompt`, so a name among them is not seen."
        )


def with_class_name(
    options: Sequence[str], right: int, class_name: str, item_id: str
) -> tuple[tuple[str, ...], int] | None:
    """Options with the class name in the place of a wrong one, and that place.

    Where it is among the wrong ones already, nothing changes. The place is a function of the item's id alone.

    Returns:
        None where the class name is the right answer, or would take the place of the only wrong one.
    """
    folded, name = [option.strip().casefold() for option in options], class_name.strip()
    if name.casefold() == folded[right] or len(options) < 3:
        return None
    if name.casefold() in folded:
        return tuple(options), folded.index(name.casefold())
    wrong = [place for place in range(len(options)) if place != right]
    place = wrong[int.from_bytes(hashlib.sha256(item_id.encode()).digest()[:8], "big") % len(wrong)]
    return (*options[:place], name, *options[place + 1 :]), place
