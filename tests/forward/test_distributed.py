"""A simulation is the same on every joblib backend, and outlives a worker of a cluster."""

import _thread
import copy
import os
import signal
import threading
import time

import joblib
import numpy as np
import pytest
import torch

from sklearn_inverse import ODESimulator
from sklearn_inverse.problems import lotka_volterra
from sklearn_inverse.utils._parallel import _one_thread, map_chunks

CHUNK_SIZE = 40  # 1.3 kB: more than joblib itself would send with a task to Dask
N_SAMPLES = 6 * CHUNK_SIZE - 5
MARKED = 2 * CHUNK_SIZE + 7  # a sample of the third chunk


@pytest.fixture(autouse=True)
def no_hang():
    def fail(*args):
        raise TimeoutError("hangs")

    previous = signal.signal(signal.SIGALRM, fail)
    signal.alarm(100)
    yield
    # After an error, threads finish their chunk unheard. Were Python to exit before, it
    # would end their torch code by an abort.
    while _one_thread.n_inside:
        time.sleep(0.01)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


# Of module scope, so that pytest takes one after the other. The first forks, which is
# safe only before Dask starts its threads; Python 3.12 warns if any other thread runs.
@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            "multiprocessing",
            marks=pytest.mark.filterwarnings(
                "ignore:This process .* is multi-threaded:DeprecationWarning"
            ),
        ),
        "threading",
        pytest.param("loky", marks=pytest.mark.slow),
        pytest.param("dask", marks=pytest.mark.slow),
    ],
)
def backend(request):
    if request.param == "dask":
        request.getfixturevalue("client")
    return request.param


@pytest.fixture(scope="module")
def system():
    return lotka_volterra(times=range(4))


@pytest.fixture(scope="module")
def params(system):
    low, high = system.bounds.T
    return np.random.default_rng(0).uniform(low, high, size=(N_SAMPLES, 4))


@pytest.fixture(scope="module")
def serial(system, params):
    return make_simulator(system).simulate(params)


def make_simulator(system):
    # In torch with an incident and without: results are compared to the last bit.
    return ODESimulator(system, rtol=1e-3, backend="torch", chunk_size=CHUNK_SIZE)


def simulate(system, params, backend):
    with joblib.parallel_config(backend=backend, n_jobs=2):
        return make_simulator(system).simulate(params)


def system_with(incident, system, params):
    """Return the system with an incident in the midst of solving the marked sample.

    Functions made in functions are sent to workers by value: no import needed there.
    """
    plain_rhs = system.rhs
    mark = params[MARKED, 0]

    def rhs(t, y, params):
        if (t > 1).any() and (params[..., 0] == mark).any():
            incident()
        return plain_rhs(t, y, params)

    marked = copy.copy(system)
    marked.kinetics, marked.rhs, marked.jac = None, rhs, system.jac
    return marked


def dying(flag=None):
    """Return an incident that kills its process; only the first, if there is a flag."""

    def incident():
        if flag is not None:
            try:
                flag.touch(exist_ok=False)
            except FileExistsError:
                return
            flag.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)

    return incident


def test_result_is_the_serial_one(backend, system, params, serial):
    assert np.array_equal(simulate(system, params, backend), serial)


def test_progress_bar_reaches_the_end(backend, capsys):
    with joblib.parallel_config(backend=backend, n_jobs=2):
        sums = map_chunks(np.sum, np.ones(50), chunk_size=20, verbose=1)
    assert sums == [20, 20, 10]
    assert "50/50" in capsys.readouterr().err


def test_workers_have_one_torch_thread_each_and_restore_the_number(backend):
    def count(delay):
        time.sleep(delay[0])  # threads enter and leave in turn, while others are inside
        return torch.get_num_threads()

    seen_by_a_new_thread = []
    torch.set_num_threads(3)
    try:
        with joblib.parallel_config(backend=backend, n_jobs=2):
            delays = np.array([0.05, 0.1, 0.1, 0.1])
            assert map_chunks(count, delays, chunk_size=1) == [1, 1, 1, 1]
        thread = threading.Thread(
            target=lambda: seen_by_a_new_thread.append(torch.get_num_threads())
        )
        thread.start()
        thread.join()
        assert torch.get_num_threads() == 3
        assert seen_by_a_new_thread == [3]
    finally:
        torch.set_num_threads(1)


def test_error_in_a_chunk_is_raised(backend, system, params):
    def incident():
        raise ArithmeticError("in a chunk")

    with pytest.raises(ArithmeticError, match="in a chunk"):
        simulate(system_with(incident, system, params), params, backend)


@pytest.mark.slow
@pytest.mark.skipif(
    signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
    reason="whoever started this in the background switched Ctrl-C off",
)
def test_ctrl_c_is_raised_and_leaves_the_backend_usable(
    backend, system, params, serial, tmp_path
):
    reached = tmp_path / "reached"

    def incident():
        reached.touch()
        time.sleep(0.1)

    def press_ctrl_c():
        while not reached.exists():
            time.sleep(0.01)
        _thread.interrupt_main()

    threading.Thread(target=press_ctrl_c).start()
    with pytest.raises(KeyboardInterrupt):
        simulate(system_with(incident, system, params), params, backend)
    assert np.array_equal(simulate(system, params, backend), serial)


@pytest.mark.slow
def test_chunks_of_a_killed_dask_worker_run_again(
    client, system, params, serial, tmp_path
):
    workers = client.run(os.getpid).values()
    deadly = system_with(dying(tmp_path / "killed"), system, params)
    assert np.array_equal(simulate(deadly, params, "dask"), serial)
    killed = int((tmp_path / "killed").read_text())
    assert killed in workers
    assert killed not in client.run(os.getpid).values()


@pytest.mark.slow
def test_chunk_that_kills_its_dask_workers_is_given_up(
    client, system, params, monkeypatch
):
    from distributed import KilledWorker

    monkeypatch.setattr(client.cluster.scheduler, "allowed_failures", 0)
    with pytest.raises(KilledWorker):
        simulate(system_with(dying(), system, params), params, "dask")
