"""What verifies of Goldstein's set is computed again: a changed element or point does not."""

import dataclasses

import pytest
import torch

import clarke
from reference.leaves import leaf


def loss(x):
    return x.abs().sum() + torch.maximum(x[0], 2 * x[1])


@pytest.mark.parametrize("field", ["elements", "points"])
def test_changed_numbers_do_not_verify(field):
    found = clarke.goldstein(loss, (leaf(0.1, -0.2),), eps=0.5)
    assert found.verify()
    given = getattr(found, field)
    for row in range(len(given)):
        for column in range(given.shape[1]):
            changed = given.clone()
            changed[row, column] += 1.0
            assert not dataclasses.replace(found, **{field: changed}).verify()
