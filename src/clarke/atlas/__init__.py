"""What PyTorch returns at the kinks of its operations, and whether it is valid: all measured."""

from clarke.atlas.compare import Answer, Change, Effect, Mode, differences
from clarke.atlas.measure import atlas, measure_point
from clarke.atlas.model import AtlasRow, Standing
from clarke.atlas.points import points

__all__ = [
    "Answer",
    "AtlasRow",
    "Change",
    "Effect",
    "Mode",
    "Standing",
    "atlas",
    "differences",
    "measure_point",
    "points",
]
