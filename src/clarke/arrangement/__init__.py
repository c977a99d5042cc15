"""Arrangements of hyperplanes through the origin: all chambers, exactly. Integer rows, no programs.

:func:`chambers` lists them, with a direction inside of each; :func:`count_chambers` counts them
without listing, in another way.
"""

from clarke.arrangement.chambers import Chambers, chambers
from clarke.arrangement.count import count_chambers
from clarke.arrangement.integers import Row, basis, integer_row, primitive
from clarke.arrangement.tree import ThinChamberError

__all__ = [
    "Chambers",
    "Row",
    "ThinChamberError",
    "basis",
    "chambers",
    "count_chambers",
    "integer_row",
    "primitive",
]
