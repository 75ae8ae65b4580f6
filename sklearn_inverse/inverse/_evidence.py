"""Scales of priors of functions, found by what the readings are the likeliest under."""

import copy

import numpy as np
import torch

from sklearn_inverse.exceptions import BoundsWarning, NormalityWarning
from sklearn_inverse.optim._importance import n_effective, normalize, pick
from sklearn_inverse.optim._kinks import (
    EVERY,
    N_CHAINS,
    N_STEPS,
    SAME,
    Kinks,
    draw_kinks,
)
from sklearn_inverse.probability import InversionStatus
from sklearn_inverse.utils._warnings import warn_user

__all__ = ["kinks_of", "search_with_scales", "warn_of_scales"]

RUNG = 4.0  # at most, from one scale to the next that is tried
HOPELESS = 20.0  # below the best log evidence so far: no rung beyond is tried
N_SWEEPS = 3  # over several functions, whose scales depend on each other
N_RUNGS = 65  # of the scales of kinks, by which chains climb
GOOD_OVERLAP = 0.9  # mass that draws around linearized readings share with posteriors
GOOD_SHARE = 0.1  # of draws that count, if all are weighed
LITTLE = 1.01  # between scales whose priors are compared
STEEP = 0.5  # fall of log evidence by log scale, at a range's low end, worth a word


def search_with_scales(inverter, arrays, options):
    """Search params and scales of some samples.

    Scales on a ladder are tried with one start each; the likeliest, then refined by half
    a rung, are those of the search proper. Functions with kinks are drawn from there.

    Parameters
    ----------
    inverter : CheckedInverter
        Its prior has ``open_scales``.

    arrays : sequence of ndarray of shape (n_samples, …)
        What a chunk is searched from.

    options : dict
        Also for ``_search_chunk``.

    Returns
    -------
    answer : Posterior
        With ``scales``.
    """
    prior = inverter.model_.prior_
    ranges = np.array(list(prior.open_scales.values()))
    quick = copy.copy(inverter)
    quick.n_starts, quick.continuation, quick.max_solves = 1, False, 0
    scales = np.tile(np.sqrt(ranges.prod(axis=1)), (len(arrays[0]), 1))
    spent = np.zeros((3, len(scales)), dtype=int)
    has_kinks = _has_kinks(prior)
    if inverter._is_trial:
        return _by_group(inverter, scales, arrays, options)

    def evidence(j, candidate, rows):
        """Return the log evidence of some samples at their candidates for one scale."""
        moved = scales[rows]
        moved[:, j] = candidate
        answer = _by_group(quick, moved, [a[rows] for a in arrays], options)
        spent[:, rows] += answer.n_iter, answer.n_forward, answer.n_linearized
        return np.nan_to_num(answer.log_evidence, nan=-np.inf)

    def climb(j, rungs):
        """Put each sample on the rung that it likes best, from the middle on."""
        everyone, middle = np.arange(len(scales)), len(rungs) // 2
        best = evidence(j, rungs[middle], everyone)
        place = np.full(len(scales), middle)
        for order in (range(middle - 1, -1, -1), range(middle + 1, len(rungs))):
            rows = everyone
            for k in order:
                value = evidence(j, rungs[k], rows)
                better = value > best[rows]
                best[rows[better]], place[rows[better]] = value[better], k
                rows = rows[value > best[rows] - HOPELESS]
                if len(rows) == 0:
                    break
        scales[:, j] = rungs[place]
        return best

    everyone = np.arange(len(scales))
    for _ in range(1 if len(ranges) == 1 else N_SWEEPS):
        before = scales.copy()
        for j, (low, high) in enumerate(ranges):
            n_rungs = 1 + max(int(np.ceil(np.log(high / low) / np.log(RUNG))), 1)
            rungs = np.geomspace(low, high, n_rungs)
            best = climb(j, rungs)
            found, half = scales[:, j].copy(), np.sqrt(rungs[1] / rungs[0])
            for candidate in (found / half, found * half):
                candidate = candidate.clip(low, high)
                value = evidence(j, candidate, everyone)
                scales[value > best, j] = candidate[value > best]
                best = np.maximum(best, value)
        if (scales == before).all():
            break
    answer = _by_group(inverter, scales, arrays, options, has_kinks)
    answer.n_iter += spent[0]
    answer.n_forward += spent[1]
    answer.n_linearized += spent[2]
    return answer


def _by_group(inverter, scales, arrays, options, has_kinks=False):
    """Search samples together whose scales are the same, and draw functions with kinks."""
    answer = inverter._blank(arrays[0])
    answer.scales = scales.copy()
    # Told apart by twelve digits: what is half a rung up and down again is the same.
    rounded = np.array([[float(f"{s:.12g}") for s in row] for row in scales])
    for values in np.unique(rounded, axis=0):
        rows = (rounded == values).all(axis=1)
        closed = copy.copy(inverter)
        closed.model_ = inverter.model_.with_prior(
            inverter.model_.prior_.at_scales(values)
        )
        if has_kinks:
            closed.max_solves = 0
        part = closed._search_chunk(*(a[rows] for a in arrays), **options)
        if (part.status == InversionStatus.INTERRUPTED).any():
            raise KeyboardInterrupt
        if has_kinks:
            _draw(inverter, closed, part, *(a[rows] for a in arrays[:3]))
        for name, value in vars(part).items():
            if not isinstance(value, np.ndarray) or name == "scales":
                continue
            if name == "ends":  # as many as the group that tried most has
                value = inverter._join_ends(answer, value)
            elif not np.size(getattr(answer, name)):
                shape = len(rows), *value.shape[1:]
                setattr(answer, name, np.full(shape, np.inf))
            getattr(answer, name)[rows] = value
    return answer


def _draw(inverter, closed, answer, readings, inputs, noise_std=None):
    """Let chains tell functions with kinks, of samples that were found without these.

    Readings are linearized around the mean. Runs of the model at draws, as many as
    ``max_solves`` allows, say how good that is; if all draws were run, they are weighed.
    """
    prior, p = inverter.model_.prior_, inverter.n_params_
    kinks = kinks_of(prior, closed.model_.prior_)
    rows = np.flatnonzero(answer.explained)
    n_draws = N_STEPS // EVERY * N_CHAINS
    answer.draws = np.full((len(answer), n_draws, p), np.nan)
    if len(rows) == 0:
        return
    arrays = [None if a is None else a[rows] for a in (readings, noise_std, inputs)]
    everyone = torch.arange(len(rows), device=inverter._device)
    likelihood = inverter._objective(*arrays, weighs_prior=False)

    def scaled(w):
        return inverter._scaled(prior.from_coordinate(w))

    def linearize(w, sample):
        x = scaled(w)
        value, slope, information = likelihood.linearize(x, everyone[sample])
        slope = torch.where(value.isfinite()[:, None], slope, torch.nan)
        by_w = prior.mixing @ prior.standard_slope(x.cpu().numpy())
        by_w = 1 / np.einsum("spp->sp", by_w)  # entry by entry
        information = information.cpu().numpy() * by_w[:, :, None] * by_w[:, None]
        return information, -slope.cpu().numpy() * by_w

    start = prior.to_coordinate(answer.params[rows])
    drawn = draw_kinks(linearize, start, kinks, inverter._sample_seed)
    draws, part = drawn.draws, answer[rows]
    information, slope = linearize(drawn.center, np.arange(len(rows)))
    part.rhat, part.n_effective = drawn.rhat, drawn.n_effective
    part.is_confirmed = drawn.rhat.max(axis=1) <= SAME
    n_runs = min(inverter.max_solves, n_draws)
    if n_runs:
        which = np.linspace(0, n_draws - 1, n_runs).astype(int)
        away = draws[:, which] - drawn.center[:, None]
        told = np.einsum("sdp,sp->sd", away, slope)
        told -= np.einsum("sdp,spq,sdq->sd", away, information, away) / 2
        x = scaled(draws[:, which].reshape(-1, p))
        value = likelihood.value(x, everyone.repeat_interleave(n_runs))
        weight = normalize(-value.cpu().numpy().reshape(told.shape) - told)
        part.overlap = np.minimum(weight, 1 / n_runs).sum(axis=1)
        part.effective_share, part.n_drawn[:] = n_effective(weight) / n_runs, n_runs
        if n_runs == n_draws:
            rng = np.random.default_rng(inverter._sample_seed)
            for i in np.flatnonzero(weight.any(axis=1)):
                draws[i] = draws[i, pick(weight[i], n_draws, rng)]
            part.n_effective *= part.effective_share[:, None]
            part.is_confirmed &= part.effective_share >= GOOD_SHARE
        else:
            part.is_confirmed &= part.overlap >= GOOD_OVERLAP
    center = draws.mean(axis=1)
    away = draws - center[:, None]
    spread = np.einsum("sdp,sdq->spq", away, away) / n_draws
    part.weights[:] = np.eye(1, part.weights.shape[1])
    part.centers[:], part.covariances[:] = center[:, None], spread[:, None]
    n_told = np.einsum("spq,sqp->s", information, spread).clip(0, part.n_readings - 1)
    objective = inverter._objective(*arrays)
    status, n_told = (
        torch.as_tensor(a).to(everyone.device) for a in (part.status, n_told)
    )
    inverter._judge(part, objective, scaled(center), everyone, status, n_told=n_told)
    part.kind[:], part.log_evidence[:] = "mcmc", np.nan
    part.n_linearized += likelihood.n_linearized.numpy()
    part.n_forward += (likelihood.n_forward + objective.n_forward).numpy()
    part.draws = prior.from_coordinate(draws)
    kept = part.explained  # else readings are too far from linear
    for name, value in vars(part).items():
        if isinstance(value, np.ndarray):
            getattr(answer, name)[rows[kept]] = value[kept]


def _has_kinks(prior):
    return any(getattr(p, "kinks", False) for p in prior.priors.values())


def kinks_of(prior, closed):
    """Return how the coordinates of a prior, its scales known in ``closed``, are told."""
    basis, functions = closed.mixing.copy(), []
    for key, function in prior.priors.items():
        if not getattr(function, "kinks", False):
            continue
        own = prior.groups[key]
        bends, held = function.bends()
        n_free = function.size - len(held)
        whole = np.linalg.inv(np.vstack([bends[:n_free], held]))
        std = np.sqrt(np.diag(function.covariance))
        basis[own, own] = whole / std[:, None]
        differences = np.zeros((len(bends), len(basis)))
        differences[:, own] = bends @ whole
        column = np.full(len(bends), -1)
        column[:n_free] = own.start + np.arange(n_free)
        functions.append(
            (differences, column, np.geomspace(*function.scale_range, N_RUNGS))
        )
    differences, columns, ladders = zip(*functions)
    function = np.repeat(np.arange(len(functions)), [len(c) for c in columns])
    return Kinks(
        basis,
        np.concatenate(differences),
        np.concatenate(columns),
        function,
        np.stack(ladders),
    )


def _fall(prior, answer, i, j):
    """Return how steeply the log evidence of a sample falls with the log of a scale.

    By Fisher's identity: a direction in which readings say that the function is flat adds
    one, a direction that they do not tell adds nothing.
    """
    scales = answer.scales[i]
    here = prior.at_scales(scales)
    more = prior.at_scales(scales * LITTLE ** np.eye(len(scales))[j])
    into = np.linalg.inv(here.mixing)
    gain, eye = into @ more.mixing, np.eye(len(into))
    gain = (gain @ gain.T - eye) / np.log(LITTLE)
    z = into @ answer.centers[i, 0]
    told = eye - into @ answer.covariances[i, 0] @ into.T - np.outer(z, z)
    return 0.5 * np.sum(gain * told)


def warn_of_scales(prior, answer):
    """Say where readings want functions that vary more, or less, than ranges allow."""
    for j, (name, (low, high)) in enumerate(prior.open_scales.items()):
        own = answer.scales[:, j]
        at_high, at_low = (np.isclose(own, e, rtol=1e-9, atol=0) for e in (high, low))
        at_low &= ~at_high
        for i in np.flatnonzero(at_low):
            at_low[i] = _fall(prior, answer, i, j) > STEEP
        for at_end, end, what in ((at_high, high, "more"), (at_low, low, "less")):
            if at_end.any():
                warn_user(
                    f"The readings of {at_end.sum()} of {len(answer)} samples want the "
                    f"function {name!r} to vary {what} than its prior allows: its scale "
                    f"is at the end of its range, {end:g}. Give a wider one, "
                    "scale=(low, high).",
                    BoundsWarning,
                )
    if not _has_kinks(prior):
        return
    apart = (answer.kind == "mcmc") & (answer.rhat.max(axis=1) > SAME)
    without = (answer.kind == "laplace") & answer.explained
    for which, what in (
        (apart, "chains do not agree (R-hat above 1.05), bands may be too narrow"),
        (without, "readings are too far from linear: no kinks were let in"),
    ):
        if which.any():
            warn_user(
                f"Of functions with kinks {what}, in {which.sum()} of {len(answer)} "
                f"samples, the first at row {np.argmax(which)}. Take fewer nodes, or "
                "kinks=False.",
                NormalityWarning,
            )
