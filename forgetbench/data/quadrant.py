"""Place an evaluation set in the 2x2 matrix, computed from manifests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from forgetbench.core.records import Axis, Placement
from forgetbench.data.manifest import Manifest


def axis(target: Iterable[str], other: Iterable[str]) -> Axis:
    """Equal lists are in-distribution, disjoint lists out-of-distribution, all others partial."""
    target, other = set(target), set(other)
    if target == other:
        return Axis.id
    return Axis.ood if target.isdisjoint(other) else Axis.partial


def nearest_axis(targets: Iterable[Iterable[str]], other: Iterable[str]) -> Axis:
    """The `axis` of the nearest target: in-distribution of any target wins, then partial overlap with any."""
    axes = {axis(target, other) for target in targets}
    return next(axis_value for axis_value in (Axis.id, Axis.partial, Axis.ood) if axis_value in axes)


def place(
    target: Manifest, evaluated: Manifest, auxiliary: Iterable[Manifest] = (), joint: Sequence[Manifest] = ()
) -> Placement:
    """Place an evaluation set relative to the fine-tuning target.

    Args:
        target: the dataset fine-tuned on.
        evaluated: the dataset scored.
        auxiliary: datasets mixed into training; they never change a quadrant.
        joint: the datasets of a jointly trained target, all of which count as targets.
    """
    targets = joint or [target]
    text = nearest_axis((manifest.text_tasks for manifest in targets), evaluated.text_tasks)
    image = nearest_axis((manifest.image_domains for manifest in targets), evaluated.image_domains)
    whole = Axis.partial not in (text, image) and not evaluated.probe
    seen = any(not set(dataset.text_tasks).isdisjoint(evaluated.text_tasks) for dataset in auxiliary)
    return Placement(text, image, f"{text}_text-{image}_image" if whole else "", seen)


def quadrant_label(target: Manifest, manifest: Manifest) -> str:
    """The quadrant of a dataset for display, or why it has none; empty for a mixture."""
    if manifest.mixture:
        return ""
    placement = place(target, manifest)
    if placement.quadrant:
        return placement.quadrant + (" (near)" if manifest.shift else "")
    reason = "probe" if manifest.probe else "partial overlap"
    return f"none ({reason}: {placement.text_axis} text, {placement.image_axis} image)"
