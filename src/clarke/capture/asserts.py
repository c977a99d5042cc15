"""Lines of a program that end it unless a condition holds.

``assert (x >= 0).all()`` reads a tensor into Python, and a branch depends on it. But the other
branch has no value: what the program computes is what follows the assertion.
"""

from __future__ import annotations

import ast
import linecache
import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from types import FrameType

    from clarke.capture.trace import Location

_OWN_FOLDER = f"{Path(__file__).parents[1]}{os.sep}"
_DISTRIBUTION, _CONSTRAINTS = (
    str(Path(torch.__file__).parent / "distributions" / name)
    for name in ("distribution.py", "constraints.py")
)


def in_assertion(location: Location) -> bool:
    """Whether a location lies in an assertion, or in the test of an ``if`` that only raises."""
    return location.line in _lines(location.file)


def is_validating() -> bool:
    """Whether a distribution looks at its arguments, and raises an error where they are not valid.

    As if the program had asserted it: the user's line does not tell.
    """
    start: FrameType | None = sys._getframe(1)
    while start is not None and start.f_code.co_filename.startswith(_OWN_FOLDER):
        start = start.f_back
    frame = start
    while frame is not None and frame.f_code.co_filename == _CONSTRAINTS:
        frame = frame.f_back
    if frame is None or frame.f_code.co_filename != _DISTRIBUTION:
        return False
    return frame is not start or frame.f_lineno in _lines(_DISTRIBUTION)


@lru_cache(maxsize=64)
def _lines(file: str) -> frozenset[int]:
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return frozenset()
    found: set[int] = set()
    for node in ast.walk(tree):
        part: ast.expr | ast.stmt | None = None
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Expr) and _calls_assert(node)):
            part = node
        elif isinstance(node, ast.If) and not node.orelse:
            raises = all(isinstance(s, ast.Raise) for s in node.body)
            part = node.test if raises else None
        if part is not None:
            found.update(range(part.lineno, (part.end_lineno or part.lineno) + 1))
    return frozenset(found)


def _calls_assert(node: ast.Expr) -> bool:
    """``torch.testing.assert_close(...)`` or ``self.assertEqual(...)`` as a statement."""
    if not isinstance(node.value, ast.Call):
        return False
    func = node.value.func
    name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
    return str(name).startswith("assert")
