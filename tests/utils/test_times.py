"""As many times are drawn as asked for, among those that can be, each as often."""

import pytest
import torch

from sklearn_inverse.utils._times import draw_times
from sklearn_inverse.utils._torch import generator


def draw(candidates, low, high):
    return draw_times(candidates, (low, high), generator(0))


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 5), (3, 6), (6, 6)])
def test_numbers_are_drawn_evenly_between_fewest_and_most(low, high):
    chosen = draw(torch.ones(6000, 6, 2, dtype=torch.bool), low, high)
    n_chosen = chosen.sum(dim=1).flatten()
    for n in range(7):
        share = (n_chosen == n).double().mean().item()
        expected = (low <= n <= high) / (high - low + 1)
        assert share == pytest.approx(expected, abs=0.02)
    by_time = chosen.double().mean(dim=(0, 2))
    torch.testing.assert_close(by_time, by_time.mean().expand(6), atol=0.02, rtol=0)


def test_clocks_are_independent():
    chosen = draw(torch.ones(4000, 4, 2, dtype=torch.bool), 2, 2)
    both = (chosen[..., 0] & chosen[..., 1]).double().mean()
    assert both.item() == pytest.approx(0.25, abs=0.02)


def test_only_candidates_are_chosen_and_all_of_them_where_they_are_few():
    candidates = torch.zeros(500, 5, 1, dtype=torch.bool)
    candidates[:, 3:] = True
    candidates[250:, 1] = True
    chosen = draw(candidates, 3, 4)
    assert not (chosen & ~candidates).any()
    assert torch.equal(chosen, candidates)
    assert (draw(candidates, 1, 1).sum(dim=1) == 1).all()
