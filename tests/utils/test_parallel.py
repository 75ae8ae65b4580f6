"""Chunks come back in order and alike for any number of workers."""

import numpy as np
import pytest
import torch

from sklearn_inverse.utils._parallel import map_chunks, progress_bar


def make_bounds():
    # Functions made in functions are sent to workers by value: no import needed there.
    def bounds(part):
        return part.start, part.stop

    return bounds


def make_random_sum():
    def random_sum(part):
        rng = np.random.default_rng(part.start)
        return float(rng.standard_normal((part.stop - part.start, 50)).sum())

    return random_sum


def test_chunks_cover_all_samples_in_order():
    assert map_chunks(make_bounds(), range(7), chunk_size=3) == [(0, 3), (3, 6), (6, 7)]
    assert map_chunks(make_bounds(), range(0), chunk_size=3) == []


@pytest.mark.slow
@pytest.mark.parametrize("make_function", [make_bounds, make_random_sum])
def test_result_does_not_depend_on_n_jobs(make_function):
    function = make_function()
    alone = map_chunks(function, range(10), chunk_size=3)
    assert map_chunks(function, range(10), chunk_size=3, n_jobs=2) == alone


@pytest.mark.slow
def test_workers_run_on_one_torch_thread_each():
    assert map_chunks(
        lambda part: torch.get_num_threads(), range(4), chunk_size=2, n_jobs=2
    ) == [1, 1]


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_progress_bar_counts_samples(capsys, n_jobs):
    map_chunks(
        make_bounds(), range(7), chunk_size=3, n_jobs=n_jobs, verbose=1, desc="Counting"
    )
    shown = capsys.readouterr().err
    assert "Counting: 100%" in shown
    assert "7/7" in shown


def test_nothing_is_shown_unless_asked_for(capsys):
    map_chunks(make_bounds(), range(7), chunk_size=3)
    assert list(progress_bar(range(3), verbose=0)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_an_error_in_a_chunk_is_raised():
    with pytest.raises(ZeroDivisionError):
        map_chunks(lambda part: 1 / 0, range(3), chunk_size=1)
