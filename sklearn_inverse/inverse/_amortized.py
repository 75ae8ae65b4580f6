"""What inverters share that learn once, from simulated pairs, and then answer at once."""

import numpy as np
import torch
from sklearn.utils import gen_batches

from sklearn_inverse.base import PosteriorInverter
from sklearn_inverse.exceptions import MisfitWarning
from sklearn_inverse.inverse._objective import Objective
from sklearn_inverse.probability import InversionStatus, Posterior
from sklearn_inverse.utils._torch import resolve_device
from sklearn_inverse.utils._warnings import warn_user

__all__ = ["AmortizedInverter"]

JUDGED = 256  # samples whose estimates are simulated together
UNUSUAL = 1.5  # times the misfit that one pair held out in a thousand exceeds


class AmortizedInverter(PosteriorInverter):
    """Answer by what was learned, and judge it by one run of the model.

    A subclass calls ``_posterior_of`` in ``_answer`` and, at the end of ``fit``,
    ``_learn_what_is_usual`` if pairs were held out.
    """

    _usual_misfit = 0.0  # per reading

    def _posterior_of(self, readings, inputs, center, factor, *, n_iter, n_forward):
        """Return normal posteriors, with what the model makes of their means.

        Centers (n_samples, n_params) and factors of the covariances are in the prior's
        standard coordinate; ``n_iter`` steps and ``n_forward`` runs are behind each.
        """
        prior, (n, p) = self.model_.prior_, center.shape
        factor = prior.mixing @ factor
        counts = {"n_iter": n_iter, "n_forward": n_forward + 1, "n_linearized": 0}
        counts |= {"n_failed": 0, "n_optima": 1, "n_confirmed": 1}
        counts["status"] = int(InversionStatus.CONVERGED)
        answer = Posterior(
            params=np.zeros((n, p)),
            names=list(self.model_.param_names_),
            misfit=np.full(n, np.nan),
            n_readings=(~np.isnan(readings)).sum(axis=(1, 2)),
            explained=np.zeros(n, dtype=bool),
            start_misfit=np.full(n, np.nan),
            **{name: np.full(n, count) for name, count in counts.items()},
            at_bound=np.zeros((n, p), dtype=bool),
            noise_scale=np.full((n, self.n_channels_), np.nan),
            about=self._about(noise_is_estimated=self.model_.noise_.has_unknowns),
            coordinate=prior,
            weights=np.ones((n, 1)),
            centers=(center @ prior.mixing.T)[:, None],
            covariances=(factor @ factor.mT)[:, None],
            kind="amortized",
        )
        answer.params = answer.mean
        for part in gen_batches(n, JUDGED):
            self._judge(answer, readings[part], inputs[part], part)
        return answer

    def _judge(self, answer, readings, inputs, part):
        """Compare some of the readings with what the model gives at the estimates."""
        model, device = self.model_, resolve_device(self.device)
        readings, inputs = (torch.tensor(a, device=device) for a in (readings, inputs))
        objective = Objective(model, model.noise_, readings, inputs=inputs)
        rows = torch.arange(len(readings), device=device)
        scaled = model.param_scaler_.to_scaled(answer.params[part])
        x = objective.with_scales(torch.as_tensor(scaled, device=device), rows)
        misfit, explained = objective.misfit(x, rows)
        answer.misfit[part] = misfit.cpu().numpy()
        answer.explained[part] = explained.cpu().numpy()
        answer.n_failed[part] = misfit.isnan().cpu().numpy()
        answer.noise_scale[part] = objective.noise_scale(x, rows).cpu().numpy()

    def _learn_what_is_usual(self, answer):
        """Learn from the answer to pairs held out how large a misfit may be."""
        ratio = answer.misfit / np.maximum(answer.n_readings, 1)
        known = ratio[np.isfinite(ratio)]
        if len(known):
            # Fewer pairs than a thousand hardly show that quantile: reach farther, as
            # the quantiles of a heavy tail do, P(ratio > r) falling as 1/r².
            reach = max(1.0, 1000 / len(known)) ** 0.5
            self._usual_misfit = UNUSUAL * reach * np.quantile(known, 0.999)

    def _warn_of(self, answer):
        """Warn of readings that are off by more than those of pairs held out were."""
        usual = answer.misfit <= self._usual_misfit * answer.n_readings
        if self.model_.noise_.has_unknown_scale.any():
            usual[:] = False  # the misfit is in units of an estimate: it tells nothing
        strange = np.flatnonzero(~answer.explained & ~usual)
        if len(strange):
            named = ", ".join(map(str, strange[:5])) + ", …" * (len(strange) > 5)
            warn_user(
                f"{len(strange)} of {len(answer)} samples (rows {named}) look like "
                "nothing that this model produces: their params mean little. Are they "
                "of another kind, in other units or order, or noisier than stated?",
                MisfitWarning,
            )

    def _check_noise_std(self, noise_std, readings):
        """Refuse other noise than what was learned for."""
        if noise_std is not None:
            raise ValueError(
                f"{type(self).__name__} answers for the noise that it was trained for, "
                "the model's. Leave `noise_std` away, or state the noise in the model: "
                "as a param with a prior if it differs from sample to sample."
            )
