"""Published fits of measured data, certified or recomputed elsewhere, come out the same.

Maximum likelihood, so that there is no prior to differ by.
"""

import numpy as np
import pytest
import torch

from sklearn_inverse import GradientInverter, ODESimulator, ODESystem, ReactionSystem
from sklearn_inverse.datasets import load_lynx_hare
from sklearn_inverse.ode import MassAction


def fit(system, readings, noise_std, *, method="auto", **options):
    """Return estimate, standard deviation and misfit of one set of readings."""
    readings = np.asarray(readings, dtype=float)[None]
    inverter = GradientInverter(
        ODESimulator(system, method=method, rtol=1e-8),
        **{"prior": None, "tol": 1e-8, "noise_std": noise_std, "random_state": 0}
        | options,
    )
    pair = np.repeat(system.nominal[None], 2, axis=0)
    inverter.fit(ODESimulator(system, method=method).simulate(pair), pair)
    result = inverter.invert(readings)
    # One derivative of physical by unit params: all that std does on a log scale.
    deviation = np.sqrt(np.einsum("npp->np", result.covariance))
    unit = inverter.scaler_.to_unit(result.params)
    high, low = (inverter.scaler_.to_physical(unit + s * deviation) for s in (1, -1))
    return result.params[0], (high - low)[0] / 2, result.misfit[0]


def test_alpha_pinene_isomerisation():
    """Box et al. 1973: five rate constants, five species; least squares."""
    times = [0, 1230, 3060, 4920, 7800, 10680, 15030, 22620, 36420]
    readings = [
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
    system = ReactionSystem(
        ["y1 -> y2", "y1 -> y3", "y3 -> y4", "y3 -> y5", "y5 -> y3"],
        initial_state=[100.0, 0.0, 0.0, 0.0, 0.0],
        state_names=["y1", "y2", "y3", "y4", "y5"],
        bounds=[[1e-6, 1e-2]] * 5,
        scale="log10",
        times=times,
    )
    params, _, sse = fit(system, readings, 1.0)
    assert sse == pytest.approx(19.8721669342, abs=1e-6)
    known = [5.925849e-5, 2.963402e-5, 2.047284e-5, 2.744679e-4, 3.997950e-5]
    np.testing.assert_allclose(params, known, rtol=1e-4)


def saturate(t, y, params):
    return params[..., 1:] * (params[..., :1] - y)


MISRA1A = np.transpose(
    [
        *([77.6, 10.07], [114.9, 14.73], [141.1, 17.94], [190.8, 23.93]),
        *([239.9, 29.61], [289.0, 35.18], [332.8, 40.02], [378.4, 44.82]),
        *([434.8, 50.76], [477.3, 55.05], [536.8, 61.01], [593.1, 66.40]),
        *([689.1, 75.47], [760.0, 81.78]),
    ]
)
BOXBOD = [1, 2, 3, 5, 7, 10], [109, 149, 149, 191, 213, 224]


@pytest.mark.parametrize(
    ("data", "bounds", "estimate", "deviation", "sse"),
    [
        (
            MISRA1A,
            [[10.0, 1000.0], [1e-5, 1e-2]],
            [238.94212918, 5.5015643181e-4],
            [2.7070075241, 7.2668688436e-6],
            0.12455138894,
        ),
        (
            BOXBOD,
            [[1.0, 1000.0], [1e-2, 10.0]],
            [213.80940889, 0.54723748542],
            [12.354515176, 0.10455993237],
            1168.0088766,
        ),
    ],
    ids=["Misra1a", "BoxBOD"],
)
def test_nist_reference_fits(data, bounds, estimate, deviation, sse):
    """Certified estimates and standard deviations of NIST StRD, as ODEs."""
    x, y = data
    system = ODESystem(
        saturate, initial_state=[0.0], bounds=bounds, scale="log10", times=[0, *x]
    )
    noise = np.sqrt(sse / (len(x) - 2))
    params, std, misfit = fit(system, [[np.nan], *np.c_[y]], noise)
    np.testing.assert_allclose(params, estimate, rtol=1e-4)
    assert misfit * noise**2 == pytest.approx(sse, rel=1e-5)
    # The interval is symmetric on the log scale: BoxBOD's second is 19 % wide.
    np.testing.assert_allclose(std, deviation, rtol=0.01)


def test_lynx_and_hare_maximum_likelihood():
    """Pelts of 1900-1920, log-normal readings; noise levels at their own optimum."""
    effects = [[1, -1, 0, 0, 0, 0], [0, 0, -1, 1, 0, 0]]
    orders = [[1, 1, 0, 1, 0, 0], [0, 1, 1, 1, 0, 0]]
    rhs = MassAction(effects, orders)
    data = load_lynx_hare()
    system = ODESystem(
        rhs,
        jac=rhs.jac,
        initial_state=lambda params: params[..., 4:],
        observe=lambda t, y, params: torch.log(y),
        bounds=[[0.1, 2], [0.005, 0.2], [0.1, 2], [0.005, 0.2], [5, 100], [1, 30]],
        scale="log10",
        times=np.arange(21.0),
    )
    params, _, misfit = fit(system, np.log(data.observations[0]), [0.2184, 0.2201])
    known = [0.54001, 0.02716, 0.79660, 0.02370, 34.599, 5.844]
    np.testing.assert_allclose(params, known, rtol=2e-3)
    # At the optimum of the noise levels each channel's residuals are its variance.
    assert misfit == pytest.approx(42, abs=0.3)


def test_boarding_school_influenza_least_squares():
    """In bed on days 1 to 14, England 1978; SIR among 763 boys."""
    in_bed = [3, 8, 26, 76, 225, 298, 258, 233, 189, 128, 68, 29, 14, 4]
    effects = [[-1, 0], [1, -1]]
    orders = [[1, 0], [1, 1]]
    rhs = MassAction(effects, orders)
    system = ODESystem(
        rhs,
        jac=rhs.jac,
        initial_state=[762.0, 1.0],
        observe=lambda t, y, params: y[..., 1:],
        bounds=[[0.5 / 763, 5.0 / 763], [0.1, 2.0]],
        scale="log10",
        times=np.arange(15.0),
    )
    params, _, sse = fit(system, [[np.nan], *np.c_[in_bed]], 20.0)
    np.testing.assert_allclose(params, [1.66923 / 763, 0.44345], rtol=1e-4)
    assert sse * 400 == pytest.approx(4121.94, abs=0.1)


def test_lorenz_from_25_exact_points():
    """DeepXDE's inverse demo, which takes 60,000 Adam steps."""

    def lorenz(t, y, params):
        x, v, z = y.unbind(-1)
        a, b, c = params.unbind(-1)
        return torch.stack([a * (v - x), x * (b - z) - v, x * v - c * z], dim=-1)

    truth = np.array([10.0, 15.0, 8 / 3])
    system = ODESystem(
        lorenz,
        initial_state=[-8.0, 7.0, 27.0],
        bounds=[[1.0, 50.0]] * 3,
        scale="log10",
        times=np.r_[0.0, np.linspace(0.1, 3.0, 25)],
    )
    readings = ODESimulator(system, method="tsit5", rtol=1e-9).simulate(truth[None])[0]
    params, _, _ = fit(system, readings, None)
    np.testing.assert_allclose(params, truth, rtol=1e-4)
