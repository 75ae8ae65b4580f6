"""Tables with one row per reading, and what can be wrong with them."""

import narwhals as nw
import numpy as np
import pytest

from sklearn_inverse import Experiment, ODESystem
from sklearn_inverse.datasets import (
    make_inverse_problem,
    observations_from_table,
    read_table,
    table_from_observations,
)


def flow(t, y, p, u):
    return [-p.rate * u.light * y.a, p.rate * u.light * y.a]


def system(**options):
    return ODESystem(
        flow,
        states={"a": 1.0, "b": 0.0},
        params={"rate": (0.1, 2)},
        inputs=["light"],
        noise=0.02,
        units={"states": "mM"},
        **options,
    )


ROWS = {
    "experiment": ["dim", "dim", "dim", "bright", "bright", "bright"],
    "light": [1, 1, 1, 3, 3, 3],
    "time": [1, 2, 2, 1, 1, 4],
    "observable": ["a", "a", "b", "b", "b", "a"],
    "value": [0.5, 0.27, 0.7, 0.9, 0.88, 0.01],
}
NAN = np.nan


def wrong(**columns):
    return {k: v for k, v in (ROWS | columns).items() if v is not None}


OBSERVED = [[0.5, NAN, 0.27, 0.7, NAN, 0.9, NAN, 0.88, 0.01, NAN]]


def test_experiments_inputs_and_repeats_are_read():
    found, observed = read_table(system(), ROWS)
    assert [e.name for e in found.experiments] == ["dim", "bright"]
    assert [e.inputs for e in found.experiments] == [{"light": 1.0}, {"light": 3.0}]
    assert [e.start for e in found.experiments] == [0.0, 0.0]
    assert found.times.tolist() == [1, 2, 1, 1, 4]
    np.testing.assert_array_equal(observed, OBSERVED)
    assert found.noise == system().noise


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_csv_file_is_read_as_its_columns(mark, tmp_path):
    header = ["experiment", "light", "t (h)", "observable", "value", "comment"]
    columns = [*(ROWS[n] for n in ROWS), ["", "?", "", "", "", "spilt"]]
    lines = [mark.join(map(str, row)) for row in [header, *zip(*columns)]]
    lines.append(mark.join(["dim", "1", "9", "a", "", "lost"]))
    path = tmp_path / "table.csv"
    path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    found, observed = read_table(system(), path, columns={"time": "t (h)"})
    assert found.times.tolist() == [1, 2, 1, 1, 4]
    np.testing.assert_array_equal(observed, OBSERVED)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
def test_a_csv_file_may_be_in_the_encoding_of_a_spreadsheet(encoding, tmp_path):
    path = tmp_path / "table.csv"
    lines = ["experiment,light,t (µs),value,observable,comment", "dim,1,1,0.5,a,größer"]
    path.write_text("\n".join(lines), encoding=encoding)
    found, observed = read_table(system(), path, columns={"time": "t (µs)"})
    assert found.times.tolist() == [1]
    assert observed[0, 0] == 0.5


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_data_frames_are_read_as_their_columns(library):
    pytest.importorskip(library)
    frame = nw.from_dict(ROWS, backend=library).to_native()
    np.testing.assert_array_equal(read_table(system(), frame)[1], OBSERVED)


def test_there_and_back_again():
    there = system().with_experiments(
        [
            Experiment([0, 1, 2], inputs={"light": 1}, name="dim"),
            Experiment([0, 5], inputs={"light": 2}, observables=["b"], name="bright"),
        ]
    )
    data = make_inverse_problem(there, 3, noisy=True, n_observed=3, random_state=0)
    table = table_from_observations(there, data.observations, samples=["x", "y", "z"])
    back = observations_from_table(there, table)
    np.testing.assert_array_equal(back.observations, data.observations)
    assert back.samples == ["x", "y", "z"]
    assert len(table["value"]) == np.isfinite(data.observations).sum() < 27


def test_experiments_may_be_numbered():
    table = wrong(experiment=[1, 1, 1, 2, 2, 2])
    found, observed = read_table(system(), table)
    assert [e.name for e in found.experiments] == ["1", "2"]
    np.testing.assert_array_equal(observed, OBSERVED)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (wrong(experiment=None), r"column 'experiment'; one of \['dim', 'bright'\]"),
        (wrong(observable=["b"] * 6), "input 'light' of experiment 'dim'. Got 1 and 2"),
        (wrong(light=None), r"Experiment 'dim' measures \['b'\]. Got a reading of 'a'"),
    ],
)
def test_what_contradicts_the_experiments_is_refused(table, message):
    known = system().with_experiments(
        [
            Experiment([0, 1], inputs={"light": 2.0}, observables=["b"], name="dim"),
            Experiment([0, 1], inputs={"light": 3}, name="bright"),
        ]
    )
    with pytest.raises(ValueError, match=message):
        read_table(known, table)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must not be empty"),
        ("time,value\n", "must hold rows below its header"),
        ("time,value\n1,0,5\n", "the 2 fields of its header. Got 3 in row 1"),
        ("time,value,value\n1,2,3\n", "different names. Got 'value' twice"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(text, message, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_table(system(), path)


def test_times_off_the_grid_extend_it():
    known = system(times=[0, 1, 2])
    table = {"time": [1.5, 2.0, 2.0], "observable": ["a"] * 3, "value": [1.0, 2.0, 3.0]}
    data = observations_from_table(known, table | {"light": [1.0] * 3})
    assert data.system.times.tolist() == [0, 1, 1.5, 2, 2]
    assert data.observations[0, ::2].tolist()[2:] == [1, 2, 3]


def test_samples_may_have_inputs_and_noise_of_their_own():
    table = {
        "sample": ["anna", "anna", "ben"],
        "light": [1.0, 1.0, 2.5],
        "time": [1, 2, 1],
        "observable": ["a", "a", "a"],
        "value": [0.5, 0.3, 0.1],
        "noise": [0.1, 0.1, 0.2],
    }
    data = observations_from_table(system(), table)
    assert data.samples == ["anna", "ben"]
    assert data.inputs.tolist() == [[1.0], [2.5]]
    np.testing.assert_array_equal(data.observations[:, 0], [0.5, 0.1])
    np.testing.assert_array_equal(data.noise_std[:, 0], [0.1, 0.2])
    assert np.isnan(data.observations[1, 2])
    with pytest.raises(ValueError, match=r"\['light', 'noise'\] differ from sample"):
        read_table(system(), table)


def test_noise_that_is_the_same_in_all_samples_is_the_systems():
    table = ROWS | {"noise": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}
    found, _ = read_table(system(), table)
    scale = [kind.scale for kind in found.noise.kinds]
    assert scale[0][:2] == (0.1, 0.2)
    assert scale[0][4] == 0.6
    assert scale[1][1:4] == (0.3, 0.4, 0.5)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (wrong(time=None), "must have a column 'time'; it has"),
        (wrong(value=None, vale=[1] * 6), "'value'; did you mean 'vale'"),
        (wrong(observable=None), r"column 'observable'; one of \['a', 'b'\]"),
        (wrong(light=None, ligth=[1] * 6), "column 'ligth'; did you mean 'light'"),
        (wrong(observable=["a"] * 5 + ["c"]), "reads 'c', which the system does not"),
        (
            wrong(time=ROWS["observable"], observable=ROWS["time"]),
            "The column 'time' must hold numbers. Got 'a' in row 1: are two columns",
        ),
        (wrong(value=["0,5"] * 6), "Got '0,5' in row 1: .*decimal comma"),
        (wrong(value=[np.inf] * 6), "The column 'value' must hold finite numbers"),
        (wrong(value=[None] * 6), "must hold at least one value"),
        (wrong(time=[-1, 2, 2, 1, 1, 4]), "'dim' must not lie before its start, 0"),
        (wrong(light=[1, 2, 1, 3, 3, 3]), "'light' must be one number in each exp"),
        (wrong(experiment=None, experimnt=["dim"] * 6), "mean 'experiment'"),
        (wrong(noise=[0.0] * 6), "`noise` in the table must be > 0. Got 0"),
        (wrong(unit=["mM"] * 5 + ["M"]), "'a' must be in 'mM', .*Got 'M'"),
        (wrong(light=[1, 2]), "must have the same length"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(table, message):
    with pytest.raises(ValueError, match=message):
        read_table(system(), table)


def test_unknown_experiments_are_named():
    known = system().with_experiments(
        [Experiment([0, 1], inputs={"light": 1}, name=n) for n in ("dim", "bright")]
    )
    table = wrong(experiment=["dim"] * 5 + ["brigth"], light=None)
    with pytest.raises(
        ValueError, match="no experiment 'brigth'; did you mean 'bright'"
    ):
        read_table(known, table)
    found, observed = read_table(known, wrong(experiment=["dim"] * 6, light=None))
    assert np.isnan(observed[0, -4:]).all()  # nothing was read of the other one
    assert found.n_times == 5 + 2


def test_what_is_no_table_is_refused():
    with pytest.raises(TypeError, match="`table` must be a CSV file's name"):
        read_table(system(), 3)
    with pytest.raises(TypeError, match="`system` must be an ODESystem"):
        read_table(flow, ROWS)
