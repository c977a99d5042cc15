"""What PyTorch's own operations are: analytic, structural, constant, random, singular, discrete.

A table, made by hand from ``derivatives.yaml`` and ``native_functions.yaml`` of torch 2.6, 2.13 and
2.14 and checked by numbers (``tests/kinks/test_smooth.py``: gradients at special inputs against
gradients nearby and against difference quotients, on the installed torch). A name in no set is
unknown: it is never taken for smooth. In no set are operations with kinks (relu, abs, max, clamp,
max_pool, sort), which rules own; operations that never reach a dispatch mode under autograd because
they decompose (``linear``, ``softmax.int``, ``einsum``); forms that only backends and compilers
call (``.out``); and those for sparse, quantized and nested layouts.

The promise of `ANALYTIC`: at every finite real input where the first result is finite, that result
is a real-analytic function of all floating point inputs, and autograd returns its derivative.
Floating point rounding, underflow and casts to a narrower floating point type count as exact.
Three things stay outside of the promise:

* Further results: statistics such as ``native_layer_norm``'s mean, ``logsumexp`` of attention.
  Autograd treats most of them as constants, although they are not.
* Infinite entries. A softmax, ``logsumexp`` or attention with ``-inf`` entries is analytic in the
  finite ones as long as every row has one.
* Sparse tensors; and complex numbers, for functions with a branch cut (see `classify`).
"""

from clarke.kinks.smooth.analytic import ANALYTIC, POLE_ARGUMENTS, POLES
from clarke.kinks.smooth.classes import OTHER_VERSIONS, bind, classify, has_cut, why_not
from clarke.kinks.smooth.conditions import CONDITIONAL
from clarke.kinks.smooth.constants import CONSTANT, DISCRETE, DROPOUT, RANDOM, SAWTOOTH
from clarke.kinks.smooth.model import OpClass
from clarke.kinks.smooth.singular import LEFT_OUT, SINGULAR
from clarke.kinks.smooth.structural import STRUCTURAL

__all__ = [
    "ANALYTIC",
    "CONDITIONAL",
    "CONSTANT",
    "DISCRETE",
    "DROPOUT",
    "LEFT_OUT",
    "OTHER_VERSIONS",
    "POLES",
    "POLE_ARGUMENTS",
    "RANDOM",
    "SAWTOOTH",
    "SINGULAR",
    "STRUCTURAL",
    "OpClass",
    "bind",
    "classify",
    "has_cut",
    "why_not",
]
