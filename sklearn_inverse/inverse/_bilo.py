"""BiLOInverter: params and a local solution operator, fitted to readings together.

A small network learns the equations' solution in the neighborhood of the params, and
how it changes with them, while the params move to where it meets the readings. Nothing
is simulated on the way.
"""

from numbers import Integral, Real

from sklearn_inverse.collocation._bilevel import Bilevel, fine_tune
from sklearn_inverse.collocation._local_operator import LocalNetwork
from sklearn_inverse.inverse._collocated import CollocationInverter
from sklearn_inverse.utils._docs import SEARCHING, shared_docs
from sklearn_inverse.utils._sklearn import Interval, StrOptions

__all__ = ["BiLOInverter"]


@shared_docs
class BiLOInverter(CollocationInverter):
    r"""Recover params by bilevel local operator learning (BiLO).

    A network :math:`u(x, \theta; W)` that fulfills the hard conditions, of a system of
    ordinary equations its initial state, solves the equations at the params
    :math:`\theta` and around them:

    .. math::

        \min_\theta L_{dat}(\theta, W^*(\theta)), \qquad
        W^* = \arg\min_W \overline{|r|^2}
        + w \overline{\textstyle\sum_j |dr / d\theta_j|^2}

    with the residual r of the equations, :math:`u_t - f(t, u, \theta)` for example. As
    the derivative of the residual vanishes too, so that :math:`u` follows the solution
    when :math:`\theta` changes, the upper level's gradient goes through the input
    :math:`\theta` alone. Both
    levels move at once [1]_.

    What is really minimized is therefore no single function: each level takes steps of
    its own loss while the other stands still. The params come to rest where minus the
    log posterior, with the network in place of the solution, has no slope; that is
    where the exact one has none as far as the lower loss is zero.

    ``fit`` trains one network at the params where every search starts; ``predict``
    copies it to each sample and fine-tunes all copies in one batch.

    Parameters
    ----------
    %(equations)s

    functions : {"basis", "local"}, default="basis"
        How unknown functions of a :class:`PDESystem` reach the network. "basis" tells
        it the function as a whole, by its coefficients in the waves of its prior, and
        ends at the maximum of the posterior. "local" tells each point the function's
        value there only, the auxiliary variable of [1]_; see the notes.

    residual_gradient_weight : float, default=0.1
        Weight :math:`w` of the residual's derivative by the params. Without it the
        network knows the solution at :math:`\theta` only, and the params go astray.

    error_weight : float, default=1.0
        Weight of the errors that residuals add up to, in units of the states, beside the
        residuals themselves, where time is the only coordinate; 0 as in the paper.
        Residuals that are small but last make
        large errors: on oscillations the network follows the params better with them.

    pretrain_iter : int, default=500
        Iterations at the start: of L-BFGS, in space steps of SOAP.

    descent : Bilevel, default=None
        How params and networks move; ``descent__max_iter`` and the like can be set. If
        None, :class:`~sklearn_inverse.collocation.Bilevel` with its defaults.

    %(searching)s

    Attributes
    ----------
    %(model_)s

    %(pretrained_)s

    %(n_iter_)s

    %(n_features_in_)s

    See Also
    --------
    GradientInverter : Differentiates the simulator or the surrogate instead.

    Notes
    -----
    The search is local, from one start: where a simulator's least-squares fit would end
    in a local optimum, as do oscillations that are out of phase, so does this. It also
    fails where the network does not learn the solution, see ``pretrain_loss_``, or cannot
    follow the params as the solution changes its shape; the misfit tells.

    What "local" minimizes: nothing. Its network knows how the solution changes when the
    function f is shifted all over by the same amount, :math:`u_z`, and takes that for the
    effect of each value of f at its own place. It comes to rest where
    :math:`\mathrm{diag}(u_z)^T (u - d) / \sigma^2` and the slope of the prior cancel, not
    where the posterior has its maximum, in which a value of f changes the solution
    everywhere.

    Where the search ends the network is compared with the exact solution, see
    ``network_error`` of the estimate that ``invert`` returns; a warning says where they
    differ by more than the noise of the readings.

    Prior and noise are those of all searching inverters; params that only the noise uses
    move with the others, without reaching the network. ``n_forward`` of the estimate
    counts the runs of the simulator that judge it; the search itself makes none.

    References
    ----------
    .. [1] Zhang, Liu and Lowengrub, "BiLO: bilevel local operator learning for PDE
       inverse problems", Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse import ODESystem
    >>> from sklearn_inverse.inverse import BiLOInverter
    >>> def growth(t, y, p):
    ...     return p.rate * y.size
    >>> times = np.linspace(0, 1, 11)
    >>> system = ODESystem(
    ...     growth, states={"size": 1.0}, params={"rate": (0.5, 3)}, times=times, noise=0.01
    ... )
    >>> readings = np.exp(np.outer([1.0, 2.0], times))
    >>> inverter = BiLOInverter(system, pretrain_iter=150, random_state=0).set_params(
    ...     network__width=16, descent__max_iter=300, descent__tol=5e-3
    ... )  # enough for one growth rate
    >>> inverter.fit(readings).predict(readings).round(1)
    array([[1.],
           [2.]])
    """

    _option_types = {"network": LocalNetwork, "descent": Bilevel}
    _parameter_constraints: dict = SEARCHING | {
        "model": "no_validation",
        "start": ["array-like", None],
        "network": [LocalNetwork, None],
        "functions": [StrOptions({"basis", "local"})],
        "residual_gradient_weight": [Interval(Real, 0, None, closed="left")],
        "error_weight": [Interval(Real, 0, None, closed="left")],
        "pretrain_iter": [Interval(Integral, 1, None, closed="left")],
        "descent": [Bilevel, None],
    }

    def __init__(
        self,
        model=None,
        *,
        start=None,
        network=None,
        functions="basis",
        residual_gradient_weight=0.1,
        error_weight=1.0,
        pretrain_iter=500,
        descent=None,
        prior="model",
        chunk_size=64,
        n_jobs=None,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.model = model
        self.start = start
        self.network = network
        self.functions = functions
        self.residual_gradient_weight = residual_gradient_weight
        self.error_weight = error_weight
        self.pretrain_iter = pretrain_iter
        self.descent = descent
        self.prior = prior
        self.chunk_size = chunk_size
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _tune(self, upper, start, layers):
        descent = self._options("descent", **{"max_iter": 1} if self._is_trial else {})
        found = fine_tune(
            self._operator,
            upper,
            start,
            layers,
            descent,
            gradient_weight=self.residual_gradient_weight,
        )
        return found, descent.max_iter
