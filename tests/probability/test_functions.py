"""Claims: priors of functions are the processes that they are named after."""

import pickle

import numpy as np
import pytest

from sklearn_inverse.probability import GaussianFunction, JointPrior, LogUniform


def covariance(prior):
    std = np.array([marginal.std for marginal in prior.marginals])
    return prior.correlation * np.outer(std, std)


def test_order_one_between_known_ends_is_a_brownian_bridge():
    prior = GaussianFunction(21, scale=3.0, ends=(1, 2), interval=(0, 2))
    x = prior.nodes[1:-1]
    bridge = 9 * (np.minimum(x[:, None], x) - np.outer(x, x) / 2)
    assert np.allclose(covariance(prior), bridge)
    assert np.allclose(JointPrior({"f": prior}).median, 1 + x / 2)


def test_order_two_between_known_ends_is_twice_integrated_noise():
    prior = GaussianFunction(201, order=2, scale=1.0, ends=(0, 0))
    x = prior.nodes[1:-1]
    # Green's function of the beam that rests on its ends, f'''' = δ.
    low, high = np.minimum(x[:, None], x), np.maximum(x[:, None], x)
    beam = low * (1 - high) * (1 - low**2 - (1 - high) ** 2) / 6
    assert np.allclose(covariance(prior), beam, atol=1e-3 * beam.max())


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_open_ends_have_the_spread_that_was_given(order, scale):
    options = {"scale": scale, "mean": 2.0, "std": 0.5, "interval": (-1, 2)}
    prior = GaussianFunction(np.int64(9), order, **options)
    assert np.allclose([m.mean for m in prior.marginals], 2)
    known = covariance(prior)
    assert np.allclose(known[[0, -1], [0, -1]], 0.5**2)
    assert known[0, -1] == pytest.approx(
        _shared(0.5**2, 3 * scale**2) if order == 1 else 0.0, abs=1e-9
    )


def _shared(v, d):
    """Covariance of both ends, of variance v, whose difference is held to variance d."""
    return (np.hypot(d, 2 * v) - d) / 2


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_corners_have_the_spread_that_was_given(order, scale):
    options = {"scale": scale, "std": 0.5, "interval": ((-1, 2), (0, 1)), "over": "xy"}
    prior = GaussianFunction([7, 5], order, **options)
    assert prior.shape == (7, 5)
    assert [len(nodes) for nodes in prior.nodes] == [7, 5]
    variance = np.diag(covariance(prior)).reshape(7, 5)
    assert np.allclose(variance[np.ix_([0, -1], [0, -1])], 0.5**2)


def test_of_two_coordinates_all_derivatives_count():
    options = {"scale": 3.0, "std": 1e3, "interval": ((0, 1), (0, 2)), "over": "xt"}
    for order, errors in ((1, []), (2, [])):
        for n in (9, 17):
            prior = GaussianFunction((n, n), order, **options)
            x, y = np.meshgrid(*prior.nodes, indexing="ij")
            g = (x**2 * y).ravel()
            found = g @ np.linalg.solve(prior.covariance, g)
            # ∫ (2xy)² + x⁴, and ∫ (2y)² + 2 (2x)²
            exact = (32 / 9 + 2 / 5 if order == 1 else 32 / 3 + 16 / 3) / 9
            errors.append(abs(found / exact - 1))
        assert errors[1] < 0.05  # bends at the border are left out
        assert errors[1] < 0.6 * errors[0]


def test_a_known_border_is_no_param():
    prior = GaussianFunction((5, 4), scale=1.0, ends=2.0, link="exp", over="xy")
    assert prior.size == 6
    assert np.allclose(JointPrior({"f": prior}).median, 2)
    whole = prior.whole(np.arange(6.0))
    assert np.allclose(whole[1:-1, 1:-1], np.arange(6.0).reshape(3, 2))
    assert np.allclose([*whole[0], *whole[-1], *whole[:, 0], *whole[:, -1]], 2)


def test_positive_functions_stay_positive_and_keep_their_ends():
    prior = GaussianFunction(11, scale=2.0, ends=(1, 4), link="exp")
    draws = JointPrior({"f": prior}).from_standard(np.full((1, 9), -3.0))
    assert (draws > 0).all()
    assert np.allclose(prior.whole(draws[0]), [1, *draws[0], 4])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_nodes": 2}, "3 at least"),
        ({"order": 3}, "`order` must be one of"),
        ({"order": 1.0}, "`order` must be one of"),
        ({"order": np.array([1, 2])}, "`order` must be one of"),
        ({"mean": "a"}, "`mean` must be one finite number"),
        ({"mean": [1, 2]}, "`mean` must be one finite number"),
        ({"link": "log"}, "`link` must be one of"),
        ({"scale": 0.0}, "`scale` must be positive"),
        ({"scale": (2, 1)}, "`scale` must be positive"),
        ({"scale": ("a", "b")}, "`scale` must be positive"),
        ({"scale": ((1, 2), 3)}, "`scale` must be positive"),
        ({"ends": (0, 1), "link": "exp"}, "must be positive"),
        ({"interval": (1, 0)}, r"must be \(low, high\)"),
        ({"interval": 1}, r"must be \(low, high\)"),
        ({"ends": 1}, "values at both ends"),
        ({"ends": (1, 2, 3)}, "values at both ends"),
        ({"n_nodes": 9.5}, "whole number"),
        ({"std": "1"}, "`std` must be positive"),
        ({"over": "xyz"}, "one or two coordinates"),
        ({"over": "xx"}, "one or two coordinates"),
        ({"over": ("x", "y")}, "one or two coordinates"),
        ({"n_nodes": (9, 9)}, "for each coordinate of `over`"),
        ({"n_nodes": (9, 2), "over": "xy"}, "3 at least"),
        ({"interval": ((0, 1), (2, 1)), "over": "xy"}, r"must be \(low, high\)"),
        ({"kinks": 1}, "`kinks` must be False or True"),
        ({"kinks": True, "scale": 2.0}, "their scale is found"),
        ({"kinks": True, "over": "xy"}, "have one coordinate"),
        ({"ends": (1, 2), "over": "xy"}, "one value at the border"),
        ({"ends": -1.0, "over": "xy", "link": "exp"}, "must be positive"),
    ],
)
def test_what_cannot_be_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        GaussianFunction(**options)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("over", ["x", "xt"])
def test_without_a_scale_priors_are_the_same_in_any_unit(order, over):
    unit, far = (
        GaussianFunction(6, order, over=over, interval=(0, length))
        for length in (1.0, 1e9)
    )
    assert unit.scale_range == (2.0**-8, 2.0**8)
    assert np.allclose(far.covariance, unit.covariance, rtol=1e-6)


def test_exponentials_that_overflow_are_refused_by_their_scale():
    options = {"order": 2, "link": "exp", "interval": (0, 150), "std": 2.0}
    assert np.isfinite(JointPrior({"D": GaussianFunction(9, **options)}).median).all()
    for scale in (2.0, (1.0, 4.0)):
        with pytest.raises(ValueError, match=r"by `scale` 2, std=2 on \(0.0, 150.0\)"):
            GaussianFunction(9, scale=scale, **options)


@pytest.mark.parametrize("ends", [(1, 2), None])
def test_a_scale_that_is_found_is_as_good_as_one_that_is_given(ends):
    options = {"order": 2, "ends": ends, "link": "exp"}
    other = {"rate": LogUniform(0.1, 10)}
    whole = JointPrior({"f": GaussianFunction(9, **options)} | other)
    assert whole.open_scales == {"f": (2.0**-8, 2.0**8)}
    found = whole.at_scales([3.0])
    given = JointPrior({"f": GaussianFunction(9, scale=3.0, **options)} | other)
    z = np.random.default_rng(0).standard_normal((4, given.n_params))
    params = given.from_standard(z)
    assert found == given != whole
    assert np.allclose(found.from_standard(z), params)
    assert np.allclose(found.log_prob(params), given.log_prob(params))
    assert np.allclose(pickle.loads(pickle.dumps(found)).to_standard(params), z)
    # Scaled params, and the coordinate of posteriors, mean the same at all scales.
    assert found.scaler is whole.scaler
    assert np.allclose(found.to_coordinate(params), whole.to_coordinate(params))


def test_priors_given_by_arrays_compare():
    one, other = (
        GaussianFunction(
            9, scale=kind([1, 2]), ends=kind([0, 0]), interval=kind([0, 1])
        )
        for kind in (np.array, tuple)
    )
    assert one == other
    assert one.scale_range == (1.0, 2.0)


@pytest.mark.parametrize(("n_nodes", "over"), [(33, "x"), ((13, 13), "xy")])
@pytest.mark.parametrize("std", [1.0, 100.0])
def test_stiff_functions_are_held_at_their_corners(n_nodes, over, std):
    prior = GaussianFunction(n_nodes, order=2, scale=2.0**-8, std=std, over=over)
    np.linalg.cholesky(prior.correlation)
    corners = np.sqrt(np.diag(prior.covariance))[[0, -1]]
    np.testing.assert_allclose(corners, std, rtol=1e-6)
