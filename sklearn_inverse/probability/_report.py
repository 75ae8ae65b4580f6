"""The report of one sample, as users of lmfit know it."""

import itertools

import numpy as np
import torch
from scipy.stats import chi2

from sklearn_inverse.probability._combinations import combinations, connected, listed
from sklearn_inverse.probability._functions import GaussianFunction
from sklearn_inverse.probability._groups import GaussianProcess
from sklearn_inverse.probability._status import InversionStatus

__all__ = ["report"]

TIED = 0.7  # correlations worth a word
KNOWN, WEAK = 0.5, 0.9  # posterior over prior spread
LOST = 1 - 1e-5  # the same, of what the readings do not depend on
MANY, SHOWN = 100, 20  # params from which on not all are shown
INVOLVED = 0.15  # share of a param in directions that are not known


def report(result) -> str:
    """Return the report of an Estimate or a Posterior of a single sample."""
    lines = [_headline(result), "", *_table(result), ""]
    lines += [f"{word:9}{text}" for word, text in _facts(result) if text]
    return "\n".join(lines)


def _headline(result):
    about, n_solves = result.about, int(result.n_forward[0] + result.n_linearized[0])
    parts = [f"{int(result.n_readings[0])} readings, {len(result.names)} params"]
    if n_solves:
        parts.append(f"{n_solves} runs of the model")
    if result.n_optima[0] > 1:
        parts.append(f"{int(result.n_optima[0])} optima")
    return f"{about.get('model', 'model')}: {', '.join(parts)}"


def _table(result):
    if not np.isfinite(result.params).all():
        return ["nothing was found"]
    has_spread = hasattr(result, "interval")
    mean = result.mean[0] if has_spread else result.params[0]
    std = result.std[0] if has_spread else np.full(len(mean), np.nan)
    names = [*result.names]
    width = max(12, *(len(name) for name in names)) + 2
    head = " " * width + "estimate"
    if not has_spread:
        return [head, *_few([f"{n:{width}}{x:.4g}" for n, x in zip(names, mean)])]
    lower, upper = (end[0] for end in result.interval(0.9))
    known = _known(result)
    cells = [_number(m, s) for m, s in zip(mean, std)]
    ends = [f"[{a:.3g}, {b:.3g}]" for a, b in zip(lower, upper)]
    first, second = (max(map(len, column)) + 3 for column in (cells, ends))
    first, second = max(first, 19), max(second, 17)
    title = f"{'':{width}}{'estimate ± std':{first}}{'90 % interval':{second}}known?"
    rows = [
        f"{n:{width}}{c:{first}}{e:{second}}{k}".rstrip()
        for n, c, e, k in zip(names, cells, ends, known)
    ]
    return [title, *_few(rows)]


def _few(rows):
    if len(rows) <= MANY:
        return rows
    return [*rows[:SHOWN], f"… and {len(rows) - SHOWN} more: see to_frame()"]


def _number(mean, std):
    """Return ``mean ± std`` with as many digits as the spread leaves."""
    if not std > 0 or mean == 0:
        return f"{mean:.4g} ± {std:.2g}"
    lead, last = (np.floor(np.log10(abs(x))) for x in (mean, std))
    digits = int(np.clip(lead - last + 2, 1, 9))
    return f"{mean:#.{digits}g}".rstrip(".") + f" ± {std:.2g}"


def _known(result):
    words = []
    for share, at_bound in zip(result.contraction[0], result.at_bound[0]):
        if at_bound:
            words.append("at its bound")
        elif share > WEAK:
            words.append("only by its prior")
        else:
            words.append("weakly: leans on its prior" if share > KNOWN else "")
    return words


def _facts(result):
    yield "fit", _fit(result)
    yield "course", _course(result)
    yield "noise", result.about.get("noise", "") + _scales(result)
    if hasattr(result, "interval"):
        yield "tied", _tied(result)
        if len(result.names) <= MANY:
            yield "known", f"\n{'':9}".join(_undetermined(result))
            yield "optima", _optima(result)
        yield "scale", _function_scales(result)
        yield (
            "method",
            f"{result._method()}; prior: {result.about.get('prior', 'stated')}",
        )
    if result.status[0] != InversionStatus.CONVERGED:
        yield "search", InversionStatus(result.status[0]).sentence


def _fit(result):
    n, misfit = int(result.n_readings[0]), result.misfit[0]
    text = f"chi-square {misfit:.3g} on {n} readings"
    if result.about.get("noise_is_estimated"):
        return f"{text} (the noise is estimated from them)"
    if not np.isfinite(misfit):
        return text
    n_told = 0.0
    if hasattr(result, "interval") and np.isfinite(result.contraction).all():
        share, mixing = result.contraction[0] ** 2, _prior_of(result).mixing
        if np.count_nonzero(mixing) > len(mixing):  # params that vary together
            share = _in_standard(result, mixing).diagonal()
        n_told = float((1 - share).clip(0).sum())
    p = chi2.sf(misfit, max(n - n_told, 1.0))
    verdict = "as expected" if 1e-3 < p < 0.999 else "the model does not explain them"
    if p >= 0.999:
        verdict = "less scatter than the stated noise"
    return f"{text}: {verdict} (p = {p:.2g})"


def _course(result):
    """Say of which observables the residuals are not independent."""
    names = result.about.get("observables", [])
    found = [
        f"{name} {correlation:+.2f}"
        for name, correlation in zip(names, result.residual_correlation.ravel())
        if np.isfinite(correlation)
    ]
    if not found:
        return ""
    shown = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
    says = (
        f"residuals follow the ones before them ({shown}): the model misses something"
    )
    return f"{says}, errors are too small" if result.explained[0] else says


def _scales(result):
    names = result.about.get("observables", [])
    scales = [
        f"{name} {scale:.3g}"
        for name, scale in zip(names, result.noise_scale[0])
        if np.isfinite(scale)
    ]
    return f"; estimated sd: {', '.join(scales)}" if scales else ""


def _tied(result):
    correlation = np.triu(result.correlation[0], 1)
    found = np.argwhere(np.abs(correlation) > TIED).tolist()
    pairs = sorted(found, key=lambda ij: -abs(correlation[tuple(ij)]))[:5]
    return ", ".join(
        f"{result.names[i]} ~ {result.names[j]} ({correlation[i, j]:+.2f})"
        for i, j in pairs
    )


def _undetermined(result):
    """Return which params cannot be told apart, and what is known instead.

    In the prior's standard coordinate, at the best mode: along directions in which the
    posterior is as wide as the prior, the readings tell nothing. A function is told of as
    a whole: what is finer in it than readings see, its prior alone always tells.
    """
    params = result.modes[0, 0]
    if np.isnan(result.contraction).any() or not np.isfinite(params).all():
        return []
    prior = _prior_of(result)
    covariance = _in_standard(result, prior.mixing)
    spread, directions = np.linalg.eigh(covariance)
    slope = prior.standard_slope(prior.scaler.to_scaled(params))
    if not np.isfinite(slope).all():
        return []
    by_scaled = prior.scaler.slope_tensor(torch.as_tensor(params)).numpy()
    wholes = _wholes(prior)
    said: list[tuple[set, str]] = []
    for least, tol, adverb, words in (
        (LOST, 1e-3, "cannot be", "only"),
        (WEAK, 0.1, "are hardly", "hardly more than"),
    ):
        free = directions[:, spread > least**2]
        linked = _linked(free @ free.T, covariance, [*wholes.values()])
        for own in connected(linked):
            if len(own) < 2 or any(set(own) <= known for known, _ in said):
                continue
            names, places = zip(*([*wholes.items()][j] for j in own))
            block = np.concatenate(places)
            if len(block) > len(names):  # with functions
                said.append((set(own), f"{listed(names)} {adverb} told apart"))
                continue
            vectors, values, _ = np.linalg.svd(free[block], full_matrices=False)
            null = np.linalg.solve(
                slope[np.ix_(block, block)], vectors[:, values > 0.5]
            )
            at = params[block], by_scaled[block]
            formulas = combinations(np.linalg.qr(null)[0], *at, names, tol=tol)
            verb = "is" if len(formulas or "") == 1 else "are"
            instead = f": {words} {listed(formulas)} {verb} known" if formulas else ""
            said.append((set(own), f"{listed(names)} {adverb} told apart{instead}"))
    return [text for _, text in said]


def _wholes(prior):
    """Return the places of each function's values, and of each other param, by name."""
    owner = [*prior.names]
    for key, own in prior.groups.items():
        if isinstance(prior.priors[key], (GaussianFunction, GaussianProcess)):
            owner[own] = [key] * len(owner[own])
    wholes: dict[str, list[int]] = {}
    for j, name in enumerate(owner):
        wholes.setdefault(name, []).append(j)
    return wholes


def _linked(projector, covariance, wholes):
    """Return which of the wholes move together along directions that are not known.

    Some direction of a function is always at the edge of what is known, by chance next to
    one of something else: there both must be correlated, too.
    """
    linked = np.eye(len(wholes), dtype=bool)
    for i, j in itertools.combinations(range(len(wholes)), 2):
        one, other = wholes[i], wholes[j]
        both = projector[np.ix_(one, other)]
        if both.size == 1:
            linked[i, j] = linked[j, i] = abs(both.item()) > INVOLVED
            continue
        a, involved, b = np.linalg.svd(both)
        ends = np.zeros((2, len(covariance)))
        ends[0, one], ends[1, other] = a[:, 0], b[0]
        (v, c), (_, w) = ends @ covariance @ ends.T
        is_tied = involved[0] > INVOLVED and abs(c) > TIED * np.sqrt(v * w)
        linked[i, j] = linked[j, i] = is_tied
    return linked


def _prior_of(result):
    """Return the prior, its scales known."""
    prior = result.coordinate
    return prior.at_scales(result.scales[0]) if result.scales.size else prior


def _in_standard(result, mixing):
    """Return the covariance of the best mode in the prior's standard coordinate."""
    inverse = np.linalg.inv(mixing)
    return inverse @ result.covariances[0, 0] @ inverse.T


def _function_scales(result):
    if not result.scales.size:
        return ""
    pairs = zip(result.coordinate.open_scales, result.scales[0])
    found = ", ".join(f"{name} {scale:.3g}" for name, scale in pairs)
    if result.kind[0] == "mcmc":
        return f"{found}, by evidence; with kinks all that chains tell"
    return f"{found}, by evidence (log {result.log_evidence[0]:.4g})"


def _optima(result):
    weights = result.weights[0]
    if (weights > 0).sum() < 2:
        return ""
    shown = [
        f"{100 * w:.0f} % at ("
        + ", ".join(f"{n} {x:.3g}" for n, x in zip(result.names, mode))
        + ")"
        for w, mode in zip(weights, result.modes[0])
        if w > 0
    ]
    return "; ".join(shown)
