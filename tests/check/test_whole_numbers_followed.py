"""Detached whole numbers jump where they were made whole, through whatever keeps them whole."""

import pytest
import torch
from torch.nn.functional import one_hot

import clarke
from clarke import Verdict

TABLE = torch.tensor([1.0, 2, 3, 5, 7, 11])


def read_twice(z):
    return z.long().clamp(0, 5) * 0 + z.clamp(0, 5).long()


WHOLE = {
    "clamped": lambda w: w.floor().clamp(0, 5).long(),
    "twice": lambda w: w.floor().clamp(0, 5).clamp(max=3).long(),
    "relu": lambda w: w.ceil().relu().clamp(max=5).long(),
    "remainder": lambda w: (w.floor() % 6).long(),
    "fmod": lambda w: w.trunc().abs().fmod(6).int().long(),
    "scaled": lambda w: (w.round() * 2 + 1).clamp(0, 5).long(),
    "from a number": lambda w: (5 - w.round()).clamp(0, 5).long(),
    "read twice": lambda w: read_twice(w.floor()),
    "one-hot": lambda w: one_hot(w.floor().clamp(0, 3).long(), 4).argmax(1),
    "truth": lambda w: w.floor().clamp(0, 3).bool().long(),
    "a sum": lambda w: w.floor().clamp(0, 2).sum().long().clamp(0, 5)[None],
}
QUOTIENTS = {
    "div": lambda w: torch.div(w, 0.7, rounding_mode="floor").clamp(0, 5).long(),
    "floor_divide": lambda w: (w // 0.7).clamp(0, 5).long(),
}


def both(program, at):
    """The verdicts of a check and of an audited step."""
    w = torch.tensor(at, requires_grad=True)
    verdict = clarke.check(program, w).verdict
    with clarke.audit(on_wrong=lambda _: None) as watch:
        program(w).backward()
    return verdict, watch.steps[0].verdict


def indexed(whole, *, detached):
    return lambda w: (TABLE[whole(w.detach() if detached else w)] * w.sum()).sum()


@pytest.mark.parametrize("whole", [*WHOLE.values(), *QUOTIENTS.values()], ids=[*WHOLE, *QUOTIENTS])
@pytest.mark.parametrize("at", [(0.3, 1.3), (-0.75, 2.25), (-3.1, 0.2)])
def test_off_their_jumps_they_are_constant(whole, at):
    program = indexed(whole, detached=True)
    assert both(program, at) == (Verdict.SMOOTH, Verdict.SMOOTH)


JUMPING = [n for n in WHOLE if n not in ("truth", "fmod")]


@pytest.mark.parametrize("name", JUMPING)
@pytest.mark.parametrize("detached", [True, False])
def test_at_their_jumps_they_are_not_called_right(name, detached):
    halves = name in ("scaled", "from a number")  # these round to the nearest
    at = (1.5, 0.7) if halves else (2.0, 0.5)
    verdicts = both(indexed(WHOLE[name], detached=detached), at)
    assert not {Verdict.SMOOTH, Verdict.BOULIGAND, Verdict.CLARKE} & set(verdicts)


def written(index):
    index[:] = index.clone()
    return index


def set_into(whole):
    buffer = torch.zeros(2, dtype=torch.long)
    buffer[:] = whole
    return buffer


WRITTEN = {
    "added": lambda k: torch.zeros(2, dtype=torch.long).add_(k),
    "set": set_into,
    "scattered": lambda k: torch.zeros(2, 4, dtype=torch.long).scatter_(1, k[:, None], 1).argmax(1),
    "one-hot": lambda k: one_hot(k, 4).argmax(1),
    "through floats": lambda k: (one_hot(k, 4).float() @ TABLE[:4]).long() % 6,
    "itself": lambda k: written(k.clone()),
}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
def test_whole_numbers_in_memory_jump_too(write):
    def program(w):
        return (TABLE[write(w.floor().clamp(0, 3).long())] * w.sum()).sum()

    assert set(both(program, (2.0, 0.5))) <= {Verdict.UNDECIDED, Verdict.NOT_LIPSCHITZ}
    assert set(both(program, (2.25, 0.5))) == {Verdict.SMOOTH}
