"""Values on a device come to Python after the backward pass has been asked for, never before.

Whoever asks for a value on an accelerator waits until all that was queued before is done. What the
recorder does while the program runs must not ask.
"""

import sys

import pytest
import torch
from torch import nn

import clarke
from reference.networks import PROGRAMS

WAITING = ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "nonzero", "equal")


class Waits:
    """Counts what clarke asks of values, from `begin` to `end`."""

    def __init__(self, monkeypatch):
        self.places = []
        self.counts = False
        for name in WAITING:
            monkeypatch.setattr(torch.Tensor, name, self._counted(getattr(torch.Tensor, name)))

    def _counted(self, own):
        def asked(tensor, *args, **kwargs):
            frame = sys._getframe(1)
            if self.counts and "clarke" in frame.f_globals.get("__name__", "").split("."):
                self.places.append((frame.f_code.co_name, frame.f_lineno))
            return own(tensor, *args, **kwargs)

        return asked


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_waits_while_the_program_runs(name, monkeypatch):
    # Of values on the processor a ReLU's signs are looked for at once: they are in its caches.
    monkeypatch.setattr("clarke.capture.keeping.signs_tell", lambda _: False)
    make, shape = PROGRAMS[name]
    torch.manual_seed(0)
    model = make()
    waits = Waits(monkeypatch)
    with clarke.audit(seconds=30) as audit:
        for _ in range(2):
            model.zero_grad()
            waits.counts = True
            found = model(torch.randn(shape))
            loss = (found[0] if isinstance(found, tuple) else found).square().mean()
            waits.counts = False
            loss.backward()
    assert waits.places == []
    assert all(s.correct for s in audit.steps), [s.reason for s in audit.steps]


def test_it_would_be_noticed(monkeypatch):
    waits = Waits(monkeypatch)
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    with clarke.audit():
        waits.counts = True
        model(torch.randn(2, 3))
        waits.counts = False
    assert waits.places  # where the signs of a few values are looked for
