"""Custom Functions with a backward of their own, right or known to be wrong."""

import torch


def square(factor=1.0, name="Square"):
    """The square with a multiple of its derivative; a new class each time."""

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 2 * factor * x * g

    Square.__name__ = Square.__qualname__ = name
    return Square
