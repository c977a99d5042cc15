"""Custom Functions whose backward is known to be wrong."""

import torch


def wrong_square():
    """The square with 3 x for its derivative; a new class each time."""

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 3 * x * g

    return Square
