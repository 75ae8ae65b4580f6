"""Continuation: fit the first readings first, then ever more of them."""

import torch
from torch import Tensor

from sklearn_inverse.optim._optimum import Optimum
from sklearn_inverse.probability._status import InversionStatus

__all__ = ["SLOW_GROWTH", "continuation", "growing_horizons", "led_by_prior"]

FIRST_SHARE = 0.1  # of the observed times that the first stage knows
GROWTH, SLOW_GROWTH = 2.0, 1.25  # of these from stage to stage
WEIGHTS = (1e4, 1e3, 1e2, 1e1)  # of the prior, where readings are few


def continuation(
    objective, optimize, start: Tensor, sample: Tensor, growth: float = GROWTH
) -> Optimum:
    """Optimize stage after stage, each from where the last one ended.

    An oscillation whose phase is far off has local optima at every period; over its
    first part it has one. The end is never worse than what plain optimization from the
    start would begin with.

    Parameters
    ----------
    objective : Objective
        Has ``up_to(n_observed)``, ``count_up``, ``value``, ``judge`` and what ``optimize``
        asks for.

    optimize : callable
        ``optimize(objective, start, sample) -> Optimum`` with a Hessian.

    start : Tensor of shape (n_rows, n_free)
        Where to start.

    sample : Tensor of shape (n_rows,)
        Which sample each row belongs to.

    growth : float, default=2
        How many times as much each stage knows as the one before. Where trajectories
        that are close do not stay close, ``SLOW_GROWTH``.

    Returns
    -------
    optimum : Optimum
        Of the whole objective.
    """
    stages = growing_horizons(objective, growth)
    (first, _), *others = stages
    end = optimize(first, start, sample)
    for stage, knows_more in others:
        if (end.status == InversionStatus.INTERRUPTED).any():
            break
        # Whoever knows no more than before stays as it is.
        rows = knows_more[sample].nonzero()[:, 0]
        later = optimize(stage, _finite(end.x, start)[rows], sample[rows])
        later.n_iter.add_(end.n_iter[rows])
        for whole, part in zip(end, later):
            whole[rows] = part
    if len(stages) == 1:
        return end
    if (end.status == InversionStatus.INTERRUPTED).any():
        # Perhaps in an early stage, whose values are of fewer readings.
        return end._replace(value=objective.value(end.x, sample))
    try:
        worse = ~(end.value <= objective.value(start, sample))
        explained = objective.judge(end.x, sample, end.hessian).explained
    except KeyboardInterrupt:
        interrupted = torch.full_like(end.status, InversionStatus.INTERRUPTED)
        return end._replace(status=interrupted)
    rows = (worse | ~explained).nonzero()[:, 0]  # the first readings may mislead
    if len(rows):
        direct = optimize(objective, start[rows], sample[rows])
        direct.n_iter.add_(end.n_iter[rows])
        better = ~(end.value[rows] <= direct.value)
        for whole, part in zip(end, direct):
            whole[rows[better]] = part[better]
        end.status[rows[direct.status == InversionStatus.INTERRUPTED]] = (
            InversionStatus.INTERRUPTED
        )
    return end


def led_by_prior(objective, optimize, start: Tensor, sample: Tensor):
    """Return a better start of samples with less than two readings per param.

    A part of so few readings says too little to begin with. Instead the prior counts
    much at first and then ever less, which leads along narrow valleys (the iteratively
    regularized Gauss–Newton method [1]_). The arguments are those of
    :func:`continuation`, and the objective has ``tempered(weight)`` and
    ``has_few_readings``.

    Returns
    -------
    start : Tensor of shape (n_rows, n_free)
        Where the prior counts ten times; others as they were.

    n_iter : Tensor of shape (n_rows,)
        Iterations that this took.

    References
    ----------
    .. [1] A. B. Bakushinskii, "The problem of the convergence of the iteratively
       regularized Gauss–Newton method", Comput. Math. Math. Phys. 32 (1992) 1353-1359.
    """
    start, n_iter = start.clone(), torch.zeros_like(sample)
    rows = objective.has_few_readings[sample].nonzero()[:, 0]
    for weight in WEIGHTS if len(rows) else ():
        end = optimize(objective.tempered(weight), start[rows], sample[rows])
        start[rows] = _finite(end.x, start[rows])
        n_iter[rows] += end.n_iter
        if (end.status == InversionStatus.INTERRUPTED).any():
            raise KeyboardInterrupt
    return start, n_iter


def _finite(x, start):
    return torch.where(x.isfinite(), x, start)


def growing_horizons(objective, growth=GROWTH):
    """Return stages that know ever more of the observed times, the last one all.

    Each ``growth`` times as many.

    Returns
    -------
    stages : list of (Objective, Tensor of bool of shape (n_samples,))
        With which samples each knows more of than the one before.
    """
    seen = ~objective.readings.isnan()
    is_observed = seen.any(dim=2)
    n_times = is_observed.sum(dim=1)
    # Twice as many readings as params at least: fewer say too little to begin with.
    few = objective.count_up(seen.sum(dim=2)) < 2 * objective.n_params
    fewest = (few & is_observed).sum(dim=1) + 1
    n_observed = torch.maximum((FIRST_SHARE * n_times).ceil().long(), fewest)
    stages, knows_more = [], torch.ones_like(n_times, dtype=torch.bool)
    while (n_observed < n_times).any():
        stages.append((objective.up_to(n_observed), knows_more))
        knows_more = n_observed < n_times
        n_observed = (growth * n_observed).ceil().long()
    return [*stages, (objective, knows_more)]
