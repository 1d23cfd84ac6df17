"""Matches of whole answers, without the VQA normalisation of `exact`: what continual-learning benchmarks count."""

from __future__ import annotations

from collections.abc import Iterable


def caseless_match(text: str, references: Iterable[str]) -> bool:
    """Whether `text` equals any reference but for case and the blanks around it.

    It is UCIT's rule (github.com/Ghy0501/MCITlib, eval_deepseek_r1.py) and CoIN's for VizWiz, VQAv2 and OCR-VQA
    (github.com/zackschen/CoIN). A full stop counts: "A." is not "A".
    """
    literal = text.strip().lower()
    return any(literal == reference.strip().lower() for reference in references)


def compact_match(text: str, references: Iterable[str]) -> bool:
    """Whether `text` equals any reference but for case, blanks and full stops.

    It is the rule of MLLM-CL's Fin (eval_finvis.py of github.com/lihe50hz/MLLM-Forgetting), whose answers are letters,
    yes and no. There the reference keeps its blanks and full stops, so that one which has any is never matched; here
    both sides lose them. It also serves CoIN's GQA, where a full stop at the end is dropped.
    """
    literal = _compact(text)
    return bool(literal) and any(literal == _compact(reference) for reference in references)


def _compact(text: str) -> str:
    return "".join(text.lower().replace(".", "").split())
