"""The class-label-distractor probe of any multiple-choice dataset.

The class name of the pictured object replaces one wrong option; the other options stay, as in the authors' version of
ImageWikiQA (arXiv 2603.14493). A model that no longer reads the question picks the class name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from forgetbench.core.errors import UserError
from forgetbench.core.records import AnswerKind
from forgetbench.data.manifest import Manifest


def check_probe(manifest: Manifest) -> None:
    """Check from its manifest whether a probe can be made of a dataset.

    Raises:
        UserError: it has no options, or already is a probe.
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
    """Replace a wrong option by the class name; returns the options and the place of the class name.

    If the class name is already a wrong option, nothing changes. The place depends only on the item's id.

    Returns:
        None if the class name is the right answer, or would replace the only wrong option.
    """
    folded, name = [option.strip().casefold() for option in options], class_name.strip()
    if name.casefold() == folded[right] or len(options) < 3:
        return None
    if name.casefold() in folded:
        return tuple(options), folded.index(name.casefold())
    wrong = [place for place in range(len(options)) if place != right]
    place = wrong[int.from_bytes(hashlib.sha256(item_id.encode()).digest()[:8], "big") % len(wrong)]
    return (*options[:place], name, *options[place + 1 :]), place
