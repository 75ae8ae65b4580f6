"""Measured data sets: their published fits, recovered from their tables."""

import numpy as np
import pytest

from sklearn_inverse import GradientInverter, ODESystem, ReactionSystem
from sklearn_inverse.datasets import (
    load_alpha_pinene,
    load_indomethacin,
    load_influenza,
    load_theophylline,
    observations_from_table,
    read_table,
)


def test_influenza_has_its_published_posterior():
    data = load_influenza()
    system = ODESystem(
        lambda t, y, p: [
            -p.beta * y.s * y.i / 763,
            (p.beta * y.s / 763 - p.gamma) * y.i,
        ],
        states={"s": 762.0, "i": 1.0},
        params={"beta": (0.1, 5), "gamma": (0.05, 2)},
        observe=["i"],
    )
    system, observed = read_table(system, data.table)
    found = GradientInverter(system, prior=None, random_state=0).fit(observed)
    best = found.predict(observed)[0]
    np.testing.assert_allclose(best, [1.66923, 0.44345], rtol=1e-4)  # least squares
    # The published posterior, of other noise, is elsewhere, though not far.
    z = (best - data.published["mean"][:2]) / data.published["std"][:2]
    assert (np.abs(z) < 3).all()


def test_alpha_pinene_has_its_published_optimum():
    data = load_alpha_pinene()
    system = ReactionSystem(
        {
            "alpha_pinene -> dipentene": "p1",
            "alpha_pinene -> alloocimene": "p2",
            "alloocimene -> pyronene": "p3",
            "alloocimene <-> dimer": ("p4", "p5"),
        },
        initial={"alpha_pinene": 100.0},
        params={f"p{i}": (1e-6, 1e-3) for i in range(1, 6)},
        noise=1.0,
    )
    system, observed = read_table(system, data.table)
    inverter = GradientInverter(system, prior=None, random_state=0).fit(observed)
    off = inverter.reconstruct(observed).ravel() - observed[0]
    best = pytest.approx(data.published["sum_of_squares"], rel=1e-5)
    assert np.nansum(off**2) == best
    found = inverter.predict(observed)[0]
    np.testing.assert_allclose(found, data.published["mean"], rtol=1e-3)


def test_theophylline_has_its_published_fit():
    data = load_theophylline()
    system = ODESystem(
        lambda t, y, p: [-p.ka * y.gut, p.ka * y.gut - p.ke * y.blood],
        states={"gut": "dose", "blood": 0.0},
        params={"ke": (0.01, 1), "ka": (0.1, 10), "cl": (0.005, 0.2)},
        inputs=["dose"],
        observe={"level": lambda t, y, p: y.blood * p.ke / p.cl},
    )
    people = observations_from_table(system, data.table)
    assert people.inputs[:, 0].tolist() == data.table["dose"][::11]
    inverter = GradientInverter(people.system, prior=None, random_state=0)
    inverter.fit(people.observations, inputs=people.inputs)
    answer = inverter.posterior(people.observations, inputs=people.inputs)
    first = np.log(answer.params[0])
    np.testing.assert_allclose(first, data.published["mean"], atol=2e-4)
    assert answer.noise_scale[0, 0] == pytest.approx(data.published["sigma"], rel=2e-3)
    assert np.isfinite(answer.params).all()


def test_indomethacin_has_its_published_fit():
    data = load_indomethacin()
    system = ODESystem(
        lambda t, y, p: [
            -(p.k10 + p.k12) * y.central + p.k21 * y.tissue,
            p.k12 * y.central - p.k21 * y.tissue,
        ],
        states={"central": 25.0, "tissue": 0.0},
        params={"k10": (0.1, 5), "k12": (0.1, 5), "k21": (0.01, 2), "v": (2, 50)},
        observe={"level": lambda t, y, p: y.central / p.v},
    )
    system, observed = read_table(system, data.table)
    inverter = GradientInverter(system, prior=None, random_state=0).fit(observed[:1])
    answer = inverter.posterior(observed[:1])
    k10, k12, k21, v = answer.params[0]
    total, product = k10 + k12 + k21, k10 * k21
    fast, slow = (total + s * np.sqrt(total**2 - 4 * product) for s in (1, -1))
    fast, slow = fast / 2, slow / 2
    heights = 25 / v * np.array([fast - k21, k21 - slow]) / (fast - slow)
    found = [heights[0], np.log(fast), heights[1], np.log(slow)]
    np.testing.assert_allclose(found, data.published["mean"], atol=5e-4)
    assert answer.noise_scale[0, 0] == pytest.approx(data.published["sigma"], rel=5e-3)
