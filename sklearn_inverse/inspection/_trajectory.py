"""TrajectoryDisplay: what was measured, and the trajectory recovered from it."""

import numpy as np

from sklearn_inverse.forward._base import as_forward_model
from sklearn_inverse.inspection._curves import Curves, legend_handles
from sklearn_inverse.inspection._panels import (
    check_labels,
    choose,
    import_pyplot,
    make_panels,
    time_grid,
)
from sklearn_inverse.inspection._predictive import predict, quantile_band
from sklearn_inverse.inspection._sample import (
    check_shape,
    invert_one,
    labels_of,
    noise_of,
    pick,
    pick_inputs,
)
from sklearn_inverse.systems import ODESystem, PDESystem
from sklearn_inverse.utils._docs import shared_docs
from sklearn_inverse.utils._validation import one_sample


@shared_docs
class TrajectoryDisplay:
    """Measurements of one sample, its reconstruction, and how far that is certain.

    The inner band holds the trajectory, the outer one what an instrument would read of
    it: readings should lie in the outer band as often as it says. Make it with
    :meth:`from_estimator`, :meth:`from_posterior` or :meth:`from_predictions`. All
    parameters are stored as attributes.

    Parameters
    ----------
    trajectory : ndarray of shape (n_times, n_channels)
        The reconstruction, drawn as a line.

    band : ndarray of shape (2, n_times, n_channels), default=None
        Ends of the credible band, in which the trajectory lies.

    predictive_band : ndarray of shape (2, n_times, n_channels), default=None
        Ends of the predictive band, in which readings lie.

    level : float, default=None
        Probability of both bands, for the legend.

    observations : ndarray of shape (n_observation_times, n_channels), default=None
        Measurements, drawn as points; NaN where nothing was measured.

    truth : ndarray of shape (n_observation_times, n_channels), default=None
        The true trajectory where it is known, drawn as a dashed line.

    times : array-like of shape (n_times,), default=None
        Times of the trajectory. If None, 0, 1, 2, ….

    observation_times : array-like of shape (n_observation_times,), default=None
        Times of observations and truth. If None, those of the trajectory.

    observable_names : list of str, default=None
        If None, ``c1, c2, …``.

    units : str or list of str, default=None
        Unit of all observables, or of each. If None, no unit is written.

    time_label : str, default=None
        Label of the time axis, with its unit. If None, "time", or "time index" where
        no ``times`` are given.

    experiments : dict of str to (slice, slice), default=None
        Where each experiment stands in ``times``, and in ``observation_times``. If None,
        there is one.

    events : dict of str to list of float, default=None
        When something happens in each experiment, drawn as a dotted line; the one
        experiment that has no name is ``""``.

    Attributes
    ----------
    figure_ : matplotlib Figure
        Figure that holds the panels.

    axes_ : ndarray of Axes
        One per panel: for each experiment, each of its observables.

    line_ : list of Line2D
        Reconstruction of each observable drawn.

    band_, predictive_band_ : list of FillBetweenPolyCollection or None
        Bands of each observable; None where there are none.

    measurements_, truth_ : list of Line2D or None
        Measurements and true trajectory of each observable; None without them.

    events_ : list of Line2D or None
        Doses and other events.

    legend_ : Legend
        The legend.

    See Also
    --------
    RecoveryDisplay : Recovered params against true ones.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse import GradientInverter, ODESystem
    >>> from sklearn_inverse.inspection import TrajectoryDisplay
    >>> def decay(t, y, p):
    ...     return -p.rate * y.amount
    >>> system = ODESystem(
    ...     decay, states={"amount": 1.0}, params={"rate": (0.1, 3.0)},
    ...     times=[0.0, 1.0, 2.0, 4.0], noise=0.05,
    ...     units={"time": "h", "states": "mg"},
    ... )
    >>> measured = [[1.0, 0.37, np.nan, 0.02]]
    >>> inverter = GradientInverter(system).fit(measured)
    >>> display = TrajectoryDisplay.from_estimator(inverter, measured)
    >>> display.axes_[0].get_xlabel(), display.axes_[0].get_ylabel()
    ('time (h)', 'mg')
    """

    def __init__(
        self,
        *,
        trajectory,
        band=None,
        predictive_band=None,
        level=None,
        observations=None,
        truth=None,
        times=None,
        observation_times=None,
        observable_names=None,
        units=None,
        time_label=None,
        experiments=None,
        events=None,
    ):
        self.trajectory = trajectory
        self.band = band
        self.predictive_band = predictive_band
        self.level = level
        self.observations = observations
        self.truth = truth
        self.times = times
        self.observation_times = observation_times
        self.observable_names = observable_names
        self.units = units
        self.time_label = time_label
        self.experiments = experiments
        self.events = events

    @classmethod
    def from_estimator(
        cls,
        inverter,
        observations,
        *,
        sample_index=0,
        noise_std=None,
        inputs=None,
        n_draws=200,
        **display_params,
    ):
        """Invert one sample with a fitted inverter and draw it.

        Parameters
        ----------
        inverter : fitted inverter or Pipeline ending in one
            Its answer is pushed through its forward model. One without an uncertainty
            has no bands.

        %(observations)s

        %(sample_index)s

        %(noise_std)s

        %(inputs)s

        n_draws : int, default=200
            Draws behind the bands. 0 leaves them out.

        **display_params : dict
            Further parameters of :meth:`from_predictions` and :meth:`plot`: ``truth``,
            ``level``, ``ax``, …. Names, units and times are the model's own.

        Returns
        -------
        display : TrajectoryDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If shapes do not fit.
        IntegrationError
            If no draw at all has a trajectory. Others that have none are left out of the
            bands, with an IntegrationWarning.
        """
        import_pyplot(f"{cls.__name__}.from_estimator")
        answer, told = invert_one(
            inverter, observations, sample_index, noise_std, inputs
        )
        return cls.from_posterior(answer, n_draws=n_draws, **told | display_params)

    @classmethod
    def from_posterior(
        cls,
        posterior,
        sample_index=0,
        *,
        model,
        observations=None,
        noise_std=None,
        inputs=None,
        n_draws=200,
        **display_params,
    ):
        """Draw what the posterior of one sample says of its trajectory and readings.

        Parameters
        ----------
        posterior : Posterior or Estimate
            What an inverter answered.

        %(sample_index)s

        model : ODESystem or fitted ForwardModel
            What was inverted, ``inverter.model_``. A system's own simulator is asked for
            times between those of the observations.

        observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels), default=None
            What was measured, drawn as points.

        %(noise_std)s

        %(inputs)s

        n_draws : int, default=200
            Draws behind the bands. 0 leaves them out.

        **display_params : dict
            Further parameters of :meth:`from_predictions` and :meth:`plot`.

        Returns
        -------
        display : TrajectoryDisplay
            The display, drawn.
        """
        import_pyplot(f"{cls.__name__}.from_posterior")
        if isinstance(model, (ODESystem, PDESystem)):
            model = as_forward_model(model)
        shape = model.n_times_, model.n_channels_
        noise_std = noise_of(noise_std, sample_index, (len(posterior), *shape))
        if observations is not None:
            observations = one_sample(pick(observations, sample_index), shape)
        answer = posterior[sample_index]
        told = pick_inputs(model, inputs, sample_index, len(posterior))
        prediction = predict(
            model, answer, n_draws=n_draws, noise_std=noise_std, inputs=told
        )
        return cls.from_predictions(
            prediction.trajectory,
            draws=prediction.draws,
            readings=prediction.readings,
            observations=observations,
            times=prediction.times,
            observation_times=model.times_,
            experiments=prediction.experiments,
            events=prediction.events,
            **labels_of(model) | display_params,
        )

    @classmethod
    def from_predictions(
        cls,
        trajectory,
        *,
        draws=None,
        readings=None,
        level=0.9,
        observations=None,
        truth=None,
        times=None,
        observation_times=None,
        observable_names=None,
        units=None,
        time_label=None,
        experiments=None,
        events=None,
        ax=None,
        **plot_params,
    ):
        """Draw one sample from arrays.

        Parameters
        ----------
        trajectory : array-like of shape (n_times, n_channels)
            The reconstruction.

        draws : array-like of shape (n_draws, n_times, n_channels), default=None
            Equally probable trajectories; the credible band lies between their
            quantiles. If None, no such band.

        readings : array-like of shape (n_readings, n_times, n_channels), default=None
            Equally probable readings; the predictive band lies between their quantiles.
            If None, no such band.

        level : float, default=0.9
            Probability that a band holds at each time.

        observations, truth, times, observation_times, observable_names, units, \
time_label, experiments, events : object
            As in the class.

        ax : Axes or array of Axes, default=None
            Where to draw; see :meth:`plot`.

        **plot_params : dict
            Further parameters of :meth:`plot`.

        Returns
        -------
        display : TrajectoryDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If shapes do not fit.
        IntegrationError
            If ``draws`` are given and none is complete. Others that are not are left out,
            with an IntegrationWarning.
        """
        trajectory = np.asarray(trajectory, dtype=float)
        if trajectory.ndim != 2:
            raise ValueError(
                "`trajectory` must be that of one sample, (n_times, n_channels). Got "
                f"shape {trajectory.shape} instead."
            )
        shape = trajectory.shape
        n_observed = shape[0] if observation_times is None else len(observation_times)
        observed = n_observed, shape[1]
        display = cls(
            trajectory=trajectory,
            band=quantile_band(draws, level, shape=shape),
            predictive_band=quantile_band(
                readings, level, shape=shape, warn=draws is None
            ),
            level=level,
            observations=check_shape(observations, observed, name="observations"),
            truth=check_shape(truth, observed, name="truth"),
            times=check_shape(times, shape[:1], name="times"),
            observation_times=observation_times,
            observable_names=observable_names,
            units=units,
            time_label=time_label,
            experiments=experiments,
            events=events,
        )
        return display.plot(ax, **plot_params)

    def plot(self, ax=None, *, observables=None, overlay=False, max_panels=12):
        """Draw the display.

        Parameters
        ----------
        ax : Axes or array of Axes, default=None
            A single Axes takes all observables, an array one each. If None, a new
            figure.

        observables : list of str or int, default=None
            Names or indices of the observables to draw. If None, all, as far as
            ``max_panels`` allows.

        overlay : bool, default=False
            Whether all observables share one panel, of each experiment, instead of
            having one each.

        max_panels : int, default=12
            Most panels that are drawn.

        Returns
        -------
        self : TrajectoryDisplay
            The display, with its artists as attributes.
        """
        n = self.trajectory.shape[1]
        names = self.observable_names
        names = check_labels(names, n, name="observable_names", default="c")
        units = check_labels(self.units, n, name="units")
        chosen = choose(observables, names, name="observables", max_panels=max_panels)
        is_single_ax = ax is not None and np.ndim(ax) == 0
        overlay = len(chosen) > 1 and (overlay or is_single_ax)
        drawn = [
            (e, [j]) for e in self.experiments_ for j in chosen if self._shows(e, j)
        ]
        if overlay:
            drawn = [(e, chosen) for e in self.experiments_]
        n_all, drawn = len(drawn), drawn[:max_panels]
        grid = time_grid(len(drawn))
        grid["sharex"] &= len(self.experiments_) == 1
        panels = make_panels(type(self).__name__, ax, len(drawn), **grid)
        self.figure_, self.axes_ = panels.figure, panels.axes
        curves = Curves(self, overlay)
        one_unit = len({units[j] for j in chosen}) == 1
        for panel, (experiment, shown) in zip(panels.axes, drawn):
            for j in shown:
                curves.draw(panel, experiment, j, chosen.index(j))
            curves.mark_events(panel, experiment)
            titles = [experiment] if overlay else [names[shown[0]], experiment]
            panel.set_title(
                ", ".join(filter(None, titles)), loc="left", fontsize="medium"
            )
            panel.set_ylabel(units[shown[0]] if one_unit or not overlay else "")
        if overlay and not one_unit:
            names = [f"{n} ({u})" if u else n for n, u in zip(names, units)]
        default = "time index" if self.times is None else "time"
        panels.label_times(self.time_label or default, self.observation_times_)
        if observables is None:
            missing = n - len(chosen)
            panels.note_missing(len(chosen), n, "observable")
            if not missing:
                panels.note_missing(len(drawn), n_all, "panel")
        self.legend_ = panels.legend(legend_handles(curves, [names[j] for j in chosen]))
        for name, artists in curves.artists.items():
            setattr(self, f"{name}_", artists or None)
        return self

    @property
    def experiments_(self):
        """Where each experiment stands in the times."""
        return self.experiments or {"": (slice(None), slice(None))}

    def _shows(self, experiment, observable):
        """Whether an observable has a panel: in several experiments, if it is read."""
        if len(self.experiments_) == 1 or self.observations is None:
            return True
        readings = self.observations[self.experiments_[experiment][1], observable]
        return not np.isnan(readings).all() or np.isnan(self.observations).all()

    @property
    def times_(self):
        """Times of the trajectory."""
        return np.arange(len(self.trajectory)) if self.times is None else self.times

    @property
    def observation_times_(self):
        """Times of observations and truth."""
        given = self.observation_times
        return self.times_ if given is None else np.asarray(given, dtype=float)
