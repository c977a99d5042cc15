"""gpytorch: kernels, means, likelihoods and distributions."""

import gpytorch
import torch
from gpytorch import distributions, kernels, likelihoods, means

from field_suites import anywhere

POINTS = ((3, 2), (2, 2))
LINE = torch.linspace(0, 1, 4, dtype=torch.float64)[:, None]
KERNELS = {
    "RBFKernel": kernels.RBFKernel(),
    "MaternKernel(0.5)": kernels.MaternKernel(0.5),
    "MaternKernel(1.5)": kernels.MaternKernel(1.5),
    "MaternKernel(2.5)": kernels.MaternKernel(2.5),
    "RQKernel": kernels.RQKernel(),
    "PeriodicKernel": kernels.PeriodicKernel(),
    "CosineKernel": kernels.CosineKernel(),
    "LinearKernel": kernels.LinearKernel(),
    "PolynomialKernel(2)": kernels.PolynomialKernel(2),
    "ScaleKernel(RBF)": kernels.ScaleKernel(kernels.RBFKernel()),
    "RBF + Matern": kernels.RBFKernel() + kernels.MaternKernel(1.5),
    "RBF * Matern": kernels.RBFKernel() * kernels.MaternKernel(0.5),
    "PiecewisePolynomialKernel": kernels.PiecewisePolynomialKernel(),
    "SpectralMixtureKernel": kernels.SpectralMixtureKernel(2, ard_num_dims=2),
}


def covariance(kernel):
    """Its dense matrix between two sets of points."""
    kernel = kernel.double()
    return lambda a, b: kernel(a, b).to_dense()


def gaussian(mean):
    """A normal distribution over the line, with this mean."""
    cover = kernels.RBFKernel().double()(LINE).add_jitter(0.1)
    return distributions.MultivariateNormal(mean, cover)


class Model(gpytorch.models.ExactGP):
    """The model of the first tutorial."""

    def __init__(self, y, likelihood):
        super().__init__(LINE, y, likelihood)
        self.mean, self.cover = means.ConstantMean(), kernels.ScaleKernel(kernels.RBFKernel())

    def forward(self, x):
        return distributions.MultivariateNormal(self.mean(x), self.cover(x))


def marginal(y):
    """The exact marginal log likelihood, as a function of the observations."""
    likelihood = likelihoods.GaussianLikelihood()
    model = Model(y, likelihood).double()
    return gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)(model(LINE), y)


PROGRAMS = (
    *(anywhere(n, covariance(k), *POINTS) for n, k in KERNELS.items()),
    anywhere("ConstantMean", means.ConstantMean().double(), (3, 2)),
    anywhere("LinearMean", means.LinearMean(2).double(), (3, 2)),
    anywhere("MultivariateNormal.log_prob", lambda m, x: gaussian(m).log_prob(x), (4,), (4,)),
    anywhere(
        "kl_divergence",
        lambda a, b: torch.distributions.kl_divergence(gaussian(a), gaussian(b)),
        *((4,), (4,)),
    ),
    anywhere(
        "GaussianLikelihood.expected_log_prob",
        lambda y, m: likelihoods.GaussianLikelihood().double().expected_log_prob(y, gaussian(m)),
        *((4,), (4,)),
    ),
    anywhere("ExactMarginalLogLikelihood", marginal, (4,)),
)
