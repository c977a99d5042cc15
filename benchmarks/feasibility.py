"""Time to a witness or a contradiction on large sparse systems: `python benchmarks/feasibility.py`.

Prints the median, over repeated runs on different random systems, of one call of `find_witness`,
exact verification included; building the system is not counted. The figure to reach is a witness
for 10 000 rows of up to 600 non-zeros over 10**6 parameters in 10 s.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse

from clarke.feasibility import Outcome, find_witness, verify_contradiction, verify_witness

System = Callable[[np.random.Generator, int, int, int], Any]


def random_rows(rng: np.random.Generator, m: int, n: int, k: int) -> Any:
    """Normal entries in k random columns (fewer where one is drawn twice)."""
    columns = rng.integers(0, n, (m, k))
    data = rng.standard_normal((m, k))
    rows = scipy.sparse.csr_array(
        (data.ravel(), columns.ravel(), np.arange(m + 1) * k), shape=(m, n)
    )
    rows.sum_duplicates()
    return rows


def conv_layer(rng: np.random.Generator, m: int, n: int, k: int) -> Any:
    """64 channels of k - 1 own weights and one shared bias, whose sign is the channel's side."""
    channel = rng.integers(0, 64, m)
    base = rng.integers(0, n // k - 1, 64)[channel] * k
    columns = base[:, None] + np.arange(k)
    data = rng.standard_normal((m, k))
    data[:, -1] = np.where(channel % 2, 1.0, -1.0)
    return scipy.sparse.csr_array(
        (data.ravel(), columns.ravel(), np.arange(m + 1) * k), shape=(m, n)
    )


def conv_ties(rng: np.random.Generator, m: int, n: int, k: int) -> Any:
    """Differences of smooth, strongly correlated patches: no bias column, ill-conditioned."""
    channel = rng.integers(0, 16, m)
    base = np.arange(16)[channel] * k
    smooth = np.cumsum(rng.standard_normal((m, k)), axis=1) / np.sqrt(k)
    hidden = rng.standard_normal((16, k))[channel]
    columns = base[:, None] + np.arange(k)
    rows = scipy.sparse.csr_array(
        (smooth.ravel(), columns.ravel(), np.arange(m + 1) * k), shape=(m, n)
    )
    return planted(rows, np.r_[hidden.sum(), 0.0], np.zeros(n), hidden, columns)


def planted(rows: Any, _: Any, weights: Any, hidden: Any, columns: Any) -> Any:
    weights[columns] = hidden
    return scipy.sparse.diags_array(np.sign(rows @ weights)) @ rows
