"""StartsDisplay: where the starts of a search ended (a waterfall)."""

import numpy as np

from sklearn_inverse.inspection._panels import (
    BLUE,
    GREY,
    VERMILLION,
    import_pyplot,
    make_panels,
)
from sklearn_inverse.inspection._sample import invert_one
from sklearn_inverse.utils._docs import shared_docs

__all__ = ["StartsDisplay"]

SAME = 0.05  # of the log posterior: ends on one optimum


@shared_docs
class StartsDisplay:
    """Where the starts of a search ended, the best first: steps are optima.

    Many ends on the lowest step mean that it is the global optimum; a single one says
    that more starts might find a better one. Make it with :meth:`from_estimator` or
    :meth:`from_posterior`. All parameters are stored as attributes.

    Parameters
    ----------
    ends : ndarray of shape (n_starts,)
        Minus the log posterior where each start ended; not finite where it failed.

    Attributes
    ----------
    figure_ : matplotlib Figure
        Figure that holds the panel.

    ax_ : Axes
        The panel.

    points_ : Line2D
        The ends.

    n_best_ : int
        How many starts found the best optimum.

    See Also
    --------
    GradientInverter : Its ``n_starts``.

    Examples
    --------
    >>> from sklearn_inverse import ForwardFunction, GradientInverter
    >>> from sklearn_inverse.inspection import StartsDisplay
    >>> model = ForwardFunction(lambda k: (k - 1) ** 2, {"k": (0.0, 3.0)}, noise=0.1)
    >>> inverter = GradientInverter(model, n_starts=8, random_state=0).fit([[0.25]])
    >>> display = StartsDisplay.from_estimator(inverter, [[0.25]])
    >>> len(display.points_.get_xdata())
    8
    """

    def __init__(self, ends):
        self.ends = ends

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
        """Search the params of one sample and draw where the starts ended.

        Parameters
        ----------
        inverter : fitted inverter that searches from several starts, or Pipeline
            A :class:`GradientInverter`.

        %(observations)s

        %(sample_index)s

        %(noise_std)s

        %(inputs)s

        ax : Axes, default=None
            Where to draw. If None, a new figure.

        Returns
        -------
        display : StartsDisplay
            The display, drawn.
        """
        import_pyplot(f"{cls.__name__}.from_estimator")
        answer, _ = invert_one(inverter, observations, sample_index, noise_std, inputs)
        return cls.from_posterior(answer, ax=ax)

    @classmethod
    def from_posterior(cls, posterior, sample_index=0, *, ax=None):
        """Draw where the starts of one sample ended.

        Parameters
        ----------
        posterior : Posterior
            What an inverter answered.

        %(sample_index)s

        ax : Axes, default=None
            Where to draw. If None, a new figure.

        Returns
        -------
        display : StartsDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the answer is not of a search from several starts.
        """
        answer = posterior[sample_index]
        if not np.size(getattr(answer, "ends", ())):
            raise ValueError(
                "Only a search from several starts, such as GradientInverter's, knows "
                f"where they ended. Got {answer!r}."
            )
        return cls(answer.ends[0]).plot(ax)

    def plot(self, ax=None):
        """Draw the ends, sorted.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw. If None, a new figure.

        Returns
        -------
        self : StartsDisplay
            The display, with its artists as attributes.
        """
        ends = np.asarray(self.ends, dtype=float)
        found = np.sort(ends[np.isfinite(ends)])
        panels = make_panels(
            type(self).__name__, ax, 1, n_columns=1, panel_size=(4.6, 3.2)
        )
        self.figure_, self.ax_ = panels.figure, panels.axes[0]
        above = found - found[:1]
        best = above < SAME
        self.n_best_ = int(best.sum())
        rank = np.arange(1, len(found) + 1)
        panel = self.ax_
        (self.points_,) = panel.plot(rank, above, "-o", color=BLUE, ms=5, lw=1)
        panel.plot(rank[best], above[best], "o", color=VERMILLION, ms=5)
        panel.axhline(SAME, color=GREY, lw=1, ls="--")
        panel.set_yscale("symlog", linthresh=SAME)
        panel.set_ylim(-SAME / 2, 3 * max(above.max(initial=0.0), 1.0))
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set(xlabel="start, the best first", ylabel="log posterior lost")
        panel.set_title(
            f"{self.n_best_} of {len(found)} on the best optimum",
            loc="left",
            fontsize="small",
        )
        panel.spines[["top", "right"]].set_visible(False)
        return self
