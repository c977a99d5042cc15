"""For test suites: gradients at kinks, hunts, custom backward functions, strategies."""

from typing import TYPE_CHECKING, Any

from clarke.testing.backward import check_backward
from clarke.testing.gradcheck import GradcheckError, gradcheck
from clarke.testing.hunting import assert_no_wrong_gradient

if TYPE_CHECKING:
    from clarke.testing.strategies import kinky


def __getattr__(name: str) -> Any:
    # Hypothesis is an extra, loaded on use.
    if name == "kinky":
        from clarke.testing.strategies import kinky

        return kinky
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["GradcheckError", "assert_no_wrong_gradient", "check_backward", "gradcheck", "kinky"]
