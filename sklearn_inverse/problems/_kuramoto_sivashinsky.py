"""The forced Kuramoto–Sivashinsky equation, which forgets where it began."""

import math

import numpy as np
import torch

from sklearn_inverse.forward import ForwardFunction
from sklearn_inverse.probability import Normal

__all__ = ["KuramotoSivashinsky", "kuramoto_sivashinsky"]

N_WAVES = 8  # of the initial state
N_CONTOUR = 32  # points of the contour means of Kassam and Trefethen
ROWS = 64  # solved together: more fall out of the processor's cache


def kuramoto_sivashinsky(*, length=22.0, n_nodes=64, step=0.1, time=25.0, noise=0.01):
    r"""Return the forced Kuramoto–Sivashinsky equation, seen at its end.

    Parameters
    ----------
    length : float, default=22.0
        Period in x. At 22 the loss is smooth, at :math:`32\pi` rugged; take
        ``n_nodes=256, step=0.05`` there.

    n_nodes : int, default=64
        Points in x, 24 at least, of which a third of the waves is kept (no
        aliasing).

    step : float, default=0.1
        Longest step in time; steps are equal, and end at ``time``.

    time : float, default=25.0
        When the state is seen.

    noise : object, default=0.01
        How readings scatter.

    Returns
    -------
    model : ForwardFunction
        Params ``alpha`` in (-1, 1), ``beta`` in (1/2, 3/2); inputs ``a1``, …, ``a8``,
        ``b1``, …, ``b8``, the initial state; u at ``n_nodes`` points x.

    Notes
    -----
    .. math:: u_t = \alpha \cos(2\pi x / L) - u_{xx} - u_{xxxx} - \beta\, u\, u_x,
              \qquad u(x, 0) = \tfrac{1}{\sqrt 8} \sum_{m=1}^8
              a_m \cos \tfrac{2\pi m x}{L} + b_m \sin \tfrac{2\pi m x}{L},

    by exponential time differencing of fourth order [2]_. Forcing, period and initial
    states are not given in [1]_. Half a step changes u(25) by 1e-2 (L = 22).

    References
    ----------
    .. [1] P. Holl, N. Thuerey, "The unreasonable effectiveness of solving inverse
       problems with neural networks", arXiv:2408.08119, 2024.

    .. [2] A.-K. Kassam, L. N. Trefethen, "Fourth-order time-stepping for stiff PDEs",
       SIAM J. Sci. Comput. 26, 2005.
    """
    solver = KuramotoSivashinsky(length, n_nodes, step, time)
    waves = range(1, N_WAVES + 1)
    return ForwardFunction(
        solver,
        {"alpha": (-1, 1), "beta": (0.5, 1.5)},
        inputs={f"{kind}{m}": Normal(0, 1) for kind in "ab" for m in waves},
        observables=["u"],
        times=solver.nodes,
        noise=noise,
        name="kuramoto_sivashinsky",
    )


class KuramotoSivashinsky:
    """States at the end, (n_samples, n_nodes), of params and initial waves.

    Parameters
    ----------
    length, n_nodes, step, time
        As of :func:`kuramoto_sivashinsky`.
    """

    def __init__(self, length, n_nodes, step, time):
        if n_nodes < 3 * N_WAVES:
            raise ValueError(
                f"`n_nodes` must be {3 * N_WAVES} at least, for {N_WAVES} waves. Got "
                f"{n_nodes!r}."
            )
        self.n_nodes = n_nodes
        self.n_steps = max(math.ceil(time / step - 1e-9), 1)
        step = time / self.n_steps
        self.nodes = length * np.arange(n_nodes) / n_nodes
        self.k = 2 * np.pi / length * np.arange(n_nodes // 3 + 1)
        z = step * (self.k**2 - self.k**4)
        # Means over a circle around z, where the formulas themselves cancel.
        angle = np.pi * (np.arange(N_CONTOUR) + 0.5) / N_CONTOUR
        r = z[:, None] + np.exp(1j * angle)
        e = np.exp(r)
        self.whole, self.half = np.exp(z), np.exp(z / 2)
        self.stage, self.first, self.middle, self.last = (
            step * formula.mean(axis=1).real
            for formula in (
                (np.exp(r / 2) - 1) / r,
                (-4 - r + e * (4 - 3 * r + r**2)) / r**3,
                2 * (2 + r + e * (r - 2)) / r**3,
                (-4 - 3 * r - r**2 + e * (4 - r)) / r**3,
            )
        )

    def initial(self, inputs):
        """Return the waves (n_samples, n_kept) of initial states.

        Parameters
        ----------
        inputs : Tensor of shape (n_samples, 16)
            Amplitudes of cosines, then of sines.
        """
        a, b = inputs.split(N_WAVES, dim=1)
        waves = self.n_nodes / 2 / math.sqrt(N_WAVES) * torch.complex(a, -b)
        n_more = len(self.k) - N_WAVES - 1
        return torch.nn.functional.pad(waves, (1, n_more))

    def __call__(self, params, inputs):
        """Return states at the end, differentiably by the params, once.

        Parameters
        ----------
        params : Tensor of shape (n_samples, 2)
            Strengths of forcing and advection.

        inputs : Tensor of shape (n_samples, 16)
            Amplitudes of the initial state.
        """
        parts = list(zip(params.split(ROWS), inputs.split(ROWS)))
        if not (params.requires_grad and torch.is_grad_enabled()):
            return torch.cat([self.solve(*part, 1)[0] for part in parts])
        # Two derivatives are carried along in a third of the time of going back.
        with torch.no_grad():
            end = torch.cat([self.solve(*part, 3) for part in parts], dim=1)
        by_params = params - params.detach()
        return end[0] + torch.einsum("pnx,np->nx", end[1:], by_params)

    def solve(self, params, inputs, n_fields):
        """Return the state (1, n_samples, n_nodes), or 3: and its two derivatives."""
        n = self.n_nodes
        v = self.initial(inputs)
        names = "whole", "half", "stage", "first", "middle", "last"
        whole, half, stage, first, middle, last = (
            torch.as_tensor(getattr(self, name)).to(v) for name in names
        )
        alpha, beta = params.T[..., None]
        unit = torch.as_tensor(-0.5j * self.k).to(v)
        advection = unit * torch.stack([beta, 2 * beta, 2 * beta])[:n_fields]
        force = v.new_zeros(n_fields, *v.shape)
        force[0, :, 1] = alpha[:, 0] * n / 2
        force[1:2, :, 1] = n / 2
        v = torch.cat([v[None], v.new_zeros(n_fields - 1, *v.shape)])

        def slope(v):
            u = torch.fft.irfft(v, n=n)
            product = torch.fft.rfft(u[:1] * u)[..., : v.shape[2]]
            out = torch.addcmul(force, advection, product)
            out[2:] += unit * product[:1]
            return out

        for _ in range(self.n_steps):
            n0, halfway = slope(v), half * v
            a = torch.addcmul(halfway, stage, n0)
            n1 = slope(a)
            n2 = slope(torch.addcmul(halfway, stage, n1))
            n3 = slope(torch.addcmul(half * a, stage, 2 * n2 - n0))
            v = torch.addcmul(whole * v, first, n0)
            v = torch.addcmul(v, middle, n1 + n2)
            v = torch.addcmul(v, last, n3)
        return torch.fft.irfft(v, n=n)
