"""What amortized inverters share whose networks draw params, of whatever distribution."""

import copy
import math
from numbers import Integral

import numpy as np
import torch

from sklearn_inverse.inverse._amortized import AMORTIZED, AmortizedInverter
from sklearn_inverse.inverse._checked_search import N_EFFECTIVE
from sklearn_inverse.networks._batches import in_chunks
from sklearn_inverse.networks._probit import probit
from sklearn_inverse.networks._reading_net import EvenBatches
from sklearn_inverse.networks._slots import pick_slots
from sklearn_inverse.networks._training import fit_net
from sklearn_inverse.optim._importance import N_CLOUD, kernels_around
from sklearn_inverse.optim._standard import FARTHEST, InStandard
from sklearn_inverse.probability._mixture import StudentMixture
from sklearn_inverse.utils._sklearn import Interval
from sklearn_inverse.utils._torch import as_tensor, generator

__all__ = ["GENERATIVE", "GenerativeInverter"]

GENERATIVE: dict = AMORTIZED | {
    name: [Interval(Integral, 1, None, closed="left")] for name in ("width", "n_blocks")
}
GENERATIVE["n_draws"] = [
    Interval(Integral, 2, None, closed="left")
]  # they have a spread
CHUNK = 16  # samples that are drawn for at a time
HELD_OUT = 1000  # readings, at least, by which training is judged
N_COMPARED, N_NEAR = 200, 10  # draws among which the densest place is sought
LESSON_DRAWS = 100


class GenerativeInverter(AmortizedInverter):
    """Answer by draws that a network makes of noise, given readings.

    A subclass stores ``n_draws`` and implements ``_make_net``, whose module draws
    standard params, ``draw(noise, **seen)``, and ``_task``.
    """

    kind = "learned"
    max_solves = 0
    calibration_: float = 1.0  # of noise that is drawn from
    _lessons = 500
    _callbacks: tuple = ()

    # --- how it is trained

    def _make_net(self, *sizes):
        """Return the nn.Module to train."""
        raise AssertionError("every inverter of this kind draws")

    def _task(self, z: torch.Tensor, rng: torch.Generator):
        """Return inputs of the module beside what it sees, and targets."""
        raise AssertionError("every inverter of this kind draws")

    def _see(self, readings, mask, inputs, besides=None):
        """Return what the module sees of readings, tensors by name.

        Of training pairs ``besides`` says which they are.
        """
        (_, n_slots), _ = self._pattern
        return pick_slots(readings, mask, inputs, n_slots)._asdict()

    def _fit_net(self, train, valid, read, training, seeds, device):
        weight_seed, batch_seed = seeds

        def draw(index, rng, dataset=train):
            quantiles, trajectories, inputs = (part[index] for part in dataset.tensors)
            readings, mask = read.draw(quantiles, trajectories, rng)
            besides = index if dataset is train else None
            seen = self._see(readings, mask, inputs, besides)
            more, target = self._task(probit(quantiles), rng)
            return seen | more, target

        batches = EvenBatches(
            len(train),
            draw,
            batch_size=training.batch_size,
            seed=batch_seed,
            device=device,
        )
        # The same readings after every epoch, whose losses are compared.
        n_repeats = math.ceil(HELD_OUT / len(valid))
        everyone = torch.arange(len(valid), device=device).repeat(n_repeats)
        rng = generator(batch_seed + 1, device)
        held_out = [draw(index, rng, valid) for index in everyone.split(HELD_OUT)]
        training.callbacks = [*self._callbacks, *(training.callbacks or [])]
        sizes = self._net_sizes(train, read)
        return fit_net(
            lambda: self._make_net(*sizes),
            self._loss,
            lambda dataset, training: batches if training else held_out,
            train,
            valid,
            n_batches=batches.n_batches,
            verbose=self.verbose,
            desc="Training flow",
            seed=weight_seed,
            device=device,
            **training._loop(),
        )

    def _learn_what_is_usual(self, readings, inputs):
        brief = copy.copy(self)
        brief.n_draws, brief.max_solves = LESSON_DRAWS, 0
        super(GenerativeInverter, brief)._learn_what_is_usual(readings, inputs)
        self._slacks, self._exact = brief._slacks, brief._exact

    # --- how it answers

    @property
    def _n_kept(self):
        return N_EFFECTIVE if self.max_solves else self.n_draws

    def _blank_modes(self, n_samples, n_params):
        draws = np.full((n_samples, self._n_kept, n_params), np.nan)
        return super()._blank_modes(n_samples, n_params) | {"draws": draws}

    def _learned(self, readings, inputs):
        """Return draws (n_samples, n_draws, n_params) in the standard coordinate."""
        seen = self._see(*self._prepare(readings, inputs))
        device = seen["mask"].device
        module = self.net_.module_.to(device)
        rng = np.random.default_rng(self._start_seed)
        noise = rng.standard_normal((self._n_kept, self.n_params_))
        noise = as_tensor(self.calibration_ * noise, device)

        @torch.no_grad()
        def draw(*parts):
            return module.draw(noise, **dict(zip(seen, parts)))

        options = {"chunk_size": CHUNK, "verbose": self.verbose, "desc": "Drawing"}
        draws = in_chunks(draw, *seen.values(), **options)
        return (draws.clamp(-FARTHEST, FARTHEST).double().cpu().numpy(),)

    def _normals(self, draws):
        center = draws.mean(axis=1)
        away = draws - center[:, None]
        return center, np.einsum("sdp,sdq->spq", away, away) / draws.shape[1]

    def _estimated(self, objective, answer, sample, draws):
        """Return the mean of the draws, or where they are densest if that fits better."""
        prior = self.model_.prior_
        answer.draws[:] = prior.from_standard(draws)
        places = np.stack([draws.mean(axis=1), densest(draws)])
        x = [
            objective.with_scales(self._scaled(prior.from_standard(place)), sample)
            for place in places
        ]
        mean, dense = (objective.value(place, sample) for place in x)
        return torch.where((mean <= dense)[:, None], *x)

    def _widen(self, answer, objective, n_told):
        answer.draws[~answer.explained] = np.nan  # normal distributions are widened
        super()._widen(answer, objective, n_told)

    def _judge_learned(self, objective, draws):
        answer = super()._judge_learned(objective, draws)
        samples = np.flatnonzero(answer.explained)
        if self.max_solves and len(samples):
            mixture = self._propose(objective, draws[samples, :N_CLOUD], samples)
            self._sample(answer, objective, mixture, samples, self.max_solves)
            self._set(answer, n_forward=objective.n_forward, params=answer.mean)
        return answer

    def _propose(self, objective, draws, samples):
        """Return mixtures around draws of samples, and noise scales that go with them."""
        n_draws = draws.shape[1]
        z = torch.as_tensor(draws.reshape(-1, self.n_params_), device=self._device)
        sample = torch.as_tensor(np.repeat(samples, n_draws), device=self._device)
        scaled = InStandard(objective, sample).to_scaled(z)
        scales = objective.with_scales(scaled, sample)[:, self.n_params_ :]
        free = torch.cat([z, scales], dim=1).reshape(len(samples), n_draws, -1)
        return StudentMixture.join(
            [kernels_around(c, np.random.default_rng(0)) for c in free.cpu().numpy()]
        )

    def _tell(self, answer, objective, mixture, samples, draws):
        """Let draws tell; kernels are no modes of what was learned."""
        whole = StudentMixture(
            np.ones_like(mixture.weights[:, :1]),
            mixture.centers[:, :1],
            mixture.covariances[:, :1],
        )
        super()._tell(answer, objective, whole, samples, draws)


def densest(draws):
    """Return the draw of each sample (n_samples, n_params) whose neighbors are nearest."""
    draws = draws[:, :N_COMPARED]
    std = draws.std(axis=1, keepdims=True)
    white = draws / np.where(std > 0, std, 1.0)
    rank = min(N_NEAR, draws.shape[1] - 1)
    best = np.empty(len(draws), dtype=int)
    for i, own in enumerate(white):
        squares = (own**2).sum(axis=1)
        distance = squares + squares[:, None] - 2 * own @ own.T
        best[i] = np.partition(distance, rank, axis=1)[:, rank].argmin()
    return draws[np.arange(len(draws)), best]
