"""Adapters of public layouts: a manifest's `source.adapter` names a function that turns rows into items.

An adapter gets all rows of a split, in which mapped columns (`source.columns`) also have our names. It yields rows with
our fields (`image`, `question`, `options`, `answer`, ...) and keeps the other columns. If a row does not have the
layout, it raises KeyError, TypeError, ValueError or AttributeError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from forgetbench.data.adapters import answers, choices
from forgetbench.data.adapters.choices import Row

ADAPTERS: Mapping[str, Callable[[Iterator[Row]], Iterator[Row]]] = {
    function.__name__: function
    for function in (
        choices.ai2d,
        choices.cell_naming,
        choices.iconqa_blank,
        choices.iconqa_choice,
        choices.imagewikiqa,
        choices.instrument_naming,
        choices.lettered_text,
        choices.mmbench,
        choices.mmmu_choice,
        choices.mmmu_open,
        choices.named_text,
        choices.scienceqa,
        choices.vmcbench,
        choices.vmcbench_unmixed,
        answers.annotators,
        answers.annotators_capitalised,
        answers.cauldron,
        answers.coco_karpathy,
        answers.gqa,
        answers.ocrvqa,
        answers.yes_no,
    )
}
"""Name -> adapter."""
