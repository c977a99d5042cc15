"""pyro: log densities of the distributions that it adds to torch's, and of torch's own."""

import torch
from pyro import distributions as d

from field_suites import anywhere, inside

ONE, TWO = ((3,), (3,)), ((3,), (3,), (3,))
COUNTS = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
UNIT = torch.tensor(1.0, dtype=torch.float64)

PROGRAMS = (
    *(
        anywhere(n, lambda x, m, n=n: getattr(d, n)(m, UNIT).log_prob(x), *ONE)
        for n in ("Normal", "Laplace", "Cauchy", "Gumbel", "Logistic")
    ),
    anywhere(
        "AsymmetricLaplace", lambda x, m: d.AsymmetricLaplace(m, UNIT, 2 * UNIT).log_prob(x), *ONE
    ),
    anywhere(
        "SoftAsymmetricLaplace",
        lambda x, m: d.SoftAsymmetricLaplace(m, UNIT, 2 * UNIT).log_prob(x),
        *ONE,
    ),
    anywhere("SkewLogistic", lambda x, m: d.SkewLogistic(m, UNIT).log_prob(x), *ONE),
    anywhere("VonMises", lambda x, m: d.VonMises(m, UNIT).log_prob(x), *ONE),
    anywhere("Delta", lambda x, m: d.Delta(x, m).log_prob(x), *ONE),
    inside("InverseGamma", lambda x, a, b: d.InverseGamma(a, b).log_prob(x), *TWO),
    inside("Beta", lambda x, a, b: d.Beta(a, b).log_prob(x), *TWO),
    inside("HalfCauchy", lambda x, s: d.HalfCauchy(s).log_prob(x), *ONE),
    inside("Weibull", lambda x, a, b: d.Weibull(a, b).log_prob(x), *TWO),
    inside("Kumaraswamy", lambda x, a, b: d.Kumaraswamy(a, b).log_prob(x), *TWO),
    inside("GammaPoisson", lambda a, b: d.GammaPoisson(a, b).log_prob(COUNTS), *ONE),
    inside("BetaBinomial", lambda a, b: d.BetaBinomial(a, b, 4).log_prob(COUNTS), *ONE),
    inside(
        "ZeroInflatedPoisson",
        lambda r, g: d.ZeroInflatedPoisson(r, gate=g).log_prob(COUNTS),
        *ONE,
    ),
    inside(
        "DirichletMultinomial",
        lambda c: d.DirichletMultinomial(c, 4).log_prob(COUNTS),
        (3,),
    ),
    anywhere(
        "OrderedLogistic",
        lambda x: d.OrderedLogistic(x, torch.tensor([-1.0, 1.0], dtype=torch.float64)).log_prob(
            torch.tensor([0, 1, 2])
        ),
        (3,),
    ),
    anywhere(
        "MultivariateStudentT",
        lambda x, m: d.MultivariateStudentT(3 * UNIT, m, torch.eye(3, dtype=x.dtype)).log_prob(x),
        *ONE,
    ),
    anywhere(
        "ProjectedNormal",
        lambda x, m: d.ProjectedNormal(m).log_prob(x / (x * x).sum().sqrt()),
        *ONE,
    ),
)
