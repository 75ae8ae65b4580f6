"""What the velocity network is trained on: particles that move, and their way to go.

Its best predictor is the way to the posterior mean, given what is observed.
"""

import math

import torch
from skorch.callbacks import Callback
from torch import Tensor

from sklearn_inverse.utils._torch import generator

__all__ = ["DriftBatches", "MoveParticles"]

SHIFT = 0.25  # of the cube: far enough that a shifted truth is another one


def way_to_go(particles: Tensor, truths: Tensor, residuals: Tensor, slots) -> Tensor:
    """Return the way from each particle to its truth, (n_particles, n_params)."""
    return truths - particles


class DriftBatches:
    """A pool of particles on their way, yielded again and again with their targets.

    With ``rollout`` every particle is moved by the network's own velocity after each
    batch, so training sees the states that integration reaches; a particle that has
    arrived starts anew with another truth. Without, states are drawn on the straight
    line from a random start to the truth.

    Parameters
    ----------
    dataset : TensorDataset of (quantiles, standardized trajectories, scaled inputs)
        On the device, of the pairs to train on or (``training=False``) held out.

    drift : Drift
        How particles move.

    read : callable
        ``read(quantiles, trajectories, inputs, rng)`` draws readings as Slots.

    batch_size, n_batches : int
        Particles in the pool; batches per epoch, of which validation has a tenth.

    synthetic : float
        Share of truths that are shifted from those of the dataset and simulated.

    error : Tensor of shape (n_channels,)
        Standardized error of the model, given to simulated truths as noise.

    couple : callable, default=way_to_go
        ``couple(particles, truths, residuals, slots)`` returns the targets, given what
        each particle gives minus what its truth gives, over the whole trajectory, and
        what was read.

    n_coupled : int, default=1
        Particles that share one truth and its readings.
    """

    particles: Tensor

    def __init__(
        self,
        dataset,
        *,
        training,
        drift,
        read,
        batch_size,
        n_batches,
        synthetic,
        error,
        rollout,
        seed,
        couple=way_to_go,
        n_coupled=1,
    ):
        self.dataset = dataset.tensors
        self.synthetic = synthetic if training else 0.0
        self.error, self.drift, self.read = error, drift, read
        self.n_batches = n_batches if training else math.ceil(n_batches / 10)
        self.couple, self.n_coupled = couple, min(n_coupled, batch_size)
        self.rollout, self.n_steps = rollout, drift.n_steps
        self.rng = generator(seed + (not training), error.device)
        self.n_groups = batch_size // self.n_coupled
        self._fill()

    def __iter__(self):
        for _ in range(self.n_batches):
            if not self.rollout:
                self._fill()
            yield self._batch()

    def move(self, velocity: Tensor) -> None:
        """Move the pool by the velocities just predicted for it."""
        moved = self.particles + self.drift.step_fraction * velocity
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
        truths, trajectories, inputs = (part[sample] for part in self.dataset)
        shifted = self._random(torch.rand, n_groups) < self.synthetic
        if shifted.any():
            truths[shifted], trajectories[shifted] = self._synthesize(
                truths[shifted], inputs[shifted]
            )
        slots = self.read(truths, trajectories, inputs, self.rng)
        group = torch.arange(n_groups, device=sample.device)
        group = group.repeat_interleave(self.n_coupled)
        particles = self._random(torch.rand, len(group), truths.shape[1])
        return truths[group], trajectories[group], slots.take(group), particles

    def _synthesize(self, truths, inputs):
        """Shift truths, reflecting them at the walls of the cube, and simulate them.

        A few ten thousand pairs can be learnt by heart; these cannot. The forward
        model's own error is added, so that they are no cleaner than real pairs.
        """
        shifted = truths + SHIFT * self._random(torch.randn, *truths.shape)
        shifted = 1 - (1 - shifted.remainder(2)).abs()
        trajectories = self.drift.simulate(shifted, inputs)
        noise = self._random(torch.randn, *trajectories.shape)
        return shifted, trajectories + self.error * noise

    def _random(self, function, *args):
        return function(*args, generator=self.rng, device=self.rng.device)

    def _batch(self):
        simulated = self.drift.simulate(self.particles, self.slots.inputs)
        off = (simulated - self.trajectories).nan_to_num()
        target = self.couple(self.particles, self.truths, off, self.slots)
        inputs = {
            "particles": self.particles,
            "residuals": self.slots.residuals(simulated),
            **self.slots._asdict(),
            "tau": self.step / self.n_steps,
        }
        return inputs, (target, self.truths.clone(), inputs["tau"])


class MoveParticles(Callback):
    """Tell the pool that a batch came from how fast the network moves it."""

    def __init__(self, pools):
        self.pools = pools

    def on_batch_end(self, net, batch=None, training=None, y_pred=None, **kwargs):
        """Move the pool of this batch."""
        self.pools[training].move(y_pred[0].detach())
