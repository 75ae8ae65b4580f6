"""joblib chunks: fixed in size, so that results do not depend on ``n_jobs``."""

import torch
from joblib import effective_n_jobs
from sklearn.utils.parallel import Parallel, delayed
from tqdm.auto import tqdm

__all__ = ["map_chunks", "progress_bar"]


def progress_bar(iterable=None, *, verbose, total=None, desc="", unit="it"):
    """Return a tqdm progress bar on standard error, silent unless ``verbose``."""
    return tqdm(iterable, total=total, desc=desc, unit=unit, disable=not verbose)


def map_chunks(function, n_samples, *, chunk_size, n_jobs=None, verbose=0, desc=""):
    """Call ``function(slice)`` for consecutive chunks of samples, in order.

    Parameters
    ----------
    function : callable
        Called with slices of ``range(n_samples)``, in this process or in workers.

    n_samples : int
        Number of samples.

    chunk_size : int
        Samples per chunk. Fixed, so that a sample meets the same companions whatever
        ``n_jobs``.

    n_jobs : int, default=None
        Workers, as everywhere in scikit-learn; the joblib backend is the user's choice.

    verbose : int, default=0
        Whether to show a progress bar, which counts samples.

    desc : str, default=""
        Words before the bar.

    Returns
    -------
    results : list
        What ``function`` returned for each chunk.
    """
    slices = [slice(i, i + chunk_size) for i in range(0, n_samples, chunk_size)]
    slices = [slice(s.start, min(s.stop, n_samples)) for s in slices]
    results = []
    with progress_bar(
        verbose=verbose, total=n_samples, desc=desc, unit="sample"
    ) as bar:
        if effective_n_jobs(n_jobs) == 1 or len(slices) <= 1:
            outcomes = (function(s) for s in slices)
        else:
            parallel = Parallel(n_jobs=n_jobs, return_as="generator")
            outcomes = parallel(delayed(_single_threaded)(function, s) for s in slices)
        for part, outcome in zip(slices, outcomes):
            results.append(outcome)
            bar.update(part.stop - part.start)
    return results


def _single_threaded(function, part):
    """Run in a worker with one torch thread: more fight each other for the cores."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function(part)
    finally:
        torch.set_num_threads(n_threads)
