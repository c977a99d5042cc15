"""Finds points at which a gradient is wrong: visits kinks, lets `check` judge, shrinks."""

from clarke.hunt.model import Find, Hunt
from clarke.hunt.search import hunt
from clarke.hunt.subject import Place

__all__ = ["Find", "Hunt", "Place", "hunt"]
