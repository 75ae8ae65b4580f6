"""NIO and iFNO answer in one pass, and each is what its paper says it is."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sklearn_inverse import Design, ForwardFunction, Training
from sklearn_inverse.baselines import IFNOInverter, NIOInverter
from sklearn_inverse.baselines._nio import NIO, draw_subsets
from sklearn_inverse.exceptions import MisfitWarning
from sklearn_inverse.networks._ifno import IFNO, InvertibleBlock
from sklearn_inverse.probability import InversionStatus, LogUniform

TIMES = torch.linspace(0.0, 2.0, 8, dtype=torch.float64)
NOISE = 0.02
RNG = np.random.default_rng(0)
PARAMS = np.column_stack([RNG.uniform(0.5, 2.0, 400), RNG.uniform(0.8, 1.2, 400)])


def decay(params):
    rate, amount = params[:, :1], params[:, 1:]
    return amount * torch.exp(-rate * TIMES)


def curves(params):
    return decay(torch.as_tensor(params)).numpy()


def make_inverter(name, **options):
    cls = {"nio": NIOInverter, "ifno": IFNOInverter}[name]
    lr = {"nio": 3e-3, "ifno": 1e-2}[name]
    options = {
        "training": Training(lr=lr, max_epochs=25, batch_size=32),
        "design": Design(n_observed=(3, 8)),
        "width": 16,
        "random_state": 0,
    } | options
    if name == "ifno":
        options.setdefault("n_layers", 2)
    priors = {"rate": LogUniform(0.5, 2.0), "amount": (0.8, 1.2)}
    return cls(ForwardFunction(decay, params=priors, noise=NOISE), **options)


@pytest.fixture(scope="module", params=["nio", "ifno"])
def inverter(request):
    return make_inverter(request.param).fit(curves(PARAMS[:300]), PARAMS[:300])


@pytest.fixture(scope="module")
def readings():
    """Noisy readings of the other decays, at three to eight random times."""
    rng = np.random.default_rng(1)
    noisy = curves(PARAMS[300:]) + NOISE * rng.standard_normal((100, 8))
    n_seen = rng.integers(3, 9, (100, 1))
    return np.where(rng.random((100, 8)).argsort(axis=1) < n_seen, noisy, np.nan)


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.MisfitWarning")
def test_recovers_params_from_sparse_noisy_readings_in_one_pass(inverter, readings):
    answer = inverter.invert(readings)
    assert inverter.score(readings, PARAMS[300:]) > 0.7
    assert (answer.status == InversionStatus.CONVERGED).all()
    assert (answer.n_iter == 1).all()
    assert (answer.n_forward == 2).all()  # the model only judges
    assert inverter.n_iter_ == 1


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.MisfitWarning")
def test_companions_do_not_matter_and_nothing_is_forgotten(inverter, readings):
    together = inverter.predict(readings)
    np.testing.assert_array_equal(inverter.predict(readings[3:4]), together[3:4])
    again = pickle.loads(pickle.dumps(inverter))
    np.testing.assert_array_equal(again.predict(readings), together)
    quick = clone(inverter).set_params(training__max_epochs=2)
    first = clone(quick).fit(curves(PARAMS), PARAMS).predict(readings)
    second = clone(quick).fit(curves(PARAMS), PARAMS).predict(readings)
    np.testing.assert_array_equal(first, second)


def test_what_the_estimates_do_not_explain_is_said(inverter, readings):
    with pytest.warns(MisfitWarning, match="train longer, on more pairs"):
        inverter.predict(readings + 10 * NOISE * np.sin(np.arange(8)))


@pytest.mark.parametrize("name", ["nio", "ifno"])
@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.MisfitWarning")
def test_gaps_and_readings_at_the_times_of_a_design_are_learned_from(name):
    gaps = curves(PARAMS)
    gaps[::3, 2] = np.nan
    design = Design(n_observed=2, time_index=[2, 5])
    inverter = make_inverter(name, design=design, training=Training(max_epochs=1))
    inverter.fit(gaps, PARAMS)
    sparse = np.full((3, 8), np.nan)
    sparse[:, [2, 5]] = curves(PARAMS)[:3, [2, 5]]
    assert np.isfinite(inverter.predict(sparse)).all()


# --- NIO


def make_set(n_samples=6, n_readings=5, n_channels=3):
    time_index = torch.randint(0, 9, (n_samples, n_readings))
    mask = (torch.rand(n_samples, n_readings, n_channels) < 0.7).float()
    return time_index, torch.randn(mask.shape), mask


def make_nio():
    sizes = torch.linspace(0, 1, 9), 3, 2, torch.ones(3)
    return NIO(*sizes, n_basis=10, width=8, n_layers=2, n_modes=3)


def test_nio_does_not_know_the_order_of_readings_nor_how_often_all_are_said():
    module, parts = make_nio().double(), make_set()
    parts = parts[0], parts[1].double(), parts[2].double()
    expected = module(*parts)
    order = torch.randperm(5)
    shuffled = module(*(part[:, order] for part in parts))
    torch.testing.assert_close(shuffled, expected, rtol=1e-12, atol=1e-12)
    twice = module(*(torch.cat([part, part], dim=1) for part in parts))
    torch.testing.assert_close(twice, expected, rtol=1e-12, atol=1e-12)
    other = module(parts[0], parts[1] + parts[2] * torch.randn(6, 5, 3), parts[2])
    assert (other - expected).abs().min() > 1e-6


def test_nio_mixes_functions_of_single_readings_by_their_mean():
    module, (at, readings, mask) = make_nio(), make_set(n_samples=1)
    mask[:] = 1
    functions = []
    for i in range(5):
        said = torch.cat([readings[0, i], mask[0, i], module.harmonics[at[0, i]]])
        functions.append(module.of_reading(said))
    mean = torch.stack(functions).mean(dim=0)
    z = module.mix(torch.cat([mean, module.harmonics], dim=1))[:, None]
    for block in module.blocks:
        z = block(z, None)
    expected = module.head(z.transpose(0, 1))
    torch.testing.assert_close(module(at, readings, mask), expected)


def test_nio_sees_a_grid_with_gaps_as_the_set_of_what_was_read():
    module = make_nio()
    mask = torch.zeros(2, 9, 3)
    mask[:, [1, 4, 7]] = 1
    readings = torch.randn(2, 9, 3) * mask
    at = torch.tensor([[7, 1, 4]]).expand(2, -1)
    expected = module(at, readings[:, [7, 1, 4]], mask[:, [7, 1, 4]])
    torch.testing.assert_close(module.quantiles(readings, mask), expected)
    assert module.quantiles(0 * readings, 0 * mask).isfinite().all()


def test_subsets_are_of_two_to_all_readings_and_of_nothing_else():
    rng = torch.Generator().manual_seed(0)
    seen = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 1], [0, 0, 0, 0]])
    drawn = [draw_subsets(seen, rng) for _ in range(200)]
    assert {d.shape[1] for d in drawn} == {2, 3, 4}
    assert {int(i) for d in drawn for i in d[0]} == {0, 1, 2, 3}
    assert {int(i) for d in drawn for i in d[1]} == {0, 3}
    assert any(len(set(d[0].tolist())) < d.shape[1] for d in drawn)
    assert draw_subsets(seen[:, :1], rng).shape == (3, 1)


# --- iFNO


def make_ifno(n_times=9, n_layers=3, **options):
    sizes = torch.linspace(0, 1, n_times), 3, 2, torch.ones(3)
    options = {"width": 8, "n_modes": 3, "n_latent": 2, "beta": 1e-3} | options
    return IFNO(*sizes, n_layers=n_layers, **options)


@pytest.mark.parametrize("n_times", [1, 2, 9])
def test_ifno_s_inverse_is_exact(n_times):
    module = make_ifno(n_times)
    for dtype, tol in ((torch.float32, 1e-5), (torch.float64, 1e-13)):
        module.to(dtype)
        z = torch.randn(n_times, 50, 8, dtype=dtype)
        for there, back in (
            (module.evolve, module.revert),
            (module.revert, module.evolve),
        ):
            assert (there(z) - z).abs().max() > 0.1
            torch.testing.assert_close(back(there(z)), z, rtol=tol, atol=tol)


def test_ifno_s_block_is_the_paper_s_equation():
    block = InvertibleBlock(9, 8, 3)
    u1, u2 = torch.randn(2, 9, 5, 4)
    s1, s2 = (
        lambda x, s=s: torch.nn.functional.gelu(
            s.transform(s.spectral(x)) + s.pointwise(x)
        )
        for s in (block.s1, block.s2)
    )
    v1, v2 = block(u1, u2)
    torch.testing.assert_close(v1, u1 * (1 + s2(u2).exp()).log())
    torch.testing.assert_close(v2, u2 * (1 + s1(v1).exp()).log())


def test_ifno_is_trained_in_both_directions():
    module, at = make_ifno(), torch.rand(6, 2)
    given = {
        "quantiles": at,
        "trajectories": torch.randn(6, 9, 3),
        "readings": torch.randn(6, 9, 3),
        "mask": (torch.rand(6, 9, 3) < 0.4).float(),
        "noise": torch.randn(6, 2),
    }
    losses = module(**given)
    z, _ = module.lifted(2 * at - 1, given["readings"], given["mask"])
    off = module.to_trajectory(module.evolve(z)).transpose(0, 1) - given["trajectories"]
    assert losses[0].item() == pytest.approx(
        (off.square().sum() / given["trajectories"].square().sum()).sqrt().item()
    )
    assert losses.shape == (6,)
    for name in ("blocks", "lift_params", "lift_readings", "encode", "decode"):
        part = getattr(module, name)
        module.zero_grad()
        module(**given).sum().backward()
        assert all(p.grad.abs().max() > 0 for p in part.parameters()), name
    given["trajectories"][0] = torch.nan
    assert module(**given).isfinite().all()


def test_ifno_s_width_is_even():
    with pytest.raises(ValueError, match="`width` must be even"):
        make_inverter("ifno", width=7).fit(curves(PARAMS), PARAMS)
