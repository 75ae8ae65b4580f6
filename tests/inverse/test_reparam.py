"""Joint optimization finds wave packets that BFGS misses, and spoils nothing."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sklearn_inverse import (
    ODESimulator,
    ODESurrogate,
    ODESystem,
    ReparamJointInverter,
)
from sklearn_inverse.exceptions import ConvergenceWarning, IntegrationWarning
from sklearn_inverse.forward._function import ForwardFunction
from sklearn_inverse.forward._linearize import linearize
from sklearn_inverse.inverse import InversionStatus
from sklearn_inverse.inverse._gradient import TanhBox
from sklearn_inverse.inverse._objective import Objective
from sklearn_inverse.inverse._reparam_search import reach
from sklearn_inverse.networks._reading_net import (
    AdjointNet,
    EvenBatches,
    KnownSquares,
    ReadingNet,
)
from sklearn_inverse.optim._lbfgs import lbfgs
from sklearn_inverse.utils._scaling import ParamScaler

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn_inverse.exceptions.MisfitWarning",
    "ignore::sklearn_inverse.exceptions.BoundsWarning",
)
MODES = ["joint", "supervised", "neural_adjoint"]
NOISE = 0.1
BOX = [[1.0, 256.0]]


def wave_packet(params):
    """Return a packet of 20 times' width around t0; a local optimum every period."""
    shift = torch.arange(1.0, 257.0, dtype=torch.float64) - params
    return shift.sin() * torch.exp(-((shift / 20) ** 2))


def draw_packets(n_samples, seed):
    t0 = np.random.default_rng(seed).uniform(56, 200, size=(n_samples, 1))
    return wave_packet(torch.as_tensor(t0)).numpy(), t0


PACKETS, TRUTH = draw_packets(64, seed=1)
PACKETS = PACKETS + NOISE * np.random.default_rng(2).standard_normal(PACKETS.shape)

TIMES = torch.linspace(0.0, 2.0, 8, dtype=torch.float64)
K = np.random.default_rng(0).uniform(0.5, 2.0, size=(200, 1))


def decay(params):
    return torch.exp(-params * TIMES)


CURVES = decay(torch.as_tensor(K)).numpy()
FEW = slice(0, 20)


def decay_or_nothing(params):
    """Return decays, which cannot be simulated above a rate of 1.5."""
    return decay(params).where(params <= 1.5, torch.nan)


def two_channels(params):
    amplitude, k = params[:, :1], params[:, 1:]
    u = amplitude * torch.exp(-k * TIMES)
    return torch.stack([u, 1e9 * u**2], dim=2)


def make_inverter(**kwargs):
    """Return an inverter that trains in a fraction of a second."""
    options = {
        "forward": decay,
        "architecture": "mlp",
        "width": 16,
        "pretrain_epochs": 5,
        "max_iter": 5,
        "n_starts": 4,
        "noise_std": 0.01,
        "random_state": 0,
    }
    return ReparamJointInverter(**options | kwargs)


def changed(inverter, **params):
    """Return a fitted copy with other settings for its predictions."""
    return copy.deepcopy(inverter).set_params(**params)


def objective_of(inverter, readings, params):
    readings = readings[..., None]
    noise = np.full(readings.shape, float(inverter.noise_std))
    unit = torch.as_tensor(inverter.scaler_.to_unit(params))
    value = inverter._objective(readings, noise).value(unit, torch.arange(len(unit)))
    return value.numpy()


@pytest.fixture(scope="module")
def packet_inverter():
    return ReparamJointInverter(
        forward=wave_packet,
        bounds=BOX,
        noise_std=NOISE,
        pretrain_epochs=20,
        max_iter=40,
        random_state=0,
    ).fit(*draw_packets(1200, seed=0))


@pytest.fixture(scope="module")
def found(packet_inverter):
    return packet_inverter.predict(PACKETS)


@pytest.fixture(scope="module")
def inverter():
    return make_inverter(n_observed=(2, 8)).fit(CURVES, K)


# --- what it recovers


def test_wave_packets_are_found_where_bfgs_stops_at_local_optima(
    packet_inverter, found
):
    assert (np.abs(found - TRUTH) < 1).mean() >= 0.95
    direct = straight_from_center(packet_inverter)
    assert (np.abs(direct - TRUTH) < 1).mean() < 0.2


def straight_from_center(inverter):
    """Minimize the same objective without a network."""
    readings = PACKETS[..., None]
    objective = inverter._objective(readings, np.full(readings.shape, NOISE))
    box = TanhBox(objective, torch.arange(len(readings)))
    start = torch.zeros(len(readings), 1, dtype=torch.float64)
    end = lbfgs(box, start, max_iter=100, tol=1e-8)
    return inverter.scaler_.to_physical(box.unit(end.unit).numpy())


def test_the_best_of_all_candidates_is_kept(packet_inverter, found):
    best = objective_of(packet_inverter, PACKETS, found)
    candidates = [
        changed(packet_inverter, refine=False).predict(PACKETS),
        changed(packet_inverter, mode="supervised", refine=False).predict(PACKETS),
        changed(packet_inverter, mode="supervised").predict(PACKETS),
        straight_from_center(packet_inverter),
    ]
    for params in candidates:
        value = objective_of(packet_inverter, PACKETS, params)
        assert (best <= value * (1 + 1e-9)).all()


def test_joint_training_lowers_the_sum_of_misfits(packet_inverter):
    supervised, joint = (
        changed(packet_inverter, mode=mode, refine=False).invert(PACKETS)
        for mode in ("supervised", "joint")
    )
    assert joint.misfit.sum() < 0.8 * supervised.misfit.sum()
    np.testing.assert_allclose(joint.start_misfit, supervised.misfit)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("architecture", ["conv", "mlp"])
def test_every_mode_recovers_a_rate_despite_missing_readings(mode, architecture):
    inverter = make_inverter(
        mode=mode, architecture=architecture, n_observed=(2, 8), pretrain_epochs=20
    ).fit(CURVES, K)
    readings = CURVES[FEW].copy()
    readings[np.random.default_rng(0).random(readings.shape) < 0.5] = np.nan
    readings[:, 3] = CURVES[FEW, 3]
    result = inverter.invert(readings)
    np.testing.assert_allclose(result.params, K[FEW], atol=0.02)
    assert (result.status == InversionStatus.CONVERGED).all()
    assert result.explained.all()


def test_plain_joint_training_starts_from_random_weights():
    inverter = make_inverter(pretrain=False, max_iter=100).fit(CURVES, K)
    assert len(inverter.net_.history) == 0
    np.testing.assert_allclose(inverter.predict(CURVES[FEW]), K[FEW], atol=0.02)
    bare = changed(inverter, refine=False).invert(CURVES)
    assert bare.misfit.sum() < 0.1 * bare.start_misfit.sum()


@pytest.mark.parametrize("pretrain", [True, False])
@pytest.mark.parametrize("n_times", [1, 2, 3])
def test_few_times_and_single_samples_are_enough(n_times, pretrain):
    def first_times(params):
        return decay(params)[:, 1 : 1 + n_times]

    inverter = make_inverter(
        forward=first_times, architecture="conv", pretrain=pretrain, batch_size=2
    )
    inverter.fit(CURVES[:9, 1 : 1 + n_times], K[:9])
    estimate = inverter.predict(CURVES[:1, 1 : 1 + n_times])
    np.testing.assert_allclose(estimate, K[:1], atol=0.1)


def test_several_params_channels_and_scales():
    params = np.random.default_rng(5).uniform([1.0, 0.5], [2.0, 2.0], size=(50, 2))
    curves = two_channels(torch.as_tensor(params)).numpy()
    inverter = make_inverter(
        forward=two_channels, scale=["linear", "log10"], noise_std=[0.01, 1e7]
    ).fit(curves, params)
    np.testing.assert_allclose(inverter.predict(curves), params, atol=0.02)
    assert inverter.reconstruct(curves).shape == curves.shape
    flat = clone(inverter).set_params(n_channels=2)
    flat.fit(curves.reshape(50, -1), params)
    np.testing.assert_allclose(flat.predict(curves), inverter.predict(curves))


def decay_rhs(t, y, params):
    return -params * y


def test_the_simulator_is_a_forward_model():
    system = ODESystem(
        decay_rhs, initial_state=[1.0], bounds=[[0.5, 2.0]], times=TIMES.numpy()
    )
    inverter = make_inverter(
        surrogate=ODESimulator(system, rtol=1e-4),
        forward=None,
        pretrain_epochs=50,
        max_iter=2,
    ).fit(CURVES, K)
    np.testing.assert_allclose(inverter.predict(CURVES[:4]), K[:4], atol=0.01)


def test_a_surrogate_is_a_forward_model():
    surrogate = ODESurrogate(
        n_layers=0, n_basis=3, basis_epochs=50, max_epochs=1, width=8, random_state=0
    )
    inverter = make_inverter(surrogate=surrogate, forward=None).fit(CURVES, K)
    assert np.abs(inverter.predict(CURVES[FEW]) - K[FEW]).max() < 0.2
    assert not hasattr(surrogate, "net_")


# --- the modes


def test_supervised_mode_unrefined_is_the_network_alone(inverter):
    inverter = changed(inverter, mode="supervised", refine=False)
    result = inverter.invert(CURVES)
    standardized = inverter.channel_scaler_.standardize(CURVES[..., None])
    readings = torch.as_tensor(standardized).float()
    with torch.no_grad():
        unit = inverter.net_.module_(readings, torch.ones_like(readings))
    expected = inverter.scaler_.to_physical(unit.double().numpy())
    np.testing.assert_allclose(result.params, expected, rtol=1e-5)
    assert (result.n_iter == 0).all()


@pytest.mark.parametrize("refine", [True, False])
def test_companions_matter_in_joint_mode_only(inverter, refine):
    adjoint = make_inverter(mode="neural_adjoint", refine=refine).fit(CURVES, K)
    supervised = changed(inverter, mode="supervised", refine=refine, chunk_size=7)
    for alone in (adjoint, supervised):
        np.testing.assert_allclose(
            alone.predict(CURVES[3:4]), alone.predict(CURVES[FEW])[3:4], rtol=1e-6
        )
    joint = changed(inverter, refine=False)
    together = joint.predict(CURVES[FEW])[3:4]
    assert np.abs(joint.predict(CURVES[3:4]) - together).max() > 1e-6


def test_joint_mode_takes_all_samples_at_once(inverter):
    small = changed(inverter, chunk_size=3)
    np.testing.assert_array_equal(small.predict(CURVES), inverter.predict(CURVES))
    assert small._chunk_length(100) == 100


def test_a_network_wasted_by_the_learning_rate_goes_back(inverter):
    """At a rate of 100 every step is a leap; the best weights are never left."""
    wild = changed(inverter, refine=False, lr=100.0, max_iter=50).invert(CURVES)
    assert (wild.misfit <= wild.start_misfit).all()
    assert np.isfinite(wild.params).all()


# --- the same again


@pytest.mark.parametrize("mode", MODES)
def test_predict_repeats_itself_and_leaves_what_was_fitted(mode):
    inverter = make_inverter(mode=mode).fit(CURVES, K)
    before = pickle.dumps(inverter)
    weights = copy.deepcopy(inverter.net_.module_.state_dict())
    rng = torch.random.get_rng_state()
    first = inverter.predict(CURVES[FEW])
    np.testing.assert_array_equal(inverter.predict(CURVES[FEW]), first)
    for name, weight in inverter.net_.module_.state_dict().items():
        assert torch.equal(weight, weights[name])
    np.testing.assert_array_equal(pickle.loads(before).predict(CURVES[FEW]), first)
    again = clone(inverter).fit(CURVES, K)
    np.testing.assert_array_equal(again.predict(CURVES[FEW]), first)
    assert torch.equal(torch.random.get_rng_state(), rng)


def test_a_clone_has_the_same_settings_and_no_memory(inverter):
    copied = clone(inverter)
    assert copied.get_params() == inverter.get_params()
    assert not hasattr(copied, "net_")


# --- what goes wrong


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.IntegrationWarning")
@pytest.mark.parametrize("mode", MODES)
def test_samples_that_cannot_be_simulated_leave_others_intact(mode):
    inverter = make_inverter(mode=mode, pretrain_epochs=100, batch_size=32)
    frail = clone(inverter).set_params(forward=decay_or_nothing).fit(CURVES, K)
    result = frail.invert(CURVES)
    easy = K[:, 0] < 1.4
    np.testing.assert_allclose(result.params[easy], K[easy], atol=0.02)
    assert (result.n_failed[K[:, 0] > 1.7] > 0).all()
    assert (result.n_failed[K[:, 0] < 1.2] == 0).all()
    if mode == "joint":  # the center of the box can always be simulated
        assert np.isfinite(result.params).all()
    else:
        lost = np.isnan(result.params[:, 0])
        assert (result.status[lost] == InversionStatus.FAILED).all()
        assert lost.any()


def test_what_failed_is_counted_in_a_warning():
    inverter = make_inverter(forward=decay_or_nothing, mode="supervised")
    inverter.set_params(pretrain_epochs=100, batch_size=32).fit(CURVES, K)
    with pytest.warns(IntegrationWarning, match="The forward model failed at"):
        inverter.predict(CURVES)


def test_a_model_that_never_runs_gives_nan():
    def never(params):
        return decay(params) * torch.nan

    inverter = make_inverter(forward=never).fit(CURVES, K)
    with pytest.warns(IntegrationWarning, match="20 samples have none left"):
        assert np.isnan(inverter.predict(CURVES[FEW])).all()


def press_ctrl_c_at(monkeypatch, n_calls):
    """Interrupt the n-th gradient from now."""
    gradient, calls = Objective.gradient, []

    def interrupted(self, unit, sample):
        calls.append(len(unit))
        if len(calls) == n_calls:
            raise KeyboardInterrupt
        return gradient(self, unit, sample)

    monkeypatch.setattr(Objective, "gradient", interrupted)


@pytest.mark.parametrize("n_calls", [1, 4, 8], ids=["first", "joint", "refinement"])
def test_ctrl_c_keeps_the_best_so_far(inverter, monkeypatch, n_calls):
    press_ctrl_c_at(monkeypatch, n_calls)
    with pytest.warns(ConvergenceWarning, match=r"Interrupted: \d+ of 200 samples"):
        result = inverter.invert(CURVES)
    assert (result.status == InversionStatus.INTERRUPTED).any()
    assert np.isfinite(result.params).all()
    assert (result.misfit <= result.start_misfit).all()


def test_ctrl_c_in_the_adjoint_keeps_what_was_found(monkeypatch):
    inverter = make_inverter(mode="neural_adjoint").fit(CURVES, K)

    forward, calls = AdjointNet.forward, []

    def interrupted(self, params):
        calls.append(len(params))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return forward(self, params)

    monkeypatch.setattr(AdjointNet, "forward", interrupted)
    with pytest.warns(ConvergenceWarning, match="Interrupted: 0 of 20 samples"):
        result = inverter.invert(CURVES[FEW])
    assert np.isfinite(result.params).all()


def test_verbose_shows_the_training_and_joint_bars(capsys):
    make_inverter(verbose=1).fit(CURVES, K)
    shown = capsys.readouterr().err
    assert "Training network" in shown
    assert "Joint training" in shown


# --- what it refuses


def to_numpy(params):
    return decay(params.detach()).numpy()


def without_gradient(params):
    return decay(params.detach())


def too_short(params):
    return decay(params)[:, :5]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"surrogate": ODESurrogate()}, ValueError, "Give one forward model"),
        ({"forward": to_numpy}, TypeError, "must return a torch.Tensor. Got ndarray"),
        ({"forward": without_gradient}, ValueError, "must be differentiable"),
        (
            {"forward": too_short},
            ValueError,
            r"trajectories of shape \(n_samples, n_times, n_channels\) = \(2, 8, 1\)"
            r".* Got shape \(2, 5\)",
        ),
        ({"n_observed": 9}, ValueError, "`n_observed` must be an int"),
        ({"bounds": [[0.9, 1.1]]}, ValueError, "must lie within its bounds"),
        ({"batch_size": 1}, ValueError, "'batch_size' parameter"),
        ({"mode": "both"}, ValueError, "'mode' parameter"),
        ({"forward": 3}, ValueError, "'forward' parameter"),
    ],
)
def test_wrong_settings_are_refused_by_fit(options, error, message):
    with pytest.raises(error, match=message):
        make_inverter(**options).fit(CURVES, K)


# --- its parts


def test_the_forward_function_linearizes_exactly():
    scaler = ParamScaler([[1.0, 2.0], [0.5, 2.0]], scale=["linear", "log10"])
    model = ForwardFunction(two_channels, scaler, 8, 2, torch.device("cpu"))
    unit = torch.rand(5, 2, dtype=torch.float64)
    trajectories, jacobian = linearize(model, unit)
    torch.testing.assert_close(trajectories, model.forward(unit))
    expected = torch.autograd.functional.jacobian(model.forward, unit)
    expected = expected.diagonal(dim1=0, dim2=3).movedim(-1, 0)
    torch.testing.assert_close(jacobian, expected)
    params = scaler.to_physical(unit.numpy())
    np.testing.assert_allclose(model.simulate(params), trajectories)


def test_a_step_reaches_as_far_everywhere_in_the_box():
    unit = torch.tensor([[0.5, 0.005, 1.0], [0.5, 0.9, 0.2]], dtype=torch.float64)
    longest = torch.tensor([[0.01], [torch.inf]])
    rows = torch.tensor([0, 1])
    low, high = reach(TanhBox.inside_out(unit), rows, longest=longest)
    expected = [[0.49, 0.0, 0.99], [0, 0, 0]], [[0.51, 0.015, 1.0], [1, 1, 1]]
    np.testing.assert_allclose(TanhBox.unit(low), expected[0], atol=2e-6)
    np.testing.assert_allclose(TanhBox.unit(high), expected[1], atol=2e-6)


def test_a_search_with_a_short_reach_stays_in_its_valley():
    def waves(x, rows):  # valleys at whole numbers, the deepest at zero
        value = 1 - torch.cos(2 * torch.pi * x) + 0.1 * x**2
        slope = 2 * torch.pi * torch.sin(2 * torch.pi * x) + 0.2 * x
        return value.sum(dim=1), slope

    start = torch.linspace(1.55, 2.45, 19, dtype=torch.float64)[:, None]
    near = lbfgs(
        waves, start, max_iter=100, tol=1e-12, reach=lambda x, i: (x - 0.1, x + 0.1)
    )
    assert (near.status == InversionStatus.CONVERGED).all()
    np.testing.assert_allclose(near.unit, 1.99, atol=0.01)
    anywhere = lbfgs(waves, start, max_iter=100, tol=1e-12)
    assert (anywhere.unit < 1.5).any()


@pytest.mark.parametrize("architecture", ["conv", "mlp"])
@pytest.mark.parametrize("n_times", [1, 2, 5, 40])
def test_networks_map_any_length_into_the_box(n_times, architecture):
    net = ReadingNet(n_times, 3, 2, architecture=architecture, width=8)
    readings = 100 * torch.randn(6, n_times, 3)
    unit = net(readings, torch.ones_like(readings))
    assert unit.shape == (6, 2)
    assert ((unit >= 0) & (unit <= 1)).all()


@pytest.mark.parametrize("n_samples", [2, 3, 7, 8, 9, 100])
def test_no_batch_is_of_a_single_sample(n_samples):
    def draw(index, rng):
        return index

    batches = EvenBatches(n_samples, draw, batch_size=4, seed=0, device="cpu")
    first, second = list(batches), list(batches)
    assert min(len(b) for b in first) >= min(4, n_samples)
    assert sorted(torch.cat(first).tolist()) == list(range(n_samples))
    assert len(first) == batches.n_batches
    if n_samples > 8:
        assert torch.cat(first).tolist() != torch.cat(second).tolist()


def test_unknown_targets_have_no_part_in_the_loss():
    prediction = torch.tensor([[1.0, 5.0]], requires_grad=True)
    loss = KnownSquares()(prediction, torch.tensor([[3.0, torch.nan]]))
    loss.backward()
    assert loss == 2.0
    assert prediction.grad.tolist() == [[-2.0, 0.0]]
