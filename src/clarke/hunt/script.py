"""A short program that shows a find with torch alone."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from typing import TYPE_CHECKING, Any

import torch

from clarke.hunt.model import number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LINES = 15


def script_of(function: Callable[..., Any], inputs: Sequence[Any]) -> str:
    """A program of at most `LINES` lines: the function, the point, and gradients beside it.

    Where the function's own text is not to be had, or too long, it is imported.
    """
    ending = _ending(inputs)
    defined = _defined(function)
    if defined is None or len(defined) + len(ending) > LINES:
        defined = _imported(function)
    return "\n".join([*defined, *ending]) + "\n"


def _ending(inputs: Sequence[Any]) -> list[str]:
    point = ", ".join(_written(x) for x in inputs)
    return [
        f"at = [{point}]",
        "def gradient(at):",
        "    leaves = [x for x in at if isinstance(x, torch.Tensor) and x.requires_grad]",
        "    return [g.tolist() for g in torch.autograd.grad(f(*at), leaves)]",
        'print("autograd:", gradient(at))',
        "for _ in range(4):",
        "    moved = [(x + 1e-6 * torch.randn_like(x)).detach().requires_grad_()",
        "             if isinstance(x, torch.Tensor) and x.requires_grad else x for x in at]",
        '    print("beside:  ", gradient(moved))',
    ]


def _written(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return repr(value)
    shown = str(number(value.tolist()))
    more = ", requires_grad=True" if value.requires_grad else ""
    shape = "" if value.numel() else f".reshape({tuple(value.shape)})"
    return f"torch.tensor({shown}, dtype={value.dtype}{more}){shape}"


def _defined(function: Callable[..., Any]) -> list[str] | None:
    """The function's own text with the modules and numbers that it needs; None if not to be had."""
    if not isinstance(function, types.FunctionType) or function.__closure__:
        return None
    try:
        text = textwrap.dedent(inspect.getsource(function))
        tree: Any = ast.parse(text)
    except (OSError, SyntaxError, TypeError):
        return None
    if isinstance(tree.body[0], ast.FunctionDef):
        body = tree.body[0]
        rest = body.body[1:] if ast.get_docstring(body) else body.body
        body.body = rest or body.body
        body.decorator_list, body.returns = [], None
        for a in (*body.args.args, *body.args.kwonlyargs, *body.args.posonlyargs):
            a.annotation = None
        lines = [*ast.unparse(body).splitlines(), f"f = {body.name}"]
    else:
        found = [n for n in ast.walk(tree) if isinstance(n, ast.Lambda)]
        if len(found) != 1:
            return None
        lines = [f"f = {ast.unparse(found[0])}"]
    needed = _needed(function)
    return None if needed is None else ["import torch", *needed, *lines]


def _needed(function: types.FunctionType) -> list[str] | None:
    lines = []
    for name in _names(function.__code__):
        if name not in function.__globals__ or name == "torch":
            continue
        value = function.__globals__[name]
        if isinstance(value, types.ModuleType):
            lines.append(f"import {value.__name__} as {name}")
        elif isinstance(value, (int, float, str, tuple)):
            lines.append(f"{name} = {value!r}")
        elif isinstance(value, types.FunctionType) and value is not function:
            module = str(value.__module__)
            if module.startswith("torch"):
                lines.append(f"from {module} import {value.__name__} as {name}")
                continue
            helper = _defined(value)
            if helper is None:
                return None
            lines += helper[1:-1]  # without the import of torch and the name f
        else:
            return None
    return lines


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _imported(function: Callable[..., Any]) -> list[str]:
    """How to get the function where its text does not fit."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    module = getattr(function, "__module__", "") or "your_module"
    if not isinstance(function, types.FunctionType) or "<" in name:
        return ["import torch", f"# f is {name} of {module}; put it here"]
    top = name.partition(".")[0]
    return ["import torch", f"from {module} import {top}", f"f = {name}"]
