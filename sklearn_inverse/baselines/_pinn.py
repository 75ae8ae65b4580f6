"""PINNInverter: equations as a penalty beside the misfit."""

from numbers import Integral, Real

from sklearn_inverse.collocation._bilevel import Bilevel, fit_jointly
from sklearn_inverse.collocation._local_operator import LocalNetwork
from sklearn_inverse.inverse._collocated import CollocationInverter
from sklearn_inverse.utils._docs import SEARCHING, shared_docs
from sklearn_inverse.utils._sklearn import Interval, StrOptions

__all__ = ["PINNInverter"]


@shared_docs
class PINNInverter(CollocationInverter):
    r"""Recover params by a physics-informed neural network (PINN).

    A network u that fulfills the hard conditions, and the params, are fitted at once to

    .. math:: \overline{|r|^2} + w \, \overline{|u - d|^2}

    Residuals r of the equations count relative to their size, misfits relative to the
    solution's. What comes out depends on the weight w: with a small one the readings are
    not met, with a large one the equations are not [1]_. The estimate's ``network_error``
    says how far u is from the exact solution at the params found.

    Parameters
    ----------
    %(equations)s

    data_weight : float, default=1.0
        Weight w of the misfit.

    pretrain_iter : int, default=500
        Iterations at the start, on the exact solution there.

    max_iter : int, default=2000
        Most steps.

    optimizer : {"adam", "soap"}, default="adam"
        How weights move; "adam" is the papers'.

    lr : float, default=1e-3
        Initial step size of weights and scaled params; it falls along half a cosine.

    %(searching)s

    Attributes
    ----------
    %(model_)s

    %(pretrained_)s

    %(n_iter_)s

    %(n_features_in_)s

    See Also
    --------
    BiLOInverter : Holds the equations apart from the readings.

    References
    ----------
    .. [1] Zhang, Liu and Lowengrub, "BiLO: bilevel local operator learning for PDE
       inverse problems", Figure 2 and Tables 2 to 5.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse import ODESystem
    >>> from sklearn_inverse.baselines import PINNInverter
    >>> def growth(t, y, p):
    ...     return p.rate * y.size
    >>> times = np.linspace(0, 1, 11)
    >>> system = ODESystem(
    ...     growth, states={"size": 1.0}, params={"rate": (0.5, 3)}, times=times, noise=0.05
    ... )
    >>> readings = np.exp(2.0 * times)[None]
    >>> inverter = PINNInverter(
    ...     system, start=[1.5], lr=1e-2, pretrain_iter=50, max_iter=300, random_state=0
    ... )
    >>> inverter.fit(readings).predict(readings).round(1)
    array([[2.]])
    """

    _parameter_constraints: dict = SEARCHING | {
        "model": "no_validation",
        "start": ["array-like", None],
        "network": [LocalNetwork, None],
        "data_weight": [Interval(Real, 0, None, closed="neither")],
        "pretrain_iter": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "optimizer": [StrOptions({"adam", "soap"})],
        "lr": [Interval(Real, 0, None, closed="neither")],
    }
    _option_types = {"network": LocalNetwork}
    _ends_by_converging = False
    functions = None

    def __init__(
        self,
        model=None,
        *,
        start=None,
        network=None,
        data_weight=1.0,
        pretrain_iter=500,
        max_iter=2000,
        optimizer="adam",
        lr=1e-3,
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
        self.data_weight = data_weight
        self.pretrain_iter = pretrain_iter
        self.max_iter = max_iter
        self.optimizer = optimizer
        self.lr = lr
        self.prior = prior
        self.chunk_size = chunk_size
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _tune(self, upper, start, layers):
        descent = Bilevel(
            "adam",
            lr_params=self.lr,
            optimizer=self.optimizer,
            lr_net=self.lr,
            max_iter=self.max_iter,
            tol=0.0,
        )
        weight = self.data_weight
        found = fit_jointly(
            self._operator, upper, start, layers, descent, data_weight=weight
        )
        return found, descent.max_iter
