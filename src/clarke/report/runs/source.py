"""Where in a line of code the operations stand that a verdict names."""

from __future__ import annotations

import ast
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# How an operation may be written that is not a call of its own name.
_SIGNS: Mapping[str, tuple[type[ast.AST], ...]] = MappingProxyType(
    {
        "add": (ast.Add,),
        "sub": (ast.Sub,),
        "rsub": (ast.Sub,),
        "mul": (ast.Mult,),
        "div": (ast.Div,),
        "pow": (ast.Pow,),
        "floor_divide": (ast.FloorDiv,),
        "remainder": (ast.Mod,),
        "mm": (ast.MatMult,),
        "mv": (ast.MatMult,),
        "dot": (ast.MatMult,),
        "bmm": (ast.MatMult,),
        "matmul": (ast.MatMult,),
        "gt": (ast.Gt,),
        "ge": (ast.GtE,),
        "lt": (ast.Lt,),
        "le": (ast.LtE,),
        "eq": (ast.Eq,),
        "ne": (ast.NotEq,),
    }
)
_ALIASES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "clamp": frozenset({"clip", "clamp_min", "clamp_max"}),
        "clamp_min": frozenset({"clamp", "clip"}),
        "hardtanh": frozenset({"relu6"}),
        "linalg_vector_norm": frozenset({"norm", "vector_norm"}),
    }
)
_OPEN: Final = ("", ")", "))", "]", "})", " pass")


def spans(source: str, operations: Iterable[str]) -> tuple[tuple[int, int], ...]:
    """Parts of a line, as (begin, end), that call these operations or write their signs.

    Nothing where the line cannot be read alone, or none of them is found in it.
    """
    tree = _parsed(source)
    if tree is None:
        return ()
    names: set[str] = set()
    signs: tuple[type[ast.AST], ...] = ()
    for operation in operations:
        plain = operation.strip("_").split(".")[0]
        names |= {plain, *_ALIASES.get(plain, ())}
        signs += _SIGNS.get(plain, ())
    data = source.encode()
    found = sorted(
        (len(data[:a].decode()), len(data[:b].decode())) for a, b in _found(tree, names, signs)
    )
    return tuple(s for s in found if s[1] <= len(source) and not _inside(s, found))


def _inside(span: tuple[int, int], others: list[tuple[int, int]]) -> bool:
    return any(a <= span[0] and span[1] <= b and (a, b) != span for a, b in others)


def _parsed(source: str) -> ast.AST | None:
    for end in _OPEN:  # the line may be the beginning of a statement
        try:
            return ast.parse(source + end)
        except (SyntaxError, ValueError):
            continue
    return None


def _found(
    tree: ast.AST, names: set[str], signs: tuple[type[ast.AST], ...]
) -> Iterator[tuple[int, int]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="apply")):
                wanted = name in names  # a custom Function
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)):
                wanted = name.strip("_") in names
            case ast.BinOp(op=sign):
                wanted = isinstance(sign, signs)
            case ast.Compare(ops=found):
                wanted = any(isinstance(sign, signs) for sign in found)
            case _:
                continue
        if wanted:
            yield node.col_offset, node.end_col_offset or 0
