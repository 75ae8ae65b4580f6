"""skorch glue shared by every learned model: the net, its schedule, its batches.

Data stay on the device as tensors and batches are slices of them; a per-sample
DataLoader would cost more than the networks do.
"""

import copy
import math

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from skorch.helper import predefined_split

from sklearn_inverse.exceptions import ConvergenceWarning
from sklearn_inverse.utils._parallel import progress_bar
from sklearn_inverse.utils._torch import SeededInit
from sklearn_inverse.utils._warnings import warn_user

__all__ = ["EstimatorNet", "fit_net"]

HOPELESS = 100.0  # times the first loss: training has diverged


class EstimatorNet(NeuralNet):
    """A skorch net that keeps losses on the device and pickles without one.

    The stock epoch copies the loss to the host after every batch, which stalls a GPU;
    here it is summed where it is. Pickles hold the weights on the CPU and the history,
    never an optimizer or its scheduler, so that they load where there is no GPU.
    """

    @property
    def _default_callbacks(self):
        return []  # what they report is recorded below, or shown by EpochBar

    desc = "Training"
    interrupted_ = False

    def fit_loop(self, *args, **kwargs):
        """Train, and remember if Ctrl-C ended it; skorch itself swallows that."""
        try:
            return super().fit_loop(*args, **kwargs)
        except KeyboardInterrupt:
            # skorch's EarlyStopping ends the training by the same exception.
            stops = [c for _, c in self.callbacks_ if isinstance(c, EarlyStopping)]
            self.interrupted_ = not any(c.misses_ == c.patience for c in stops)
            raise

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run one epoch and record its mean loss."""
        if iterator is None:
            return
        losses = []
        for batch in iterator:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            losses.append(step["loss"].detach())
            self.notify("on_batch_end", batch=batch, training=training, **step)
        loss = float(torch.stack(losses).mean())
        if training and len(self.history) == 1:
            self.first_loss_ = float(losses[0])
        self._refuse_divergence(loss)
        earlier = [epoch[f"{prefix}_loss"] for epoch in self.history[:-1]]
        self.history.record(f"{prefix}_loss", loss)
        self.history.record(
            f"{prefix}_loss_best", loss < min(earlier, default=math.inf)
        )
        self.history.record(f"{prefix}_batch_count", len(losses))

    def _refuse_divergence(self, loss):
        """Raise if a loss is not finite, or far above that of the first batch of all."""
        if not loss <= HOPELESS * max(self.first_loss_, 1.0):
            raise ValueError(
                f"{self.desc} diverged: after epoch {len(self.history)} the loss is "
                f"{loss:.3g}, at the first batch it was {self.first_loss_:.3g}. Lower the "
                f"learning rate (lr={self.lr:g}), or look for values in the training "
                "pairs that are far larger than all others."
            )

    def __getstate__(self):
        kept = ("module_", "history_")
        state = {name: self.__dict__[name] for name in kept if name in self.__dict__}
        if next(self.module_.parameters()).device.type != "cpu":
            state["module_"] = copy.deepcopy(self.module_).cpu()
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)

    def __repr__(self):
        return f"EstimatorNet({type(self.module_).__name__})"


class EpochBar(Callback):
    """Progress bar over epochs, with the losses beside it."""

    def __init__(self, n_epochs, desc):
        self.n_epochs, self.desc = n_epochs, desc

    def on_train_begin(self, net, **kwargs):
        """Open the bar."""
        self.bar_ = progress_bar(
            verbose=1, total=self.n_epochs, desc=self.desc, unit="epoch"
        )

    def on_epoch_end(self, net, **kwargs):
        """Advance it and show the losses of the epoch."""
        last = net.history[-1]
        losses = {k: last[k] for k in ("train_loss", "valid_loss") if k in last}
        self.bar_.set_postfix({k: f"{v:.3g}" for k, v in losses.items()}, refresh=False)
        self.bar_.update()

    def on_train_end(self, net, **kwargs):
        """Close the bar."""
        self.bar_.close()


class WarmupCosine:
    """Learning-rate factor: linear warm-up, then half a cosine down to zero."""

    def __init__(self, n_steps, n_warmup=200):
        self.n_steps, self.n_warmup = max(n_steps, 1), min(n_warmup, n_steps // 5 + 1)

    def __call__(self, step):
        rise = min(1.0, (step + 1) / self.n_warmup)
        return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.n_steps)))


def fit_net(
    make_module,
    criterion,
    iterator,
    train,
    valid,
    *,
    lr,
    max_epochs,
    n_batches,
    patience,
    callbacks,
    verbose,
    desc,
    seed,
    device,
):
    """Train a module through skorch and return the net.

    A KeyboardInterrupt ends the training early and keeps what was learned so far, with a
    ConvergenceWarning; training that diverges is a ValueError.

    Parameters
    ----------
    make_module : callable
        Returns the nn.Module to train, whose weights ``seed`` decides.

    criterion : type of nn.Module
        Loss of ``(prediction, target)``.

    iterator : callable
        ``iterator(dataset, training=…)`` returns the batches of one epoch, so many as
        ``n_batches`` says, each time it is iterated over.

    train, valid : Dataset or None
        Data on the device; without ``valid`` there is no early stopping.

    lr, max_epochs, n_batches, patience, callbacks, verbose, desc, seed, device
        As the parameters of estimators; ``desc`` is what the progress bar says.

    Returns
    -------
    net : EstimatorNet
        Trained, its module in evaluation mode.
    """
    used = [
        LRScheduler(
            torch.optim.lr_scheduler.LambdaLR,
            lr_lambda=WarmupCosine(max_epochs * n_batches),
            step_every="batch",
            event_name=None,
        )
    ]
    if patience is not None and valid is not None:
        used.append(EarlyStopping(patience=patience, load_best=True, sink=_silent))
    if verbose:
        used.append(EpochBar(max_epochs, desc))
    with SeededInit(seed):
        module = make_module()
    net = EstimatorNet(
        module,
        criterion=criterion,
        optimizer=torch.optim.Adam,
        lr=lr,
        max_epochs=max_epochs,
        batch_size=-1,  # the iterators know theirs
        iterator_train=lambda dataset, batch_size: iterator(dataset, training=True),
        iterator_valid=lambda dataset, batch_size: iterator(dataset, training=False),
        train_split=predefined_split(valid) if valid is not None else None,
        callbacks=[*used, *(callbacks or [])],
        verbose=0,
        device=device,
    )
    net.desc = desc
    net.initialize()
    if max_epochs:  # callbacks take it for granted that there was an epoch
        net.partial_fit(train, None)
    if net.interrupted_:
        warn_user(
            f"{desc} was interrupted after {len(net.history)} of {max_epochs} epochs; "
            "what was learned until then is kept.",
            ConvergenceWarning,
        )
    net.module_.eval()
    return net


def _silent(*args):
    """Swallow what skorch would print."""
