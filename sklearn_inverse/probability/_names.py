"""``Normal`` and ``LogNormal`` are priors with two arguments, noise with one."""

from __future__ import annotations

from numbers import Real
from typing import Any

from sklearn_inverse.probability._noise import LogNormalNoise, NormalNoise
from sklearn_inverse.probability._priors import LogNormalPrior, NormalPrior

__all__ = ["LogNormal", "Normal"]


def Normal(*args, **kwargs) -> Any:
    """Make a normal prior ``Normal(mean, std)``, or noise ``Normal(scale)``.

    Parameters
    ----------
    *args : float, or a scale
        As a prior, the mean and the standard deviation of a param. As noise, the
        standard deviation of an observation: a number, an array, a param's name, a
        list of these per observable, a function of the params, or None (the default)
        if it is unknown.

    **kwargs : float, or a scale
        The same by name: ``mean`` and ``std``, or ``scale``.

    Returns
    -------
    distribution : prior or noise model
        For ``params=`` or for ``noise=``.

    Examples
    --------
    >>> from sklearn_inverse.probability import Normal
    >>> Normal(1, 0.5).bounds
    (-0.545..., 2.545...)
    >>> Normal("sigma")
    Normal('sigma')
    """
    return _dispatch("Normal", NormalPrior, ("mean", "std"), NormalNoise, args, kwargs)


def LogNormal(*args, **kwargs) -> Any:
    """Make a prior ``LogNormal(median, sigma)``, or noise ``LogNormal(scale)``.

    Parameters
    ----------
    *args : float, or a scale
        As a prior, the median of a param and the standard deviation of its natural
        logarithm. As noise, the standard deviation of an observation's logarithm: a
        number, an array, a param's name, a list of these per observable, a function
        of the params, or None (the default) if it is unknown.

    **kwargs : float, or a scale
        The same by name: ``median`` and ``sigma``, or ``scale``.

    Returns
    -------
    distribution : prior or noise model
        For ``params=`` or for ``noise=``.

    Examples
    --------
    >>> from sklearn_inverse.probability import LogNormal
    >>> LogNormal(1e-3, 1).median
    0.001
    >>> LogNormal("sigma")
    LogNormal('sigma')
    """
    names = ("median", "sigma")
    return _dispatch("LogNormal", LogNormalPrior, names, LogNormalNoise, args, kwargs)


def _dispatch(name, prior, prior_names, noise, args, kwargs):
    first, second = prior_names
    if len(args) + len(kwargs) <= 1 and set(kwargs) <= {"scale"}:
        return noise(*args, **kwargs)
    given = dict(zip(prior_names, args)) | kwargs
    is_prior = len(args) + len(kwargs) == 2 and set(given) == set(prior_names)
    if not is_prior or not all(isinstance(v, Real) for v in given.values()):
        call = ", ".join([*map(repr, args), *(f"{k}={v!r}" for k, v in kwargs.items())])
        raise TypeError(
            f"{name} must be called with two numbers, as a prior: {name}({first}, "
            f"{second}); or with one argument, as noise: {name}(scale). Got "
            f"{name}({call})."
        )
    return prior(**given)
