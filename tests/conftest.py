"""Seed torch's global generator for each test, and skip GPU tests where there is none."""

import pytest
import torch
from skorch.callbacks import Callback


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
