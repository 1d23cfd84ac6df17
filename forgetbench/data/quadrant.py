"""Where an evaluation set sits in the 2x2 matrix, computed from manifests (never typed in)."""

from __future__ import annotations

from collections.abc import Iterable

from forgetbench.core.records import Axis, Placement
from forgetbench.data.manifest import Manifest


def axis(target: Iterable[str], other: Iterable[str]) -> Axis:
    """Equal lists are in-distribution, disjoint lists out of it, anything between is partial."""
    target, other = set(target), set(other)
    if target == other:
        return Axis.id
    return Axis.ood if target.isdisjoint(other) else Axis.partial


def place(target: Manifest, evaluated: Manifest, auxiliary: Iterable[Manifest] = ()) -> Placement:
    """Place one evaluation set relative to the fine-tuning target.

    Args:
        target: the set fine-tuned on.
        evaluated: the set scored.
        auxiliary: sets mixed into training; they never move a dataset's quadrant.
    """
    text = axis(target.text_tasks, evaluated.text_tasks)
    image = axis(target.image_domains, evaluated.image_domains)
    whole = Axis.partial not in (text, image) and not evaluated.probe
    seen = any(not set(aux.text_tasks).isdisjoint(evaluated.text_tasks) for aux in auxiliary)
    return Placement(text, image, f"{text}_text-{image}_image" if whole else "", seen)


def quadrant_label(target: Manifest, manifest: Manifest) -> str:
    """The quadrant of a set for people, or why it is in none; empty for a mixture."""
    if manifest.mixture:
        return ""
    placement = place(target, manifest)
    if placement.quadrant:
        return placement.quadrant + (" (near)" if manifest.shift else "")
    reason = "probe" if manifest.probe else "partial overlap"
    return f"none ({reason}: {placement.text_axis} text, {placement.image_axis} image)"
