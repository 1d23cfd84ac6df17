"""The confidence level of every interval, test and text; change it here."""

from __future__ import annotations

CONFIDENCE = 0.95
"""Of every interval."""
POWER = 0.8
"""The probability to find a change that counts as detectable."""
ALPHA = round(1 - CONFIDENCE, 10)
"""Of every two-sided test; below it an adjusted p-value has its star."""
CONFIDENCE_TEXT = f"{100 * CONFIDENCE:g} %"
ALPHA_TEXT = f"{ALPHA:g}".removeprefix("0")
"""As beside p-values, such as .05."""
