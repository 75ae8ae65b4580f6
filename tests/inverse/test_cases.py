"""Published fits and posteriors of measured data come out the same.

References are certified (NIST), published (posteriordb, sbibm, Box 1973) or computed by
quadrature; z-scores are in units of the reference's standard deviation.
"""

import numpy as np
import pytest
import scipy.stats

from sklearn_inverse import GradientInverter, ReactionSystem
from sklearn_inverse.datasets import load_lynx_hare
from sklearn_inverse.probability import (
    Binomial,
    LogNormal,
    LogUniform,
    NegativeBinomial,
    Normal,
)


def posterior_of(system, readings, **options):
    """Return the posterior of one set of readings."""
    readings = np.asarray(readings, dtype=float)[None]
    inverter = GradientInverter(system, **{"random_state": 0} | options)
    return inverter.fit(readings).posterior(readings)


def positive(mean, std):
    return Normal(mean, std).truncate(low=0)


LYNX_PRIORS = {
    "alpha": positive(1, 0.5),
    "beta": positive(0.05, 0.05),
    "gamma": positive(1, 0.5),
    "delta": positive(0.05, 0.05),
    "hare0": LogNormal(10, 1),
    "lynx0": LogNormal(10, 1),
    "sigma_hare": LogNormal(np.exp(-1), 1),
    "sigma_lynx": LogNormal(np.exp(-1), 1),
}


def lynx_and_hare():
    return ReactionSystem(
        {
            "hare -> 2 hare": "alpha",
            "hare + lynx -> lynx": "beta",
            "lynx ->": "gamma",
            "hare + lynx -> hare + 2 lynx": "delta",
        },
        initial={"hare": "hare0", "lynx": "lynx0"},
        params=LYNX_PRIORS,
        times=np.arange(21.0),
        noise={"hare": LogNormal("sigma_hare"), "lynx": LogNormal("sigma_lynx")},
        name="lynx and hare",
    )


def test_lynx_and_hare_posterior():
    """Stan's model and priors, both noise levels estimated: eight unknowns."""
    data = load_lynx_hare()
    posterior = posterior_of(lynx_and_hare(), data.observations[0])
    mean, std = data.published["mean"], data.published["std"]
    assert posterior.names == list(data.published["param_names"])
    assert (np.abs(posterior.mean[0] - mean) < 0.35 * std).all()
    ratio = posterior.std[0] / std
    assert ((ratio > 0.8) & (ratio < 1.25)).all()
    assert posterior.correlation[0][0, 2] == pytest.approx(-0.94, abs=0.05)
    report = str(posterior[0])
    assert "lynx and hare: 42 readings, 8 params" in report
    assert "alpha ~ gamma (-0.9" in report


def test_lynx_and_hare_maximum_likelihood():
    data = load_lynx_hare()
    posterior = posterior_of(lynx_and_hare(), data.observations[0], prior=None)
    known = [0.54001, 0.02716, 0.79660, 0.02370, 34.599, 5.844, 0.2184, 0.2201]
    np.testing.assert_allclose(posterior.params[0], known, rtol=2e-3)
    assert posterior.misfit[0] == pytest.approx(42, abs=0.1)


SBIBM_LV = [
    (
        "31.78 1.197 .297 .7115 2.942 11.48 36.09 .4623 .3808 .9174 "
        ".891 27.04 4.356 .7844 .171 .1326 8.727 16.97 2.79 .4757",
        [0.6835, 0.1047, 0.8965, 0.1178],
        [0.009, 0.006, 0.016, 0.002],
    ),
    (
        "29.82 15.51 3.152 5.37 11.03 25.98 10.99 2.728 6.036 13.03 "
        ".9318 55.63 10.09 1.127 .3565 1.127 41.04 8.808 1.081 .3568",
        [0.4626, 0.0461, 1.3078, 0.0910],
        [0.011, 0.003, 0.031, 0.002],
    ),
]


@pytest.mark.parametrize(("readings", "mean", "std"), SBIBM_LV, ids=["1", "3"])
def test_sbibm_lotka_volterra(readings, mean, std):
    system = ReactionSystem(
        {
            "x -> 2 x": "alpha",
            "x + y -> y": "beta",
            "y ->": "gamma",
            "x + y -> x + 2 y": "delta",
        },
        initial={"x": 30, "y": 1},
        params={
            "alpha": LogNormal(np.exp(-0.125), 0.5),
            "beta": LogNormal(np.exp(-3), 0.5),
            "gamma": LogNormal(np.exp(-0.125), 0.5),
            "delta": LogNormal(np.exp(-3), 0.5),
        },
        times=2.1 * np.arange(10),
        noise=LogNormal(0.1),
    )
    readings = np.array(readings.split(), dtype=float).reshape(2, 10).T
    posterior = posterior_of(system, readings, n_starts=1)
    assert (np.abs(posterior.mean[0] - mean) < 0.35 * np.array(std)).all()
    n_solves = posterior.n_forward[0] + posterior.n_linearized[0]
    assert n_solves - posterior.n_drawn[0] <= 60


@pytest.mark.parametrize(
    ("readings", "mean", "std"),
    [
        ([0, 21, 373, 85, 17, 5, 0, 0, 0, 0], [0.6826, 0.0945], [0.009, 0.003]),
        ([0, 72, 232, 34, 2, 0, 0, 0, 0, 0], [0.7801, 0.1180], [0.007, 0.004]),
    ],
    ids=["2", "3"],
)
def test_sbibm_sir(readings, mean, std):
    system = ReactionSystem(
        {"S + I -> 2 I": "beta/1000000", "I -> R": "gamma"},
        initial={"S": 1e6 - 1, "I": 1},
        params={"beta": LogNormal(0.4, 0.5), "gamma": LogNormal(0.125, 0.2)},
        times=17.0 * np.arange(10),
        observe={"infected": lambda t, y, p: y.I / 1000},
        noise=Binomial(1000),
    )
    posterior = posterior_of(system, readings, n_starts=2)
    assert (np.abs(posterior.mean[0] - mean) < 0.35 * np.array(std)).all()


IN_BED = [np.nan, 3, 8, 26, 76, 225, 298, 258, 233, 189, 128, 68, 29, 14, 4]


def influenza(params, noise=None):
    return ReactionSystem(
        {"S + I -> 2 I": "beta/763", "I -> R": "gamma"},
        initial={"S": 762, "I": 1},
        params=params,
        times=np.arange(15.0),
        observe={"in_bed": lambda t, y, p: y.I},
        noise=noise,
    )


def inverse(p):
    return 1 / p.inverse_dispersion


def test_boarding_school_influenza():
    """England 1978, SIR among 763 boys; counts scatter more than Poisson's."""
    system = influenza(
        {
            "beta": positive(2, 1),
            "gamma": positive(0.4, 0.5),
            "inverse_dispersion": scipy.stats.expon(scale=1 / 5),
        },
        NegativeBinomial(inverse),
    )
    posterior = posterior_of(system, IN_BED, n_starts=2)
    mean, std = [1.7349, 0.5420, 0.1375], np.array([0.0528, 0.0454, 0.0748])
    assert (np.abs(posterior.mean[0] - mean) < 0.35 * std).all()
    # With normal noise it is another answer.
    system = influenza({"beta": (0.5, 5), "gamma": (0.1, 2)})
    normal = posterior_of(system, IN_BED, prior=None)
    np.testing.assert_allclose(normal.params[0], [1.66923, 0.44345], rtol=1e-4)


PINENE = [
    [np.nan] * 5,
    [88.35, 7.3, 2.3, 0.4, 1.75],
    [76.4, 15.6, 4.5, 0.7, 2.8],
    [65.1, 23.1, 5.3, 1.1, 5.8],
    [50.4, 32.9, 6.0, 1.5, 9.3],
    [37.5, 42.7, 6.0, 1.9, 12.0],
    [25.9, 49.1, 5.9, 2.2, 17.0],
    [14.0, 57.4, 5.1, 2.6, 21.0],
    [4.5, 63.1, 3.8, 2.9, 25.7],
]


def test_alpha_pinene_with_unknown_noise():
    """Box et al. 1973: five rate constants, one noise level for five species."""
    params = {f"p{j}": LogUniform(1e-6, 1e-2) for j in range(1, 6)}
    system = ReactionSystem(
        {
            "y1 -> y2": "p1",
            "y1 -> y3": "p2",
            "y3 -> y4": "p3",
            "y3 -> y5": "p4",
            "y5 -> y3": "p5",
        },
        initial={"y1": 100.0},
        params=params | {"sigma": LogUniform(1e-3, 100)},
        times=[0, 1230, 3060, 4920, 7800, 10680, 15030, 22620, 36420],
        noise=Normal("sigma"),
    )
    posterior = posterior_of(system, PINENE, prior=None)
    known = [5.925849e-5, 2.963402e-5, 2.047284e-5, 2.744679e-4, 3.997950e-5]
    np.testing.assert_allclose(posterior.params[0, :5], known, rtol=2e-3)
    sse = posterior.params[0, 5] ** 2 * 40
    assert sse == pytest.approx(19.8721669342, rel=1e-4)


MISRA_X = [
    *(77.6, 114.9, 141.1, 190.8, 239.9, 289.0, 332.8, 378.4, 434.8, 477.3),
    *(536.8, 593.1, 689.1, 760.0),
]
MISRA_Y = [
    *(10.07, 14.73, 17.94, 23.93, 29.61, 35.18, 40.02, 44.82, 50.76, 55.05),
    *(61.01, 66.40, 75.47, 81.78),
]


@pytest.mark.parametrize(
    ("x", "y", "bounds", "estimate", "deviation"),
    [
        (
            MISRA_X,
            MISRA_Y,
            {"b1": (10, 1000), "b2": (1e-5, 1e-2)},
            [238.94212918, 5.5015643181e-4],
            [2.7070075241, 7.2668688436e-6],
        ),
        (
            [1, 2, 3, 5, 7, 10],
            [109, 149, 149, 191, 213, 224],
            {"b1": (1, 1000), "b2": (1e-2, 10)},
            [213.80940889, 0.54723748542],
            [12.354515176, 0.10455993237],
        ),
    ],
    ids=["Misra1a", "BoxBOD"],
)
def test_nist_fits_with_unknown_noise(x, y, bounds, estimate, deviation):
    """Certified estimates and standard deviations of NIST StRD, as ODEs.

    The variance of noise that is not stated is SSE / (n - p), as theirs.
    """
    system = ReactionSystem(  # y' = b2 (b1 - y)
        {"-> y": "b1*b2", "y ->": "b2"}, initial={}, params=bounds, times=[0, *x]
    )
    posterior = posterior_of(system, [np.nan, *y], prior=None, n_starts=1)
    np.testing.assert_allclose(posterior.params[0], estimate, rtol=1e-4)
    np.testing.assert_allclose(posterior.std[0], deviation, rtol=0.01)


def test_param_on_its_bound_is_held():
    """Read y' = s - k y a little low: s = 0, and the error of k is that beside it."""
    system = ReactionSystem(
        {"-> y": "s", "y ->": "k"},
        initial={"y": 1.0},
        params={"k": (0.1, 3), "s": (0, 1)},
        times=np.arange(7.0),
        noise=0.02,
    )
    readings = np.r_[np.nan, np.exp(-0.7 * np.arange(1, 7)) - 0.02]
    with pytest.warns(UserWarning, match=r"against their bounds in 1 of 1 samples: s"):
        posterior = posterior_of(system, readings, prior=None, n_starts=2)
    np.testing.assert_allclose(posterior.params[0], [0.75306, 0], atol=2e-4)
    assert posterior.std[0, 0] == pytest.approx(0.02642, rel=2e-3)
    assert posterior.misfit[0] == pytest.approx(1.37646, abs=1e-4)
    assert posterior.at_bound[0].tolist() == [False, True]
    assert "at its bound" in str(posterior[0])


@pytest.mark.slow
def test_two_optima_are_both_told():
    """A → B → C with only C read: the rates can be exchanged; intervals cover 90 %."""
    system = ReactionSystem(
        {"A -> B": "k1", "B -> C": "k2"},
        initial={"A": 1.0},
        params={"k1": LogUniform(0.05, 5), "k2": LogUniform(0.05, 5)},
        times=np.linspace(0, 10, 17),
        observe=["C"],
        noise=0.005,
    )
    rng = np.random.RandomState(0)
    params = system.prior.draw(400, rng)
    inverter = GradientInverter(system, random_state=0)
    clean = inverter.fit([np.zeros(17)]).model_.simulate(params)
    readings = clean + 0.005 * rng.standard_normal(clean.shape)
    posterior = inverter.posterior(readings)
    lower, upper = posterior.interval(0.9)
    covered = ((lower <= params) & (params <= upper)).mean(axis=0)
    assert ((covered > 0.86) & (covered < 0.94)).all()
    swapped = posterior.modes[:, 1] / posterior.modes[:, 0, ::-1]
    both = posterior.weights[:, 1] > 0.3
    assert both.mean() > 0.5
    assert np.quantile(np.abs(swapped[both] - 1), 0.9) < 1e-2


def test_an_optimum_given_as_start_is_kept():
    """A continuation never ends worse than its start."""
    system = lynx_and_hare()
    readings = load_lynx_hare().observations
    best = GradientInverter(system, random_state=0).fit(readings).posterior(readings)
    inverter = GradientInverter(system, n_starts=1, start=best.params[0])
    again = inverter.fit(readings).posterior(readings)
    assert again.misfit[0] == pytest.approx(best.misfit[0], rel=1e-2)
    assert (np.abs(again.params - best.params) < 0.1 * best.std).all()


def test_the_answer_does_not_depend_on_the_pairs():
    """Training pairs that blow up change nothing of an exact search."""
    system = ReactionSystem(
        {"y -> 2 y": "k"},
        initial={"y": 1.0},
        params={"k": (0.1, 3)},
        times=np.arange(6.0),
        noise=0.36,
    )
    readings = np.exp(0.5 * np.arange(6.0))[None]
    alone = GradientInverter(system, random_state=0).fit(readings)
    alone = alone.posterior(readings)
    pairs = np.exp(np.outer([0.2, 2.9], np.arange(6.0)))
    paired = GradientInverter(system, random_state=0).fit(pairs, [0.2, 2.9])
    paired = paired.posterior(readings)
    np.testing.assert_array_equal(paired.params, alone.params)
    assert alone.params[0, 0] == pytest.approx(0.5, abs=1e-3)
