"""Random programs of masks against sampled gradients: no false verdict, no false set.

Short by default; `CLARKE_FUZZ=N` runs N programs of each kind (marker `fuzz`).
"""

import os
from collections import Counter

import numpy as np
import pytest
import torch

import clarke
from clarke.errors import ClarkeError
from clarke.verdict import Verdict
from reference.masks import (
    COUNTED,
    INDEXED,
    JUMPS,
    STEPS,
    VECTORS,
    gradient_at,
    in_hull,
    look_around,
    make_case,
)

pytestmark = pytest.mark.fuzz
FAMILIES = {
    "masks": (VECTORS,),
    "counts": (VECTORS, COUNTED),
    "indices": (VECTORS, INDEXED),
    "jumps": (VECTORS, JUMPS),
    "steps": (VECTORS, STEPS),
}
NUMBER = int(os.environ.get("CLARKE_FUZZ", "0")) or 3
START = int(os.environ.get("CLARKE_FUZZ_START", "0"))


def contradiction(case):
    """What clarke says of a program, and what is wrong with it ("" if nothing is)."""
    function = case.function()
    x = torch.tensor(case.point, dtype=torch.float64, requires_grad=True)
    if not function(x).requires_grad:
        return Verdict.SMOOTH, ""
    gradient = gradient_at(function, np.array(case.point))[1]
    around = look_around(case)
    report = clarke.check(function, (x,))
    verdict = report.verdict
    if verdict is Verdict.NOT_LIPSCHITZ:
        return verdict, "the function is continuous" if around.continuous else ""
    if verdict is Verdict.UNDECIDED:
        return verdict, ""
    if not around.continuous:
        return verdict, "the function jumps"
    inside = in_hull(around.gradients, gradient)
    if not inside and verdict.correct:
        around = look_around(case, 3000)  # thin cones
        inside = in_hull(around.gradients, gradient)
    if inside is not verdict.correct:
        return verdict, f"{gradient} is {'in' if inside else 'not in'} {around.gradients.tolist()}"
    if verdict is Verdict.SMOOTH and len(around.gradients) > 1:
        return verdict, f"not smooth: {around.gradients.tolist()}"
    if report.element is not None and not in_hull(around.gradients, report.element[0].numpy()):
        return verdict, f"element {report.element} is not in {around.gradients.tolist()}"
    return verdict, false_set(function, x, case, around)


def false_set(function, x, case, around):
    """What is wrong with the set or the limiting gradient that clarke gives."""
    try:
        (found,) = clarke.grad(function, (x,))
        if not (np.abs(around.gradients - found.numpy()).max(1) < 1e-7).any():
            around = look_around(case, 3000)
            if not (np.abs(around.gradients - found.numpy()).max(1) < 1e-7).any():
                return f"grad {found} is not in {around.gradients.tolist()}"
        result = clarke.subdifferential(function, (x,))
    except ClarkeError:
        return ""
    if not result.complete:
        return ""
    listed = np.unique(result.bouligand().numpy().reshape(-1, len(x)).round(7) + 0.0, axis=0)
    sampled = {tuple(g) for g in around.gradients.round(7).tolist()}
    missing = sampled - {tuple(g) for g in listed.tolist()}
    if missing:
        return f"complete set {listed.tolist()} without {missing}"
    if {tuple(g) for g in listed.tolist()} - sampled:
        sampled = {tuple(g) for g in look_around(case, 4000).gradients.round(7).tolist()}
        extra = {tuple(g) for g in listed.tolist()} - sampled
        if extra:
            return f"complete set {listed.tolist()} with {extra}"
    return ""


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_that_clarke_says_is_contradicted(family):
    seen = Counter()
    for seed in range(START, START + NUMBER):
        case = make_case(seed, FAMILIES[family])
        verdict, wrong = contradiction(case)
        seen[verdict.name] += 1
        assert not wrong, f"seed {seed}, at {case.point}: {verdict.name}: {wrong}\n{case.source}"
    assert seen.keys() - {"UNDECIDED"}, seen
