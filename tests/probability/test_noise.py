"""Noise is what SciPy says it is, differentiable, and safe at the edges of its domain."""

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from sklearn_inverse.probability._noise import (
    Binomial,
    Laplace,
    LogNormalNoise,
    NegativeBinomial,
    NormalNoise,
    Poisson,
    StudentT,
)
from sklearn_inverse.probability._noise_model import as_noise
from sklearn_inverse.probability._priors import NormalPrior

INF = np.inf
REFERENCE = {  # frozen SciPy distribution of readings, by mean
    NormalNoise(0.3): lambda m: stats.norm(m, 0.3),
    LogNormalNoise(0.3): lambda m: stats.lognorm(0.3, scale=m),
    StudentT(5, 0.3): lambda m: stats.t(5, m, 0.3),
    Laplace(0.3): lambda m: stats.laplace(m, 0.3),
    Poisson(): lambda m: stats.poisson(m),
    NegativeBinomial(4): lambda m: stats.nbinom(4, 4 / (4 + m)),
    NegativeBinomial(5000): lambda m: stats.nbinom(5000, 5000 / (5000 + m)),
    Binomial(20): lambda m: stats.binom(20, m / 20),
}
COUNTS = [k for k in REFERENCE if isinstance(k, (Poisson, NegativeBinomial, Binomial))]
CONTINUOUS = [k for k in REFERENCE if k not in COUNTS]
SCALED = [NormalNoise, LogNormalNoise, Laplace, lambda scale: StudentT(4, scale)]
every_kind = pytest.mark.parametrize("kind", REFERENCE, ids=str)


def at(kind, mean, names=("a",), error=None, **options):
    """Model, means (n, n_times, 1) and arguments of one kind at some means."""
    mean = torch.tensor(mean, dtype=torch.float64)
    mean = mean.reshape(-1, 1, 1) if mean.ndim < 3 else mean
    model = as_noise(kind, names, **options)
    args = model.arguments(mean.new_zeros(len(mean), 0), [])
    return (model if error is None else model.with_error(error)), mean, args


def log_prob(kind, y, mean, **options):
    model, mean, args = at(kind, mean, **options)
    y = (
        torch.tensor(y, dtype=torch.float64)
        .expand_as(mean.squeeze())
        .reshape(mean.shape)
    )
    return model.log_prob(y, mean, args).numpy().ravel()


def draws(kind, mean, n=40_000):
    model, means, args = at(kind, np.full((1, n, 1), mean))
    return model.sample(means, args, torch.Generator().manual_seed(0)).numpy().ravel()


# -- densities -----------------------------------------------------------------------------


@every_kind
def test_log_prob_is_scipys(kind):
    mean = np.array([0.5, 3.0, 7.5, 19.0])
    reference = REFERENCE[kind](mean)
    y = np.array([1.0, 2.0, 11.0, 18.0])
    expected = reference.logpmf(y) if kind in COUNTS else reference.logpdf(y)
    np.testing.assert_allclose(log_prob(kind, y, mean), expected, rtol=1e-9)


@every_kind
def test_weight_is_the_information_of_the_mean(kind):
    """The mean square of the score, by quadrature over quantiles or by summing."""
    reference = REFERENCE[kind](3.0)
    if kind in COUNTS:
        y = np.arange(200.0)
        share = reference.pmf(y)
    else:
        edges = np.linspace(0, 1, 20_001)
        y = reference.ppf((edges[1:] + edges[:-1]) / 2)
        share = np.full(len(y), 1 / len(y))
    y, share = y[share > 0], share[share > 0]
    model, mean, args = at(kind, np.full(len(y), 3.0))
    mean.requires_grad_()
    value = model.log_prob(torch.tensor(y).reshape(mean.shape), mean, args)
    (score,) = torch.autograd.grad(value.sum(), mean)
    information = share @ score.numpy().ravel() ** 2
    weight = model.weight(mean.detach(), args)
    np.testing.assert_allclose(weight[0].item(), information, rtol=2e-3)


@every_kind
def test_samples_scatter_as_std_says(kind):
    y = draws(kind, 3.0)
    model, mean, args = at(kind, 3.0)
    reference = REFERENCE[kind](3.0)
    std = model.std(mean, args).item()
    np.testing.assert_allclose(std, reference.std(), rtol=1e-9)
    assert abs(y.mean() - reference.mean()) < 4 * std / len(y) ** 0.5
    assert abs(y.std() / std - 1) < 0.04
    quantiles = [0.05, 0.3, 0.7, 0.95]
    below = [(y <= q).mean() for q in reference.ppf(quantiles)]
    np.testing.assert_allclose(
        below, reference.cdf(reference.ppf(quantiles)), atol=0.01
    )


@every_kind
def test_residuals_are_about_standard(kind):
    y = draws(kind, 12.0)
    model, mean, args = at(kind, np.full(len(y), 12.0))
    residual = model.residual(torch.tensor(y).reshape(mean.shape), mean, args).numpy()
    assert abs(residual.mean()) < 0.03
    assert abs(residual.std() - 1) < 0.03
    if kind in CONTINUOUS:
        assert stats.kstest(residual.ravel(), "norm").pvalue > 1e-3


def test_student_t_without_variance_scatters_by_its_scale():
    model, mean, args = at(StudentT(2, 0.3), 1.0)
    assert model.std(mean, args).item() == pytest.approx(0.3)


@every_kind
def test_log_prob_is_twice_differentiable(kind):
    model = as_noise(kind, ["a"])
    y = torch.tensor([1.0, 4.0], dtype=torch.float64).reshape(1, 2, 1)
    (own,) = model.arguments(torch.zeros(1, 0, dtype=torch.float64), [])
    inputs = [torch.full_like(y, 2.5), *own]
    if isinstance(kind, Binomial):
        inputs.pop()

    def value(mean, *args):
        return model.log_prob(y, mean, (args if args else own,))

    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(value, inputs)
    assert torch.autograd.gradgradcheck(value, inputs, fast_mode=True)


# -- the edges -----------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("error", [None, 0.2])
def test_unread_readings_count_for_nothing(kind, error):
    model, mean, args = at(kind, [2.0, np.nan, INF, -7.0], error=error)
    mean.requires_grad_()
    y = torch.full_like(mean, torch.nan)
    value = model.log_prob(y, mean, args)
    assert (value == 0).all()
    assert (model.residual(y, mean, args) == 0).all()
    (slope,) = torch.autograd.grad(value.sum(), mean)
    assert (slope == 0).all()


@every_kind
@pytest.mark.parametrize("error", [None, 0.01])
def test_impossible_means_have_no_nan(kind, error):
    model, mean, args = at(kind, [3.0, np.nan, INF, -7.0], error=error)
    mean.requires_grad_()
    value = model.log_prob(torch.ones_like(mean), mean, args)
    (slope,) = torch.autograd.grad(value[value.isfinite()].sum(), mean)
    is_real = isinstance(kind, (NormalNoise, StudentT, Laplace))
    assert value.isfinite().ravel().tolist() == [True, False, False, is_real]
    assert not value.isnan().any()
    assert slope.isfinite().all()
    assert model.weight(mean, args).isfinite().all()
    assert not model.residual(torch.ones_like(mean), mean, args).isnan().any()


@pytest.mark.parametrize("error", [0.0, 0.1])
def test_scales_that_are_not_positive_are_impossible(error):
    model = as_noise("sigma", ["a"]).with_error(error)
    params = torch.tensor([[0.1], [0.0], [-1.0], [np.nan]], dtype=torch.float64)
    params.requires_grad_()
    args = model.arguments(params, ["sigma"])
    mean = torch.ones(4, 1, 1, dtype=torch.float64)
    value = model.log_prob(mean, mean, args).ravel()
    assert value.isfinite().tolist() == [True, False, False, False]
    (slope,) = torch.autograd.grad(value[0], params)
    assert slope.isfinite().all()


@pytest.mark.parametrize("kind", [*COUNTS, LogNormalNoise(0.3)], ids=str)
def test_round_off_below_zero_is_clamped(kind):
    """A mean that is negative by 1e-10 of the largest is as good as zero."""
    model, mean, args = at(kind, np.array([5.0, -5e-10, -5e-3]).reshape(1, 3, 1))
    mean.requires_grad_()
    y = torch.tensor([5.0, 1.0, 1.0], dtype=torch.float64).reshape(mean.shape)
    value = model.log_prob(y, mean, args)
    assert value.isfinite().ravel().tolist() == [True, True, False]
    (slope,) = torch.autograd.grad(value[0, :2].sum(), mean)
    weight = model.weight(mean.detach(), args)
    assert slope[0, 1:].tolist() == weight[0, 1:].tolist() == [[0], [0]]
    nothing = model.log_prob(y - y, mean, args)[0, 1].item()
    if kind in COUNTS:
        assert nothing == pytest.approx(0, abs=1e-7)
    assert (model.sample(mean, args) >= 0).all()


@pytest.mark.parametrize("kind", COUNTS, ids=str)
def test_a_mean_of_zero_expects_zero(kind):
    model, mean, args = at(kind, [0.0, 0.0])
    mean.requires_grad_()
    y = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(mean.shape)
    value = model.log_prob(y, mean, args)
    assert value.ravel().tolist() == [0, -INF]
    (slope,) = torch.autograd.grad(value[0].sum(), mean)
    assert slope.ravel().tolist() == [-1, 0]
    assert model.residual(y, mean, args).ravel().tolist() == [0, INF]
    assert (model.sample(mean, args) == 0).all()


def test_a_certain_share_expects_all():
    assert log_prob(Binomial(10), [10.0, 9.0], [10.0, 10.0]).tolist() == [0, -INF]
    assert log_prob(Binomial(10), 10.0, [10.0, 10 + 1e-9]).tolist() == [0, 0]
    assert log_prob(Binomial(10), [11.0, 4.0], [5.0, 11.0]).tolist() == [-INF, -INF]


def test_failed_simulations_are_sampled_as_nan():
    for kind in REFERENCE:
        model, mean, args = at(kind, [np.nan, INF, 2.0])
        y = model.sample(mean, args).ravel()
        assert y.isnan().tolist() == [True, True, False]


# -- the model's own error -----------------------------------------------------------------


@pytest.mark.parametrize("kind", CONTINUOUS, ids=str)
def test_error_adds_to_the_variance_of_the_mean(kind):
    model, mean, args = at(kind, 3.0)
    wide = model.with_error(0.5)
    expected = 1 / (1 / model.weight(mean, args) + 0.5**2)
    if isinstance(kind, LogNormalNoise):  # its scale depends on the mean
        share = (0.5 / 3) ** 2 / (0.3**2 + (0.5 / 3) ** 2)
        expected = expected + 2 * (share / 3) ** 2
    torch.testing.assert_close(wide.weight(mean, args), expected)
    variance = model.std(mean, args).square() + 0.5**2
    torch.testing.assert_close(wide.std(mean, args).square(), variance)
    y = mean + torch.linspace(-60, 60, 480_001, dtype=torch.float64)[None, :, None]
    density = wide.log_prob(y, mean.expand_as(y), args).exp()
    assert density.sum().item() / 4000 == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(model.sample(mean, args), mean, atol=3, rtol=0)


@pytest.mark.parametrize("kind", COUNTS, ids=str)
@pytest.mark.parametrize("error", [1e-6, 0.01, 1.5, 4.0])
def test_error_of_counts_is_a_mixture(kind, error):
    """With the model's error a density still, whose variance has its square in it."""
    model, mean, args = at(kind, np.full((1, 2000, 1), 6.0), error=error)
    y = torch.arange(2000.0, dtype=torch.float64).reshape(mean.shape)
    share = model.log_prob(y, mean, args).exp().numpy().ravel()
    y = y.numpy().ravel()
    assert share.sum() == pytest.approx(1, abs=1e-6)
    assert share @ y == pytest.approx(6, rel=1e-5)
    plain = at(kind, 6.0)[0].std(mean[:, :1], args).item() ** 2
    added = share @ (y - 6) ** 2 - plain
    if isinstance(kind, Binomial):  # a share between 0 and 1 cannot err by more
        assert 0.5 * error**2 - 1e-9 <= added <= error**2 + 1e-9
    else:
        assert added == pytest.approx(error**2, rel=1e-3, abs=1e-8)


@pytest.mark.parametrize("kind", [*COUNTS, LogNormalNoise(0.3)], ids=str)
def test_a_model_that_errs_makes_nothing_impossible(kind):
    model, mean, args = at(kind, [0.0, -0.2, 1e-12], error=0.1)
    value = model.log_prob(torch.full_like(mean, 2), mean, args)
    assert value.isfinite().all()
    assert model.weight(mean, args).isfinite().all()


def test_error_may_differ_by_reading():
    model = as_noise([0.3, 0.4], ["a", "b"])
    mean = torch.ones(2, 3, 2, dtype=torch.float64)
    args = model.arguments(mean[:, 0], ["k", "l"])
    error = torch.tensor([[[0.4, 0.3]], [[0.0, 0.0]]], dtype=torch.float64)
    std = model.with_error(error).std(mean, args)[:, 1].tolist()
    np.testing.assert_allclose(std, [[0.5, 0.5], [0.3, 0.4]])
    with pytest.raises(ValueError, match=r"`error` must be >= 0\. Got -1"):
        model.with_error([-1.0, 0.0])


# -- arguments -----------------------------------------------------------------------------


def scales(
    value, names=("a", "b"), params=((0.5, 0.25), (2.0, 4.0)), n_times=3, **options
):
    """Return deviations (n, n_times, n_channels) of normal noise as it was written."""
    params = torch.tensor(params, dtype=torch.float64)
    model = as_noise(value, names, param_names=["s", "k"], **options)
    mean = torch.zeros(len(params), n_times, len(names), dtype=torch.float64)
    return model.std(mean, model.arguments(params, ["s", "k"])).numpy()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1, [[0.1, 0.1], [0.1, 0.1]]),
        ([0.1, 0.2], [[0.1, 0.2], [0.1, 0.2]]),
        ("s", [[0.5, 0.5], [2, 2]]),
        (["k", 0.1], [[0.25, 0.1], [4, 0.1]]),
        ({"b": "k", "a": NormalNoise("s")}, [[0.5, 0.25], [2, 4]]),
        ([NormalNoise(0.3), "k"], [[0.3, 0.25], [0.3, 4]]),
        (lambda p: p.s * p.k, [[0.125, 0.125], [8, 8]]),
        (NormalNoise(["s", lambda p: torch.sqrt(p.k)]), [[0.5, 0.5], [2, 2]]),
    ],
)
def test_arguments_are_read_as_they_are_written(value, expected):
    got = scales(value)
    np.testing.assert_allclose(
        got, np.broadcast_to(np.array(expected)[:, None], got.shape)
    )


def test_arrays_run_over_times_and_observables():
    table = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    np.testing.assert_array_equal(scales(table, n_times=3)[0], table)
    np.testing.assert_array_equal(scales(table[:, :1])[0], table[:, [0, 0]])
    np.testing.assert_array_equal(scales(table[:, 0], names=["a"])[0], table[:, :1])
    got = scales({"a": NormalNoise(table[:, 0]), "b": 1})[0]
    np.testing.assert_array_equal(got, np.column_stack([table[:, 0], np.ones(3)]))
    shorter = as_noise(table, ["a", "b"]).truncate(2)
    args = shorter.arguments(torch.zeros(1, 0), [])
    assert shorter.std(torch.zeros(1, 2, 2), args).shape == (1, 2, 2)


def test_known_params_replace_their_names():
    got = scales(["known", lambda p: p.known * p.s], constants={"known": 3})
    np.testing.assert_allclose(got[1, 0], [3, 6])
    model = as_noise("known", ["a"], constants={"known": 3}, param_names=["s"])
    assert model.param_names == ()
    assert not model.has_unknowns


def test_a_system_may_call_functions_its_own_way():
    model = as_noise(
        lambda p: p[1], ["a"], wrap=lambda f: lambda k: f(k.T), param_names=["s", "k"]
    )
    assert model.param_names == ("k",)
    (args,) = model.arguments(torch.tensor([[1.0, 2.0]]), ["s", "k"])
    assert args[0].item() == 2


def test_names_used():
    model = as_noise(
        ["s", lambda p: 1 + p.k, None], list("abc"), param_names=["s", "j", "k"]
    )
    assert model.param_names == ("s", "k")
    assert model.has_unknown_scale.tolist() == [False, False, True]
    assert model.has_unknowns
    assert model.is_normal.all()
    given = model.with_std(0.1)
    assert given.param_names == ()
    assert not given.has_unknown_scale.any()


def test_derivative_by_params_is_the_difference_quotient():
    """By name, by function and by log scale, through several kinds at once."""
    noise = {
        "a": LogNormalNoise("s"),
        "b": NegativeBinomial(lambda p: p.s * p.k),
        "c": StudentT("k", None),
        "d": Laplace(None),
    }
    model = as_noise(noise, list("abcd"), param_names=["s", "k"])
    rng = np.random.RandomState(0)
    mean = torch.tensor(rng.uniform(1, 3, (2, 3, 4)))
    y = torch.tensor(rng.poisson(3, (2, 3, 4)) + 1.0)
    y[0, 1, 2] = y[1, 2, 0] = torch.nan
    inputs = [
        mean.requires_grad_(),
        torch.tensor(rng.uniform(0.5, 3, (2, 2))).requires_grad_(),
        torch.tensor(rng.uniform(-1, 1, (2, 4))).requires_grad_(),
    ]

    def value(mean, params, log_scale):
        return model.log_prob(y, mean, model.arguments(params, ["s", "k"], log_scale))

    assert torch.autograd.gradcheck(value, inputs)
    assert torch.autograd.gradgradcheck(value, inputs, fast_mode=True)


@pytest.mark.parametrize("make", SCALED)
def test_unknown_scale(make):
    model = as_noise(make(None), ["a", "b"])
    mean = torch.full((2, 3, 2), 2.0, dtype=torch.float64)
    none = mean.new_zeros(2, 0)
    args = model.arguments(none, [])
    torch.testing.assert_close(model.sample(mean, args), mean)  # without noise
    log_scale = torch.tensor([[0.1, 0.2], [0.3, 0.4]], dtype=torch.float64).log()
    args = model.arguments(none, [], log_scale=log_scale)
    for i, j in np.ndindex(2, 2):
        known = as_noise(make(float(log_scale[i, j].exp())), ["a"])
        one = mean[:1, :, :1]
        expected = known.log_prob(one + 0.1, one, known.arguments(none[:1], []))
        got = model.log_prob(mean + 0.1, mean, args)[i : i + 1, :, j : j + 1]
        torch.testing.assert_close(got, expected)


def test_noise_std_replaces_the_scale_of_each_reading():
    std = np.random.RandomState(0).uniform(0.1, 1, (2, 3, 2))
    model = as_noise({"a": LogNormalNoise("s"), "b": None}, ["a", "b"]).with_std(std)
    mean = torch.full((2, 3, 2), 2.0, dtype=torch.float64)
    args = model.arguments(mean.new_ones(2, 1), ["s"])
    residual = model.residual(mean * np.e, mean, args)
    np.testing.assert_allclose(residual[..., 0], 1 / std[..., 0])
    np.testing.assert_allclose(model.std(mean, args)[..., 1], std[..., 1])
    with pytest.raises(
        ValueError, match="`noise_std` must be left out: observable 'b'"
    ):
        as_noise({"a": 0.1, "b": Poisson()}, ["a", "b"]).with_std(0.1)
    with pytest.raises(ValueError, match=r"broadcast to \(n_samples, n_times, 2\)"):
        model.with_std(np.ones((3, 3)))
    with pytest.raises(ValueError, match=r"`noise_std` must be >= 0"):
        model.with_std(-1)


def test_kinds_side_by_side_equal_each_alone():
    kinds = dict(zip("abcdefgh", REFERENCE))
    model = as_noise(kinds, list(kinds))
    rng = np.random.RandomState(1)
    mean = torch.tensor(rng.uniform(1, 8, (2, 3, 8)))
    y = torch.tensor(rng.poisson(4, (2, 3, 8)) + 1.0)
    args = model.arguments(mean.new_zeros(2, 0), [])
    for j, kind in enumerate(kinds.values()):
        alone, m, own = at(kind, mean[..., j : j + 1].numpy())
        x = y[..., j : j + 1]
        for together, apart in [
            (model.log_prob(y, mean, args), alone.log_prob(x, m, own)),
            (model.weight(mean, args), alone.weight(m, own)),
            (model.residual(y, mean, args), alone.residual(x, m, own)),
            (model.std(mean, args), alone.std(m, own)),
            (model.stabilize(y), alone.stabilize(x)),
        ]:
            assert together.shape == mean.shape
            torch.testing.assert_close(together[..., j : j + 1], apart)
    assert model.sample(mean, args, torch.Generator()).shape == mean.shape
    torch.testing.assert_close(model.restore(model.stabilize(y)), y)
    np.testing.assert_allclose(model.restore(model.stabilize(y.numpy())), y.numpy())


def test_sampling_is_repeatable_and_stays_in_single_precision():
    model = as_noise(dict(zip("abcdefgh", REFERENCE)), list("abcdefgh"))
    mean = torch.full((2, 3, 8), 2.0)
    args = model.arguments(torch.zeros(2, 0), [])
    first, second = (
        model.sample(mean, args, torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert first.dtype == torch.float32
    assert torch.equal(first, second)


def test_readings_of_zero_can_be_stabilized():
    kinds = {"a": LogNormalNoise(0.1), "b": Poisson()}
    for y in (torch.zeros(1, 1, 2), np.zeros((1, 1, 2))):
        stable = as_noise(kinds, ["a", "b"]).stabilize(y)
        assert type(stable) is type(y)
        assert np.isfinite(np.asarray(stable)).all()


# -- what users read -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noise", "text", "words"),
    [
        (NormalNoise(0.1), "Normal(0.1)", "normal, sd 0.1"),
        (NormalNoise(), "Normal()", "normal, sd unknown (estimated)"),
        (LogNormalNoise("s"), "LogNormal('s')", "log-normal, sd 's' (estimated)"),
        (StudentT(4, 0.1), "StudentT(4, 0.1)", "Student t, df 4, scale 0.1"),
        (StudentT(4), "StudentT(4)", "Student t, df 4, scale unknown (estimated)"),
        (Laplace([0.1, 0.2]), "Laplace([0.1, 0.2])", "Laplace, scale 0.1 to 0.2"),
        (Poisson(), "Poisson()", "Poisson"),
        (
            NegativeBinomial(10),
            "NegativeBinomial(10)",
            "negative binomial, dispersion 10",
        ),
        (Binomial(1000), "Binomial(1000)", "binomial, total 1000"),
        (NormalNoise(abs), "Normal(abs)", "normal, sd a function of params"),
    ],
)
def test_noise_tells_what_it_is(noise, text, words):
    assert repr(noise) == text
    assert as_noise(noise, ["y"]).describe() == words
    again = pickle.loads(pickle.dumps(noise))
    assert again == noise
    assert hash(again) == hash(noise)


def test_model_tells_what_it_is():
    model = as_noise({"a": Poisson(), "b": 0.1, "c": NormalNoise(0.1)}, list("abc"))
    assert (
        repr(model)
        == "NoiseModel({'a': Poisson(), 'b': Normal(0.1), 'c': Normal(0.1)})"
    )
    assert model.describe() == "a: Poisson; b, c: normal, sd 0.1"
    simple = as_noise(["s", 0.1], ["a", "b"])
    assert simple.with_std(1.0).describe() == "normal, scale given by reading"
    many = [NormalNoise(0.1 + 0.01 * i) for i in range(20)]
    names = [f"u{i}" for i in range(21)]
    assert as_noise(many, names[:20]).describe() == "normal, sd 0.1 to 0.29"
    told = as_noise([*many, Poisson()], names).describe()
    assert told == "20 observables: normal, sd 0.1 to 0.29; 1 observables: Poisson"
    for same in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert same == model
        assert hash(same) == hash(model)
    assert simple != model
    assert as_noise(model, ["a"]) is model


@pytest.mark.parametrize(
    ("kind", "y", "must"),
    [
        (Poisson(), -3.0, "counts must be whole numbers >= 0"),
        (NegativeBinomial(4), 2.5, "counts must be whole numbers >= 0"),
        (Binomial(10), 11.0, "at most the total"),
        (LogNormalNoise(0.1), 0.0, "must be positive. Leave out"),
    ],
)
def test_impossible_readings_are_refused(kind, y, must):
    model = as_noise({"fine": 0.1, "bad": kind}, ["fine", "bad"])
    readings = np.ones((2, 3, 2))
    readings[0, 0] = np.nan
    model.check_observations(readings)
    readings[1, 2, 1] = y
    with pytest.raises(ValueError, match=must) as info:
        model.check_observations(readings)
    assert f"Observable 'bad' has the reading {y:g} (sample 1, time 2" in str(
        info.value
    )


@pytest.mark.parametrize(
    ("value", "options", "match"),
    [
        (
            {"a": 1},
            {},
            r"one entry for each observable \['a', 'b'\]\. Got entries for \['a'",
        ),
        ([Poisson()], {}, r"one entry for each observable"),
        ([0.1, 0.2, 0.3], {}, "one entry for each of 2 observables. Got 3"),
        (np.ones((4, 3)), {}, "one entry for each of 2 observables. Got 3"),
        (
            np.ones((4, 2)),
            {"n_times": 5},
            "one number or one for each of 5 times. Got 4",
        ),
        (
            "typo",
            {"param_names": ["s"]},
            r"names 'typo', which is not among the params \['s'",
        ),
        (lambda p: p.typo, {"param_names": ["s"]}, "It failed.*typo"),
        (
            lambda p: np.sqrt(p.s),
            {"param_names": ["s"]},
            "arithmetic and torch functions",
        ),
    ],
)
def test_noise_that_does_not_fit_is_refused(value, options, match):
    with pytest.raises(ValueError, match=match):
        as_noise(value, ["a", "b"], **options)


def test_names_are_looked_for_at_the_latest_when_they_are_used():
    model = as_noise("typo", ["a"])
    with pytest.raises(ValueError, match=r"names 'typo'.*Give it a prior in `params`"):
        model.arguments(torch.ones(1, 1), ["s"])


@pytest.mark.parametrize("value", [0, -1.0, np.nan, INF, [0.1, 0.0]])
def test_scales_must_be_positive(value):
    with pytest.raises(
        ValueError, match="scale of Normal noise must be positive and finite"
    ):
        NormalNoise(value)


@pytest.mark.parametrize("value", [True, {}, object(), stats.norm(0, 1), [[["s"]]], []])
def test_what_is_no_noise_is_refused(value):
    with pytest.raises(TypeError, match="scale of Normal noise must be a number"):
        NormalNoise(value)
    if value:
        with pytest.raises(TypeError, match="`noise` must be a number, an array"):
            as_noise({"a": value}, ["a"])


def test_a_prior_is_no_noise():
    with pytest.raises(
        TypeError, match=r"or noise as Normal\(0.1\).*Got .*, a prior\."
    ):
        as_noise(NormalPrior(0, 1), ["a"])


def test_arguments_without_default_must_be_given():
    with pytest.raises(
        ValueError, match="dispersion of NegativeBinomial noise must be given"
    ):
        NegativeBinomial(None)
    with pytest.raises(
        ValueError, match=r"total of Binomial noise must be whole\. Got 2"
    ):
        Binomial([10, 2.5])
