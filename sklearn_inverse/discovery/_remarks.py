"""What is to be said of equations besides the equations."""

import numpy as np

from sklearn_inverse.exceptions import (
    ConvergenceWarning,
    IdentifiabilityWarning,
    MisfitWarning,
)

__all__ = ["complaints", "remarks"]

ROUGHER = 1.5  # times what neighboring readings scatter: that is no noise
FEW = 8.0  # that over the root of the readings may be added, as scatter is uncertain
VAGUE = 0.2  # of a coefficient: of exact data no true one is known so badly
LONG = 0.01  # of a coefficient, moved by steps half as long
MISSED = 0.05  # of the changes between points: these are not exact
PIECES = "; or, with noise, longer pieces of the runs could not be solved: "


def complaints(found, noise, estimated, module, n_readings):
    """Yield what is wrong with what was learned, and as which warning to say it."""
    richer, otherwise = {
        "polynomial": ("Raise `degree`, or", PIECES + "lower `degree`"),
        "mlp": ("Raise `hidden_layer_sizes`, or", PIECES + "take fewer neurons"),
        "pi_net": (
            "Raise `degree`, or",
            ", or take module='polynomial', which needs less",
        ),
    }[module]
    if found.n_failed:
        yield (
            f"{found.n_failed} of {found.n_steps} steps could not be solved with these "
            "equations; the coefficients come from the others. Take points that are "
            "closer, or more `substeps`.",
            ConvergenceWarning,
        )
    if noise is None and found.misfit > MISSED**2:
        yield (
            f"Steps with these equations miss {np.sqrt(found.misfit):.0%} of what "
            "states change by. If readings are noisy, state `noise_std`, or have it "
            "estimated (noise_std='estimate'): without it they count as exact. If not, "
            "points are too far apart: take more of them, more `substeps`, or a method of "
            "higher order.",
            MisfitWarning,
        )
    rougher = ROUGHER + FEW / np.sqrt(n_readings)
    if noise is not None and estimated and found.misfit > rougher**2:
        yield (
            f"These equations leave {np.sqrt(found.misfit):.2g} times what neighboring "
            "readings scatter by: they are wrong, or points are too far apart. "
            f"{richer} take runs from more starts.",
            MisfitWarning,
        )
    if noise is not None and not estimated and found.misfit > 2:
        yield (
            f"These equations leave {np.sqrt(found.misfit):.2g} times what `noise_std` "
            "says: either they miss something, or `noise_std` is too small. "
            f"{richer} take runs from more starts; or have the noise estimated "
            "(noise_std='estimate').",
            MisfitWarning,
        )
    if module == "polynomial" and found.converged and not found.n_failed:
        kept = (found.coef != 0) & (abs(found.step_error) > found.coef_std)
        moved = abs(found.step_error[kept] / found.coef[kept])
        if moved.max(initial=0.0) > LONG:
            yield (
                "Steps are too long for this method: half as long, they would move "
                f"coefficients by up to {moved.max():.2g} of themselves. Take points that "
                "are closer, more `substeps`, or a method of higher order.",
                MisfitWarning,
            )
    if not found.converged:
        yield (
            f"The fit stopped before its end: raise `max_iter`{otherwise}.",
            ConvergenceWarning,
        )
    fits = noise is None and found.misfit <= MISSED**2 and found.converged
    if fits and module == "polynomial" and not found.is_choice:
        kept = found.coef != 0
        if (found.coef_std[kept] > VAGUE * abs(found.coef[kept])).any():
            yield (
                "Some coefficients have errors of a fifth and more, though the data count "
                "as exact: other equations may fit as well. Add runs from other starts, "
                "lower `degree`, state `noise_std`, or simulate more accurately.",
                IdentifiabilityWarning,
            )
    if found.is_choice:
        because = f": {'; '.join(found.relations[:3])}" if found.relations else ""
        which = "of least degree and, where steps can be solved with it, L1 norm"
        yield (
            f"These data tell {found.rank} of {len(found.monomials.names)} monomials "
            f"apart{because}. Other equations fit as well: these are a choice, "
            f"{which if noise is None else 'the simplest that were found'}. Add runs from "
            "other starts, lower `degree`, or say what is `known`.",
            IdentifiabilityWarning,
        )


def remarks(model):
    """Yield lines on errors, rank, relations and other equations of a fitted model."""
    kept = model.coef_ != 0
    if not np.isfinite(model.coef_std_).all():
        yield "errors   unknown: there are as many coefficients as data"
    elif kept.any():
        relative = model.coef_std_[kept] / abs(model.coef_[kept])
        k, term = np.argwhere(kept)[relative.argmax()]
        yield (
            f"errors   at most {100 * relative.max():.2g} % (of "
            f"{model.feature_names_[term]} in {model.state_names_[k]}')"
        )
        moved = abs(model.step_error_[kept] / model.coef_[kept]).max()
        yield f"steps    half as long, they move coefficients by up to {100 * moved:.2g} %"
    n_terms = len(model.feature_names_)
    yield f"rank     {model.rank_} of {n_terms} monomials are told apart"
    yield from (f"relation {relation}" for relation in model.relations_)
    yield from (
        f"or       {line} (criterion {rise:+.1f})" for line, rise in model.alternatives_
    )
    if model.is_choice_:
        exact = model.noise_std_ is None
        which = (
            "least degree, then L1 norm" if exact else "the simplest that were found"
        )
        yield f"choice   other equations fit as well (these: {which})"
