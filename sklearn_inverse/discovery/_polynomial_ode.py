"""PolynomialODE: learns the equations of a stiff system from its trajectories."""

from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.metrics import r2_score
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklearn_inverse.discovery._determined import written
from sklearn_inverse.discovery._fit import EXACT
from sklearn_inverse.discovery._learn import learn
from sklearn_inverse.discovery._net import learn_net
from sklearn_inverse.discovery._options import (
    by_reading,
    hidden_of,
    in_units,
    noise_of,
    terms_of,
    unknown_of,
)
from sklearn_inverse.discovery._pi_net import learn_pi_net
from sklearn_inverse.discovery._remarks import complaints, remarks
from sklearn_inverse.discovery._rhs import KnownPart, Monomials, RightHandSide
from sklearn_inverse.discovery._runs import as_runs, in_order, largest_of, plain
from sklearn_inverse.discovery._system import from_whole, system_of
from sklearn_inverse.exceptions import IntegrationWarning
from sklearn_inverse.ode import _coefficients, solve_ivp
from sklearn_inverse.utils._sklearn import Interval, StrOptions, _fit_context
from sklearn_inverse.utils._warnings import warn_user

__all__ = ["PolynomialODE"]

METHODS = {
    "backward_euler": _coefficients.BACKWARD_EULER,
    "trapezoid": _coefficients.TRAPEZOID,
    "radau3": _coefficients.RADAU3,
    "radau5": _coefficients.RADAU5,
}
MOST = 5000  # coefficients that are fitted together
OF_NO_USE = {  # options that a module has no use for
    "polynomial": ["hidden_layer_sizes"],
    "mlp": ["degree", "threshold", "unknown", "terms"],
    "pi_net": ["threshold", "unknown", "terms", "hidden_layer_sizes"],
}
OF_TERMS = (  # attributes that a network has not
    *("coef_", "coef_std_", "covariance_", "step_error_", "feature_names_"),
    *("rank_", "identifiable_", "relations_", "is_choice_", "alternatives_", "net_"),
)


class PolynomialODE(BaseEstimator):
    r"""Learn :math:`y' = f(y)` from trajectories, f a polynomial of the states.

    Each point and the next are an initial value problem, over which one implicit step is
    taken [1]_, so that fast states, which no derivative of the data shows, are no
    obstacle. The coefficients of all monomials follow by Gauss–Newton on what the steps
    miss, with derivatives by the implicit function theorem; terms that contribute
    little anywhere are left out, a few at a time.

    Where readings scatter, the states at both ends of a step are free within the noise;
    terms are left out backwards as long as an information criterion falls, Bayes' extended
    by how many terms there are to choose from [2]_. What is left
    is fitted over ever longer pieces of the runs, in the end whole ones, which tell what
    single steps do not: at each length terms come back, go, and change places as long as
    the criterion falls. Other equations may explain the runs as well, as quasi-steady
    ones do: :attr:`alternatives_`.

    Parameters
    ----------
    degree : int, default=2
        Largest degree of the monomials.

    method : {"radau5", "radau3", "trapezoid", "backward_euler"}, default="radau5"
        The step; its errors go with the 5th, 3rd, 2nd, 1st power of its size.

    substeps : int, default=1
        Steps from each point to the next: more where points are far apart.

    threshold : float, default=0.01
        A term is left out if, at all points, it is less than this share of the sum of
        sizes of its equation's terms; with noise, those that gain too little are, whatever
        the threshold. 0 keeps all.

    noise_std : float, array-like, list of array-like or "estimate", default=None
        Standard deviation of the measurements, the same for all or of shape (n_states,);
        where repeats of a table are averaged, of a single one. A list has one array for
        each run, of shape (n_states,), or (n_times, n_states) for each reading.
        "estimate" takes it first from how neighboring readings scatter, then from what
        the equations leave. If None, they count as exact, and what the steps
        miss as the error of the steps: combinations of terms that differ by less than
        that, added up along a run, or 1e-5 of the largest values, are not told apart.

    known : callable, default=None
        ``known(t, y) -> dy/dt``: the part of the equations that is known, as the right-hand
        side of an :class:`~sklearn_inverse.ODESystem`, one entry per state; zero where
        nothing is.

    unknown : list of str, default=None
        States whose equations have unknown terms. If None, all.

    terms : dict of str to list of str, default=None
        Monomials that an equation may have, by state, as ``{"y1": ["1", "y1*y2"]}``; with
        ``threshold=0`` it has all of these. States that are not named may have any.

    state_names : list of str, default=None
        Names of the states, by which columns of data frames and observables of tables are
        put in order. If None, those of the columns, or y1, y2, ….

    max_iter : int, default=100
        Most linearizations of a fit; of "pi_net", ten times as many gradients of Adam,
        again of L-BFGS, and where data are exact again with each change counting the same.

    module : {"polynomial", "mlp", "pi_net"}, default="polynomial"
        "mlp" takes a neural network in place of the polynomials, fitted by the same steps:
        it simulates, but has no symbols; of the attributes it has the names, the noise,
        the runs and the count. It takes no ``terms``, ``unknown``, ``degree`` or
        ``threshold``. "pi_net" is the network of [1]_, a product of linear maps, trained by
        gradients and expanded to monomials: `coef_`, without errors. Of these none is left
        out: it takes no ``terms``, ``unknown`` or ``threshold``.

    hidden_layer_sizes : tuple of int, default=(16,)
        Of "mlp" alone: tanh neurons of each layer, beside which is a linear map.

    random_state : int, RandomState instance or None, default=None
        Of the network's first weights.

    Attributes
    ----------
    equations_ : list of str
        The equations that were found.

    coef_ : ndarray of shape (n_states, n_terms)
        Coefficients of all monomials, 0 for those left out.

    coef_std_ : ndarray of shape (n_states, n_terms)
        Their standard errors, by linearization about the terms kept: from the noise, or
        from what the steps miss. Systematic errors of the steps are not in them.

    step_error_ : ndarray of shape (n_states, n_terms)
        By how much steps half as long would move the coefficients, by linearization:
        about the systematic error that the method makes.

    covariance_ : ndarray of shape (n_kept, n_kept)
        Covariance of the coefficients kept, equation by equation.

    feature_names_ : list of str
        The monomials.

    state_names_ : list of str
        The states.

    rank_ : int
        How many combinations of the monomials these data tell apart.

    identifiable_ : ndarray of bool of shape (n_states, n_terms)
        Whether the data determine the coefficient if nothing says which terms there are.

    relations_ : list of str
        Conservation laws, and other relations that hold at all points: the reason where
        the rank is less than the number of monomials.

    is_choice_ : bool
        Whether other equations fit as well, so that those of least degree and L1 norm
        were taken, where data count as exact.

    alternatives_ : list of tuple
        With noise: other equations, each in place of that of its state, and how much
        larger the criterion is with it, smallest first; below zero, it is better. Told
        are those within 10, also of Bayes' plain criterion. Tried are those in which
        none, one or two terms stand for one found.

    noise_std_ : ndarray of shape (n_states,)
        Standard deviations of the measurements, stated or estimated, root mean squares
        where they are of single runs or readings; None where they
        count as exact, as when an estimate is below 1e-5 of the largest value.

    net_ : nn.Module
        With "pi_net": the network that was expanded.

    n_features_in_ : int
        Number of states.

    n_iter_ : int
        Linearizations of all fits together.

    runs_ : list of tuple
        Times and states of each run, and the noise of its readings in units of
        `noise_std_`.

    See Also
    --------
    GradientInverter : Refines the coefficients on whole trajectories; see `to_system`.

    Notes
    -----
    The data are several runs of several times, so that ``fit(trajectories, times)`` is not
    scikit-learn's table of rows: ``clone``, ``get_params``, ``set_params`` and pickling
    are as everywhere, its checks of tables do not apply.

    References
    ----------
    .. [1] C. Fronk, L. Petzold, "Training stiff neural ordinary differential equations
       with implicit single-step methods", Chaos 34 (2024) 123142.
    .. [2] J. Chen, Z. Chen, "Extended Bayesian information criteria for model selection
       with large model spaces", Biometrika 95 (2008) 759, with their weight 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse import PolynomialODE
    >>> t = np.linspace(0, 2, 21)
    >>> model = PolynomialODE(degree=1, state_names=["a"]).fit(3 * np.exp(-2 * t), t)
    >>> model.equations_
    ["a' = -2*a"]
    """

    _parameter_constraints: dict = {
        "degree": [Interval(Integral, 0, None, closed="left")],
        "method": [StrOptions(set(METHODS))],
        "substeps": [Interval(Integral, 1, None, closed="left")],
        "threshold": [Interval(Real, 0, 1, closed="left")],
        "noise_std": [
            Interval(Real, 0, None, closed="neither"),
            "array-like",
            StrOptions({"estimate"}),
            None,
        ],
        "known": [callable, None],
        "unknown": ["array-like", None],
        "terms": [dict, None],
        "state_names": ["array-like", None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "module": [StrOptions({"polynomial", "mlp", "pi_net"})],
        "hidden_layer_sizes": [tuple, list],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        degree=2,
        *,
        method="radau5",
        substeps=1,
        threshold=0.01,
        noise_std=None,
        known=None,
        unknown=None,
        terms=None,
        state_names=None,
        max_iter=100,
        module="polynomial",
        hidden_layer_sizes=(16,),
        random_state=None,
    ):
        self.degree = degree
        self.method = method
        self.substeps = substeps
        self.threshold = threshold
        self.noise_std = noise_std
        self.known = known
        self.unknown = unknown
        self.terms = terms
        self.state_names = state_names
        self.max_iter = max_iter
        self.module = module
        self.hidden_layer_sizes = hidden_layer_sizes
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, trajectories, times=None):
        """Learn the equations.

        Parameters
        ----------
        trajectories : array-like, list of array-like, or table
            One run of shape (n_times, n_states); several of shape (n_runs, n_times,
            n_states), or a list of them, which may differ in length; NaN, or masked, where
            a state was not measured. Columns of data frames go by name. Or a long table as
            of :func:`~sklearn_inverse.datasets.read_table`: a CSV file, a data frame or a
            dict with columns ``time``, ``observable`` and ``value``; ``sample`` and
            ``experiment`` tell runs apart; repeats are averaged, and the more there are
            the more their mean counts.

        times : array-like of shape (n_times,) or list of array-like, default=None
            Increasing times, the same for all runs or one array for each. None with a
            table.

        Returns
        -------
        self : PolynomialODE
            Fitted.

        Raises
        ------
        ValueError
            If shapes, times or names do not fit, if a state was never measured, or if
            nowhere all were.

        Warns
        -----
        IdentifiabilityWarning
            If other equations fit as well, and these were chosen.

        MisfitWarning
            If the equations do not explain the data to within ``noise_std``, or, where
            that is not stated, miss a twentieth of what states change by.

        ConvergenceWarning
            If the fit stopped early, or steps could not be solved.
        """
        self._check_use()
        each = self.noise_std if by_reading(self.noise_std) else None
        runs, names = as_runs(trajectories, times, self.state_names, each)
        if each is None:
            noise = noise_of(self.noise_std, runs, names)
        else:
            noise, runs = in_units(runs)
        largest = largest_of(runs)
        self.runs_, self.state_names_, self.n_features_in_ = runs, names, len(names)
        self.noise_std_, self._largest = noise, largest
        options = {
            "a": METHODS[self.method].a,
            "substeps": self.substeps,
            "known": None if self.known is None else KnownPart(self.known, names),
            "max_iter": self.max_iter,
        }
        for name in OF_TERMS:  # of an earlier fit
            vars(self).pop(name, None)
        if self.module == "polynomial":
            found = self._learn_terms(options)
        else:
            found = self._learn_net(options)
        self.n_iter_ = found.n_iter
        estimated = isinstance(self.noise_std, str)
        n_readings = sum(np.isfinite(run.states).sum() for run in runs) / len(names)
        for text, category in complaints(
            found, self.noise_std_, estimated, self.module, n_readings
        ):
            warn_user(text, category)
        return self

    def _learn_net(self, options):
        options["seed"] = check_random_state(self.random_state).randint(2**31)
        is_polynomial = self.module == "pi_net"
        if is_polynomial:
            options["monomials"] = self._monomials(range(len(self.state_names_)))
        else:
            options["hidden"] = hidden_of(self.hidden_layer_sizes)
        make = learn_pi_net if is_polynomial else learn_net
        found = make(self.runs_, noise=self.noise_std_, **options)
        if isinstance(self.noise_std, str) and self.noise_std_ is not None:
            left = self.noise_std_ * np.sqrt(found.misfit)
            exact = (left <= EXACT * self._largest).all()
            self.noise_std_ = None if exact else left
            if exact or not is_polynomial:  # of which all weights are the same again
                again = make(self.runs_, noise=self.noise_std_, **options)
                # What was left is compared with the scatter of neighbors.
                found = again if exact else again._replace(misfit=found.misfit)
        self._rhs = found.rhs
        if is_polynomial:
            self.feature_names_, self.coef_ = found.monomials.names, found.rhs.coef
            self.net_, self.equations_ = found.net, self._written("{:.4g}")
        else:
            states = ", ".join(self.state_names_)
            known = "" if self.known is None else "known + "
            self.equations_ = [
                f"{n}' = {known}net({states})" for n in self.state_names_
            ]
        return found

    def _check_use(self):
        """Refuse options that the module has no use for."""
        usual = type(self)().get_params()
        for option in OF_NO_USE[self.module]:
            value = getattr(self, option)
            if value is not usual[option] and not np.array_equal(value, usual[option]):
                raise ValueError(
                    f"`{option}` must be {usual[option]!r}, its default, with module="
                    f"{self.module!r}, which has no use for it. Got {value!r}."
                )

    def _monomials(self, unknown):
        """Return monomials, if their coefficients are not too many."""
        names, n_terms = self.state_names_, _count(len(self.state_names_), self.degree)
        if n_terms * len(unknown) > MOST:
            raise ValueError(
                f"No more than {MOST} coefficients can be fitted together. Got {n_terms} "
                f"monomials of {len(names)} states up to degree {self.degree} in "
                f"{len(unknown)} equations: lower `degree`, or name fewer `unknown`."
            )
        return Monomials(names, self.degree)

    def _learn_terms(self, options):
        runs, names = self.runs_, self.state_names_
        unknown = unknown_of(self.unknown, names)
        options |= {
            "monomials": self._monomials(unknown),
            "threshold": self.threshold,
            "estimate": isinstance(self.noise_std, str),
            "unknown": unknown,
            "terms": terms_of(self.terms, names, self.degree, unknown),
        }
        found = learn(runs, names, noise=self.noise_std_, **options)
        if options["estimate"] and found.noise is not None:
            self.noise_std_ = found.noise
            if (found.noise <= EXACT * self._largest).all():
                self.noise_std_ = None
                found = learn(runs, names, noise=None, **options)
        self._rhs = RightHandSide(found.monomials, found.coef, options["known"])
        self.feature_names_ = found.monomials.names
        self.coef_, self.coef_std_ = found.coef, found.coef_std
        self.covariance_, self.step_error_ = found.covariance, found.step_error
        self.rank_, self.identifiable_ = found.rank, found.identifiable
        self.relations_, self.is_choice_ = found.relations, found.is_choice
        self.alternatives_ = [
            (self._line(k, row, "{:.4g}"), float(rise))
            for k, rise, row in found.alternatives
        ]
        self.equations_ = self._written("{:.4g}")
        return found

    def _written(self, style):
        return [self._line(k, row, style) for k, row in enumerate(self.coef_)]

    def _line(self, k, row, style):
        terms = {n: c for n, c in zip(self.feature_names_, row) if c != 0.0}
        if self.known is not None:
            terms = {"known": 1.0} | terms
        return f"{self.state_names_[k]}' = {written(terms, style)}"

    def print(self, precision=4):
        """Print the equations, their errors, and what the data do not tell.

        Parameters
        ----------
        precision : int, default=4
            Significant digits.
        """
        check_is_fitted(self)
        lines = self.equations_
        if "coef_" in vars(self):
            lines = self._written(f"{{:.{precision}g}}")
        if "coef_std_" in vars(self):
            lines += remarks(self)
        print("\n".join(lines))

    def simulate(self, y0, times):
        """Solve the learned equations.

        Parameters
        ----------
        y0 : array-like of shape (n_states,) or (n_samples, n_states)
            States at the first of the times.

        times : array-like of shape (n_times,) or (n_samples, n_times)
            Increasing times.

        Returns
        -------
        trajectories : ndarray of shape (n_times, n_states) or \
(n_samples, n_times, n_states)
            States; NaN from where they blow up.

        Warns
        -----
        IntegrationWarning
            If some could not be solved to the end.
        """
        check_is_fitted(self)
        y0, times = in_order(y0, self.state_names_)[0], plain(times)
        # In memory order: tensors know no reversed views.
        y0, times = (np.array(x, dtype=float, order="C") for x in (y0, times))
        if y0.ndim not in (1, 2) or y0.shape[-1] != self.n_features_in_:
            raise ValueError(
                f"`y0` must have the {self.n_features_in_} states {self.state_names_} on "
                f"its last axis. Got shape {y0.shape}."
            )

        def at(t, y):
            return map(torch.from_numpy, self._rhs(t.numpy(), y.numpy()))

        with torch.no_grad(), np.errstate(over="ignore", invalid="ignore"):
            solution = solve_ivp(
                lambda t, y, _: next(at(t, y)),
                torch.as_tensor(times),
                torch.as_tensor(np.atleast_2d(y0)),
                jac=lambda t, y, _: list(at(t, y))[1],
                method="radau5",
                rtol=1e-7,
                atol=1e-12 * self._largest,
                backend="torch",
            )
        if not solution.success.all():
            warn_user(solution.failure_summary(), IntegrationWarning)
        trajectories = solution.y.numpy()
        return trajectories[0] if y0.ndim == 1 else trajectories

    def score(self, trajectories, times=None):
        """Return R², averaged over states, of trajectories simulated from their start.

        Parameters
        ----------
        trajectories, times : as in :meth:`fit`
            Runs; each is simulated from its first point at which all was measured. Columns
            of data frames are found by the names of states.

        Returns
        -------
        score : float
            One is perfect; zero is what the mean of each state scores, which counts too
            where the solution blows up.
        """
        check_is_fitted(self)
        runs, _ = as_runs(trajectories, times, self.state_names_)
        empty = np.empty((0, self.n_features_in_))
        measured, made = [empty], [empty]
        for t, y, _ in runs:
            whole = np.flatnonzero(~np.isnan(y).any(axis=1))
            if len(whole) and whole[0] + 1 < len(t):
                first = whole[0]
                measured.append(y[first + 1 :])
                made.append(self.simulate(y[first], t[first:])[1:])
        measured, made = np.concatenate(measured), np.concatenate(made)
        scores = []
        for y, predicted in zip(measured.T, made.T):
            seen = ~np.isnan(y)
            y, predicted = y[seen], predicted[seen]
            if len(y) > 1:
                filled = np.where(np.isfinite(predicted), predicted, y.mean())
                scores.append(r2_score(y, filled))
        if not scores:
            raise ValueError(
                "A score needs two readings of a state behind points at which all was "
                f"measured. Got {len(measured)} point(s) to score: add some."
            )
        return float(np.mean(scores))

    def to_system(self, *, noise=None, widen=10.0):
        """Return the equations as a system whose params are the coefficients.

        Its experiments are the runs that were fitted, so that inverters refine the
        coefficients on whole trajectories: ``GradientInverter(system).fit(observations)``
        with :attr:`observations_`.

        Parameters
        ----------
        noise : object, default=None
            How readings scatter, as of :class:`~sklearn_inverse.ODESystem`. If None,
            ``noise_std``, or normal with standard deviations that are estimated.

        widen : float, default=10.0
            By how much the prior of the coefficients, around those found, is wider than
            their errors: the same data are to tell them again. Larger than 0.

        Returns
        -------
        system : ODESystem
            With one experiment for each run. Its states start where they were measured;
            with noise, at params of their own.
        """
        check_is_fitted(self)
        return system_of(self, noise=noise, widen=widen)

    @property
    def observations_(self):
        """Readings of the runs in the order of :meth:`to_system`."""
        check_is_fitted(self)
        return np.concatenate(
            [run.states.ravel() for run in map(from_whole, self.runs_)]
        )[None]


def _count(n_states, degree):
    n = 1
    for i in range(1, degree + 1):
        n = n * (n_states + i) // i
    return n
