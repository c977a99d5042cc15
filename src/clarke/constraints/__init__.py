"""Gradients of switching functions as labelled linear rows; relevance pruning."""

from clarke.constraints.directions import random_tangents
from clarke.constraints.drowned import tangent
from clarke.constraints.relevance import Relevance, find_relevant
from clarke.constraints.resolve import resolve
from clarke.constraints.rows import RowOperator, build_rows, flatten, unflatten

__all__ = [
    "Relevance",
    "RowOperator",
    "build_rows",
    "find_relevant",
    "flatten",
    "random_tangents",
    "resolve",
    "tangent",
    "unflatten",
]
