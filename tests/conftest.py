"""One thread and a seed for every test; GPU tests are skipped where there is none."""

import os

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

# The networks here are tiny: more threads only fight over the cores, for minutes where
# other work runs beside. Processes that tests start inherit the variable.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="needs a CUDA device")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class Frame:
    """The least of a data frame: columns with names, by which they are taken."""

    def __init__(self, columns):
        self._columns = {name: np.asarray(c) for name, c in columns.items()}
        self.columns = list(columns)
        self.shape = self.__array__().shape

    def __getitem__(self, names):
        return Frame({name: self._columns[name] for name in names})

    def __len__(self):
        return self.shape[0]

    def __array__(self, dtype=None, copy=None):
        return np.column_stack(list(self._columns.values())).astype(dtype)


@pytest.fixture
def frame():
    """Return what makes a data frame of a dict of columns."""
    return Frame


class PressCtrlC(Callback):
    """Interrupt training in an epoch, at its start or after its first batch."""

    def __init__(self, epoch=2, at="on_epoch_begin"):
        self.epoch, self.at = epoch, at

    def on_epoch_begin(self, net, **kwargs):
        self.press(net, "on_epoch_begin")

    def on_batch_end(self, net, **kwargs):
        self.press(net, "on_batch_end")

    def press(self, net, event):
        if event == self.at and len(net.history) == self.epoch:
            raise KeyboardInterrupt


@pytest.fixture
def press_ctrl_c():
    """Return a class of skorch callbacks: ``press_ctrl_c(epoch=2, at=event)``."""
    return PressCtrlC
