"""Backends of torch.compile whose programs compute something else than was written."""

import torch
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func


def with_slope_one():
    """Of relu's slope at 0, which its backward graph takes for 1."""

    def slope(gradient, x, threshold):
        return torch.where(torch.ops.aten.le.Scalar(x, threshold), 0.0, gradient)

    def changed(graph, _inputs):
        for node in graph.graph.nodes:
            if node.target is torch.ops.aten.le.Scalar:
                node.target = torch.ops.aten.lt.Scalar
        graph.recompile()
        return make_boxed_func(graph.forward)

    return aot_autograd(
        fw_compiler=lambda graph, _: make_boxed_func(graph.forward),
        bw_compiler=changed,
        decompositions={torch.ops.aten.threshold_backward.default: slope},
    )
