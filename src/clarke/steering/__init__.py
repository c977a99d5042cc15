"""Force a selection: forward values, gradients G(selection), tangents, repair."""

from clarke.steering.adapt import adapted
from clarke.steering.analysis import Analysis, Site, analyse
from clarke.steering.gradients import (
    Selector,
    gradient_of,
    natural_gradient,
    select_along,
    selected_gradient,
)
from clarke.steering.memory import aliases, shared_memory
from clarke.steering.noise import Errors
from clarke.steering.nudges import Nudges
from clarke.steering.partial import Partial
from clarke.steering.program import Pieces, Program, Run
from clarke.steering.roundoff import coarsest_unit, unit_roundoff
from clarke.steering.state import Probe
from clarke.steering.uses import MaskUse

__all__ = [
    "Analysis",
    "Errors",
    "MaskUse",
    "Nudges",
    "Partial",
    "Pieces",
    "Probe",
    "Program",
    "Run",
    "Selector",
    "Site",
    "adapted",
    "aliases",
    "analyse",
    "coarsest_unit",
    "gradient_of",
    "natural_gradient",
    "select_along",
    "selected_gradient",
    "shared_memory",
    "unit_roundoff",
]
