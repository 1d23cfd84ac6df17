"""`forgetbench data build`: multiple-choice questions of a classification set."""

from __future__ import annotations

from forgetbench.data.build import Options


def data_build(name: str, options: Options) -> None:
    """Write `<downloads>/<name>/{train,test}.jsonl` and `build.json`; goes on where an interrupted build stopped.

    Raises:
        UserError: there is nothing of that name to build, or its pictures or the CLIP checkpoint are not there.
    """
    from forgetbench.data.build.published import target

    target(name)  # reports a misspelt name before torch is loaded
    from forgetbench.data.build.build import build

    build(name, options)
