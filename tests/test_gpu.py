"""On a GPU everything trains and answers as on the CPU, and can go back to it."""

import os
import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch.callbacks import Callback

from sklearn_inverse import (
    ADMInverter,
    CMAESInverter,
    Design,
    FlowInverter,
    ForwardFunction,
    GradientInverter,
    ODESimulator,
    ODESurrogate,
    ODESystem,
    Operator,
    RefinedInverter,
    ReparamJointInverter,
    Training,
)
from sklearn_inverse.baselines import (
    BatchCoupledADM,
    FlowMatchingInverter,
    FMGradInverter,
    GradientDescentInverter,
    IFNOInverter,
    NeuralAdjointInverter,
    NIOInverter,
    SGLDInverter,
    SpinODEInverter,
)
from sklearn_inverse.collocation import Bilevel
from sklearn_inverse.inverse import BiLOInverter
from sklearn_inverse.probability import LogNormal, Poisson

pytestmark = [
    pytest.mark.gpu,
    # Of hundreds of readings with noise a few are unlikely, and said to be.
    pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.MisfitWarning"),
]

TIMES = np.linspace(0.0, 2.0, 8)
NOISE = 0.02


def decay(k):
    return np.exp(-np.reshape(k, (-1, 1)) * TIMES)


def draw(n_samples, seed):
    return np.random.default_rng(seed).uniform(0.5, 2.0, n_samples)


PARAMS = draw(1000, seed=0)
TRAJECTORIES = decay(PARAMS)
NEW_PARAMS = draw(400, seed=1)


@pytest.fixture(scope="module")
def readings():
    """Two noisy readings of each new decay."""
    rng = np.random.default_rng(2)
    noisy = decay(NEW_PARAMS) + NOISE * rng.standard_normal((400, 8))
    return np.where(rng.random((400, 8)).argsort(axis=1) < 2, noisy, np.nan)


class WhereBatchesLive(Callback):
    """Remember the devices of batches and predictions."""

    def __init__(self, devices):
        self.devices = devices

    def on_batch_end(self, net, batch=None, y_pred=None, **kwargs):
        inputs, target = batch
        tensors = [*inputs.values()]
        for part in (target, y_pred):
            tensors += part if isinstance(part, tuple | list) else [part]
        self.devices |= {tensor.device.type for tensor in tensors}


def make_surrogate(device, max_epochs=5, callbacks=None, module="cfno"):
    return ODESurrogate(
        params={"k": (0.5, 2.0)},
        noise=NOISE,
        network=Operator(width=16, n_layers=1, module=module),
        n_basis=3,
        basis_epochs=60,
        training=Training(max_epochs=max_epochs, callbacks=callbacks),
        device=device,
        random_state=0,
    )


def make_inverter(
    surrogate, device, cls=ADMInverter, n_observed=2, training=None, **kwargs
):
    training = {"lr": 3e-3, "batch_size": 128, "max_epochs": 60} | (training or {})
    return cls(
        surrogate,
        design=Design(n_observed=n_observed),
        training=Training(**training),
        n_steps=5,
        width=64,
        n_blocks=1,
        device=device,
        random_state=0,
        **kwargs,
    )


@pytest.fixture(scope="module")
def surrogates():
    return {
        device: make_surrogate(device).fit(TRAJECTORIES, PARAMS)
        for device in ("cpu", "cuda")
    }


@pytest.fixture(scope="module")
def inverters(surrogates):
    return {
        device: make_inverter(FrozenEstimator(surrogates[device]), device).fit(
            TRAJECTORIES, PARAMS
        )
        for device in ("cpu", "cuda")
    }


def emulation_error(surrogate):
    off = surrogate.simulate(NEW_PARAMS)[..., 0] - decay(NEW_PARAMS)
    return np.sqrt((off**2).mean()) / TRAJECTORIES.std()


def test_surrogate_learns_on_a_gpu_as_on_the_cpu(surrogates):
    errors = {name: emulation_error(s) for name, s in surrogates.items()}
    assert max(errors.values()) < 0.06
    assert errors["cuda"] == pytest.approx(errors["cpu"], rel=0.2)


@pytest.mark.parametrize("module", ["fno", "deeponet", "mgno"])
def test_every_operator_learns_on_a_gpu_and_answers_on_the_cpu(module, readings):
    surrogate = make_surrogate("cuda", module=module).fit(TRAJECTORIES, PARAMS)
    assert emulation_error(surrogate) < 0.1
    on_gpu = surrogate.simulate(NEW_PARAMS, readings)
    on_cpu = surrogate.set_params(device="cpu").simulate(NEW_PARAMS, readings)
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-3, atol=1e-4)


def test_inverter_learns_on_a_gpu_as_on_the_cpu(inverters, readings):
    scores = {name: i.score(readings, NEW_PARAMS) for name, i in inverters.items()}
    assert min(scores.values()) > 0.9
    assert scores["cuda"] == pytest.approx(scores["cpu"], abs=0.03)


def test_spread_learned_on_a_gpu_is_as_honest(inverters, readings):
    mean, std = inverters["cuda"].predict(readings, return_std=True)
    covered = np.abs(mean - NEW_PARAMS) < 1.645 * std
    assert 0.8 < covered.mean() < 0.98


def test_same_weights_answer_alike_on_both_devices(surrogates, inverters, readings):
    surrogate, inverter = surrogates["cuda"], inverters["cuda"]

    def answers():
        return (
            surrogate.simulate(NEW_PARAMS, readings),
            surrogate.transform(readings),
            *inverter.predict(readings, return_std=True),
            inverter.sample(readings, 3),
        )

    on_gpu = answers()
    try:
        surrogate.set_params(device="cpu")
        inverter.set_params(device="cpu")
        on_cpu = answers()
    finally:
        surrogate.set_params(device="cuda")
        inverter.set_params(device="cuda")
    for a, b in zip(on_gpu, on_cpu):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_data_stay_on_the_device():
    devices = set()
    callbacks = [WhereBatchesLive(devices)]
    surrogate = make_surrogate("cuda", max_epochs=1, callbacks=callbacks)
    surrogate.fit(TRAJECTORIES, PARAMS)
    assert devices == {"cuda"}
    frozen = FrozenEstimator(surrogate.set_params(training__callbacks=None))
    training = {"callbacks": callbacks, "max_epochs": 1}
    for rollout in (True, False):
        inverter = make_inverter(frozen, "cuda", rollout=rollout, training=training)
        inverter.fit(TRAJECTORIES, PARAMS)
    assert devices == {"cuda"}


@pytest.mark.parametrize(
    "options",
    [
        {"cls": BatchCoupledADM},
        {"cls": BatchCoupledADM, "normalize": True, "n_coupled": 4},
        {"cls": FMGradInverter},
        {"n_particles": 2, "n_observed": None},
        {"training": {"max_epochs": 2, "patience": 1}},
    ],
    ids=str,
)
def test_options_train_on_a_gpu(surrogates, readings, options):
    frozen = FrozenEstimator(surrogates["cuda"])
    options = {"training": {"max_epochs": 2}} | options
    inverter = make_inverter(frozen, "cuda", **options).fit(TRAJECTORIES, PARAMS)
    assert np.isfinite(inverter.predict(readings)).all()


@pytest.mark.parametrize("cls", [FlowInverter, FlowMatchingInverter])
def test_draws_are_learned_on_a_gpu_as_on_the_cpu(cls, readings):
    times = torch.as_tensor(TIMES)
    devices, answers = set(), {}
    for device in ("cpu", "cuda"):
        model = ForwardFunction(
            lambda k: torch.exp(-k * times.to(k.device)),
            params={"k": (0.5, 2.0)},
            noise=NOISE,
            device=device,
        )
        callbacks = [WhereBatchesLive(devices)] if device == "cuda" else None
        inverter = cls(
            model,
            design=Design(n_observed=2),
            training=Training(
                lr=3e-3, batch_size=128, max_epochs=40, callbacks=callbacks
            ),
            width=64,
            n_blocks=1,
            n_draws=200,
            device=device,
            random_state=0,
        )
        answers[device] = inverter.fit(TRAJECTORIES, PARAMS).posterior(readings)
    assert devices == {"cuda"}
    for answer in answers.values():
        low, high = answer.interval(0.9)
        inside = (low[:, 0] < NEW_PARAMS) & (high[:, 0] > NEW_PARAMS)
        assert 0.8 < inside.mean() < 0.97
    off = answers["cuda"].mean - answers["cpu"].mean
    assert np.sqrt((off**2).mean()) < 0.5 * answers["cpu"].std.mean()
    on_gpu = inverter.sample(readings[:20], 50)
    inverter.set_params(device="cpu", model__device="cpu")
    np.testing.assert_allclose(
        inverter.sample(readings[:20], 50), on_gpu, rtol=1e-3, atol=1e-3
    )


def test_same_random_state_gives_the_same_answers_on_a_gpu(surrogates, readings):
    frozen = FrozenEstimator(surrogates["cuda"])
    first, second = (
        make_inverter(frozen, "cuda", training={"max_epochs": 2})
        .fit(TRAJECTORIES, PARAMS)
        .predict(readings)
        for _ in range(2)
    )
    np.testing.assert_allclose(first, second, rtol=1e-4)


@pytest.mark.parametrize("cls", [NIOInverter, IFNOInverter])
def test_single_passes_learn_on_a_gpu_and_answer_on_the_cpu(cls, surrogates, readings):
    inverter = cls(
        FrozenEstimator(surrogates["cuda"]),
        design=Design(n_observed=2),
        training=Training(lr=1e-2, max_epochs=20),
        width=16,
        device="cuda",
        random_state=0,
    ).fit(TRAJECTORIES, PARAMS)
    on_gpu = inverter.predict(readings)
    assert inverter.score(readings, NEW_PARAMS) > 0.8
    on_cpu = inverter.set_params(device="cpu").predict(readings)
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-3, atol=1e-4)


def test_training_leaves_the_gpu_generator_alone():
    before = torch.cuda.get_rng_state()
    make_surrogate("cuda", max_epochs=1).fit(TRAJECTORIES, PARAMS)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def decay_rhs(t, y, p):
    return -p.k * y.amount


def make_system(noise=NOISE, observe=None, **params):
    return ODESystem(
        decay_rhs,
        states={"amount": 1.0},
        params={"k": (0.5, 2.0)} | params,
        times=TIMES,
        observe=observe,
        noise=noise,
    )


def test_the_simulator_runs_on_a_gpu():
    simulator = ODESimulator(make_system(), device="cuda")
    trajectories = simulator.simulate(NEW_PARAMS)
    np.testing.assert_allclose(trajectories[..., 0], decay(NEW_PARAMS), rtol=1e-5)


def test_auto_trains_on_the_gpu_and_answers_where_there_is_none(tmp_path, readings):
    surrogate = make_surrogate("auto", max_epochs=1)
    inverter = make_inverter(surrogate, "auto", training={"max_epochs": 2})
    inverter.fit(TRAJECTORIES, PARAMS)
    for net in (inverter.net_, inverter.model_.net_):
        assert next(net.module_.parameters()).is_cuda
    joblib.dump((inverter, readings), tmp_path / "inverter.joblib")
    # What was dumped is a copy: the model itself is still where it was.
    assert next(inverter.net_.module_.parameters()).is_cuda
    code = (
        "import sys, joblib, torch\n"
        "assert not torch.cuda.is_available()\n"
        "inverter, readings = joblib.load(sys.argv[1] + '/inverter.joblib')\n"
        "answers = inverter.predict(readings), inverter.reconstruct(readings)\n"
        "joblib.dump(answers, sys.argv[1] + '/answers.joblib')\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        check=True,
    )
    params, trajectories = joblib.load(tmp_path / "answers.joblib")
    np.testing.assert_allclose(params, inverter.predict(readings), rtol=1e-3)
    np.testing.assert_allclose(
        trajectories, inverter.reconstruct(readings), rtol=1e-3, atol=1e-4
    )


def searchers(device):
    """Inverters that search, on one device."""
    simulator = ODESimulator(make_system(), method="tsit5", device=device)
    few = Training(max_epochs=2)
    options = {"device": device, "random_state": 0}
    gauss_newton = GradientInverter(simulator, n_starts=2, **options)
    return {
        "gauss_newton": gauss_newton,
        "lbfgs": GradientInverter(simulator, optimizer="lbfgs", n_starts=2, **options),
        "no_prior": GradientInverter(simulator, n_starts=1, prior=None, **options),
        "descent": GradientDescentInverter(
            simulator, n_starts=3, max_iter=20, **options
        ),
        "sgld": SGLDInverter(simulator, n_starts=3, max_iter=20, **options),
        "spin_ode": SpinODEInverter(simulator, max_iter=20, tune_iter=20, **options),
        "cmaes": CMAESInverter(simulator, tol=1e-6, **options),
        "refined": RefinedInverter(gauss_newton, simulator, **options),
        "reparam": ReparamJointInverter(
            simulator, training=few, max_iter=10, **options
        ),
        "adjoint": NeuralAdjointInverter(
            simulator,
            training=Training(max_epochs=100),
            n_starts=4,
            max_iter=50,
            **options,
        ),
        "bilo": BiLOInverter(
            simulator,
            pretrain_iter=50,
            descent=Bilevel(max_iter=100, tol=0.0),
            **options,
        ),
    }


ROUGH = {"bilo": 0.03}  # in single precision


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", searchers("cpu"))
def test_searches_end_where_those_of_the_cpu_do(name, readings):
    found = [
        searchers(device)[name]
        .fit(TRAJECTORIES[:200], PARAMS[:200])
        .predict(readings[:20])
        for device in ("cuda", "cpu")
    ]
    # A network that is trained is another after the first round-off.
    if name in ("adjoint", "spin_ode"):
        assert np.corrcoef(*found)[0, 1] > 0.9
    else:
        np.testing.assert_allclose(*found, rtol=ROUGH.get(name, 1e-2))


@pytest.mark.parametrize(
    "system",
    [
        make_system(noise=None),
        make_system(LogNormal("sigma"), sigma=LogNormal(0.05, 1)),
        make_system(Poisson(), observe={"count": lambda t, y, p: 500 * y.amount}),
    ],
    ids=["unknown", "param", "counts"],
)
def test_all_kinds_of_noise_are_weighed_on_a_gpu(system):
    rng = np.random.default_rng(2)
    readings = decay([1.0]) * np.exp(NOISE * rng.standard_normal((1, 8)))
    if system.observable_names == ["count"]:
        readings = np.round(500 * readings)
    on_gpu, on_cpu = (
        GradientInverter(system, n_starts=2, device=device, random_state=0)
        .fit(readings)
        .posterior(readings)
        for device in ("cuda", "cpu")
    )
    for what in ("mean", "std", "noise_scale"):
        expected = getattr(on_cpu, what)
        np.testing.assert_allclose(getattr(on_gpu, what), expected, rtol=1e-3)
