"""What readings can tell of each param, and which combinations of params they tell."""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import chi2

from sklearn_inverse.inspection._profile import (
    ProfileLikelihood,
    optimum_of,
    profiles_of,
)
from sklearn_inverse.optim._levenberg_marquardt import levenberg_marquardt
from sklearn_inverse.probability._combinations import (
    blocks,
    combinations,
    listed,
    null_space,
)
from sklearn_inverse.utils._docs import shared_docs

__all__ = ["Identifiability", "identifiability"]

N_PLACES = 6  # where ranks are looked at: the optimum, and draws from the prior
SAME = 0.05  # deviance: params that fit alike
TIED = 0.15  # share of params in weak directions
STRUCTURAL = "structurally not"
PRACTICAL = "practically not"


@dataclass(repr=False)
class Identifiability:
    """What the readings of one sample tell of the params; print it for a table.

    Attributes
    ----------
    names : list of str
        Names of the params.

    optimum : ndarray of shape (n_params,)
        The params that fit best.

    interval : ndarray of shape (n_params, 2)
        Limits by the profile likelihood, infinite where the readings set none.

    verdicts : list of str
        For each param "identified", "not unique", "practically not" or "structurally
        not".

    reasons : list of str
        What holds the param instead.

    notes : list of str
        Which combinations are determined, and which params can be exchanged.

    profiles : ProfileLikelihood or None
        Profiles of the params that are not structurally unidentifiable.

    level : float
        Confidence level of the limits.
    """

    names: list
    optimum: np.ndarray
    interval: np.ndarray
    verdicts: list
    reasons: list
    notes: list
    profiles: ProfileLikelihood | None
    level: float

    def __repr__(self):
        n = self.verdicts.count("identified")
        return f"Identifiability({n} of {len(self.names)} params identified)"

    def __str__(self):
        ends = [f"[{low:.3g}, {high:.3g}]" for low, high in self.interval]
        cells = [["", *self.names], ["optimum", *(f"{x:.4g}" for x in self.optimum)]]
        cells += [[f"{100 * self.level:g} % limits", *ends]]
        widths = [max(map(len, column)) + 3 for column in cells]
        words = (f"{v}: {r}" if r else v for v, r in zip(self.verdicts, self.reasons))
        rows = zip(*cells, ["identified?", *words])
        lines = [
            "".join(f"{cell:{width}}" for cell, width in zip(row, [*widths, 0]))
            for row in rows
        ]
        return "\n".join(lines + ([""] if self.notes else []) + self.notes)


@shared_docs
def identifiability(
    inverter,
    observations,
    sample_index=0,
    *,
    n_points=10,
    level=0.95,
    noise_std=None,
    inputs=None,
):
    """Say of each param whether the readings of a sample can tell it.

    A param is *structurally not* identifiable if it can change, together with others,
    without any effect on what is read, wherever the params are: such directions have a
    singular value of zero, to round-off, at the optimum and at draws from the prior. It
    is *practically not* identifiable if its profile likelihood is open: up to a bound
    of the prior, or held by bounds of other params only. It is *not unique* if another
    optimum fits as well. The prior counts nowhere, except for its bounds.

    Parameters
    ----------
    inverter : fitted inverter that searches, or Pipeline ending in one
        Finds the optimum.

    %(observations)s

    %(sample_index)s

    n_points : int, default=10
        About how many points each profile has.

    level : float, default=0.95
        Confidence level of the limits.

    %(noise_std)s

    %(inputs)s

    Returns
    -------
    verdict : Identifiability
        Print it.

    See Also
    --------
    profile_likelihood : The profiles behind the limits.

    Notes
    -----
    All is local but for the optima that the inverter found and the exchange of two
    params, which is tried. What is said of structure holds for the times that were
    read.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse import GradientInverter, ODESystem
    >>> from sklearn_inverse.inspection import identifiability
    >>> def decay(t, y, p):
    ...     return -p.a * p.b * y.amount
    >>> system = ODESystem(
    ...     decay, states={"amount": "start"}, times=[0.0, 1.0, 2.0, 4.0], noise=0.02,
    ...     params={"a": (0.1, 3.0), "b": (0.1, 3.0), "start": (0.1, 3.0)},
    ... )
    >>> measured = [[1.0, 0.37, 0.15, 0.02]]
    >>> inverter = GradientInverter(system, random_state=0).fit(measured)
    >>> verdict = identifiability(inverter, measured)
    >>> verdict.verdicts
    ['structurally not', 'structurally not', 'identified']
    >>> verdict.notes
    ['only a*b is determined']
    """
    fitted = optimum_of(inverter, observations, sample_index, noise_std, inputs)
    objective = fitted.objective(weighs_prior=False)
    threshold = chi2.ppf(level, 1)
    with fitted.model.unchanging():
        ends = _optima(objective, fitted.optima(objective))
        nulls, places = _structure(fitted, objective, ends.x[:1])
        is_lost = np.abs(nulls[0]).max(axis=1, initial=0.0) > 1e-6
        told = np.flatnonzero(~is_lost).tolist()
        profiles = None
        if told:
            profiles = profiles_of(
                fitted, objective, told, n_points, level, optima=ends.x[:1]
            )
        swaps, others = _alternatives(fitted, objective, ends, told, threshold)
        weak = _weak(objective, ends.x[:1], threshold)
    names, optimum = fitted.answer.names, _own(fitted, ends.x[:1])[0]
    interval = np.tile([-np.inf, np.inf], (len(names), 1))
    if profiles is not None:
        optimum[told], interval[told] = profiles.optimum, profiles.interval
    verdicts, reasons = zip(*map(_verdict, interval, is_lost))
    verdicts, notes = list(verdicts), _structural_notes(nulls, places, names)
    for pair, other in [*swaps, *((None, other) for other in others)]:
        differs = (other < interval[:, 0]) | (other > interval[:, 1])
        new = [j for j in np.flatnonzero(differs) if verdicts[j] == "identified"]
        if pair is not None and differs[pair].all():
            notes.append(f"{names[pair[0]]} and {names[pair[1]]} can be exchanged")
        elif new:
            at = ", ".join(f"{n} {x:.3g}" for n, x in zip(names, other))
            notes.append(f"the readings fit as well at {at}")
        for j in new:
            verdicts[j] = "not unique"
    is_weak = np.array([verdict == PRACTICAL for verdict in verdicts])
    notes += _weak_notes(weak, optimum, _slope(fitted, optimum), is_weak, names)
    return Identifiability(
        names, optimum, interval, verdicts, list(reasons), notes, profiles, level
    )


def _optima(objective, starts):
    """Return the optima of the likelihood alone, the best first."""
    sample = torch.zeros(len(starts), dtype=torch.long, device=starts.device)
    end = levenberg_marquardt(objective, starts, sample, max_iter=100, tol=1e-8)
    order = end.value.argsort()
    return end._replace(
        x=end.x[order], value=end.value[order], hessian=end.hessian[order]
    )


def _own(fitted, x):
    """Return params in their own units."""
    scaler = fitted.model.param_scaler_
    return scaler.from_scaled(x[:, : len(scaler.width)].cpu().numpy())


def _slope(fitted, params):
    """Return the derivatives of params by scaled ones."""
    return fitted.model.param_scaler_.slope_tensor(torch.as_tensor(params)).numpy()


def _structure(fitted, objective, best):
    """Return null spaces and params at the places where the rank is highest."""
    prior, rng = fitted.model.prior_, np.random.RandomState(0)
    drawn = prior.from_standard(rng.standard_normal((N_PLACES - 1, prior.n_params)))
    drawn = fitted.inverter._scaled(drawn)
    sample = torch.zeros(N_PLACES, dtype=torch.long, device=best.device)
    x = torch.cat([best, objective.with_scales(drawn, sample[1:])])
    roots = objective.sensitivity(x, sample)[..., : prior.n_params].cpu().numpy()
    params = _own(fitted, x)
    nulls = [null_space(root) if np.isfinite(root).all() else None for root in roots]
    found = [(n, k) for n, k in zip(nulls, params) if n is not None]
    fewest = min(n.shape[1] for n, _ in found)
    found = [(n, k) for n, k in found if n.shape[1] == fewest][:2]
    slopes = [_slope(fitted, k) for _, k in found]
    return [n for n, _ in found], [(k, slope) for (_, k), slope in zip(found, slopes)]


def _structural_notes(nulls, places, names):
    """Return what is determined of each block of params that only act together."""
    notes = []
    for block in blocks(nulls[0]):
        own = [names[j] for j in block]
        n_told = len(block) - _within(nulls[0], block).shape[1]
        exact, rough = (_agreed(nulls, places, block, own, tol) for tol in (1e-4, 0.1))
        if exact:
            verb = "is" if n_told == 1 else "are"
            notes.append(f"only {listed(exact)} {verb} determined")
        elif n_told == 0:
            notes.append(f"{own[0]} has no effect on what is read")
        else:
            nearly = f", nearly {listed(rough)}" if rough else ""
            what = "1 combination" if n_told == 1 else f"{n_told} combinations"
            notes.append(f"of {listed(own)} only {what} can be told{nearly}")
    return notes


def _agreed(nulls, places, block, own, tol):
    """Return the formulas of a block if they are the same at all places, else None."""
    first, *rest = (
        combinations(_within(null, block), params[block], slope[block], own, tol=tol)
        for null, (params, slope) in zip(nulls, places)
    )
    return first if all(other == first for other in rest) else None


def _weak(objective, best, threshold):
    """Return the directions that may be walked all through the prior's range."""
    sample = torch.zeros(1, dtype=torch.long, device=best.device)
    root = objective.sensitivity(best, sample)[0, :, : objective.n_params]
    return null_space(root.cpu().numpy(), smallest=threshold**0.5)


def _weak_notes(weak, params, slope, is_weak, names):
    """Return what is determined of params that are tied in weak directions."""
    notes = []
    for block in blocks(weak, smallest=TIED):
        own = [names[j] for j in block]
        if is_weak[block].sum() > 1:
            null = _within(weak, block)
            formulas = combinations(null, params[block], slope[block], own, tol=0.1)
            told = f": hardly more than {listed(formulas)} is told" if formulas else ""
            notes.append(f"{listed(own)} are hardly told apart{told}")
    return notes


def _within(null, block):
    """Return the part of a null space that lies within a block of params."""
    vectors, values, _ = np.linalg.svd(null[block], full_matrices=False)
    return vectors[:, values > 0.5]


def _alternatives(fitted, objective, ends, told, threshold):
    """Return params that fit as well: two of them exchanged, and other optima.

    Returns
    -------
    swaps : list of (pair, ndarray of shape (n_params,))
        Pairs that can be exchanged, and the params with these exchanged.

    others : list of ndarray of shape (n_params,)
        Other optima that are not worse than the threshold.
    """
    best, best_value = ends.x[0], ends.value[0]
    others = _own(fitted, ends.x[2 * (ends.value - best_value) < threshold])[1:]
    pairs = [list(pair) for pair in itertools.combinations(told, 2)]
    if not pairs:
        return [], list(others)
    swapped = np.repeat(_own(fitted, best[None]), len(pairs), axis=0)
    for row, pair in zip(swapped, pairs):
        row[pair] = row[pair[::-1]]
    x = best.repeat(len(pairs), 1)
    x[:, : swapped.shape[1]] = fitted.inverter._scaled(swapped)
    inside = ((x >= objective.low) & (x <= objective.high)).all(dim=1)
    value = torch.full_like(x[:, 0], torch.inf)
    rows = inside.nonzero()[:, 0]
    value[rows] = objective.value(x[rows], torch.zeros_like(rows))
    away = x - best
    distance = torch.einsum("np,pq,nq->n", away, ends.hessian[0], away)
    alike = (2 * (value - best_value) < SAME) & (distance > threshold)
    swaps = [(pairs[k], swapped[k]) for k in alike.nonzero()[:, 0].tolist()]
    return swaps, list(others)


def _verdict(ends, is_lost):
    """Return the verdict of a param with these limits, and the reason."""
    if is_lost:
        return STRUCTURAL, ""
    if np.isnan(ends).any():
        return PRACTICAL, "no limit could be found"
    if np.isfinite(ends).all():
        return "identified", ""
    if np.isinf(ends).all():
        return PRACTICAL, "only its prior holds it"
    side = "upper" if np.isinf(ends[1]) else "lower"
    return PRACTICAL, f"no {side} limit but its bounds"
