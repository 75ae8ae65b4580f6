"""Claims: Dice's coefficient is the overlap of two segmentations."""

import numpy as np
import pytest

from sklearn_inverse.metrics import dice_score


def test_dice_is_twice_the_overlap_over_both():
    true = [[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    found = [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert np.allclose(dice_score(true, found), [2 / 5, 1, 0, 1])
    shades = np.where(np.array(found) > 0, 0.4, 0.2)
    assert np.allclose(dice_score(found, shades, threshold=0.3), 1)
    assert np.allclose(dice_score(found, shades), [0, 0, 0, 1])  # too faint


def test_what_is_no_pair_of_segmentations_is_refused():
    with pytest.raises(ValueError, match="n_samples, n_voxels"):
        dice_score([1, 0], [1, 0])
    with pytest.raises(ValueError, match="must be finite"):
        dice_score([[1, 0]], [[np.nan, 0]])
    with pytest.raises(ValueError, match="shape of `true`"):
        dice_score([[1, 0]], [[1, 0, 0]])
    with pytest.raises(ValueError, match="`threshold` must be a finite"):
        dice_score([[1, 0]], [[1, 0]], threshold=np.nan)
