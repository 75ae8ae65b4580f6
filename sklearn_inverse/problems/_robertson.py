"""Robertson's autocatalysis: rate constants that span nine orders of magnitude."""

import numpy as np

from sklearn_inverse.probability import LogUniform
from sklearn_inverse.systems._reactions import ReactionSystem

__all__ = ["robertson"]


def robertson():
    r"""Return Robertson's autocatalytic reaction: 3 species, 3 rate constants.

    A turns into C ever more slowly, by way of B, of which there is never more than
    :math:`4 \cdot 10^{-5}`: something new happens in every decade of time.

    Returns
    -------
    system : ReactionSystem
        Fractions A, B and C at time zero and at 50 times evenly spaced on a logarithmic
        axis from 1e-5 to 1e5. Params within a tenth and ten times their published
        values, on a log10 scale. One invariant: the sum of the three.

    Notes
    -----
    .. math::

        A' &= -k_1 A + k_3 B C \\
        B' &= k_1 A - k_3 B C - k_2 B^2 \\
        C' &= k_2 B^2

    References
    ----------
    .. [1] Robertson, "The solution of a set of reaction rate equations", in Walsh
       (ed.), Numerical Analysis: An Introduction, Academic Press 1966, pp. 178-182.
    """
    nominal = {"k1": 0.04, "k2": 3e7, "k3": 1e4}
    return ReactionSystem(
        ["A -> B", "B + B -> C + B", "B + C -> A + C"],
        initial={"A": 1.0},
        params={k: LogUniform(0.1 * value, 10 * value) for k, value in nominal.items()},
        nominal=nominal,
        times=[0.0, *np.geomspace(1e-5, 1e5, 50)],
        units={"time": "s", "states": "fraction of the total", "params": "1/s"},
        name="robertson",
        reference=(
            1e11,
            [0.2083340149701255e-07, 0.8333360770334713e-13, 0.9999999791665050],
            "Test Set for IVP Solvers, University of Bari",
        ),
    )
