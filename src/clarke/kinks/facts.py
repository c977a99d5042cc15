"""What operations do with the entries of what they read: one table for all who follow values.

Names without overload and without the underscore of in-place forms.
"""

from __future__ import annotations

from typing import Final


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set of names."""
    return frozenset(text.split())


# Every entry of the argument stands in the result exactly once.
REARRANGES: Final = words(
    "view _unsafe_view reshape _reshape_alias flatten contiguous unsqueeze squeeze permute "
    "transpose t clone alias lift_fresh"
)
# Every entry of the result is an entry of the first argument, whatever the values are.
MOVES: Final = REARRANGES | words("expand select slice diagonal flip roll rot90 repeat unfold")
# The same with several results.
PARTS: Final = words("split split_with_sizes unbind")
# Of both, those whose result may hold an entry twice.
REPEATS: Final = words("expand repeat unfold")
