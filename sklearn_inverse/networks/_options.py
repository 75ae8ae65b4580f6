"""Options that estimators with networks share: how to train, what will be measured."""

from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator

from sklearn_inverse.utils._sklearn import Interval
from sklearn_inverse.utils._validation import check_n_observed

__all__ = ["Design", "Training"]


class Training(BaseEstimator):
    """How a network is trained; what is None is left to the estimator.

    Parameters
    ----------
    lr : float, default=None
        Peak learning rate of Adam; it warms up, then falls to zero along a cosine.

    max_epochs : int, default=None
        Passes over the training pairs. Without any, weights stay random.

    batch_size : int, default=None
        Pairs per step.

    validation_fraction : float, default=None
        Share of the pairs held out: for early stopping, errors and calibration.

    patience : int, default=None
        Epochs without a lower held-out loss after which training stops, at the best
        weights. If None, train for ``max_epochs``.

    callbacks : list of skorch callbacks, default=None
        Further callbacks.

    Examples
    --------
    >>> from sklearn_inverse import ADMInverter, Training
    >>> ADMInverter(training=Training(lr=3e-3)).set_params(training__max_epochs=20)
    ADMInverter(training=Training(lr=0.003, max_epochs=20))
    """

    _parameter_constraints: dict = {
        "lr": [Interval(Real, 0, None, closed="neither"), None],
        "max_epochs": [Interval(Integral, 0, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither"), None],
        "patience": [Interval(Integral, 1, None, closed="left"), None],
        "callbacks": [list, None],
    }

    def __init__(
        self,
        lr=None,
        max_epochs=None,
        batch_size=None,
        validation_fraction=None,
        patience=None,
        callbacks=None,
    ):
        self.lr = lr
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.callbacks = callbacks

    def _filled(self, **defaults):
        """Return a checked copy, an estimator's own defaults in place of None."""
        self._validate_params()
        given = {name: value for name, value in vars(self).items() if value is not None}
        return Training(**(defaults | given))

    def _loop(self):
        """Return the options that the training loop asks for."""
        names = ("lr", "max_epochs", "patience", "callbacks")
        return {name: getattr(self, name) for name in names}


class Design(BaseEstimator):
    """What will be measured: networks are trained on readings made in this way.

    Parameters
    ----------
    n_observed : int or (int, int), default=None
        Times at which readings are made, random ones: always so many, or fewest and
        most. If None, one to all.

    observables : list of str or int, default=None
        Names or indices of the observables that are read. If None, all of them.

    Examples
    --------
    >>> from sklearn_inverse import ADMInverter, Design
    >>> inverter = ADMInverter(design=Design(n_observed=3, observables=["prey"]))
    """

    _parameter_constraints: dict = {
        "n_observed": [Integral, tuple, list, None],
        "observables": ["array-like", None],
    }

    def __init__(self, n_observed=None, observables=None):
        self.n_observed = n_observed
        self.observables = observables

    def _settle(self, n_times, names):
        """Return (fewest, most) observed times, and which of the observables are read."""
        self._validate_params()
        n_observed = (1, n_times) if self.n_observed is None else self.n_observed
        n_observed = check_n_observed(n_observed, n_times=n_times)
        names, n = list(names), len(names)
        if self.observables is None:
            return n_observed, np.ones(n, dtype=bool)
        chosen = list(self.observables)
        known = [
            c in names
            if isinstance(c, str)
            else isinstance(c, Integral) and -n <= c < n
            for c in chosen
        ]
        if not chosen or not all(known):
            raise ValueError(
                f"`observables` must hold names or indices of the {n} observables "
                f"{names}, at least one. Got {self.observables!r} instead."
            )
        observed = np.zeros(n, dtype=bool)
        observed[[names.index(c) if isinstance(c, str) else c for c in chosen]] = True
        return n_observed, observed
