"""Estimate: the params of each sample, and how well they explain it."""

from dataclasses import dataclass, field, fields

import numpy as np

from sklearn_inverse.probability._report import report
from sklearn_inverse.probability._status import InversionStatus

__all__ = ["Estimate"]


@dataclass(repr=False)
class Estimate:
    """Params found for each sample, and how they were found.

    ``len`` is the number of samples; indexing and slicing pick samples; printing one
    sample gives a report.

    Attributes
    ----------
    params : ndarray of shape (n_samples, n_params)
        The best params found, in their own units; NaN where nothing was found.

    names : list of str
        Names of the params.

    misfit : ndarray of shape (n_samples,)
        Chi-square of the readings: sum of their squared standardized residuals, about
        ``n_readings`` where the model is right.

    n_readings : ndarray of shape (n_samples,)
        Readings of each sample.

    explained : ndarray of bool of shape (n_samples,)
        Whether what the estimate leaves over is no more than noise.

    strangeness : ndarray of shape (n_samples,)
        Chi-square, or the largest squared residual if that is stranger, over what one
        sample of the model in five hundred exceeds.

    residual_correlation : ndarray of shape (n_samples, n_channels)
        Correlation of each observable's standardized residuals with the next ones, NaN
        where that is no more than chance, and of what was learned. Where it is more, the
        model misses something, and errors are too small.

    start_misfit : ndarray of shape (n_samples,)
        The misfit where the search set out.

    status : ndarray of shape (n_samples,)
        How each search ended: codes of :class:`InversionStatus`.

    n_iter, n_forward, n_linearized, n_failed : ndarray of shape (n_samples,)
        Iterations over all starts; runs of the forward model, and those that gave its
        Jacobian too; starts dropped because the model failed there, and draws, where
        that befell more than one in a hundred.

    n_optima, n_confirmed : ndarray of shape (n_samples,)
        Different optima that the starts found, and how many starts found the best.

    at_bound : ndarray of bool of shape (n_samples, n_params)
        Which params the readings push against their bounds.

    noise_scale : ndarray of shape (n_samples, n_channels)
        Standard deviation of the noise, estimated where it is not known, NaN elsewhere.

    about : dict
        What a report says of model, observables, noise and prior.
    """

    params: np.ndarray
    names: list
    misfit: np.ndarray
    n_readings: np.ndarray
    explained: np.ndarray
    start_misfit: np.ndarray
    status: np.ndarray
    n_iter: np.ndarray
    n_forward: np.ndarray
    n_linearized: np.ndarray
    n_failed: np.ndarray
    n_optima: np.ndarray
    n_confirmed: np.ndarray
    at_bound: np.ndarray
    noise_scale: np.ndarray
    about: dict = field(default_factory=dict, repr=False)
    strangeness: np.ndarray = field(default_factory=lambda: np.empty(0))
    residual_correlation: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))

    def __len__(self):
        return len(self.params)

    def __getitem__(self, index):
        if isinstance(index, (int, np.integer)):
            if not -len(self) <= index < len(self):  # ends a `for` loop too
                raise IndexError(f"There are {len(self)} samples. Got index {index}.")
            index = slice(index, index + 1 or None)
        picked = {
            f.name: value[index] if isinstance(value, np.ndarray) else value
            for f in fields(self)
            for value in [getattr(self, f.name)]
        }
        return type(self)(**picked)

    def __repr__(self):
        counts = (
            f"{(self.status == code).sum()} {code.name.lower()}"
            for code in InversionStatus
            if (self.status == code).any()
        )
        return (
            f"{type(self).__name__}({len(self)} samples: {', '.join(counts)}; "
            f"{self.explained.sum()} explained)"
        )

    def __str__(self):
        return report(self) if len(self) == 1 else repr(self)

    def to_frame(self):
        """Return one row per sample and param as a pandas DataFrame.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("`to_frame` needs pandas: pip install pandas") from error
        sample, name = np.meshgrid(np.arange(len(self)), self.names, indexing="ij")
        columns = {"sample": sample.ravel(), "param": name.ravel()}
        return pd.DataFrame(
            columns | {k: v.ravel() for k, v in self._columns().items()}
        )

    def _columns(self):
        return {"estimate": self.params}
