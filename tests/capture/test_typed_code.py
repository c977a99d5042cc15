"""Code that has no file: typed at a prompt, into stdin, or after ``-c``."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import torch, clarke
x = torch.zeros(1, requires_grad=True)
net = torch.nn.Sequential(torch.nn.ReLU())
print(clarke.check(lambda x: (torch.nn.functional.relu(x) - net(-x)).sum(), (x,)).blamed)
"""


def run(*arguments: str, typed: str = "") -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        input=typed,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout


@pytest.mark.parametrize(
    ("arguments", "typed", "place"),
    [(("-c", CODE), "", "<string>:5"), (("-",), CODE, "<stdin>:5")],
)
def test_places_are_those_of_what_was_typed(
    arguments: tuple[str, ...], typed: str, place: str
) -> None:
    shown = run(*arguments, typed=typed)
    assert shown.count(place) == 2
    assert "functional.py" not in shown
    assert "module.py" not in shown


def test_a_prompt_shows_what_print_shows() -> None:
    typed = (
        "import torch, clarke\nclarke.check(torch.relu, (torch.zeros(1, requires_grad=True),))\n"
    )
    shown = run("-i", typed=typed)
    assert "BOULIGAND: Correct" in shown
    assert "KinkSummary(" not in shown
