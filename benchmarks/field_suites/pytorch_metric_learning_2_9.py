"""pytorch-metric-learning: losses of embeddings."""

import torch
from pytorch_metric_learning import losses

from field_suites import anywhere

ROWS = (6, 4)
CLASSES = torch.tensor([0, 0, 1, 1, 2, 2])
OF_PAIRS = (
    *("AngularLoss", "CircleLoss", "ContrastiveLoss", "FastAPLoss"),
    *("GeneralizedLiftedStructureLoss", "IntraPairVarianceLoss", "LiftedStructureLoss"),
    *(
        "MultiSimilarityLoss",
        "NCALoss",
        "NPairsLoss",
        "NTXentLoss",
        "SignalToNoiseRatioContrastiveLoss",
    ),
    *("SupConLoss", "TripletMarginLoss", "TupletMarginLoss", "MarginLoss"),
    "PNPLoss",
)
OF_CLASSES = (
    *("ArcFaceLoss", "CosFaceLoss", "NormalizedSoftmaxLoss", "ProxyAnchorLoss", "ProxyNCALoss"),
    *("SoftTripleLoss", "SphereFaceLoss", "SubCenterArcFaceLoss"),
)


def made(kind, **sizes):
    """A loss of embeddings, in double precision."""
    torch.manual_seed(0)
    return getattr(losses, kind)(**sizes).double()


def judged(kind, **sizes):
    """A loss of six embeddings in three classes."""
    loss = made(kind, **sizes)
    return lambda x: loss(x, CLASSES)


PROGRAMS = (
    *(anywhere(n, judged(n), ROWS) for n in OF_PAIRS),
    # Its histogram goes on into the next call, with the graph of the last: here each is the first.
    anywhere("DynamicSoftMarginLoss", lambda x: made("DynamicSoftMarginLoss")(x, CLASSES), ROWS),
    *(anywhere(n, judged(n, num_classes=3, embedding_size=4), ROWS) for n in OF_CLASSES),
)
