"""torch_geometric: convolutions on graphs, pools, aggregations and norms."""

import torch
from torch_geometric import nn, utils

from field_suites import anywhere

NODES = (4, 3)
EDGES = torch.tensor([[0, 1, 1, 2, 3, 3, 0], [1, 0, 2, 3, 2, 0, 3]])
GROUPS = torch.tensor([0, 0, 1, 1])
CONVOLUTIONS = (
    *(("GCNConv", ()), ("GraphConv", ()), ("SAGEConv", ()), ("TAGConv", ()), ("SGConv", ())),
    *(("GATConv", ()), ("GATv2Conv", ()), ("TransformerConv", ()), ("ARMAConv", ())),
    *(("ChebConv", (2,)), ("ClusterGCNConv", ()), ("LEConv", ()), ("FeaStConv", ())),
)
POOLS = ("global_max_pool", "global_mean_pool", "global_add_pool")
GATHERED = (
    *("MaxAggregation", "MinAggregation", "MeanAggregation", "StdAggregation"),
    *("VarAggregation", "MedianAggregation", "SoftmaxAggregation", "MulAggregation"),
)


def made(kind, *args, **kwargs):
    """A layer in double precision, with fixed weights."""
    torch.manual_seed(0)
    return getattr(nn, kind)(*args, **kwargs).double()


def on_edges(layer):
    """A layer on the graph."""
    return lambda x: layer(x, EDGES)


def in_groups(layer):
    """A layer on two graphs."""
    return lambda x: layer(x, GROUPS)


def small():
    """The network inside of some convolutions."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2))


PROGRAMS = (
    *(anywhere(n, on_edges(made(n, 3, 2, *more)), NODES) for n, more in CONVOLUTIONS),
    anywhere("SAGEConv(max)", on_edges(made("SAGEConv", 3, 2, aggr="max")), NODES),
    anywhere("GINConv", on_edges(made("GINConv", small())), NODES),
    anywhere("APPNP", on_edges(made("APPNP", 2, 0.1)), NODES),
    anywhere(
        "EdgeConv(max)",
        on_edges(made("EdgeConv", torch.nn.Sequential(torch.nn.Linear(6, 2), torch.nn.ReLU()))),
        NODES,
    ),
    *(anywhere(n, in_groups(getattr(nn, n)), NODES) for n in POOLS),
    *(anywhere(n, in_groups(made(n)), NODES) for n in GATHERED),
    *(
        anywhere(n, in_groups(made(n, *more)), NODES)
        for n, more in (("LayerNorm", (3,)), ("GraphNorm", (3,)), ("PairNorm", ()))
    ),
    anywhere("softmax", in_groups(utils.softmax), NODES),
)
