"""e3nn: spherical harmonics, equivariant layers, bases of distances."""

import torch
from e3nn import math, nn, o3

from field_suites import anywhere

POINTS = (2, 3)


def made(kind, *args, **kwargs):
    """A layer in double precision, with fixed weights."""
    torch.manual_seed(0)
    return kind(*args, **kwargs).double()


PROGRAMS = (
    *(
        anywhere(
            f"spherical_harmonics({n}, {mode})",
            lambda x, n=n, normalize=mode == "normalized": o3.spherical_harmonics(n, x, normalize),
            POINTS,
        )
        for n in (1, 2, 3)
        for mode in ("normalized", "as it is")
    ),
    anywhere("Linear", made(o3.Linear, "2x0e+1x1o", "1x0e+2x1o"), (2, 5)),
    anywhere("Norm", made(o3.Norm, "2x1o"), (2, 6)),
    anywhere("NormActivation", made(nn.NormActivation, "2x1o", torch.relu), (2, 6)),
    anywhere("Activation", made(nn.Activation, "3x0e", [torch.relu]), POINTS),
    anywhere("Activation(abs)", made(nn.Activation, "3x0o", [torch.abs]), POINTS),
    anywhere(
        "Gate",
        made(nn.Gate, "1x0e", [torch.relu], "1x0e", [torch.sigmoid], "1x1o"),
        (2, 5),
    ),
    anywhere("BatchNorm", made(nn.BatchNorm, "1x0e+1x1o"), (3, 4)),
    anywhere(
        "FullyConnectedTensorProduct",
        made(o3.FullyConnectedTensorProduct, "1x0e+1x1o", "1x1o", "1x0e+1x1o"),
        *((2, 4), (2, 3)),
    ),
    anywhere("TensorSquare", made(o3.TensorSquare, "1x0e+1x1o"), (2, 4)),
    anywhere("FullyConnectedNet", made(nn.FullyConnectedNet, [3, 4, 1], torch.relu), POINTS),
    *(
        anywhere(
            f"soft_one_hot_linspace({b})",
            lambda x, b=b: math.soft_one_hot_linspace(x, -1.0, 1.0, 3, basis=b, cutoff=True),
            (3,),
        )
        for b in ("smooth_finite", "gaussian", "cosine", "fourier")
    ),
    anywhere("soft_unit_step", math.soft_unit_step, (4,)),
    anywhere("xyz_to_angles", lambda x: torch.stack(o3.xyz_to_angles(x)), POINTS),
    anywhere("angles_to_matrix", o3.angles_to_matrix, (2,), (2,), (2,)),
)
