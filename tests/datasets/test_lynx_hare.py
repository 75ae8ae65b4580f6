"""The pelt record is the published one, in the layout that inverters take."""

import numpy as np

from sklearn_inverse.datasets import load_lynx_hare


def test_counts_and_layout():
    data = load_lynx_hare()
    counts = data.observations.reshape(21, 2)
    np.testing.assert_array_equal(counts[[0, -1]], [[30.0, 4.0], [24.7, 8.6]])
    np.testing.assert_allclose(counts.sum(axis=0), [715.7, 423.5])
    assert data.observable_names == ["hare", "lynx"]
    assert (data.years[0], data.years[-1]) == (1900, 1920)
    np.testing.assert_array_equal(data.times, np.arange(21.0))


def test_published_values_name_their_source():
    published = load_lynx_hare().published
    assert len(published["param_names"]) == len(published["mean"]) == 8
    assert (published["std"] > 0).all()
    assert "posteriordb" in published["source"]
    assert "Hudson's Bay Company" in load_lynx_hare().DESCR


def test_loading_twice_gives_separate_data():
    load_lynx_hare().observations[:] = 0.0
    assert load_lynx_hare().observations.min() == 4.0
