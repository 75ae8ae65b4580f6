"""Options that estimators with networks share: how to train, what will be measured."""

from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator

from sklearn_inverse.utils._sklearn import Interval
from sklearn_inverse.utils._validation import check_n_observed, check_observables

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

    time_index : list of int, default=None
        Indices of the times at which readings can be made, ``n_observed`` of them: all
        if that is as many. If None, at any time.

    Examples
    --------
    >>> from sklearn_inverse import ADMInverter, Design
    >>> inverter = ADMInverter(design=Design(n_observed=3, observables=["prey"]))
    """

    _parameter_constraints: dict = {
        "n_observed": [Integral, tuple, list, None],
        "observables": ["array-like", None],
        "time_index": ["array-like", None],
    }

    def __init__(self, n_observed=None, observables=None, time_index=None):
        self.n_observed = n_observed
        self.observables = observables
        self.time_index = time_index

    def _settle(self, n_times, names):
        """Return (fewest, most) observed times, and what can be read.

        The latter of shape (n_times, n_channels).
        """
        self._validate_params()
        at_times = np.zeros((n_times, 1), dtype=bool)
        try:
            at_times[slice(None) if self.time_index is None else self.time_index] = True
        except IndexError:
            at_times[:] = False
        if not at_times.any():
            raise ValueError(
                f"`time_index` must hold indices of the {n_times} times, at least one. "
                f"Got {self.time_index!r} instead."
            )
        n_times = int(at_times.sum())
        n_observed = (1, n_times) if self.n_observed is None else self.n_observed
        n_observed = check_n_observed(n_observed, n_times=n_times)
        return n_observed, at_times & check_observables(self.observables, names)
