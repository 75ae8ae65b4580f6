"""Scales of priors of functions, found by what the readings are the likeliest under."""

import copy

import numpy as np

from sklearn_inverse.exceptions import BoundsWarning
from sklearn_inverse.probability import InversionStatus
from sklearn_inverse.utils._warnings import warn_user

__all__ = ["search_with_scales", "warn_of_scales"]

RUNG = 4.0  # at most, from one scale to the next that is tried
HOPELESS = 20.0  # below the best log evidence so far: no rung beyond is tried
N_SWEEPS = 3  # over several functions, whose scales depend on each other


def search_with_scales(inverter, arrays, options):
    """Search params and scales of some samples.

    Scales on a ladder are tried with one start each; the likeliest, then refined by half
    a rung, are those of the search proper.

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
    ranges = np.array(list(inverter.model_.prior_.open_scales.values()))
    quick = copy.copy(inverter)
    quick.n_starts, quick.continuation, quick.max_solves = 1, False, 0
    scales = np.tile(np.sqrt(ranges.prod(axis=1)), (len(arrays[0]), 1))
    spent = np.zeros((3, len(scales)), dtype=int)
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
    answer = _by_group(inverter, scales, arrays, options)
    answer.n_iter += spent[0]
    answer.n_forward += spent[1]
    answer.n_linearized += spent[2]
    return answer


def _by_group(inverter, scales, arrays, options):
    """Search samples together whose scales are the same."""
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
        part = closed._search_chunk(*(a[rows] for a in arrays), **options)
        if (part.status == InversionStatus.INTERRUPTED).any():
            raise KeyboardInterrupt
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


def warn_of_scales(prior, answer):
    """Say where readings want functions that vary more than their range allows."""
    for j, (name, (_, high)) in enumerate(prior.open_scales.items()):
        at_end = np.isclose(answer.scales[:, j], high, rtol=1e-9)
        if at_end.any():
            warn_user(
                f"The readings of {at_end.sum()} of {len(answer)} samples want the "
                f"function {name!r} to vary more than its prior allows: its scale is at "
                f"the end of its range, {high:g}. Give a wider one, scale=(low, high).",
                BoundsWarning,
            )
