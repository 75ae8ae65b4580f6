"""Learned equations as a system, whose params are the coefficients."""

from numbers import Real

import numpy as np

from sklearn_inverse.discovery._runs import Run
from sklearn_inverse.probability import MultivariateNormal, Normal
from sklearn_inverse.systems import Experiment, ODESystem

__all__ = ["LearnedRhs", "from_whole", "system_of"]

UNTOLD = 1e-10  # of the largest variance: directions that a choice decided
LEAST = 1e-6  # relative standard deviation of a prior: steps have errors of their own


class LearnedRhs:
    """The right-hand side of one sample: what is known, and terms with params."""

    __name__ = "learned"

    def __init__(self, exponents, terms, known):
        self.exponents, self.terms, self.known = exponents, terms, known

    def __call__(self, t, y, p):
        """Return the derivatives of the states."""
        d = self.exponents.shape[1]
        known = None if self.known is None else self.known(t, y)
        out = [None] * d if known is None else [known[k] for k in range(d)]
        for i, (k, term) in enumerate(self.terms):
            value = p[i]
            for j, power in enumerate(self.exponents[term].tolist()):
                for _ in range(power):
                    value = value * y[j]
            out[k] = value if out[k] is None else out[k] + value
        return [0.0 * y[k] if f is None else f for k, f in enumerate(out)]


def system_of(model, *, noise, widen):
    """Return the system of a fitted :class:`PolynomialODE`."""
    if not (isinstance(widen, Real) and 0 < widen < np.inf):
        raise ValueError(f"`widen` must be a number larger than 0. Got {widen!r}.")
    if model.module != "polynomial":
        raise ValueError(
            "A system needs terms, whose coefficients are its params and have errors. Got "
            f"module={model.module!r}."
        )
    kept = np.argwhere(model.coef_ != 0)
    if not len(kept):
        exact = model.noise_std_ is None
        advice = "lower `threshold`" if exact else "raise `degree`, or take more runs"
        raise ValueError(f"At least one term must have been found. Got none: {advice}.")
    if not np.isfinite(model.covariance_).all():
        raise ValueError(
            "The errors of the coefficients must be known, for their prior. They are not: "
            "there are as many coefficients as data. Add points, or lower `degree`."
        )
    names, terms = model.state_names_, model.feature_names_
    labels = _labels([(names[k], terms[term]) for k, term in kept], names)
    mean = model.coef_[model.coef_ != 0]
    params = {labels: MultivariateNormal(mean, _spread(model, mean, widen))}
    if noise is None and model.noise_std_ is not None:
        noise = model.noise_std_ * _common_noise(model.runs_)
    experiments = []
    for i, (t, y, noise_of_readings) in enumerate(
        map(from_whole, model.runs_), start=1
    ):
        initial = dict(zip(names, y[0].tolist()))
        if model.noise_std_ is not None:
            own = [f"{name}({i})" for name in names]
            rows = zip(own, y[0], model.noise_std_ * noise_of_readings[0])
            params |= {n: Normal(m, sd) for n, m, sd in rows}
            initial = dict(zip(names, own))
        experiments.append(Experiment(t, initial=initial, name=f"run {i}"))
    if isinstance(noise, np.ndarray):
        noise = noise.tolist()
    return ODESystem(
        LearnedRhs(model._rhs.monomials.exponents, kept.tolist(), model.known),
        states=dict.fromkeys(names, 0.0),
        params=params,
        nominal=dict(zip(labels, mean)),
        experiments=experiments,
        noise=noise,
        name="learned",
    )


def _common_noise(runs):
    """Return the noise that all readings of a state have, in units of its own."""
    noise, seen = (
        np.concatenate(parts)
        for parts in zip(*((run.noise, ~np.isnan(run.states)) for run in runs))
    )
    most = np.where(seen, noise, -np.inf).max(axis=0)
    least = np.where(seen, noise, np.inf).min(axis=0)
    if (most > (1 + 1e-9) * least).any():
        raise ValueError(
            "`noise` must be given, as that of readings differs from run to run or reading "
            "to reading, also by how many repeats were averaged, which a system cannot "
            "say: give those to the inverter."
        )
    return most


def _spread(model, mean, widen):
    """Return the prior's covariance: errors, wider; and what is not told, by its size."""
    size = np.outer(mean, mean)
    values, vectors = np.linalg.eigh(widen**2 * model.covariance_ / size)
    untold = model.is_choice_ & (values < UNTOLD * values.max())
    values = np.where(untold, 1.0, np.maximum(values, LEAST**2))
    half = vectors * np.sqrt(values)  # whose square is symmetric to the last digit
    return size * (half @ half.T)


def _labels(kept, names):
    """Return names of coefficients, as a_from_b_b; numbered where these are taken."""
    taken = list(names)
    for name, term in kept:
        label = word = f"{name}_from_{_word(term)}"
        n = 1
        while label in taken:
            n += 1
            label = f"{word}_{n}"
        taken.append(label)
    return tuple(taken[len(names) :])


def _word(term):
    """Return a monomial as a word: y1_y1_y2."""
    parts = (factor.split("^") for factor in term.split("*"))
    return "_".join("_".join([name] * int(*power or [1])) for name, *power in parts)


def from_whole(run):
    """Return a run from its first point at which all was measured."""
    whole = np.flatnonzero(~np.isnan(run.states).any(axis=1))
    first = whole[0] if len(whole) else 0
    return Run(*(part[first:] for part in run))
