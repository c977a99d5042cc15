"""Hulls of sets against an independent double description, that of cddlib."""

import numpy as np
import pytest
import torch

import clarke
from reference.layered import layered

cdd = pytest.importorskip(
    "cdd", reason="pycddlib is not installed: pip install pycddlib-standalone"
)


def facets_of(vertices):
    """(f, n + 1) ``b + a v >= 0`` on the hull, and which rows are equations."""
    rows = np.column_stack([np.ones(len(vertices)), vertices])
    matrix = cdd.matrix_from_array(rows.tolist(), rep_type=cdd.RepType.GENERATOR)
    found = cdd.copy_inequalities(cdd.polyhedron_from_matrix(matrix))
    return np.array(found.array), found.lin_set


def redundant(vertices):
    """Which of some points are no vertices of their hull."""
    rows = np.column_stack([np.ones(len(vertices)), vertices])
    matrix = cdd.matrix_from_array(rows.tolist(), rep_type=cdd.RepType.GENERATOR)
    return cdd.redundant_rows(matrix)


def whole(program, point):
    found = clarke.subdifferential(program, (point,))
    return found if found.complete else None


def agree(found):
    """Facets, membership beside each, and minimality."""
    vertices = found.vertices().numpy()
    assert not redundant(vertices)
    facets, equations = facets_of(vertices)
    centre = vertices.mean(axis=0)
    size = np.abs(vertices - centre).max() or 1.0
    for i, (b, *a) in enumerate(facets):
        normal = np.array(a)
        on = vertices[np.abs(b + vertices @ normal) <= 1e-9 * (abs(b) + np.abs(a).max() * size)]
        assert len(on)
        middle = on.mean(axis=0)
        assert found.contains(torch.from_numpy(middle)).inside
        step = 1e-3 * size * normal / np.linalg.norm(normal)
        out = found.contains(torch.from_numpy(middle - step))
        assert out.inside is False
        # The separating direction is the facet's own: distances to it are distances to the hull.
        assert out.distance <= 1e-3 * size * (1 + 1e-6)
        if i in equations:
            assert found.contains(torch.from_numpy(middle + step)).inside is False


@pytest.mark.parametrize("seed", range(6))
def test_sums_of_either_sign(seed):
    generator = np.random.default_rng(seed)
    rows = torch.from_numpy(generator.integers(-2, 3, (6, 3)).astype(float))
    signs = torch.from_numpy(generator.choice([-1.0, 1.0, 2.0], 6))
    point = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    agree(clarke.subdifferential(lambda x: (signs * (rows @ x).abs()).sum(), (point,)))


def test_layered_programs():
    seen = 0
    for seed in range(60):
        program = layered(seed)
        if max(abs(v) for v in (*program.units, *program.out)) > 4 or len(program.bouligand) < 3:
            continue
        try:
            found = whole(program, program.point.requires_grad_())
        except clarke.ClarkeError:
            continue
        if found is not None:
            agree(found)
            seen += 1
        if seen == 6:
            break
    assert seen >= 3
