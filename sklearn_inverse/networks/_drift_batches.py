r"""What the velocity network is trained on: drift targets, and particles that move.

With residuals :math:`R_i = \hat U(k_i) - U_i` between what a particle gives and its
truth, the drift of the paper (INO, Eq. 8) is

.. math:: v_i = -\frac1B \sum_j K_{ij}\, w_j\, (k_i - k_j^*), \qquad
          K_{ij} = \exp(-\|R_i - R_j\|^2 / \sigma), \quad w_j = \|R_j\|_2,

with :math:`\sigma = \mathrm{med}^2 / \log B`. It couples samples with *different* truths,
which blurs the target towards their mean. Coupled with particles of its own truth alone,
its direction is exact and the kernel sets only its gain; normalized by rows the target is
:math:`k^* - k_i`, whose best predictor is the posterior mean given what is observed.
"""

import math

import torch
from skorch.callbacks import Callback
from torch import Tensor

from sklearn_inverse.networks._batches import draw_times
from sklearn_inverse.networks._slots import Slots, pick_slots
from sklearn_inverse.utils._torch import generator

SHIFT = 0.25  # of the unit box: far enough that a shifted truth is another one

__all__ = ["DriftBatches", "MoveParticles", "ReadingSimulator", "drift_targets"]


def drift_targets(
    particles: Tensor, truths: Tensor, residuals: Tensor, *, coupling, normalize
) -> Tensor:
    """Drift of each particle, of shape (n_particles, n_params).

    Parameters
    ----------
    particles, truths : Tensor of shape (n_particles, n_params)
        Unit params of each particle and of its truth.

    residuals : Tensor of shape (n_particles, …)
        What each particle gives minus what its truth gives, over the whole trajectory.

    coupling : {"instance", "batch"}
        Whether particles are coupled with those that share their truth, or with all.

    normalize : bool
        Whether to divide by the sum of the weights instead of the number of particles.
    """
    if coupling == "instance" and normalize:
        return truths - particles  # whatever the kernel: all k_j* are the same
    n_particles = len(particles)
    flat = residuals.flatten(1) / math.sqrt(residuals[0].numel())
    # Differences, not the faster products, whose cancellation would swamp them.
    # In double precision: cdist multiplies matrices, which loses small distances.
    distance = torch.cdist(flat.double(), flat.double()).to(flat.dtype)
    same_truth = torch.ones_like(distance, dtype=torch.bool)
    if coupling == "instance":
        same_truth = (truths[:, None] == truths).all(dim=-1)
    off_diagonal = ~torch.eye(n_particles, dtype=torch.bool, device=flat.device)
    coupled = distance[same_truth & off_diagonal]
    kernel = torch.ones_like(distance)
    if len(coupled):
        group = same_truth.sum(dim=1, keepdim=True)
        median = coupled.median().clamp(min=1e-6)
        # log B of a group of one or two: at least log 2, so that sigma stays finite.
        sigma = median**2 / group.clamp(min=2).log()
        kernel = torch.exp(-(distance**2) / sigma)
    weight = same_truth * kernel * flat.norm(dim=1)
    total = weight.sum(dim=1, keepdim=True)
    drift = weight @ truths - total * particles
    if normalize:
        return drift / total.clamp(min=torch.finfo(total.dtype).tiny)
    return drift / same_truth.sum(dim=1, keepdim=True)


class ReadingSimulator:
    """Draw what an instrument would read of training trajectories.

    Parameters
    ----------
    n_observed : (int, int)
        Fewest and most observed times.

    channel_mask : Tensor of shape (n_channels,)
        1 for the channels that are observed.

    noise : Tensor broadcastable to (n_times, n_channels)
        Standardized noise.

    n_slots : int
        Slots handed to the networks.
    """

    def __init__(self, n_observed, channel_mask, noise, n_slots):
        self.n_observed, self.channel_mask = n_observed, channel_mask
        self.noise, self.n_slots = noise, n_slots

    def draw(self, trajectories: Tensor, rng: torch.Generator) -> Slots:
        """Return noisy readings at random times; NaN is never read."""
        n_samples, n_times, _ = trajectories.shape
        mask = draw_times(n_samples, n_times, self.n_observed, rng)[..., None]
        mask = mask * self.channel_mask * ~trajectories.isnan()
        noise = torch.randn(trajectories.shape, generator=rng, device=rng.device)
        readings = trajectories.nan_to_num() + self.noise * noise
        return pick_slots(readings * mask, mask, self.n_slots)


class DriftBatches:
    """A pool of particles on their way, yielded again and again with their targets.

    With ``rollout`` every particle is moved by the network's own velocity after each
    batch, so training sees the states that integration reaches; a particle that has
    arrived starts anew with another truth. Without, states are drawn on the straight
    line from a random start to the truth.

    Parameters
    ----------
    dataset : TensorDataset of (unit params, standardized trajectories)
        On the device.

    training : bool
        Whether this is the pool of the training or of the held-out pairs.

    simulate : callable
        Unit params to standardized trajectories, without gradient.

    read : ReadingSimulator
        Draws readings.

    batch_size : int
        Particles in the pool.

    n_batches : int
        Batches per epoch of training; a tenth of it for validation.

    coupling, normalize
        As in :func:`drift_targets`.

    n_coupled : int
        Particles that share one truth and its readings.

    synthetic : float
        Share of truths that are shifted from those of the dataset and simulated.

    error : Tensor of shape (n_channels,)
        Standardized error of ``simulate``, given to simulated truths as noise.

    rollout : bool
        As said above.

    n_steps : int
        Integration steps.

    step_fraction : float
        Share of the velocity that one step goes.

    seed : int
        Seed of everything drawn here.
    """

    particles: Tensor

    def __init__(
        self,
        dataset,
        *,
        training,
        simulate,
        read,
        batch_size,
        n_batches,
        coupling,
        normalize,
        n_coupled,
        synthetic,
        error,
        rollout,
        n_steps,
        step_fraction,
        seed,
    ):
        self.dataset = dataset.tensors
        self.synthetic = synthetic if training else 0.0
        self.error = error
        self.simulate, self.read = simulate, read
        self.n_batches = n_batches if training else math.ceil(n_batches / 10)
        self.coupling, self.normalize = coupling, normalize
        self.n_coupled, self.rollout = n_coupled, rollout
        self.n_steps, self.step_fraction = n_steps, step_fraction
        self.rng = generator(seed + (not training), error.device)
        self.n_groups = max(1, batch_size // n_coupled)
        self.field_scale = 1.0
        self._fill()
        if not normalize:
            # Eq. (8) as printed is far shorter than the way to go: bring the field to a
            # length that the integration can traverse.
            _, (target, *_) = self._batch()
            way = (self.truths - self.particles).abs().mean()
            self.field_scale = float(way / target.abs().mean())

    def __iter__(self):
        for _ in range(self.n_batches):
            if not self.rollout:
                self._fill()
            yield self._batch()

    def move(self, velocity: Tensor) -> None:
        """Move the pool by the velocities just predicted for it."""
        moved = self.particles + self.step_fraction * velocity
        self.particles = moved.clamp(0, 1)
        self.step += 1
        arrived = torch.nonzero(self.step >= self.n_steps)[:, 0]
        if len(arrived):
            self._restart(arrived)

    def _fill(self):
        """Start every particle anew, each group at a random time of its way."""
        start = self._start(self.n_groups)
        self.truths, self.trajectories, self.slots, self.particles = start
        step = self._random(torch.randint, self.n_steps, (self.n_groups,))
        self.step = step.repeat_interleave(self.n_coupled)
        if not self.rollout:
            tau = self._random(torch.rand, len(self.particles), 1)
            self.particles = (1 - tau) * self.particles + tau * self.truths
            self.step = tau[:, 0] * self.n_steps

    def _restart(self, index):
        """Start the particles at ``index``, whole groups, with new truths."""
        truths, trajectories, slots, particles = self._start(
            len(index) // self.n_coupled
        )
        self.truths[index] = truths
        self.trajectories[index] = trajectories
        self.slots.put(index, slots)
        self.particles[index] = particles
        self.step[index] = 0

    def _start(self, n_groups):
        """Draw truths, their trajectories and readings, and particles for each."""
        sample = self._random(torch.randint, len(self.dataset[0]), (n_groups,))
        truths, trajectories = (part[sample] for part in self.dataset)
        shifted = self._random(torch.rand, n_groups) < self.synthetic
        if shifted.any():
            truths[shifted], trajectories[shifted] = self._synthesize(truths[shifted])
        slots = self.read.draw(trajectories, self.rng)
        group = torch.arange(n_groups, device=sample.device)
        group = group.repeat_interleave(self.n_coupled)
        particles = self._random(torch.rand, len(group), truths.shape[1])
        return truths[group], trajectories[group], slots.take(group), particles

    def _synthesize(self, truths):
        """Shift truths, reflecting them at the walls of the box, and simulate them.

        A few ten thousand pairs can be learnt by heart; these cannot. The forward
        model's own error is added, so that they are no cleaner than real pairs.
        """
        shifted = truths + SHIFT * self._random(torch.randn, *truths.shape)
        shifted = 1 - (1 - shifted.remainder(2)).abs()
        trajectories = self.simulate(shifted)
        noise = self._random(torch.randn, *trajectories.shape)
        return shifted, trajectories + self.error * noise

    def _random(self, function, *args):
        return function(*args, generator=self.rng, device=self.rng.device)

    def _batch(self):
        simulated = self.simulate(self.particles)
        target = drift_targets(
            self.particles,
            self.truths,
            (simulated - self.trajectories).nan_to_num(),
            coupling=self.coupling,
            normalize=self.normalize,
        )
        inputs = {
            "particles": self.particles,
            "residuals": self.slots.residuals(simulated),
            **self.slots._asdict(),
            "tau": self.step / self.n_steps,
        }
        return inputs, (self.field_scale * target, self.truths.clone(), inputs["tau"])


class MoveParticles(Callback):
    """Tell the pool that a batch came from how fast the network moves it."""

    def __init__(self, pools):
        self.pools = pools

    def on_batch_end(self, net, batch=None, training=None, y_pred=None, **kwargs):
        """Move the pool of this batch."""
        self.pools[training].move(y_pred[0].detach())
