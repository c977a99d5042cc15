"""Forward mode in which what carries no tangent is a constant, not a tensor of zeros.

Where one factor carries a tangent and the other none, torch's rules make a tensor of zeros for the
other, and add and multiply such tensors by way of Python: a hundred times the cost of the
operation itself, and the first of them in a process loads torch's compiler, which takes seconds.
Sums and products are most of what is computed, so they are differentiated here, as in a book.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.overrides import TorchFunctionMode

from clarke import torch_private
from clarke.torch_private import is_made_of_zeros, make_dual, unpack_dual

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def forward_mode() -> memoryview:
    """A context manager in which tensors may carry tangents; see `torch_private.forward_mode`."""
    return torch_private.forward_mode(_Constants())


class _Constants(TorchFunctionMode):
    """Differentiates sums, products and quotients of what has a tangent and what has none."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        # Nothing of the user's sees it, and what it calls is not looked at again.
        with torch._C.DisableTorchFunction():
            name = getattr(func, "__name__", "").partition(".")[0]
            rule = _RULES.get(name)
            if rule is not None and len(args) >= _OPERANDS:
                return rule(func, args, kwargs or {})
            try:
                return func(*args, **(kwargs or {}))
            except NotImplementedError as error:
                if _WITHOUT not in str(error):
                    raise
                found = _by_reverse_mode(func, args, kwargs or {})
                if found is None:
                    raise
                return found


_OPERANDS: Final = 2
_WITHOUT: Final = "forward AD"  # what torch's message speaks of if an operation has none
_SUMMED: Final = 3  # what follows, a batch normalisation's running statistics, may have no tangent


def _parts(value: Any) -> tuple[Any, torch.Tensor | None]:
    """A value and its tangent; None for a tangent of torch's own zeros, too."""
    if not isinstance(value, torch.Tensor):
        return value, None
    primal, tangent = unpack_dual(value)
    return primal, None if tangent is None or is_made_of_zeros(tangent) else tangent


def _by_reverse_mode(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """The tangent of an operation that torch differentiates backwards only; None if it cannot.

    What an operation does to a gradient is linear in that; differentiated with respect to it, it
    is the derivative the other way round (Townsend, *A new trick for calculating Jacobian vector
    products*, 2017).
    """
    parts = [_parts(a) for a in args]
    varied = [i for i, (_, tangent) in enumerate(parts) if tangent is not None]
    if not varied or any(isinstance(a, (list, tuple)) for a in args if not _are_numbers(a)):
        return None
    values = [value for value, _ in parts]
    constant = not any(isinstance(v, torch.Tensor) and v.requires_grad for v in values)
    with torch.enable_grad():
        for i in varied:
            if not values[i].requires_grad:
                values[i] = values[i].detach().requires_grad_()
        result = func(*values, **kwargs)
        single = isinstance(result, torch.Tensor)
        results = [result] if single else list(result)
        smooth = [i for i, r in enumerate(results) if _may_have(r) and r.requires_grad]
        if not smooth:
            return result
        found = [results[i] for i in smooth]
        weights = [torch.zeros_like(r).requires_grad_() for r in found]
        inputs = [values[i] for i in varied]
        backwards = torch.autograd.grad(
            found, inputs, weights, create_graph=True, materialize_grads=True
        )
        tangents = torch.autograd.grad(
            backwards,
            weights,
            [parts[i][1] for i in varied],
            create_graph=not constant,
            materialize_grads=True,
        )
    for i, tangent in zip(smooth, tangents, strict=True):
        results[i] = _dual(results[i].detach() if constant else results[i], tangent)
    return results[0] if single else type(result)(results)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and not any(isinstance(v, torch.Tensor) for v in value)


def _linear(signs: tuple[int, int]) -> Callable[..., Any]:
    """The rule of a sum with these signs; 2 and -2 for the summand that `alpha` multiplies."""

    def rule(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        (a, da), (b, db) = _parts(args[0]), _parts(args[1])
        tangent, sign = (da, signs[0]) if da is not None else (db, signs[1])
        if tangent is None or (da is not None and db is not None) or len(args) > _OPERANDS:
            return func(*args, **kwargs)
        scale = (sign // abs(sign)) * (kwargs.get("alpha", 1) if abs(sign) > 1 else 1)
        return _dual(func(a, b, **kwargs), tangent if scale == 1 else tangent * scale)

    return rule


def _product(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    (a, da), (b, db) = _parts(args[0]), _parts(args[1])
    if (da is None) == (db is None) or len(args) > _OPERANDS or kwargs:
        return func(*args, **kwargs)
    return _dual(func(a, b), func(a if da is None else da, b if db is None else db))


def _quotient(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    (a, da), (b, db) = _parts(args[0]), _parts(args[1])
    if (da is None) == (db is None) or len(args) > _OPERANDS or kwargs:
        return func(*args, **kwargs)
    value = func(a, b)
    return _dual(value, func(da, b) if da is not None else -(value / b) * db)


def _inverse(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """``b / a``, as Python asks for it when `b` is a number."""
    (a, da), (b, db) = _parts(args[0]), _parts(args[1])
    if da is None or db is not None:
        return func(*args, **kwargs)
    value = func(a, b)
    return _dual(value, -(value / a) * da)


def _in_place(name: str) -> Callable[..., Any]:
    function, rule = getattr(torch, name), _OUT_OF_PLACE[name]

    def changed(_: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return args[0].copy_(rule(function, args, kwargs))

    return changed


def _filled(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Zeros in place of torch's, for rules that add and multiply them inside."""
    tangents = [_parts(a)[1] is not None for a in args]
    if not any(tangents):
        return func(*args, **kwargs)
    given = (
        make_dual(a, torch.zeros_like(a)) if i < _SUMMED and not has and _may_have(a) else a
        for i, (a, has) in enumerate(zip(args, tangents, strict=True))
    )
    return func(*given, **kwargs)


def _may_have(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex())


def _dual(value: torch.Tensor, tangent: torch.Tensor) -> torch.Tensor:
    tangent = tangent.to(value.dtype)
    if tangent.shape != value.shape:
        tangent = tangent.expand(value.shape).contiguous()
    return make_dual(value, tangent)


_OUT_OF_PLACE: Final = MappingProxyType(
    {
        "add": _linear((1, 2)),
        "sub": _linear((1, -2)),
        "rsub": _linear((-2, 1)),
        "mul": _product,
        "div": _quotient,
    }
)
_WITH_SUMS_INSIDE: Final = (
    *("addbmm", "addmm", "addmv", "addr", "baddbmm", "batch_norm", "fmax", "fmin", "l1_loss"),
    *("layer_norm", "lerp", "linalg_solve_triangular", "maximum", "minimum"),
    *("mse_loss_backward", "native_batch_norm", "native_layer_norm"),
)
_RULES: Final = MappingProxyType(
    {
        **_OUT_OF_PLACE,
        **{f"{n}_": _in_place(n) for n in ("add", "sub", "mul", "div")},
        "__radd__": _linear((1, 1)),
        "__rsub__": _linear((-1, 1)),
        "__rmul__": _product,
        "__rdiv__": _inverse,
        **dict.fromkeys(_WITH_SUMS_INSIDE, _filled),
    }
)
