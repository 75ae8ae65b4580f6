"""Inference from several experiments, and from samples with inputs of their own."""

import io

import joblib
import numpy as np
import pytest
import sklearn
from scipy.linalg import expm
from scipy.optimize import curve_fit, least_squares
from scipy.special import lambertw
from sklearn.model_selection import GridSearchCV

from sklearn_inverse import (
    ADMInverter,
    BiLOInverter,
    CMAESInverter,
    Design,
    Dose,
    Experiment,
    FlowInverter,
    GradientInverter,
    ODESimulator,
    ODESurrogate,
    ODESystem,
    RefinedInverter,
    Training,
)
from sklearn_inverse.baselines import NIOInverter
from sklearn_inverse.datasets import make_inverse_problem, read_table


def enzyme(t, y, p):
    rate = p.vmax * y.s / (p.km + y.s)
    return [-rate, rate]


def michaelis_menten(noise=0.05, inputs=("s0",), params=None, **options):
    return ODESystem(
        enzyme,
        states={"s": "s0", "product": 0.0},
        params={"vmax": (0.1, 10), "km": (0.1, 50)} | (params or {}),
        observe=["product"],
        noise=noise,
        inputs=inputs,
        **options,
    )


def progress(ts0, vmax, km):
    """Return the product at times and initial concentrations, in closed form."""
    t, s0 = ts0
    return s0 - km * np.real(lambertw(s0 / km * np.exp((s0 - vmax * t) / km)))


def curves():
    t = np.concatenate(
        [np.linspace(0.5, e, n) for e, n in ((6, 12), (10, 15), (20, 14))]
    )
    s0 = np.repeat([1.0, 4.0, 10.0], [12, 15, 14])
    clean = progress((t, s0), 1.3, 3.0)
    rng = np.random.default_rng(0)
    return t, s0, clean + 0.05 * rng.standard_normal(len(t))


def test_progress_curves_of_a_table_are_fitted_as_by_least_squares():
    t, s0, value = curves()
    table = {"experiment": s0.astype(str), "s0": s0, "time": t, "value": value}
    system = michaelis_menten("sigma", params={"sigma": (1e-3, 1)})
    system, observed = read_table(system, table)
    answer = GradientInverter(system, random_state=0).fit(observed).posterior(observed)
    best, covariance = curve_fit(progress, (t, s0), value, p0=[1, 1])
    error = np.sqrt(np.diag(covariance))
    sigma = np.sqrt(((progress((t, s0), *best) - value) ** 2).sum() / (len(t) - 2))
    np.testing.assert_allclose(answer.mean[0], [*best, sigma], rtol=0.02)
    np.testing.assert_allclose(answer.std[0, :2], error, rtol=0.02)
    assert answer.std[0, 2] == pytest.approx(sigma / np.sqrt(2 * 39), rel=0.05)


def two_compartments(t, y, p):
    out = (p.k10 + p.k12) * y.central - p.k21 * y.tissue
    return [-out, p.k12 * y.central - p.k21 * y.tissue]


TIMES = np.array(
    [0.5, 1, 2, 4, 8, 12.5, 13, 16, 20, 24.5, 28, 36.5, 38, 40, 49, 52, 60]
)
PATIENT = ODESystem(
    two_compartments,
    states={"central": 0.0, "tissue": 0.0},
    params={"k10": (0.02, 1), "k12": (0.02, 1), "k21": (0.02, 1), "v": (5, 50)},
    observe={"level": lambda t, y, p: y.central / p.v},
    experiments=[
        Experiment(
            TIMES,
            start=0,
            events=[
                Dose("central", 100.0, [0, 12, 24]),
                Dose("central", 80.0, [36, 48], duration=2.0),
            ],
        )
    ],
)


def levels(theta):
    """Return the central level of the patient by matrix exponentials."""
    k10, k12, k21, v = theta
    a = np.array([[-k10 - k12, k21], [k12, -k21]])
    total = np.zeros(len(TIMES))
    for begin in (0, 12, 24):
        since = TIMES - begin
        total[since >= 0] += [100 * expm(a * s)[0, 0] for s in since[since >= 0]]
    inverse = np.linalg.inv(a)
    for begin in (36, 48):
        for i, s in enumerate(TIMES - begin):
            if s > 0:
                after = expm(a * max(s - 2, 0))
                rise = inverse @ (expm(a * min(s, 2.0)) - np.eye(2))
                total[i] += 40 * (after @ rise)[0, 0]
    return total / v


def test_a_patient_dosed_five_times_is_fitted_as_in_closed_form():
    truth = np.array([0.15, 0.2, 0.1, 15.0])
    rng = np.random.default_rng(3)
    value = levels(truth) + 0.1 * rng.standard_normal(len(TIMES))
    inverter = GradientInverter(PATIENT, prior=None, random_state=0).fit([value])
    answer = inverter.posterior([value])
    best = least_squares(
        lambda log: levels(np.exp(log)) - value, np.log(truth), xtol=1e-12
    )
    scale = 2 * best.cost / (len(TIMES) - 4)
    error = np.exp(best.x) * np.sqrt(
        scale * np.diag(np.linalg.inv(best.jac.T @ best.jac))
    )
    np.testing.assert_allclose(answer.params[0], np.exp(best.x), rtol=1e-4)
    np.testing.assert_allclose(answer.std[0], error, rtol=0.01)
    assert answer.noise_scale[0, 0] ** 2 == pytest.approx(scale, rel=1e-3)


def given(t, y, p):
    return [-p.ka * y.gut, p.ka * y.gut - p.ke * y.blood]


PATIENTS = ODESystem(
    given,
    states={"gut": 0.0, "blood": 0.0},
    params={"ka": (0.3, 3), "ke": (0.05, 0.5), "v": (5, 50)},
    inputs={"dose": (50, 400), "second": (4, 16)},
    events=[Dose("gut", "dose", [0, "second"])],
    observe={"level": lambda t, y, p: y.blood / p.v},
    noise=0.2,
    times=np.arange(0.0, 25.0, 1.5),
)


def test_twelve_patients_at_once_are_twelve_patients():
    data = make_inverse_problem(PATIENTS, 12, noisy=True, n_observed=9, random_state=0)
    assert data.inputs.shape == (12, 2)
    assert np.ptp(data.inputs, axis=0).min() > 5
    known = {"inputs": dict(zip(["dose", "second"], data.inputs.T))}
    inverter = GradientInverter(PATIENTS, n_starts=2, random_state=0)
    together = inverter.fit(data.observations, **known).posterior(
        data.observations, **known
    )
    for i, inputs in list(enumerate(data.inputs))[::4]:
        alone = ODESystem(
            given,
            states={"gut": 0.0, "blood": 0.0},
            params={"ka": (0.3, 3), "ke": (0.05, 0.5), "v": (5, 50)},
            events=[Dose("gut", inputs[0], [0, inputs[1]])],
            observe={"level": lambda t, y, p: y.blood / p.v},
            noise=0.2,
            times=PATIENTS.times,
        )
        one = data.observations[[i]]
        single = GradientInverter(alone, n_starts=2, random_state=0).fit(one)
        answer = single.posterior(one)
        np.testing.assert_allclose(together.mean[i], answer.mean[0], rtol=1e-4)
        np.testing.assert_allclose(together.std[i], answer.std[0], rtol=1e-3)


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.MisfitWarning")
@pytest.mark.parametrize(
    "cls", [ADMInverter, pytest.param(FlowInverter, marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_one_amortized_model_answers_for_every_dose(cls):
    system = ODESystem(
        lambda t, y, p: [-p.ke * y.blood],
        states={"blood": "dose"},
        params={"ke": (0.1, 1), "v": (5, 50)},
        inputs={"dose": (50, 400)},
        observe={"level": lambda t, y, p: y.blood / p.v},
        noise=0.2,
        times=[0.5, 1, 2, 4, 6],
    )
    pairs = make_inverse_problem(system, 2000, random_state=0)
    test = make_inverse_problem(system, 200, noisy=True, random_state=1)
    inverter = cls(
        system,
        design=Design(n_observed=5),
        training=Training(max_epochs=25),
        width=64,
        n_blocks=2,
        random_state=0,
    ).fit(pairs.observations, pairs.params, inputs=pairs.inputs)
    quantiles = system.prior.to_quantile(test.params)

    def error(inputs):
        mean = inverter.predict(test.observations, inputs=inputs)
        return np.mean((system.prior.to_quantile(mean) - quantiles) ** 2, axis=0)

    # Of a dose that was another one, the volume is off by as much.
    assert error(test.inputs)[1] < 0.02 < 0.05 < error(test.inputs[::-1])[1]
    assert error(test.inputs)[0] < 0.02
    with pytest.raises(ValueError, match=r"must hold \['dose'\]"):
        inverter.predict(test.observations)
    with pytest.warns(match=r"1 of 2 samples .* range \[\[50.0, 400.0\]\].*row 1"):
        inverter.predict(test.observations[:2], inputs=[300.0, 500.0])


def test_a_surrogate_learns_what_inputs_do():
    system = michaelis_menten(inputs={"s0": (1, 10)}, noise=0.05, times=range(11))
    pairs = make_inverse_problem(system, 400, random_state=0)
    test = make_inverse_problem(system, 50, random_state=1)
    surrogate = ODESurrogate(system, training=Training(max_epochs=10), random_state=0)
    with pytest.warns(match="error is not small beside the noise"):
        surrogate.fit(pairs.observations, pairs.params, inputs=pairs.inputs)
    off = surrogate.simulate(test.params, inputs=test.inputs) - test.trajectories
    assert np.sqrt(np.mean(off**2)) < 0.15 * test.trajectories.std()
    with pytest.warns(match="50 of 50 samples have params or inputs outside"):
        surrogate.simulate(test.params, inputs=test.inputs + 10)


def test_every_searching_inverter_takes_inputs():
    system = michaelis_menten(inputs={"s0": (1, 10)}, noise=0.02, times=range(11))
    data = make_inverse_problem(system, 2, noisy=True, random_state=2)
    exact = GradientInverter(system, n_starts=2, random_state=0)
    wanted = exact.fit(data.observations, inputs=data.inputs)
    wanted = wanted.posterior(data.observations, inputs=data.inputs)
    for inverter in (
        CMAESInverter(system, random_state=0),
        RefinedInverter(exact, system, random_state=0),
    ):
        inverter.fit(data.observations, inputs=data.inputs)
        found = inverter.invert(data.observations, inputs=data.inputs)
        close = np.abs(found.params - wanted.params) < 0.5 * wanted.std
        assert close[:, :2].all(), type(inverter)


@pytest.mark.parametrize("kind", [NIOInverter, BiLOInverter])
def test_networks_that_know_no_inputs_refuse_them(kind):
    system = michaelis_menten(inputs={"s0": (1, 10)}, noise=0.02, times=range(11))
    data = make_inverse_problem(system, 4, random_state=2)
    with pytest.raises(ValueError, match=r"no inputs \['s0'\] that differ"):
        kind(system).fit(data.observations, data.params)


def three(**options):
    experiments = [
        Experiment(np.linspace(0.5, e, 8), inputs={"s0": s}, start=0, name=str(s))
        for s, e in ((1.0, 6), (4.0, 10), (10.0, 20))
    ]
    return michaelis_menten(experiments=experiments, **options)


def test_a_sample_may_lack_an_experiment():
    system = three(noise=0.05)
    data = make_inverse_problem(system, 2, noisy=True, random_state=0)
    readings = data.observations.copy()
    readings[1, 8:16] = np.nan
    inverter = GradientInverter(system, random_state=0).fit(readings)
    answer = inverter.posterior(readings)
    fewer = system.with_experiments([system.experiments[i] for i in (0, 2)])
    kept = np.delete(readings[[1]], slice(8, 16), axis=1)
    alone = GradientInverter(fewer, random_state=0).fit(kept).posterior(kept)
    np.testing.assert_allclose(answer.mean[1, :2], alone.mean[0, :2], rtol=1e-3)
    np.testing.assert_allclose(answer.std[1, :2], alone.std[0, :2], rtol=1e-2)


def test_repeats_weigh_as_their_mean_with_less_noise():
    rng = np.random.default_rng(0)
    times = np.linspace(1, 12, 6)
    twice = 0.05 * rng.standard_normal((2, 6)) + progress((times, 4.0), 1.3, 3.0)
    inputs = {"s0": 4.0}
    often = Experiment(np.repeat(times, 2), inputs=inputs, start=0)
    once = Experiment(times, inputs=inputs, start=0)
    results = []
    for experiment, noise, readings in (
        (often, 0.05, twice.T.reshape(1, -1)),
        (once, 0.05 / np.sqrt(2), twice.mean(axis=0)[None]),
    ):
        system = michaelis_menten(experiments=[experiment], noise=noise)
        inverter = GradientInverter(system, random_state=0).fit(readings)
        results.append(inverter.posterior(readings))
    np.testing.assert_allclose(
        results[0].mean[0, :2], results[1].mean[0, :2], rtol=1e-4
    )
    np.testing.assert_allclose(results[0].std[0, :2], results[1].std[0, :2], rtol=1e-3)


def test_inputs_are_routed_and_survive_joblib():
    system = michaelis_menten(inputs={"s0": (1, 10)}, noise=0.05, times=range(11))
    data = make_inverse_problem(system, 6, noisy=True, random_state=0)
    inverter = GradientInverter(system, n_starts=1, random_state=0)
    with sklearn.config_context(enable_metadata_routing=True):
        inverter.set_fit_request(inputs=True).set_score_request(inputs=True)
        search = GridSearchCV(inverter, {"continuation": [True, False]}, cv=2)
        search.fit(data.observations, data.params, inputs=data.inputs)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    buffer = io.BytesIO()
    joblib.dump(search.best_estimator_, buffer)
    buffer.seek(0)
    again = joblib.load(buffer)
    np.testing.assert_array_equal(
        again.predict(data.observations, inputs=data.inputs),
        search.best_estimator_.predict(data.observations, inputs=data.inputs),
    )


def test_events_outside_the_times_do_not_happen():
    begin = Experiment([1, 2], start=0)
    plain = michaelis_menten(inputs={"s0": 4.0}, experiments=[begin])
    theta = np.array([[1.0, 2.0]])
    wanted = ODESimulator(plain).simulate(theta)
    late = plain.with_experiments(
        [Experiment([1, 2], start=0, events=[Dose("s", 1.0, [3])])]
    )
    np.testing.assert_array_equal(ODESimulator(late).simulate(theta), wanted)
    with pytest.warns(UserWarning, match="at t = -1 comes before the start of exp"):
        early = plain.with_experiments(
            [Experiment([1, 2], start=0, events=[Dose("s", 1.0, [-1])])]
        )
    np.testing.assert_array_equal(ODESimulator(early).simulate(theta), wanted)
