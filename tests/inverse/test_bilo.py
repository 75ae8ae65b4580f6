"""BiLO: exact derivatives, the gradient of the sensitivities, params without a solver."""

import copy
import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone

from sklearn_inverse import GradientInverter, ODESimulator, ODESurrogate, ODESystem
from sklearn_inverse.collocation._bilevel import fine_tune, pretrain
from sklearn_inverse.collocation._local_operator import (
    LocalOperator,
    Solution,
    error_of_residual,
)
from sklearn_inverse.collocation._time_scale import TimeScale
from sklearn_inverse.exceptions import ConvergenceWarning, MisfitWarning
from sklearn_inverse.inverse import BiLOInverter, InversionStatus
from sklearn_inverse.ode import solve_ivp
from sklearn_inverse.optim._soap import StackedAdam
from sklearn_inverse.problems import lotka_volterra, pollu
from sklearn_inverse.utils._scaling import ParamScaler

TIMES = np.linspace(0.0, 1.0, 21)
BOX = [[0.5, 4.0]]


def growth(t, y, params):
    return params * y


def logistic(t, y, params):
    return params * y * (1 - y)


def forced(t, y, params):
    """Two states, two params, and a clock."""
    a, b = params.unbind(-1)
    u, v = y.unbind(-1)
    return torch.stack([a * v + torch.sin(t), -b * u * v], dim=-1)


def weighted_sum(t, y, params):
    """One channel, which is not a state and depends on a param."""
    return params[..., :1] * y[..., :1] + y[..., 1:]


def start_at_param(params):
    return torch.stack([params[..., 0], 1 + 0 * params[..., 1]], dim=-1)


def growth_system():
    return ODESystem(growth, initial_state=[1.0], bounds=BOX, times=TIMES)


def logistic_system():
    return ODESystem(logistic, initial_state=[0.1], bounds=BOX, times=TIMES)


def forced_system(**kwargs):
    return ODESystem(
        forced,
        initial_state=start_at_param,
        bounds=[[0.5, 2.0], [0.1, 3.0]],
        scale=["linear", "log10"],
        times=TIMES,
        **kwargs,
    )


def exact(system, params, times=None):
    times = system.times if times is None else times
    params = torch.as_tensor(np.atleast_2d(params))
    solution = solve_ivp(
        system.rhs, times, system.initial_state, params, rtol=1e-9, atol=1e-20
    )
    return solution.y.numpy()


def make_operator(system, params, *, time_scale="linear", onset=None, **kwargs):
    """Return an operator, the solution at params, and params in the unit box."""
    scale = TimeScale(system.times, time_scale, onset)
    n_collocation = kwargs.pop("n_collocation", 51)
    times = np.union1d(
        system.times, scale.to_time(np.linspace(0, 1, n_collocation))[:-1]
    )
    solution = Solution(np.asarray(params), times, exact(system, params, times)[0])
    options = {"width": 32, "n_layers": 2, "dtype": torch.float64, **kwargs}
    scaler = ParamScaler(system.bounds, scale=system.scale)
    operator = LocalOperator(
        system,
        scaler,
        solution,
        n_collocation=n_collocation,
        time_scale=scale,
        **options,
    )
    return operator, solution, torch.as_tensor(scaler.to_unit(np.atleast_2d(params)))


def copies(layers, n):
    """Networks that differ: a random change of each copy."""
    noise = torch.Generator().manual_seed(1)
    return [
        x.repeat(n, 1, 1)
        + 0.1 * torch.randn(n, *x.shape[1:], generator=noise, dtype=x.dtype)
        for x in layers
    ]


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("train_embedding", [False, True])
def test_pushed_derivatives_are_those_of_automatic_differentiation(
    n_layers, train_embedding
):
    operator, _, theta = make_operator(
        forced_system(), [1.0, 1.0], n_layers=n_layers, train_embedding=train_embedding
    )
    layers = operator.net.initial_layers()
    tau = torch.linspace(0, 1, 5, dtype=torch.float64)
    jet = operator.net.jet(layers, tau, theta)

    def value(tau, theta):
        return operator.net.value(layers, tau[None], theta[None])[0, 0]

    def by_time(tau, theta):
        return torch.func.jacfwd(value)(tau, theta)

    for i, point in enumerate(tau):
        mixed = torch.func.jacfwd(by_time, argnums=1)(point, theta[0])
        by_params = torch.func.jacfwd(value, argnums=1)(point, theta[0])
        torch.testing.assert_close(jet.value[0, i], value(point, theta[0]))
        torch.testing.assert_close(jet.by_time[0, i], by_time(point, theta[0]))
        torch.testing.assert_close(jet.by_params[0, :, i], by_params.T)
        torch.testing.assert_close(jet.mixed[0, :, i], mixed.T)


@pytest.mark.parametrize("time_scale", ["linear", "log"])
def test_residual_gradient_is_the_total_derivative(time_scale):
    # Initial states and the right-hand side depend on params, one of them by its log.
    operator, _, theta = make_operator(
        forced_system(), [1.0, 1.0], time_scale=time_scale, onset=0.05
    )
    layers = operator.net.initial_layers()
    residual, gradient = operator.residual(layers, theta)
    for j in range(2):
        step = 1e-6 * torch.eye(2, dtype=torch.float64)[j]
        up, down = (operator.residual(layers, theta + s)[0] for s in (step, -step))
        torch.testing.assert_close(
            gradient[:, j], (up - down) / 2e-6, rtol=1e-6, atol=1e-8
        )
    assert residual.shape == (1, 51, 2)


@pytest.mark.parametrize("train_embedding", [False, True])
@pytest.mark.parametrize("observe", [None, "sum"])
def test_jacobian_is_that_of_the_channels(observe, train_embedding):
    # Channels, the initial state and the network all depend on params.
    system = forced_system(observe=None if observe is None else weighted_sum)
    operator, _, theta = make_operator(
        system, [1.0, 1.0], train_embedding=train_embedding
    )
    layers = copies(operator.net.initial_layers(), 2)
    theta = torch.cat([theta, theta + 0.1])
    channels, jacobian = operator.linearize(layers, theta)
    torch.testing.assert_close(channels, operator.channels(layers, theta))
    for j in range(2):
        step = 1e-6 * torch.eye(2, dtype=torch.float64)[j]
        up, down = (operator.channels(layers, theta + s) for s in (step, -step))
        torch.testing.assert_close(
            jacobian[:, j], (up - down) / 2e-6, rtol=1e-6, atol=1e-8
        )


def test_errors_of_residuals_are_those_of_decaying_states():
    t = np.linspace(0, 2, 401)
    decay = np.stack([0 * t, 3 + 0 * t, 1e6 + 0 * t], axis=1)
    lasting, decaying, fast = error_of_residual(t, decay) @ np.ones_like(t)
    np.testing.assert_allclose(lasting, t, atol=1e-12)
    np.testing.assert_allclose(decaying, (1 - np.exp(-3 * t)) / 3, atol=2e-3)
    np.testing.assert_allclose(fast[2:], 1e-6, rtol=1e-3)


def test_gauss_newton_finds_the_optimum_of_a_frozen_network():
    # With weights that stand still, the upper level is an ordinary fit with a prior.
    operator, _, theta0 = make_operator(forced_system(), [1.0, 1.0])
    layers = operator.net.initial_layers()
    truth = torch.tensor([[0.45, 0.6]], dtype=torch.float64)
    readings = operator.channels(layers, truth)
    weights = torch.full_like(readings, 30.0)
    found = fine_tune(
        operator,
        readings,
        weights,
        theta0,
        layers,
        max_iter=300,
        lr_net=1e-30,
        lr_params=0.2,
        w_rgrad=0.1,
        prior_precision=12.0,
    )
    theta = found.theta.clone().requires_grad_()
    loss = operator.data_loss(layers, theta, readings, weights, 12.0)
    (gradient,) = torch.autograd.grad(loss.sum(), theta)
    assert gradient.abs().max() < 1e-6
    assert (found.theta - truth).abs().max() < 0.1


def test_params_outside_stop_at_the_wall():
    error, result = recover(growth_system(), [3.8], [4.5], max_iter=300)
    assert result.theta.tolist() == [[1.0]]
    assert error > 0.1


def test_initial_state_is_met_exactly():
    operator, _, theta = make_operator(forced_system(), [1.3, 1.0])
    states = operator.states(operator.net.initial_layers(), operator.tau[:1], theta)
    np.testing.assert_allclose(states[0, 0].numpy(), [1.3, 1.0], rtol=1e-12)


def test_log_time_goes_there_and_back():
    scale = TimeScale(np.array([2.0, 3.0, 60.0]), "log", onset=1e-4)
    tau = np.linspace(0, 1, 11)
    t = scale.to_time(tau)
    np.testing.assert_allclose(scale.to_unit(t), tau, atol=1e-12)
    assert t[0] == 2.0
    assert t[1] < 2.001
    slope = (scale.to_unit(t * (1 + 1e-7)) - scale.to_unit(t)) / (t * 1e-7)
    np.testing.assert_allclose(scale.rate(t)[3:], slope[3:], rtol=1e-3)


def test_samples_are_independent():
    operator, _, theta0 = make_operator(forced_system(), [1.0, 1.0])
    layers = copies(operator.net.initial_layers(), 3)
    theta = torch.tensor([[0.2, 0.3], [0.5, 0.5], [0.9, 0.1]], dtype=torch.float64)
    together = operator.operator_loss(layers, theta, 0.1)
    for i in range(3):
        alone = operator.operator_loss(
            [x[i : i + 1] for x in layers], theta[i : i + 1], 0.1
        )
        torch.testing.assert_close(alone[0], together[i], rtol=1e-10, atol=0)

    readings = torch.as_tensor(exact(forced_system(), [[0.7, 0.5], [1.2, 2.0]]))
    weights = torch.ones_like(readings)
    options = {"max_iter": 30, "lr_net": 1e-2, "lr_params": 3e-3, "w_rgrad": 0.1}
    first = operator.net.initial_layers()
    both = fine_tune(operator, readings, weights, theta0, first, **options)
    for i in range(2):
        one = slice(i, i + 1)
        alone = fine_tune(
            operator, readings[one], weights[one], theta0, first, **options
        )
        torch.testing.assert_close(alone.theta[0], both.theta[i], rtol=1e-6, atol=0)


def test_missing_readings_do_not_count():
    operator, _, theta = make_operator(growth_system(), [1.0])
    layers = operator.net.initial_layers()
    readings = torch.zeros(1, 21, 1, dtype=torch.float64)
    weights = torch.zeros_like(readings)
    weights[0, [3, 7]] = 2.0
    loss = operator.data_loss(layers, theta, readings, weights)
    expected = (2 * operator.channels(layers, theta)[0, [3, 7]]).square().mean()
    torch.testing.assert_close(loss[0], expected)


def test_concentrations_of_pollu_do_not_underflow_in_single_precision():
    system = pollu()
    losses = []
    for dtype in (torch.float32, torch.float64):
        operator, _, theta = make_operator(
            system, system.nominal, dtype=dtype, time_scale="log", onset=1e-3
        )
        layers = [x.requires_grad_() for x in operator.net.initial_layers()]
        loss = operator.operator_loss(layers, theta.to(dtype), 0.1)
        loss.sum().backward()
        assert (operator.scale > 0).all()
        assert all((x.grad != 0).any(dim=1).all() for x in layers[-1:])
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize(
    ("system", "params", "truth"),
    [
        (growth_system(), [1.5], [2.0]),
        (logistic_system(), [3.0], [2.0]),
        (forced_system(), [1.0, 1.0], [0.8, 1.5]),
    ],
    ids=["growth", "logistic", "forced"],
)
@pytest.mark.parametrize("w_rgrad", [0.1, 0.0])
def test_upper_gradient_is_that_of_the_sensitivities(system, params, truth, w_rgrad):
    # The theorem of the paper: exact where the lower level is solved, and only with the
    # residual's gradient in it.
    operator, solution, theta = make_operator(system, params)
    layers = pretrain(operator, theta, solution, max_iter=400, w_rgrad=w_rgrad)
    readings = torch.as_tensor(exact(system, truth))
    theta.requires_grad_()
    loss = operator.data_loss(layers, theta, readings, torch.ones_like(readings))
    (gradient,) = torch.autograd.grad(loss.sum(), theta)

    simulator = ODESimulator(system, rtol=1e-9)
    misfit = simulator.simulate([params]) - readings.numpy()
    by_params = simulator.sensitivities([params])
    expected = 2 * np.einsum("stc,stcp->p", misfit, by_params) / misfit.size
    slope = torch.func.jacfwd(operator.scaler.to_physical_tensor)(theta[0].detach())
    expected = expected @ slope.numpy()
    error = np.linalg.norm(gradient[0].numpy() - expected) / np.linalg.norm(expected)
    assert error < 0.02 if w_rgrad else error > 0.1


def recover(system, start, truth, *, w_rgrad=0.1, w_error=1.0, max_iter=1000, **kwargs):
    """Return the relative error of noise-free recovery and the result."""
    single = make_operator(system, start, dtype=torch.float32, w_error=w_error)[0]
    operator, solution, theta0 = make_operator(system, start, w_error=w_error)
    layers = pretrain(operator, theta0, solution, max_iter=500, w_rgrad=w_rgrad)
    readings = torch.as_tensor(exact(system, truth)).float()
    options = {"lr_net": 1e-2, "lr_params": 0.1, "max_loss": 0.01, "tol": 3e-4}
    result = fine_tune(
        single,
        readings,
        torch.ones_like(readings) / single.scale,
        theta0.float(),
        [x.float() for x in layers],
        max_iter=max_iter,
        w_rgrad=w_rgrad,
        **options | kwargs,
    )
    found = single.scaler.to_physical(result.theta.double().numpy())[0]
    return np.abs(found / truth - 1).max(), result


@pytest.mark.parametrize("system", [growth_system(), logistic_system()])
def test_recovers_a_rate_twice_that_of_the_start(system):
    error, result = recover(system, [1.0], [2.0])
    assert error < 1e-3
    assert result.settled.all()
    assert result.n_iter < 1000


def test_plain_adam_of_the_paper_recovers_it_too():
    error, _ = recover(
        growth_system(),
        [1.0],
        [2.0],
        upper="adam",
        lr_params=3e-3,
        rotate=False,
        lr_net=1e-3,
        w_error=0.0,
        max_iter=1000,
    )
    assert error < 2e-3


def test_without_the_residual_gradient_params_go_astray():
    truth = np.array([1.6, 0.3])
    options = {"upper": "adam", "lr_params": 3e-3, "w_error": 0.0}
    good, _ = recover(forced_system(), [1.0, 1.0], truth, **options)
    options |= {"w_rgrad": 0.0, "max_iter": 500}
    bad, _ = recover(forced_system(), [1.0, 1.0], truth, **options)
    assert good < 5e-3
    assert bad > 0.1


def test_recovers_lotka_volterra_from_half_above():
    system = lotka_volterra(times=np.linspace(0, 5, 21))
    error, _ = recover(system, 1.5 * system.nominal, system.nominal, max_iter=1000)
    assert error < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_recovers_lotka_volterra_from_half_off(factor):
    system = lotka_volterra(times=np.linspace(0, 5, 21))
    start = factor * system.nominal
    error, result = recover(system, start, system.nominal, max_iter=2000)
    assert error < 2e-3
    assert result.settled.all()


def test_rotated_adam_solves_what_plain_adam_does_not():
    # A quadratic whose curvatures differ a millionfold, in a turned basis.
    rng = np.random.default_rng(0)
    basis = torch.as_tensor(np.linalg.qr(rng.standard_normal((6, 6)))[0])
    curvature = torch.logspace(0, -6, 6, dtype=torch.float64)[:, None]
    losses = {}
    for rotate in (True, False):
        x = torch.ones(1, 6, 1, dtype=torch.float64)
        optimizer = StackedAdam([x], 0.03, rotate=rotate)
        for step in range(400):
            gradient = basis @ (curvature * (basis.T @ x))
            (move,) = optimizer.moves([gradient], 1 - step / 400)
            x = x + move
        losses[rotate] = float((curvature * (basis.T @ x).square()).sum())
    assert losses[True] < 0.1 * losses[False]


def test_ctrl_c_keeps_what_was_found():
    operator, solution, theta0 = make_operator(growth_system(), [1.0])

    def press(*args):
        raise KeyboardInterrupt

    layers = pretrain(
        operator, theta0, solution, max_iter=50, w_rgrad=0.1, progress=press
    )
    readings = torch.as_tensor(exact(growth_system(), [[2.0]]))
    result = fine_tune(
        operator,
        readings,
        torch.ones_like(readings),
        theta0,
        layers,
        max_iter=300,
        lr_net=1e-2,
        lr_params=3e-3,
        w_rgrad=0.1,
        progress=press,
    )
    assert result.n_iter.tolist() == [100]
    assert result.theta > theta0


def make_inverter(**kwargs):
    options = {"noise_std": 0.01, "width": 16, "max_iter": 1000}
    options |= {"pretrain_iter": 200, "random_state": 0}
    return BiLOInverter(**{"system": growth_system(), **options, **kwargs})


def growth_pairs():
    rates = np.array([1.0, 2.0, 3.5])
    return np.exp(np.outer(rates, TIMES)), rates


@pytest.fixture(scope="module")
def fitted():
    return make_inverter().fit(*growth_pairs())


@pytest.fixture
def brief(fitted):
    """Return the same inverter, which takes a few steps only and does not mind."""
    return copy.copy(fitted).set_params(max_iter=20, tol=np.inf)


def test_inverter_recovers_and_says_how_it_went(fitted):
    observations, rates = growth_pairs()
    observations[0, ::2] = np.nan
    result = fitted.invert(observations)
    np.testing.assert_allclose(result.params, rates, rtol=2e-3)
    assert (result.status == InversionStatus.CONVERGED).all()
    assert result.explained.all()
    assert result.n_readings.tolist() == [10, 21, 21]
    assert fitted.pretrain_loss_[-1] < 1e-4
    assert fitted.n_iter_ == 1
    alone = fitted.predict(observations[1:2])
    np.testing.assert_allclose(result.params[1:2], alone, rtol=1e-3)


def test_prior_and_readings_weigh_as_with_other_inverters(fitted):
    # Readings without information leave the middle of the box; noise says how much.
    observations, _ = growth_pairs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wide = fitted.predict(observations[:1], noise_std=1e4)
    np.testing.assert_allclose(wide, [2.25], rtol=1e-3)
    simulator = ODESimulator(growth_system())
    exact = GradientInverter(simulator, random_state=0).fit(*growth_pairs())
    expected = exact.predict(observations[:1], noise_std=1.0)
    found = fitted.predict(observations[:1], noise_std=1.0)
    np.testing.assert_allclose(found, expected, rtol=5e-3)


def test_start_is_in_units_of_the_params():
    with pytest.raises(ValueError, match=r"`start` must have shape \(n_params,\)"):
        make_inverter(start=[1.0, 2.0]).fit(*growth_pairs())
    with pytest.raises(ValueError, match="must lie within its bounds"):
        make_inverter(start=[9.0]).fit(*growth_pairs())
    inverter = make_inverter(start=[1.0], pretrain_iter=5).fit(*growth_pairs())
    np.testing.assert_allclose(inverter._start_unit, 0.5 / 3.5)


def test_system_must_fit_the_pairs():
    with pytest.raises(ValueError, match="`system` and the training pairs must agree"):
        make_inverter(system=forced_system()).fit(*growth_pairs())
    with pytest.raises(ValueError, match="needs two output times or more"):
        make_inverter(system=growth_system().until(1)).fit([[1.0]] * 2, [1.0, 2.0])


def test_too_few_steps_are_said(fitted):
    inverter = copy.copy(fitted).set_params(max_iter=20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MisfitWarning)
        with pytest.warns(ConvergenceWarning, match="did not converge"):
            result = inverter.invert(growth_pairs()[0])
    assert (result.status == InversionStatus.MAX_ITER).all()


def test_channels_need_not_be_states():
    system = forced_system(observe=weighted_sum)
    params = np.array([[0.8, 0.5], [1.4, 1.5]])
    observations = ODESimulator(system).simulate(params)
    inverter = make_inverter(system=system, max_iter=1000, tol=1e-3)
    inverter.fit(observations, params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = inverter.predict(observations[:1])
    np.testing.assert_allclose(found, params[:1], rtol=0.03)


def test_learned_surrogate_may_supply_the_first_solution():
    rates = np.linspace(0.5, 4.0, 40)
    observations = np.exp(np.outer(rates, TIMES))
    surrogate = ODESurrogate(
        bounds=BOX, n_basis=4, embedding=16, max_epochs=40, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inverter = make_inverter(surrogate=surrogate).fit(observations, rates)
        learned = inverter.surrogate_.simulate([[2.25]])[0]
        np.testing.assert_array_equal(inverter._solve().states, learned)
        found = inverter.predict(observations[[10, 25]])
    np.testing.assert_allclose(found, rates[[10, 25]], rtol=0.05)


@pytest.mark.filterwarnings("ignore")
def test_result_does_not_depend_on_the_number_of_workers(brief):
    observations, _ = growth_pairs()
    one = brief.set_params(chunk_size=1).predict(observations)
    with joblib.parallel_config("threading"):
        two = copy.copy(brief).set_params(n_jobs=2).predict(observations)
    np.testing.assert_array_equal(one, two)

    def local_growth(t, y, params):  # a function made in a function travels by value
        return params * y

    system = ODESystem(local_growth, initial_state=[1.0], bounds=BOX, times=TIMES)
    inverter = clone(brief).set_params(system=system, tol=0.0).fit(*growth_pairs())
    inverter.set_params(tol=brief.tol, n_jobs=2)
    with joblib.parallel_config("loky"):
        apart = inverter.predict(observations)
    np.testing.assert_allclose(one, apart, rtol=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_survives_dump_and_load_and_clone(brief, tmp_path):
    observations, _ = growth_pairs()
    joblib.dump(brief, tmp_path / "inverter.joblib")
    loaded = joblib.load(tmp_path / "inverter.joblib")
    np.testing.assert_array_equal(
        loaded.predict(observations), brief.predict(observations)
    )
    copied = clone(brief)
    assert not hasattr(copied, "n_iter_")
    assert copied.get_params()["max_iter"] == 20


def test_readings_must_be_finite_or_missing(fitted):
    observations, _ = growth_pairs()
    with pytest.raises(ValueError, match="NaN"):
        fitted.predict(np.full_like(observations, np.nan))
    observations[1, 3] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        fitted.predict(observations)


def test_gives_no_uncertainty(fitted):
    with pytest.raises(TypeError, match="return_std"):
        fitted.predict(growth_pairs()[0], return_std=True)


@pytest.mark.parametrize("where", ["operator_loss", "linearize", "data_loss"])
def test_ctrl_c_in_the_middle_of_a_step(fitted, monkeypatch, where):
    calls = 0
    inner = getattr(LocalOperator, where)

    def press(*args):
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return inner(*args)

    monkeypatch.setattr(LocalOperator, where, press)
    upper = "adam" if where == "data_loss" else "gauss_newton"
    inverter = copy.copy(fitted).set_params(upper=upper)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MisfitWarning)
        with pytest.warns(ConvergenceWarning, match="Interrupted"):
            result = inverter.invert(growth_pairs()[0])
    assert (result.status == InversionStatus.INTERRUPTED).all()
    assert (result.n_iter == 4).all()
    assert np.isfinite(result.params).all()
    assert (result.params != 2.25).all()


def test_ctrl_c_within_the_optimizer_changes_nothing(fitted, monkeypatch):
    def press(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(StackedAdam, "moves", press)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = fitted.invert(growth_pairs()[0])
    assert (result.status == InversionStatus.INTERRUPTED).all()
    np.testing.assert_allclose(result.params, 2.25, rtol=1e-6)
