"""ResidualDisplay: what the model leaves over of the readings of one sample."""

import numpy as np
import torch
from scipy.stats import beta, norm

from sklearn_inverse.forward._base import as_forward_model
from sklearn_inverse.inspection._panels import (
    COLORS,
    GREY,
    INK,
    check_labels,
    import_pyplot,
    make_panels,
)
from sklearn_inverse.inspection._sample import (
    check_shape,
    invert_one,
    labels_of,
    noise_of,
    pick,
    pick_inputs,
)
from sklearn_inverse.probability._arviz import arguments
from sklearn_inverse.systems import ODESystem, PDESystem
from sklearn_inverse.utils._docs import shared_docs
from sklearn_inverse.utils._validation import one_sample

__all__ = ["ResidualDisplay"]

BAND = 0.95  # probability of the grey bands


@shared_docs
class ResidualDisplay:
    """Standardized residuals of one sample, in time and against normal ones.

    If model and noise are right, points scatter in time without a pattern, most of them
    in the grey band, and lie on the diagonal on the right. A wave means that the model
    misses something; a slope other than one that the noise is another. Make it with
    :meth:`from_estimator` or :meth:`from_posterior`. All parameters are stored as
    attributes.

    Parameters
    ----------
    residuals : ndarray of shape (n_times, n_channels)
        Readings less trajectory, by the standard deviation of the noise; NaN where
        nothing was read.

    times : ndarray of shape (n_times,)
        When that was.

    starts : ndarray of int, default=None
        Where each experiment begins in these times. If None, there is one.

    observable_names : list of str, default=None
        If None, ``c1, c2, …``.

    time_label : str, default=None
        Label of the time axis.

    Attributes
    ----------
    figure_ : matplotlib Figure
        Figure that holds the panels.

    axes_ : ndarray of Axes
        Residuals in time, and normal plot.

    points_ : list of Line2D
        Points of each observable, in time.

    chi_square_ : float
        Sum of their squares.

    runs_p_value_ : float
        Probability of so many, or so few, changes of sign in time if residuals were
        independent (Wald and Wolfowitz); NaN where there are too few readings.

    legend_ : Legend
        The legend.

    See Also
    --------
    TrajectoryDisplay : Readings and trajectory.

    Examples
    --------
    >>> from sklearn_inverse import GradientInverter, ODESystem
    >>> from sklearn_inverse.inspection import ResidualDisplay
    >>> def decay(t, y, p):
    ...     return -p.rate * y.amount
    >>> system = ODESystem(
    ...     decay, states={"amount": 1.0}, params={"rate": (0.1, 3.0)},
    ...     times=[0.0, 1.0, 2.0, 4.0], noise=0.05,
    ... )
    >>> measured = [[1.0, 0.37, 0.1, 0.02]]
    >>> inverter = GradientInverter(system).fit(measured)
    >>> display = ResidualDisplay.from_estimator(inverter, measured)
    >>> bool(display.chi_square_ < 4)
    True
    """

    def __init__(
        self,
        *,
        residuals,
        times,
        starts=None,
        observable_names=None,
        time_label=None,
    ):
        self.residuals = residuals
        self.times = times
        self.starts = starts
        self.observable_names = observable_names
        self.time_label = time_label

    @classmethod
    def from_estimator(
        cls,
        inverter,
        observations,
        *,
        sample_index=0,
        noise_std=None,
        inputs=None,
        ax=None,
    ):
        """Invert one sample with a fitted inverter and draw its residuals.

        Parameters
        ----------
        inverter : fitted inverter or Pipeline ending in one
            Finds the params.

        %(observations)s

        %(sample_index)s

        %(noise_std)s

        %(inputs)s

        ax : array-like of two Axes, default=None
            Where to draw. If None, a new figure.

        Returns
        -------
        display : ResidualDisplay
            The display, drawn.
        """
        import_pyplot(f"{cls.__name__}.from_estimator")
        answer, told = invert_one(
            inverter, observations, sample_index, noise_std, inputs
        )
        return cls.from_posterior(answer, ax=ax, **told)

    @classmethod
    def from_posterior(
        cls,
        posterior,
        sample_index=0,
        *,
        model,
        observations,
        noise_std=None,
        inputs=None,
        ax=None,
    ):
        """Draw the residuals of one sample at its best params.

        Parameters
        ----------
        posterior : Posterior or Estimate
            What an inverter answered.

        %(sample_index)s

        model : ODESystem or fitted ForwardModel
            What was inverted, ``inverter.model_``.

        %(observations)s

        %(noise_std)s

        %(inputs)s

        ax : array-like of two Axes, default=None
            Where to draw. If None, a new figure.

        Returns
        -------
        display : ResidualDisplay
            The display, drawn.
        """
        if isinstance(model, (ODESystem, PDESystem)):
            model = as_forward_model(model)
        shape, answer = (model.n_times_, model.n_channels_), posterior[sample_index]
        noise_std = noise_of(noise_std, sample_index, (len(posterior), *shape))
        told = pick_inputs(model, inputs, sample_index, len(posterior))
        y = one_sample(pick(observations, sample_index), shape)[None]
        noise = model.noise_ if noise_std is None else model.noise_.with_std(noise_std)
        args = arguments(noise, answer.params, answer.names, answer.noise_scale)
        mean = torch.as_tensor(model.attempt(answer.params, told)[0])
        residuals = noise.residual(torch.as_tensor(y), mean, args)[0].numpy()
        protocol = getattr(getattr(model, "system", None), "protocol", None)
        labels = labels_of(model)
        display = cls(
            residuals=np.where(np.isnan(y[0]), np.nan, residuals),
            times=model.times_,
            starts=None if protocol is None else np.asarray(protocol.first[:-1]),
            observable_names=labels["observable_names"],
            time_label=labels["time_label"],
        )
        return display.plot(ax)

    def plot(self, ax=None):
        """Draw the display.

        Parameters
        ----------
        ax : array-like of two Axes, default=None
            Where to draw. If None, a new figure.

        Returns
        -------
        self : ResidualDisplay
            The display, with its artists as attributes.
        """
        residuals = np.asarray(self.residuals, dtype=float)
        times = check_shape(self.times, residuals.shape[:1], name="times")
        names = check_labels(
            self.observable_names, residuals.shape[1], name="names", default="c"
        )
        panels = make_panels(
            type(self).__name__, ax, 2, n_columns=2, panel_size=(4.4, 3.2)
        )
        self.figure_, self.axes_, self.points_ = panels.figure, panels.axes, []
        left, right = panels.axes
        wide = norm.ppf((1 + BAND) / 2)
        left.axhspan(-wide, wide, color=GREY, alpha=0.2, lw=0)
        left.axhline(0.0, color=GREY, lw=1)
        for j, name in enumerate(names):
            color, marker = COLORS[j % len(COLORS)], "os^Dvp"[j // len(COLORS) % 6]
            style = {"color": color, "ms": 4, "label": name}
            self.points_ += left.plot(times, residuals[:, j], marker, **style)
        left.set(xlabel=self.time_label or "time", ylabel="residual / noise")
        if panels.is_ours and np.array_equal(times, np.round(times)):
            left.xaxis.get_major_locator().set_params(integer=True)
        found = np.sort(residuals[~np.isnan(residuals)])
        n = len(found)
        rank = np.arange(1, n + 1)
        place = norm.ppf((rank - 0.5) / n)
        tails = (1 - BAND) / 2, (1 + BAND) / 2
        ends = [norm.ppf(beta.ppf(tail, rank, n + 1 - rank)) for tail in tails]
        right.fill_between(place, *ends, color=GREY, alpha=0.2, lw=0)
        right.axline((0, 0), slope=1, color=GREY, lw=1)
        right.plot(place, found, "o", color=INK, ms=3.5)
        right.set(xlabel="of a normal distribution", ylabel="residual / noise")
        self.chi_square_ = float((found**2).sum())
        self.runs_p_value_ = self._runs_test()
        left.set_title(
            f"signs change as by chance: p = {self.runs_p_value_:.2g}",
            loc="left",
            fontsize="small",
        )
        right.set_title(
            f"chi-square {self.chi_square_:.3g} on {n} readings",
            loc="left",
            fontsize="small",
        )
        for panel in panels.axes:
            panel.spines[["top", "right"]].set_visible(False)
        self.legend_ = panels.legend(self.points_)
        return self

    def _runs_test(self):
        """Return the p-value of the number of runs of one sign, over all series."""
        runs, mean, variance = 0, 0.0, 0.0
        parts = np.split(self.residuals, [] if self.starts is None else self.starts[1:])
        for series in (column for part in parts for column in part.T):
            up = series[~np.isnan(series)] > 0
            n, n_up = len(up), up.sum()
            if not 0 < n_up < n or n < 3:
                continue
            runs += 1 + (up[1:] != up[:-1]).sum()
            expected = 2 * n_up * (n - n_up) / n + 1
            mean += expected
            variance += (expected - 1) * (expected - 2) / (n - 1)
        if variance == 0:
            return np.nan
        off = max(abs(runs - mean) - 0.5, 0.0)  # continuity
        return float(2 * norm.sf(off / variance**0.5))
