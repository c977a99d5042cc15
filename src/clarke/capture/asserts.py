"""Lines of a program that end it unless a condition holds.

``assert (x >= 0).all()`` reads a tensor into Python, and a branch depends on it. But the other
branch has no value: what the program computes is what follows the assertion.
"""

from __future__ import annotations

import ast
import linecache
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clarke.capture.trace import Location


def in_assertion(location: Location) -> bool:
    """Whether a location lies in an assertion, or in the test of an ``if`` that only raises."""
    return location.line in _lines(location.file)


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
