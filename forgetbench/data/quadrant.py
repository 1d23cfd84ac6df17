"""Where an evaluation set sits in the 2x2 matrix, computed from manifests (never typed in)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from forgetbench.core.records import Axis, Placement
from forgetbench.data.manifest import Manifest


def axis(target: Iterable[str], other: Iterable[str]) -> Axis:
    """Equal lists are in-distribution, disjoint lists out of it, anything between is partial."""
    target, other = set(target), set(other)
    if target == other:
        return Axis.id
    return Axis.ood if target.isdisjoint(other) else Axis.partial


def nearest_axis(targets: Iterable[Iterable[str]], other: Iterable[str]) -> Axis:
    """As `axis` of the nearest target: in-distribution of one is in-distribution, out of it only what is out of all."""
    found = {axis(target, other) for target in targets}
    return next(one for one in (Axis.id, Axis.partial, Axis.ood) if one in found)


def place(
    target: Manifest, evaluated: Manifest, auxiliary: Iterable[Manifest] = (), joint: Sequence[Manifest] = ()
) -> Placement:
    """Place one evaluation set relative to the fine-tuning target.

    Args:
        target: the set fine-tuned on.
        evaluated: the set scored.
        auxiliary: sets mixed into training; they never move a dataset's quadrant.
        joint: the sets of a target that were trained jointly: each is as much the target as the others.
    """
    targets = joint or [target]
    text = nearest_axis((one.text_tasks for one in targets), evaluated.text_tasks)
    image = nearest_axis((one.image_domains for one in targets), evaluated.image_domains)
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
