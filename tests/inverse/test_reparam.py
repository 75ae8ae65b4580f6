"""Joint optimization finds wave packets that BFGS misses, and spoils nothing."""

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from sklearn.base import clone

from sklearn_inverse import (
    Design,
    ForwardFunction,
    GradientInverter,
    ODESurrogate,
    ReparamJointInverter,
    Training,
)
from sklearn_inverse.exceptions import (
    ConvergenceWarning,
    ExtrapolationWarning,
    IntegrationWarning,
)
from sklearn_inverse.inverse import _reparam
from sklearn_inverse.inverse._objective import Objective
from sklearn_inverse.inverse._reparam_search import (
    End,
    best_drawn,
    reach,
    relative_change,
    teach,
    train_jointly,
)
from sklearn_inverse.networks._reading_net import ReadingNet
from sklearn_inverse.optim._lbfgs import lbfgs
from sklearn_inverse.optim._standard import InStandard
from sklearn_inverse.probability import InversionStatus, LogNormal, LogUniform, Poisson
from sklearn_inverse.problems import billiards
from sklearn_inverse.problems._billiards import CUE, aim

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn_inverse.exceptions.MisfitWarning",
    "ignore::sklearn_inverse.exceptions.BoundsWarning",
)
MODES = ["joint", "supervised"]
NOISE = 0.1


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


def make_model(function=decay, params=(0.5, 2.0), noise=0.01):
    params = params if isinstance(params, dict) else {"k": params}
    return ForwardFunction(function, params=params, noise=noise)


def make_inverter(model=None, *, max_epochs=5, batch_size=64, **options):
    """Return an inverter that trains in a fraction of a second."""
    return ReparamJointInverter(
        model or make_model(),
        network="mlp",
        training=Training(max_epochs=max_epochs, batch_size=batch_size),
        **{"max_iter": 5, "random_state": 0} | options,
    )


def changed(inverter, **params):
    """Return a fitted copy with other settings for its answers."""
    return copy.deepcopy(inverter).set_params(**params)


def objective_of(inverter, readings, params):
    model = inverter.model_
    objective = Objective(model, model.noise_, torch.as_tensor(readings[..., None]))
    scaled = torch.as_tensor(model.param_scaler_.to_scaled(params))
    return objective.value(scaled, torch.arange(len(scaled))).numpy()


@pytest.fixture(scope="module")
def packet_inverter():
    return ReparamJointInverter(
        make_model(wave_packet, (1.0, 256.0), NOISE),
        design=Design(n_observed=256),
        training=Training(max_epochs=20),
        max_iter=40,
        random_state=0,
    ).fit(*draw_packets(1200, seed=0))


@pytest.fixture(scope="module")
def found(packet_inverter):
    return packet_inverter.predict(PACKETS)


@pytest.fixture(scope="module")
def inverter():
    return make_inverter(design=Design(n_observed=(2, 8))).fit(CURVES, K)


# --- what it recovers


@pytest.mark.slow
def test_wave_packets_are_found_where_bfgs_stops_at_local_optima(
    packet_inverter, found
):
    assert (np.abs(found - TRUTH) < 1).mean() >= 0.95
    assert (np.abs(straight_from_center() - TRUTH) < 1).mean() < 0.2
    # Without short steps the network's guess is left for other optima.
    leaping = changed(packet_inverter, mode="supervised", refine_step=1.0)
    near = changed(packet_inverter, mode="supervised")
    errors = [np.abs(i.predict(PACKETS) - TRUTH).mean() for i in (near, leaping)]
    assert errors[0] < errors[1]


def straight_from_center():
    """Minimize the same objective without a network."""
    model = make_model(wave_packet, (1.0, 256.0), NOISE)
    direct = GradientInverter(model, optimizer="lbfgs", n_starts=1, continuation=False)
    return direct.fit(PACKETS).invert(PACKETS).params


@pytest.mark.slow
def test_the_best_of_all_candidates_is_kept(packet_inverter, found):
    best = objective_of(packet_inverter, PACKETS, found)
    candidates = [
        changed(packet_inverter, refine=False).predict(PACKETS),
        changed(packet_inverter, mode="supervised", refine=False).predict(PACKETS),
        changed(packet_inverter, mode="supervised").predict(PACKETS),
    ]
    for params in candidates:
        value = objective_of(packet_inverter, PACKETS, params)
        assert (best <= value + 1e-9 * np.abs(value)).all()


@pytest.mark.slow
def test_joint_training_lowers_the_sum_of_misfits(packet_inverter):
    supervised, joint = (
        changed(packet_inverter, mode=mode, refine=False).invert(PACKETS)
        for mode in MODES[::-1]
    )
    assert joint.misfit.sum() < 0.8 * supervised.misfit.sum()
    np.testing.assert_allclose(joint.start_misfit, supervised.misfit)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("architecture", ["conv1d", "conv2d", "mlp"])
def test_either_mode_recovers_a_rate_despite_missing_readings(mode, architecture):
    inverter = make_inverter(mode=mode, max_epochs=20)
    inverter.set_params(network=architecture).fit(CURVES, K)
    readings = CURVES[FEW].copy()
    readings[np.random.default_rng(0).random(readings.shape) < 0.5] = np.nan
    readings[:, 3] = CURVES[FEW, 3]
    answer = inverter.invert(readings)
    np.testing.assert_allclose(answer.params, K[FEW], atol=0.03)
    assert (answer.status == InversionStatus.CONVERGED).all()
    assert answer.explained.all()


def test_plain_joint_training_starts_from_random_weights_and_needs_no_pairs():
    inverter = make_inverter(max_epochs=0, max_iter=100, random_state=1).fit(CURVES)
    assert len(inverter.net_.history) == 0
    np.testing.assert_allclose(inverter.predict(CURVES[FEW]), K[FEW], atol=0.03)
    bare = changed(inverter, refine=False).invert(CURVES)
    assert bare.misfit.sum() < 0.1 * bare.start_misfit.sum()
    assert bare.status[0] == InversionStatus.MAX_ITER
    with pytest.raises(ValueError, match="requires y"):
        make_inverter(max_epochs=0, mode="supervised").fit(CURVES)


@pytest.mark.parametrize("max_epochs", [5, 0])
@pytest.mark.parametrize("n_times", [1, 3])
def test_few_times_and_single_samples_are_enough(n_times, max_epochs):
    def first_times(params):
        return decay(params)[:, 1 : 1 + n_times]

    inverter = make_inverter(
        make_model(first_times), max_epochs=max_epochs, batch_size=2
    ).set_params(network="conv1d")
    inverter.fit(CURVES[:9, 1 : 1 + n_times], K[:9])
    estimate = inverter.predict(CURVES[:1, 1 : 1 + n_times])
    np.testing.assert_allclose(estimate, K[:1], atol=0.1)


def two_observables(params):
    amplitude, k = params[:, :1], params[:, 1:]
    u = amplitude * torch.exp(-k * TIMES)
    return torch.stack([u, 1e9 * u**2], dim=2)


@pytest.mark.parametrize("noise", [[0.01, 1e7], None], ids=["known", "estimated"])
def test_several_params_scales_and_unknown_noise(noise):
    priors = {"a": LogNormal(1.4, 0.2), "k": LogUniform(0.5, 2.0)}
    model = make_model(two_observables, priors, noise)
    params = np.random.default_rng(5).uniform([1.0, 0.6], [2.0, 1.9], size=(50, 2))
    curves = two_observables(torch.as_tensor(params)).numpy()
    rng = np.random.default_rng(0)
    readings = curves + [0.01, 1e7] * rng.standard_normal(curves.shape)
    inverter = make_inverter(model, max_epochs=20).fit(curves, params)
    answer = inverter.invert(readings)
    assert np.abs(answer.params - params).max() < 0.1
    if noise is None:
        size = np.median(answer.noise_scale, axis=0)
        np.testing.assert_allclose(size, [0.01, 1e7], rtol=0.5)
    exact = GradientInverter(model, n_starts=1).fit(readings).invert(readings)
    # Unknown noise is its own likeliest here, and of the marginal mode there.
    atol = 1e-3 if noise else 0.02
    np.testing.assert_allclose(answer.params, exact.params, atol=atol)


def test_counts_are_read_as_they_scatter():
    def counts(params):
        return 1000 * decay(params)

    readings = np.random.default_rng(0).poisson(counts(torch.as_tensor(K)))
    model = make_model(counts, noise=Poisson())
    inverter = make_inverter(model, max_epochs=20).fit(1000 * CURVES, K)
    answer = inverter.invert(readings[FEW])
    assert np.abs(answer.params - K[FEW]).max() < 0.15
    assert answer.explained.all()


def test_a_surrogate_is_a_forward_model():
    surrogate = ODESurrogate(
        noise=0.5, basis_epochs=50, training=Training(max_epochs=1), random_state=0
    ).set_params(network__n_layers=0, network__width=8)
    inverter = make_inverter(surrogate).fit(CURVES, K)
    assert np.isfinite(inverter.predict(CURVES[FEW])).all()
    assert not hasattr(surrogate, "net_")
    with pytest.raises(ValueError, match="requires y"):
        clone(inverter).set_params(training__max_epochs=0).fit(CURVES)


# --- the modes


def test_supervised_mode_unrefined_is_the_network_alone(inverter):
    inverter = changed(inverter, mode="supervised", refine=False)
    answer = inverter.invert(CURVES)
    inputs = inverter.reading_scaler_.prepare(CURVES[..., None], "cpu")
    with torch.no_grad():
        quantiles = inverter.net_.module_(*inputs, torch.zeros(len(CURVES), 0))
    expected = inverter.model_.prior_.from_quantile(quantiles.double().numpy())
    np.testing.assert_allclose(answer.params, expected, rtol=1e-5)
    assert (answer.n_iter == 0).all()


@pytest.mark.parametrize("refine", [True, False])
def test_companions_matter_in_joint_mode_only(inverter, refine):
    alone = changed(inverter, mode="supervised", refine=refine, chunk_size=7)
    np.testing.assert_allclose(
        alone.predict(CURVES[3:4]), alone.predict(CURVES[FEW])[3:4], rtol=1e-6
    )
    joint = changed(inverter, refine=False)
    together = joint.predict(CURVES[FEW])[3:4]
    assert np.abs(joint.predict(CURVES[3:4]) - together).max() > 1e-6


def test_joint_mode_takes_all_samples_at_once(inverter):
    small = changed(inverter, chunk_size=3)
    np.testing.assert_array_equal(small.predict(CURVES), inverter.predict(CURVES))


def test_a_network_wasted_by_the_learning_rate_goes_back(inverter):
    """At a rate of 100 every step is a leap; the best weights are never left."""
    wild = changed(inverter, refine=False, lr=100.0, max_iter=50)
    with pytest.warns(
        ConvergenceWarning, match="still rises at a learning rate of 3.1"
    ):
        wild = wild.invert(CURVES)
    assert (wild.misfit <= wild.start_misfit * (1 + 1e-6) + 1).all()
    assert np.isfinite(wild.params).all()


# --- what joint training leaves unexplained


def test_answers_to_others_and_draws_lead_on(monkeypatch):
    """A network that learned the wrong way round is of no use to anybody."""
    wave = make_model(lambda p: torch.sin(12 * p * TIMES))
    readings = wave.fit(None).simulate(K)
    inverter = make_inverter(wave, max_epochs=20, max_iter=60)
    inverter.fit(readings, K[::-1])
    found = inverter.invert(readings[FEW])
    monkeypatch.setattr(inverter, "_is_trial", True)  # a trial does not go on
    once = inverter.invert(readings[FEW])
    assert found.explained.all()
    assert once.explained.mean() < 0.9
    assert (found.misfit <= once.misfit * (1 + 1e-6) + 1e-6).all()
    same = once.explained
    np.testing.assert_array_equal(found.params[same], once.params[same])
    np.testing.assert_array_equal(found.n_iter[same], once.n_iter[same])


def test_balls_that_are_missed_have_no_gradient_and_are_hit():
    rng = np.random.default_rng(0)
    balls = rng.uniform([0.4, 0.3], [0.6, 0.7], size=(40, 2))
    ahead = np.arctan2(*(balls - CUE).T[::-1]) + rng.uniform(-0.7, 0.7, 40)
    way = np.stack([np.cos(ahead), np.sin(ahead)], axis=1)
    targets = balls + rng.uniform(0.1, 0.4, (40, 1)) * way
    params = aim(*map(torch.as_tensor, (balls, targets))).numpy()
    inverter = make_inverter(billiards(), max_epochs=0, max_iter=60)
    inverter.fit(targets, inputs=balls)
    found = inverter.predict(targets, inputs=balls)
    assert (np.abs(found - params) < 0.02).all(axis=1).mean() >= 0.95
    inverter._is_trial = True
    once = inverter.predict(targets, inputs=balls)
    assert (np.abs(once - params) < 0.02).all(axis=1).mean() < 0.8


def test_draws_cost_no_more_than_joint_training(monkeypatch):
    drawn = []

    def count(objective, x, sample):
        drawn.append(len(x) * len(sample))
        return best_drawn(objective, x, sample)

    monkeypatch.setattr(_reparam, "best_drawn", count)
    inverter = make_inverter(make_model(noise=1e-9), max_iter=30).fit(CURVES, K)
    shifted = CURVES[FEW] + 0.1  # which no rate explains
    answer = inverter.invert(shifted)
    assert not answer.explained.any()
    assert len(drawn) == 3
    assert sum(drawn) == 3 * 20 * (30 // 3 + 1)


@pytest.mark.parametrize(
    ("owner", "name", "n_done"), [(_reparam, "teach", 17), (Objective, "judge", 0)]
)
def test_an_interrupted_lesson_leaves_what_is_known(owner, name, n_done, press_at):
    readings = CURVES[FEW].copy()
    readings[:3] += 0.5
    inverter = make_inverter().fit(CURVES, K)
    press_at(owner, name, 1)
    with pytest.warns(ConvergenceWarning, match=f"Interrupted: {n_done} of 20 samples"):
        answer = inverter.invert(readings)
    assert np.isfinite(answer.params).all()
    np.testing.assert_array_equal(answer.explained, np.arange(20) >= 3)


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
    assert not hasattr(clone(inverter), "net_")


# --- what goes wrong


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.IntegrationWarning")
@pytest.mark.parametrize("mode", MODES)
def test_samples_that_cannot_be_simulated_leave_others_intact(mode):
    inverter = make_inverter(make_model(decay_or_nothing), mode=mode, max_epochs=100)
    inverter.set_params(training__batch_size=32).fit(CURVES, K)
    answer, rate = inverter.invert(CURVES[::4]), K[::4, 0]
    easy = rate < 1.4
    np.testing.assert_allclose(answer.params[easy, 0], rate[easy], atol=0.03)
    assert (answer.n_failed[rate > 1.7] > 0).all()
    assert (answer.n_failed[rate < 1.2] == 0).all()
    if mode == "joint":  # the center of the prior can always be simulated
        assert np.isfinite(answer.params).all()
    else:
        lost = np.isnan(answer.params[:, 0])
        assert (answer.status[lost] == InversionStatus.FAILED).all()
        assert lost.any()


def test_a_model_that_never_runs_gives_nan():
    def never(params):
        return decay(params) * torch.nan

    inverter = make_inverter(make_model(never)).fit(CURVES[FEW], K[FEW])
    with pytest.warns(IntegrationWarning, match="20 samples have none left"):
        assert np.isnan(inverter.predict(CURVES[FEW])).all()


@pytest.mark.parametrize("n_calls", [1, 4, 8], ids=["first", "joint", "refinement"])
def test_ctrl_c_keeps_the_best_so_far(inverter, press_at, n_calls):
    press_at(Objective, "gradient", n_calls)
    with pytest.warns(ConvergenceWarning, match=r"Interrupted: \d+ of 200 samples"):
        answer = inverter.invert(CURVES)
    assert (answer.status == InversionStatus.INTERRUPTED).any()
    assert np.isfinite(answer.params).all()
    assert (answer.misfit <= answer.start_misfit + 1).all()


def test_verbose_shows_the_training_and_joint_bars(capsys):
    make_inverter(verbose=1).fit(CURVES, K)
    shown = capsys.readouterr().err
    assert "Training ReparamJointInverter" in shown
    assert "Joint training" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"design__n_observed": 9}, "`n_observed` must be an int"),
        ({"mode": "neural_adjoint"}, "'mode' parameter"),
        ({"network": "rnn"}, "'network' parameter"),
        ({"training__batch_size": 0}, "'batch_size' parameter"),
        ({"network": 3}, "'network' parameter"),
    ],
)
def test_wrong_settings_are_refused_by_fit(options, message):
    with pytest.raises(ValueError, match=message):
        make_inverter().set_params(**options).fit(CURVES, K)


def test_what_the_network_has_not_seen_is_said():
    with pytest.raises(ValueError, match="'k' of sample 0"):
        make_inverter().fit(CURVES, K + 5)
    inverter = make_inverter(mode="supervised").fit(CURVES, K)
    with pytest.warns(ExtrapolationWarning, match="8 readings lie farther .* row 1"):
        inverter.predict(np.vstack([CURVES[:1], 1000 + CURVES[:1]]))


# --- its parts


def test_a_step_reaches_as_far_everywhere_in_the_prior():
    quantiles = torch.tensor([[0.5, 0.005, 0.999], [0.5, 0.9, 0.2]]).double()
    z = torch.cat([torch.special.ndtri(quantiles), torch.ones(2, 1)], dim=1)
    longest = torch.tensor([[0.01], [torch.inf]])
    low, high = reach(z, torch.tensor([0, 1]), n_params=3, longest=longest)
    expected = [[0.49, 0.0, 0.989], [0, 0, 0]], [[0.51, 0.015, 1.0], [1, 1, 1]]
    np.testing.assert_allclose(ndtr(low[:, :3].numpy()), expected[0], atol=1e-9)
    np.testing.assert_allclose(ndtr(high[:, :3].numpy()), expected[1], atol=1e-9)
    assert (high[:, 3].isinf() & low[:, 3].isinf()).all()  # noise goes anywhere


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
    np.testing.assert_allclose(near.x, 1.99, atol=0.01)
    anywhere = lbfgs(waves, start, max_iter=100, tol=1e-12)
    assert (anywhere.x < 1.5).any()


class Constant(torch.nn.Module):
    """A network whose only weight is what it says of every sample."""

    def __init__(self, quantile):
        super().__init__()
        self.h = torch.nn.Parameter(torch.logit(torch.tensor(quantile)))

    def forward(self, readings, mask):
        return self.h.sigmoid().expand(len(readings), 1)


def test_a_network_learns_from_known_answers_alone():
    torch.manual_seed(0)
    quantiles = (K - 0.5) / 1.5
    known = np.where(np.arange(200)[:, None] % 2 == 0, quantiles, np.nan)
    network = ReadingNet("mlp", 8, 1, 0, 1)
    readings = torch.as_tensor(CURVES[..., None]).float()
    seen = readings, torch.ones_like(readings), torch.zeros(200, 0)
    z = teach(network, seen, torch.as_tensor(known), lr=3e-3, max_iter=300)
    np.testing.assert_allclose(ndtr(z.numpy()), quantiles, atol=0.05)


@pytest.mark.parametrize("noise", [0.01, None], ids=["known", "estimated"])
def test_the_best_draw_of_each_sample_is_taken(noise):
    objective = make_objective(noise)
    drawn, sample = torch.linspace(0.2, 0.6, 9)[:, None].double(), torch.arange(3, 20)
    best = InStandard(objective, sample).to_scaled(best_drawn(objective, drawn, sample))
    for x, i in zip(best, sample):
        each = i.repeat(9)
        value = objective.value(objective.with_scales(drawn, each), each)
        assert x.item() == pytest.approx(drawn[value.argmin()].item())


def test_ends_are_bettered_where_others_are_lower():
    def ends(values, status):
        value = torch.tensor(values).double()
        n = torch.ones(len(values), dtype=torch.long)
        x = value[:, None]
        return End(x, x, value, n, n * int(status), 0 * n)

    end = ends([5, 5, 5, 5], InversionStatus.CONVERGED)
    other = ends([9, 2, torch.nan], InversionStatus.MAX_ITER)
    found = end.bettered(torch.tensor([0, 2, 3]), other)
    assert found.value.tolist() == found.x[:, 0].tolist() == [5, 5, 2, 5]
    assert found.n_iter.tolist() == [2, 1, 2, 2]
    assert (found.status == InversionStatus.MAX_ITER).tolist() == [0, 0, 1, 0]
    other.status[:] = int(InversionStatus.INTERRUPTED)
    found = end.bettered(torch.tensor([0, 2, 3]), other)
    assert (found.status == InversionStatus.INTERRUPTED).tolist() == [1, 0, 1, 1]


def make_objective(noise=0.01):
    model = make_model(params=LogNormal(1.0, 0.5), noise=noise).fit(None)
    return Objective(model, model.noise_, torch.as_tensor(CURVES[FEW, :, None]))


def test_joint_training_follows_the_gradient_of_the_sum(monkeypatch):
    """One step of gradient descent: the chain through quantiles and the prior."""
    objective, network = make_objective(), Constant(0.3)
    readings = (torch.zeros(20, 8, 1),) * 2
    steps = []

    class Watched(torch.optim.SGD):
        def step(self):
            steps.append(network.h.grad.item())

    monkeypatch.setattr(torch.optim, "Adam", Watched)
    train_jointly(network, readings, objective, lr=0.1, max_iter=1)
    sample, free = torch.arange(20), InStandard(objective, torch.arange(20))

    def loss(h):
        z = torch.special.ndtri(torch.full((20, 1), h).double().sigmoid())
        return objective.value(free.to_scaled(z), sample).mean().item()

    h = network.h.item()
    expected = (loss(h + 1e-4) - loss(h - 1e-4)) / 2e-4
    assert steps == [pytest.approx(expected, rel=1e-3)]


@pytest.mark.parametrize("unit", [1.0, 1e9])
def test_a_rise_of_the_loss_is_told_in_any_unit(unit):
    model = make_model(lambda p: unit * decay(p), noise=unit * 0.01).fit(None)
    readings = torch.as_tensor(unit * CURVES[FEW, :, None])
    objective = Objective(model, model.noise_, readings)
    x, sample = torch.full((20, 1), 0.5).double(), torch.arange(20)
    value, better = objective.value(x, sample), objective.value(x - 0.1, sample)
    first = torch.full_like(value, torch.inf)
    assert relative_change(value, first, objective) == -torch.inf
    assert relative_change(first, value, objective) == torch.inf
    # Of a chi-square of hundreds per reading, constants are a small share.
    expected = (better - value).sum() / (value - 8 * np.log(unit)).sum()
    change = relative_change(better, value, objective)
    assert change == pytest.approx(expected.item(), rel=0.2)
    lost = value.clone()
    lost[3] = torch.inf
    assert relative_change(lost, value, objective) == 0
