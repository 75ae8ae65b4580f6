"""Chunks of samples, spread by whatever joblib backend the user has set.

Chunks are fixed in size, so that results do not depend on the number of workers.
"""

import threading
from contextlib import closing
from itertools import islice

import torch
from joblib import effective_n_jobs, wrap_non_picklable_objects
from joblib.parallel import get_active_backend
from sklearn.utils.parallel import Parallel, delayed
from tqdm.auto import tqdm

__all__ = ["iter_chunks", "map_chunks", "progress_bar"]


def progress_bar(iterable=None, *, verbose, total=None, desc="", unit="it"):
    """Return a tqdm progress bar on standard error, silent unless ``verbose``."""
    return tqdm(iterable, total=total, desc=desc, unit=unit, disable=not verbose)


def iter_chunks(
    function, *arrays, chunk_size, n_jobs=None, prefer=None, verbose=0, desc=""
):
    """Call ``function`` on consecutive chunks of arrays, and yield what it returned.

    Parameters
    ----------
    function : callable
        Called with a chunk of each array, in this process or in a worker. It travels
        with every chunk: what is large belongs in the arrays.

    *arrays : sequences of one length
        What is cut into chunks. A worker gets its chunk alone, if the arrays are NumPy's:
        a slice of a tensor is pickled with the whole tensor.

    chunk_size : int
        Samples per chunk. Fixed, so that a sample meets the same companions whatever
        ``n_jobs``.

    n_jobs : int, default=None
        Workers, as everywhere in scikit-learn; the joblib backend is the user's choice.
        On a Dask cluster all of it is used, unless ``n_jobs=1``.

    prefer : {"processes", "threads"}, default=None
        Workers where the user has set no joblib backend: threads for a function that
        releases the interpreter's lock. If None, processes.

    verbose : int, default=0
        Whether to show a progress bar, which counts samples.

    desc : str, default=""
        Words before the bar.

    Yields
    ------
    part : slice
        Where the chunk lies. Chunks come in any order.

    result : object
        What ``function`` returned for it.
    """
    n_samples = len(arrays[0])
    starts = range(0, n_samples, chunk_size)
    parts = [slice(i, min(i + chunk_size, n_samples)) for i in starts]
    chunks = ([array[part] for array in arrays] for part in parts)
    outcomes = _run(function, chunks, len(parts), n_jobs, prefer)
    if not verbose:  # a bar that is not shown takes longer than a small solve
        with closing(outcomes):
            for i, result in outcomes:
                yield parts[i], result
        return
    with (
        progress_bar(verbose=verbose, total=n_samples, desc=desc, unit="sample") as bar,
        closing(outcomes),
    ):
        for i, result in outcomes:
            yield parts[i], result
            bar.update(parts[i].stop - parts[i].start)


def map_chunks(function, *arrays, **options):
    """Return what :func:`iter_chunks` yields as a list, in the order of the chunks."""
    outcomes = iter_chunks(function, *arrays, **options)
    return [result for _, result in sorted(outcomes, key=lambda x: x[0].start)]


def _run(function, chunks, n_chunks, n_jobs, prefer):
    """Return a generator of (index, result), which may come in any order."""
    if n_jobs == 1 or n_chunks <= 1:
        return _run_here(function, chunks)
    n_workers = effective_n_jobs(n_jobs)  # raises if no worker of a cluster shows up
    backend, _ = get_active_backend(prefer=prefer)
    if hasattr(backend, "client"):  # Dask's, and be it one worker: it may be far away
        return _run_on_dask(function, chunks, backend)
    if n_workers == 1:
        return _run_here(function, chunks)
    if backend.supports_return_generator:
        return _run_in_stream(function, chunks, n_jobs, prefer)
    return _run_in_rounds(function, chunks, n_jobs, n_workers)


def _run_here(function, chunks):
    """Run one chunk after the other in this process."""
    for i, chunk in enumerate(chunks):
        yield i, function(*chunk)


def _run_in_stream(function, chunks, n_jobs, prefer):
    """Run on joblib's loky or threading backend, or another that yields results."""
    tasks = (delayed(_one_threaded)(function, *chunk) for chunk in chunks)
    parallel = Parallel(n_jobs=n_jobs, prefer=prefer, return_as="generator")
    yield from enumerate(parallel(tasks))


def _run_in_rounds(function, chunks, n_jobs, n_workers, chunks_per_worker=10):
    """Run on joblib's multiprocessing backend, or another that returns lists only."""
    function = wrap_non_picklable_objects(function)
    tasks = enumerate(delayed(_one_threaded)(function, *chunk) for chunk in chunks)
    with Parallel(n_jobs=n_jobs) as parallel:
        while some := list(islice(tasks, chunks_per_worker * n_workers)):
            indices, some = zip(*some)
            yield from zip(indices, parallel(some))


def _run_on_dask(function, chunks, backend):
    """Run on the cluster of joblib's Dask backend; a killed worker's chunks run again.

    joblib's own way there does not survive this. It scatters every array larger than a
    kilobyte to one worker, and loses it with that worker; and it waits for ever for a
    chunk that Dask has given up: one that kills its workers, or that they cannot unpickle.
    """
    from distributed import as_completed

    client = backend.client
    futures = {}
    try:
        for i, chunk in enumerate(chunks):
            future = client.submit(
                _one_threaded, function, *chunk, pure=False, **backend.submit_kwargs
            )
            futures[future] = i
        with backend.retrieval_context():
            for future in as_completed(list(futures), loop=client.loop):
                yield futures.pop(future), future.result()
    finally:
        client.cancel(list(futures))


class _OneThread:
    """Hold torch to one thread in each worker: more would fight for the cores.

    ``torch.set_num_threads`` decides for the calling thread, and for every thread that
    has not asked torch yet; so each worker asks before it sets. Workers may be threads of
    one process: the number to go back to is what the first of them found, for the others
    may find the 1 that it set.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.n_inside = 0
        self.n_threads = None

    def __enter__(self):
        with self.lock:
            n_threads = torch.get_num_threads()
            if self.n_inside == 0:
                self.n_threads = n_threads
            self.n_inside += 1
            torch.set_num_threads(1)

    def __exit__(self, *exc_info):
        with self.lock:
            self.n_inside -= 1
            torch.set_num_threads(self.n_threads)


_one_thread = _OneThread()


def _one_threaded(function, *chunk):
    with _one_thread:
        return function(*chunk)
