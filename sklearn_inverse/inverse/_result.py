"""InversionResult: all that an inverter can say of each sample."""

from dataclasses import dataclass

import numpy as np

from sklearn_inverse.optim._status import InversionStatus

__all__ = ["InversionResult"]


@dataclass(repr=False)
class InversionResult:
    """Outcome of ``invert``, one row per sample.

    Parameters
    ----------
    params : ndarray of shape (n_samples, n_params)
        Estimate in the params' own units; NaN where no start could be simulated.

    misfit : ndarray of shape (n_samples,)
        Sum of the squared residuals at the estimate, each over its noise (the forward
        model's own error included): about ``n_readings`` where the model is right.

    n_readings : ndarray of shape (n_samples,)
        Readings of each sample.

    explained : ndarray of bool of shape (n_samples,)
        Whether what the estimate leaves over is no more than noise.

    start_misfit : ndarray of shape (n_samples,)
        The misfit where the method set out.

    n_iter : ndarray of shape (n_samples,)
        Iterations, over all starts.

    n_forward, n_linearized : ndarray of shape (n_samples,)
        Runs of the forward model, and those that gave its Jacobian too. A run with a
        gradient counts as one of the former.

    n_failed : ndarray of shape (n_samples,)
        Starts that were dropped because the forward model failed there.

    status : ndarray of shape (n_samples,)
        How each ended: codes of :class:`InversionStatus`.

    covariance : ndarray of shape (n_samples, n_params, n_params) or None
        Posterior covariance of the params scaled to the unit box. None where the method
        gives none.

    Examples
    --------
    >>> from sklearn_inverse import GradientInverter, ODESimulator
    >>> from sklearn_inverse.datasets import make_inverse_problem
    >>> from sklearn_inverse.problems import lotka_volterra
    >>> system = lotka_volterra()
    >>> pairs = make_inverse_problem(system, 2, random_state=0)
    >>> inverter = GradientInverter(ODESimulator(system), random_state=0)
    >>> inverter.fit(pairs.observations, pairs.params).invert(pairs.observations)
    InversionResult(2 samples: 2 converged; 2 explained)
    """

    params: np.ndarray
    misfit: np.ndarray
    n_readings: np.ndarray
    explained: np.ndarray
    start_misfit: np.ndarray
    n_iter: np.ndarray
    n_forward: np.ndarray
    n_linearized: np.ndarray
    n_failed: np.ndarray
    status: np.ndarray
    covariance: np.ndarray | None = None

    def __repr__(self):
        counts = (
            f"{(self.status == code).sum()} {code.name.lower()}"
            for code in InversionStatus
            if (self.status == code).any()
        )
        return (
            f"InversionResult({len(self.status)} samples: {', '.join(counts)}; "
            f"{self.explained.sum()} explained)"
        )
