"""Hudson's Bay Company pelts of hare and lynx: a century-old predator-prey record."""

import numpy as np
from sklearn.utils import Bunch

HARE = [
    30.0, 47.2, 70.2, 77.4, 36.3, 20.6, 18.1, 21.4, 22.0, 25.4, 27.1, 40.3, 57.0, 76.6,
    52.3, 19.5, 11.2, 7.6, 14.6, 16.2, 24.7,
]  # fmt: skip
LYNX = [
    4.0, 6.1, 9.8, 35.2, 59.4, 41.7, 19.0, 13.0, 8.3, 9.1, 7.4, 8.0, 12.3, 19.5, 45.7,
    51.1, 29.7, 15.8, 9.7, 10.1, 8.6,
]  # fmt: skip

# Posterior mean and standard deviation of each param.
PUBLISHED = {
    "alpha": (0.54686, 0.06305),
    "beta": (0.02775, 0.00415),
    "gamma": (0.80010, 0.08937),
    "delta": (0.02409, 0.00353),
    "hare0": (34.035, 2.917),
    "lynx0": (5.936, 0.531),
    "sigma_hare": (0.24806, 0.04326),
    "sigma_lynx": (0.25102, 0.04359),
}

DESCR = """\
Canadian lynx and snowshoe hare, 1900-1920
==========================================
Pelts that trappers delivered to the Hudson's Bay Company, in thousands per year: the
classical record of a predator and its prey. One sample, 21 yearly readings of two
observables, nothing missing.

Model of the published values
-----------------------------
hare' = (alpha - beta * lynx) * hare,  lynx' = (-gamma + delta * hare) * lynx

with both counts of 1900 unknown (`hare0`, `lynx0`), time in years, and logarithms of
the counts that scatter normally around the model's (`sigma_hare`, `sigma_lynx`).
Priors: alpha, gamma ~ N+(1, 0.5); beta, delta ~ N+(0.05, 0.05); hare0, lynx0 ~
LogNormal(log 10, 1); sigma ~ LogNormal(-1, 1). `published` holds the mean and the
standard deviation of the posterior.

Sources
-------
- Data: C. Elton and M. Nicholson, "The ten-year cycle in numbers of the lynx in
  Canada", Journal of Animal Ecology 11 (1942), 215-244; as tabulated by P. Howard,
  "Modeling Basics", lecture notes, 2009.
- Model: B. Carpenter, "Predator-Prey Population Dynamics: the Lotka-Volterra model in
  Stan", Stan case studies, 2018.
- Posterior: posteriordb, entry hudson_lynx_hare-lotka_volterra.
"""


def load_lynx_hare():
    """Load the lynx and hare pelt counts of 1900-1920.

    Two animals, 21 years, thousands of pelts, and what a published Bayesian analysis
    made of them.

    Returns
    -------
    data : Bunch
        With the entries

        observations : ndarray of shape (1, 42)
            Thousands of pelts, time-major: hare and lynx of 1900, of 1901, ….
        years : ndarray of shape (21,)
            Calendar years.
        times : ndarray of shape (21,)
            Years since 1900.
        observable_names : list of str
            ``["hare", "lynx"]``.
        published : dict
            Posterior of the Lotka-Volterra model: ``param_names``, ``mean`` and
            ``std`` in the same order, and their ``source``.
        DESCR : str
            Description, model and sources.

    Examples
    --------
    >>> from sklearn_inverse.datasets import load_lynx_hare
    >>> data = load_lynx_hare()
    >>> data.observations.shape
    (1, 42)
    >>> dict(zip(data.published["param_names"][:2], data.published["mean"].tolist()))
    {'alpha': 0.54686, 'beta': 0.02775}
    """
    counts = np.column_stack([HARE, LYNX])
    times = np.arange(len(counts), dtype=float)
    mean, std = np.transpose(list(PUBLISHED.values()))
    return Bunch(
        observations=counts.reshape(1, -1),
        years=1900 + np.arange(len(counts)),
        times=times,
        observable_names=["hare", "lynx"],
        published={
            "param_names": list(PUBLISHED),
            "mean": mean,
            "std": std,
            "source": "posteriordb, hudson_lynx_hare-lotka_volterra (see DESCR)",
        },
        DESCR=DESCR,
    )
