"""Public sets as their publishers lay them out, a few rows each."""

from tests.data.public_rows.case import COLORS, Case, encoded
from tests.data.public_rows.files import FILES
from tests.data.public_rows.hub import HUB

__all__ = ["COLORS", "FILES", "HUB", "Case", "encoded"]
