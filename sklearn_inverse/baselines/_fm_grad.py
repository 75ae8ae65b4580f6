r"""FMGradInverter: ADM's network, trained on the gradient of the misfit.

The velocity of a particle k is taught to be (INO, the row FM-Grad)

.. math:: v^* = -\nabla_k \|G(k_\tau) - y_{obs}\|_1,

which takes backpropagation through the model for every batch of training, and none when
it answers.
"""

import math

import torch
from torch import Tensor, nn

from sklearn_inverse.inverse import ADMInverter
from sklearn_inverse.networks._probit import probit
from sklearn_inverse.utils._docs import shared_docs

__all__ = ["FMGradInverter"]

# Parameters of our own inverter that the paper's has not.
UNPRINTED = ("kind", "max_solves", "synthetic_fraction", "rollout")


@shared_docs
class FMGradInverter(ADMInverter):
    r"""Recover params by a learned descent on the L1 misfit of readings.

    The network, its inputs and its integration are those of
    :class:`~sklearn_inverse.ADMInverter`. Its target is not the way from a particle to its
    truth but the way down [1]_, :math:`-\nabla_k \|G(k) - y_{obs}\|_1`, on which what
    readings tell little of stays where it started: a method to compare with.

    Parameters
    ----------
    %(model)s

    %(design)s

    training : Training, default=None
        How the velocity is trained; see :class:`~sklearn_inverse.ADMInverter`.

    n_steps, gain : int and float, default=20, 7.0
        Steps of the integration, and how far it goes.

    n_particles : int, default=10
        Random starts per sample, averaged at the end; [1]_ takes 100.

    width, n_blocks : int, default=256, 4
        Width and number of residual blocks of the network.

    %(learning)s

    Attributes
    ----------
    %(model_)s

    net_, calibration_, reading_scaler_, n_iter_ : object
        As of :class:`~sklearn_inverse.ADMInverter`.

    %(n_features_in_)s

    Notes
    -----
    How the target is scaled is not printed. The gradient of an L1 misfit L is as long near
    the optimum as far away, so that no step of fixed size arrives. Here the target is
    Polyak's step, :math:`-L \nabla L / \|\nabla L\|^2`, which leads to where L would vanish
    were it linear, no farther than the prior reaches: 20 steps cover that way. L is the
    mean over standardized readings; params k are scaled ones.

    References
    ----------
    .. [1] "INO: Inverse neural operator for stiff ODE parameter recovery": FM-Grad, in
       "Effect of the Amortized Drifting Model".

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse import ForwardFunction, Training
    >>> from sklearn_inverse.baselines import FMGradInverter
    >>> import torch
    >>> t = torch.linspace(0, 2, 8, dtype=torch.float64)
    >>> decay = ForwardFunction(lambda k: torch.exp(-k * t), {"k": (0.5, 2)}, noise=0.01)
    >>> k = np.random.default_rng(0).uniform(0.5, 2.0, (100, 1))
    >>> baseline = FMGradInverter(decay, training=Training(max_epochs=5), random_state=0)
    >>> baseline.fit(decay.fit(None).simulate(k), k).n_iter_
    5
    """

    _parameter_constraints: dict = {
        name: constraint
        for name, constraint in ADMInverter._parameter_constraints.items()
        if name not in UNPRINTED
    }
    _velocity_loss = nn.L1Loss

    def __init__(
        self,
        model=None,
        *,
        design=None,
        training=None,
        n_steps=20,
        gain=7.0,
        n_particles=10,
        width=256,
        n_blocks=4,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        super().__init__(
            model,
            design=design,
            training=training,
            kind="learned",
            n_steps=n_steps,
            gain=gain,
            n_particles=n_particles,
            width=width,
            n_blocks=n_blocks,
            device=device,
            random_state=random_state,
            verbose=verbose,
        )

    def _coupling(self):
        return {"couple": self._polyak_step}

    def _polyak_step(self, particles, truths, residuals, slots) -> Tensor:
        """Return steps down the misfit (n_particles, n_params), within the cube."""
        misfit, down = self._way_down(particles, slots)
        tiny = torch.finfo(down.dtype).tiny
        step = misfit * down / down.square().sum(dim=1, keepdim=True).clamp(min=tiny)
        return (particles + step).clamp(0, 1) - particles

    def _way_down(self, particles, slots) -> tuple[Tensor, Tensor]:
        """Return the mean absolute error of readings, and minus its gradient.

        Of standardized readings, by scaled params, and carried over to the quantiles in
        which particles move: shapes (n_particles, 1) and (n_particles, n_params). Both are
        zero where the simulation failed.
        """
        scaled = self._to_scaled(particles).detach().requires_grad_()
        with torch.enable_grad():
            off = slots.gather(self._simulate_scaled(scaled, slots.inputs))
            off = (slots.mask * (off - slots.readings)).abs().sum(dim=(1, 2))
            misfit = off / slots.mask.sum(dim=(1, 2)).clamp(min=1)
            (gradient,) = torch.autograd.grad(misfit.nan_to_num().sum(), scaled)
        down, prior = -gradient.nan_to_num(), self.model_.prior_
        if not prior.is_quantile_scaled:
            slope = prior.standard_slope(scaled.detach().cpu().numpy())
            down = (torch.as_tensor(slope).to(down) @ down[..., None])[..., 0]
            z = probit(particles).to(down)
            down = down * torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
        return misfit.detach().nan_to_num()[:, None], down.to(particles)
