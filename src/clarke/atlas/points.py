"""All points of the atlas."""

from __future__ import annotations

from clarke.atlas.points_choices import choices
from clarke.atlas.points_formulas import formulas
from clarke.atlas.points_losses import losses
from clarke.atlas.points_masks import masks
from clarke.atlas.points_matrices import matrices
from clarke.atlas.points_norms import norms
from clarke.atlas.points_programs import programs
from clarke.atlas.points_singular import singular
from clarke.kinks.samples import Sample, samples


def points() -> tuple[Sample, ...]:
    """The calls and points that the atlas measures, by family."""
    rest = (*masks(), *programs(), *formulas(), *matrices())
    return (*samples(), *choices(), *norms(), *losses(), *singular(), *rest)
