"""Products with constant sparse matrices: graph networks, adjacency matrices, finite elements."""

import pytest
import torch
from torch.nn import functional

import clarke
from clarke.verdict import Verdict

LAYOUTS = {
    "coo": lambda dense: dense.to_sparse_coo(),
    "csr": lambda dense: dense.to_sparse_csr(),
    "csc": lambda dense: dense.to_sparse_csc(),
}
PRODUCTS = {
    "mm": torch.sparse.mm,
    "matmul": lambda s, x: s @ x,
    "mv": lambda s, x: (s @ x[:, 0])[:, None],
    "addmm": lambda s, x: torch.sparse.addmm(x, s, x, beta=0.5, alpha=-2.0),
    "right": lambda s, x: (x.t() @ s).t(),
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(
    ("layout", "dtype"),
    [("coo", torch.float32), ("csr", torch.float64), ("csc", torch.float32)],
)
@pytest.mark.parametrize("product", PRODUCTS)
def test_judged_as_the_dense_matrix_is(product, layout, dtype):
    dense = torch.tensor([[1.0, 2, 0], [0, -1, 0], [3, 0, 1]], dtype=dtype)
    sparse, times = LAYOUTS[layout](dense), PRODUCTS[product]

    def loss(s):
        return lambda x: (times(s, x).relu() - 0.5 * (-times(s, x)).relu()).sum()

    for values in ([[0.0, 1], [0, 0], [0, 2]], [[1.0, 0], [2, -1], [0, 3]]):
        x = torch.tensor(values, dtype=dtype, requires_grad=True)
        y = torch.tensor(values, dtype=dtype, requires_grad=True)
        found, expected = clarke.check(loss(sparse), (x,)), clarke.check(loss(dense), (y,))
        assert found.verdict is expected.verdict
        assert found.verdict is not Verdict.UNDECIDED
        if found.certificate is not None:
            assert found.certificate.verify()


@pytest.mark.filterwarnings("ignore:Sparse")
def test_sets_are_those_of_the_dense_matrix():
    dense = torch.tensor([[1.0, 2, 0], [0, -1, 0], [3, 0, 1]])
    x = torch.zeros(3, 1, requires_grad=True)
    counts = {
        clarke.subdifferential(lambda x, m=m: (m @ x).relu().sum(), (x,)).count()
        for m in (dense, dense.to_sparse_coo(), dense.to_sparse_csr())
    }
    assert counts == {8}


@pytest.mark.filterwarnings("ignore:Sparse")
def test_steps_of_a_graph_network():
    torch.manual_seed(0)
    adjacency = (torch.rand(12, 12) < 0.3).float().to_sparse_coo()
    features, labels = torch.randn(12, 5), torch.arange(12) % 3
    weights = [torch.zeros(5, 8, requires_grad=True), torch.randn(8, 3, requires_grad=True)]
    optimizer = torch.optim.SGD(weights, lr=0.1)
    with clarke.audit() as watch:
        for _ in range(3):
            optimizer.zero_grad()
            hidden = torch.sparse.mm(adjacency, features @ weights[0]).relu()
            functional.cross_entropy(adjacency @ (hidden @ weights[1]), labels).backward()
            with torch.no_grad():
                weights[0].add_(torch.randn(5, 8))
            optimizer.step()
    assert watch.steps[0].verdict in (Verdict.BOULIGAND, Verdict.CLARKE)  # zero weights
    assert [s.verdict for s in watch.steps[1:]] == [Verdict.SMOOTH] * 2


@pytest.mark.filterwarnings("ignore:Sparse", "ignore:torch.sparse")
@pytest.mark.parametrize("reduce", ["sum", "mean", "amax"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reductions_over_rows(reduce, dtype):
    sparse = torch.tensor([[1.0, 2], [0, 1]], dtype=dtype).to_sparse_csr()
    x = torch.zeros(2, 1, dtype=dtype, requires_grad=True)
    report = clarke.check(lambda x: torch.sparse.mm(sparse, x, reduce).relu().sum(), (x,))
    assert report.verdict in (Verdict.BOULIGAND, Verdict.SMOOTH)
