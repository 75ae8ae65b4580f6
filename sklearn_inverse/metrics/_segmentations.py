"""How far two segmentations overlap."""

from numbers import Real

import numpy as np

from sklearn_inverse.metrics._outputs import check_like, check_true


def dice_score(true, predicted, *, threshold=0.5):
    r"""Return how far two segmentations overlap, by sample (Dice's coefficient).

    .. math:: \mathrm{DICE} = \frac{2\,|A \cap B|}{|A| + |B|}

    Parameters
    ----------
    true, predicted : array-like of shape (n_samples, n_voxels)
        Labels 0 and 1, or shades between.

    threshold : float, default=0.5
        A voxel belongs to the segmentation whose shade is above it.

    Returns
    -------
    dice : ndarray of shape (n_samples,)
        One where both are the same, zero where they have no voxel in common; one, too,
        where both are empty.

    Examples
    --------
    >>> from sklearn_inverse.metrics import dice_score
    >>> dice_score([[1, 1, 0, 0], [0, 0, 0, 0]], [[0.9, 0.2, 0.6, 0.1], [0, 0, 0, 0]])
    array([0.5, 1. ])
    """
    if not (isinstance(threshold, Real) and np.isfinite(threshold)):
        raise ValueError(f"`threshold` must be a finite number. Got {threshold!r}.")
    true = check_true(true, axes=("n_samples", "n_voxels"))
    a, b = (
        x > threshold for x in (true, check_like(predicted, true, name="predicted"))
    )
    total = a.sum(axis=1) + b.sum(axis=1)
    both = (a & b).sum(axis=1)
    return np.where(total > 0, 2 * both / np.maximum(total, 1), 1.0)
