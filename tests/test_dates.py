"""Dates: fm.formats.dates and fm.encoding.dates."""

import datetime as dt
import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fm
from fm.encoding.encoder import Encoder
from fm.errors import ConfigError, DataError
from fm.formats.dates import Moment, moment_of

CEST = dt.timezone(dt.timedelta(hours=2))
WHEN = ["2021-03-01 08:30:00", "2022-07-02 19:00:00", None, "2023-12-24 08:00:00"]
ZONED = dt.datetime(2024, 5, 1, 1, tzinfo=CEST)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("2024-05-01", Moment(2024, 5, 2, 0)),
        (" 2024-05-01T23:59 ", Moment(2024, 5, 2, 23)),
        ("2024-05-01 12:30:00.25", Moment(2024, 5, 2, 12)),
        ("2024-05-01T01:30:00+02:00", Moment(2024, 5, 2, 1)),
        ("2024-05-01 01:30:00Z", Moment(2024, 5, 2, 1)),
        ("2024-02-29", Moment(2024, 2, 3, 0)),
        ("0001-01-01", Moment(1, 1, 0, 0)),
        (dt.date(2024, 5, 1), Moment(2024, 5, 2, 0)),
        (dt.datetime(2024, 5, 1, 7, 59), Moment(2024, 5, 2, 7)),
        (ZONED, Moment(2024, 5, 2, 1)),
        (pd.Timestamp("2024-05-01 07:00"), Moment(2024, 5, 2, 7)),
        (np.datetime64("2024-05-01T07:00:00"), Moment(2024, 5, 2, 7)),
        (np.datetime64("1969-12-31T23:59:59.5"), Moment(1969, 12, 2, 23)),
        (0, Moment(1970, 1, 3, 0)),
        (-1, Moment(1969, 12, 2, 23)),
        (1714566600.9, Moment(2024, 5, 2, 12)),
        ("1714566600", Moment(2024, 5, 2, 12)),
        (None, None),
        ("", None),
        ("NA", None),
        (float("nan"), None),
        (pd.NaT, None),
        (np.datetime64("NaT", "s"), None),
        ("2023-02-29", ValueError),
        ("2024-13-01", ValueError),
        ("2024-05-01 24:00", ValueError),
        ("0000-01-01", ValueError),
        ("2024-05-01\n", None),
        ("01.05.2024", ValueError),
        ("soon", ValueError),
        (True, ValueError),
        ("true", ValueError),
        (1e300, ValueError),
        (float("inf"), ValueError),
        (np.datetime64("12024-01-01T00:00:00"), ValueError),
        ([], ValueError),
    ],
    ids=repr,
)
def test_what_a_value_says(value, found):
    encoder = Encoder.fit({"t": WHEN})
    if value == "2024-05-01\n":
        found = moment_of(value)  # blanks around it do not matter
        assert found == Moment(2024, 5, 2, 0)
    if found is ValueError:
        with pytest.raises(ValueError):
            moment_of(value)
        message = r"row 1, column 't': expected a date such as 2024-05-01"
        with pytest.raises(DataError, match=message):
            encoder.encode_rows([{"t": value}])
        with pytest.raises(DataError, match=message):
            encoder.transform({"t": [value]})
        return
    assert moment_of(value) == found
    rows, table = encoder.encode_rows([{"t": value}]), encoder.transform({"t": [value]})
    assert rows.indices.tolist() == table.indices.tolist()
    assert rows.data.tolist() == table.data.tolist()
    assert table.nnz == 4
    expected = None if found is None else f"{found.year:04d}-{found.month:02d}"
    assert encoder.decode_row(table) == {"t": expected}


TIMES = [None if text is None else dt.datetime.fromisoformat(text) for text in WHEN]


@pytest.mark.parametrize(
    "column",
    [
        WHEN,
        TIMES,
        pd.Series(pd.to_datetime(WHEN)),
        pd.Series(pd.to_datetime(WHEN)).dt.tz_localize("Europe/Vienna"),
        pa.array(TIMES, pa.timestamp("ns")),
        pa.array(TIMES, pa.timestamp("s")).dictionary_encode(),
        pl.Series(TIMES),
        np.array(["NaT" if t is None else t for t in WHEN], "M8[ms]"),
        pa.chunked_array([WHEN[:2], WHEN[2:]]),
    ],
    ids=lambda column: str(getattr(column, "dtype", getattr(column, "type", "list"))),
)
def test_dates_of_many_types(column):
    expected = Encoder.fit({"t": WHEN})
    encoder = Encoder.fit({"t": column}, date="t")
    assert encoder == expected
    assert (encoder.transform({"t": column}) != expected.transform({"t": WHEN})).nnz == 0
    if not isinstance(column, pa.Array) or not pa.types.is_dictionary(column.type):
        assert Encoder.fit({"t": column}) == encoder  # by default, too


def test_features_of_dates():
    encoder = Encoder.fit({"t": WHEN}, bins=2)
    (column,) = encoder.columns
    assert column.about == "date: year, month, weekday, hour"
    assert column.year.knots == (2021, 2022, 2023)
    names = ["t.year", "t=<unknown>", "t.year~2021", "t.year~2022", "t.year~2023", "t.month=1"]
    assert list(encoder.feature_names)[:6] == names
    assert encoder.feature_names[17:19] == ["t.weekday=Monday", "t.weekday=Tuesday"]
    assert encoder.feature_names[-1] == "t.hour=23" and encoder.num_features == 5 + 12 + 7 + 24
    assert encoder.feature_value(5) == "1" and encoder.feature_value(17) == "Monday"
    assert encoder.feature_value(0) is encoder.feature_value(1) is None
    assert encoder.feature_index("t", "2024-05-01") == 0 and encoder.feature_index("t") == 1
    with pytest.raises(DataError, match="column 't': expected a date such as"):
        encoder.feature_index("t", "soon")
    X = encoder.transform({"t": WHEN})
    assert np.diff(X.indptr).tolist() == [6] * 4  # with a missing date, too
    assert [encoder.feature_name(i) for i in X[0].indices[X[0].data != 0]] == (
        ["t.year", "t.year~2021", "t.month=3", "t.weekday=Monday", "t.hour=8"]
    )
    assert [encoder.feature_name(i) for i in X[2].indices[X[2].data != 0]] == ["t=<unknown>"]
    assert not encoder.known_entries(X[2]).any() and encoder.known_entries(X[3]).any()
    assert [encoder.decode_row(row)["t"] for row in X] == ["2021-03", "2022-07", None, "2023-12"]
    again = Encoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert again == encoder and hash(again) == hash(encoder)
    # a time of day that is always the same says nothing
    days = Encoder.fit({"t": ["2024-05-01", "2024-06-02"]})
    assert days.columns[0].about == "date: year, month, weekday" and days.num_features == 21
    assert days.transform({"t": ["2024-05-01 12:30"]}).nnz == 3


def test_which_columns_are_dates_by_default():
    table = {
        "day": ["2024-05-01", "2024-05-02"],
        "gap": ["2024-05-01 12:30", ""],
        "code": ["2024-05-01", "x"],
        "wrong": ["2024-05-01", "2024-02-30"],
        "lines": ["2024-05-01", "2024-05-01\nx"],
        "empty": ["", None],
        "seconds": [1714566600, 1714566601],
        "time": [dt.time(1), dt.time(2)],
    }
    kinds = {column.name: column.kind for column in Encoder.fit(table).columns}
    assert [name for name, kind in kinds.items() if kind == "date"] == ["day", "gap"]
    assert Encoder.fit(table, categorical=["day"]).columns[0].values.values == tuple(table["day"])
    encoder = Encoder.fit(table, date="seconds")
    assert encoder.decode_row(encoder.transform(table)[0]) == {"seconds": "2024-05"}
    with pytest.raises(
        DataError, match=r"row 2, column 'code': expected a date .* found 'x'.*cate"
    ):
        Encoder.fit(table, date="code")
    for name in ("time", "seconds"):
        with pytest.raises((DataError, ConfigError)):
            Encoder.fit({**table, "seconds": [[1], [2]]}, date=name)
    with pytest.raises(ConfigError, match="hash_dim: 'day' is not a categorical"):
        Encoder.fit(table, hash_dim={"day": 5})
    assert Encoder.fit({"day": table["day"], "c": ["a", "b"]}, hash_dim=5).num_features == 21 + 6


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.datetimes()), min_size=1, max_size=6),
    st.sampled_from(["us", "text", "T"]),
    st.one_of(st.just("auto"), st.integers(0, 3)),
)
def test_rows_and_tables_agree(times, form, bins):
    cells = pa.array(times, pa.timestamp("us"))
    if form != "us":
        cells = [t and t.isoformat(" " if form == "text" else "T") for t in times]
    encoder = Encoder.fit({"t": cells}, date="t", bins=bins)
    table = encoder.transform({"t": cells})
    for values in (times, pa.array(cells).to_pylist()):
        rows = encoder.encode_rows([{"t": value} for value in values])
        for part in ("indptr", "indices", "data"):
            assert np.array_equal(getattr(table, part), getattr(rows, part)), part
    for time, row in zip(times, table, strict=True):
        assert encoder.decode_row(row)["t"] == (time and time.isoformat()[:7])


@pytest.mark.parametrize(
    "column",
    [
        {"kind": "date", "year": {"mean": 0.0, "std": 1.0}},
        {"kind": "date", "year": {"mean": 0.0}, "hours": True},
        {"kind": "date", "year": 5, "hours": True},
        {"kind": "date", "year": {"mean": 0.0, "std": 1.0}, "hours": 1},
        {"kind": "date", "year": {"mean": 0.0, "std": 1.0, "knots": [2, 1]}, "hours": True},
    ],
)
def test_hostile_dicts(column):
    with pytest.raises(fm.ModelFileError):
        Encoder.from_dict({"version": 1, "columns": [{"name": "t", **column}]})


def test_the_weekday_and_the_hour_are_learnt(tmp_path, rng):
    times = pd.Timestamp("2022-01-03") + pd.to_timedelta(rng.integers(0, 900 * 24, 3000), "h")
    y = (times.day_of_week >= 5) * 2.0 + (times.hour < 6) * 1.0 + 0.1 * rng.normal(size=3000)
    table = pd.DataFrame({"when": times, "y": y})
    path = tmp_path / "sales.csv"
    table.to_csv(path, index=False)
    data = fm.read(path)
    assert data.entries_per_row == 6  # three different years have bins
    assert data.encoder == fm.read(table).encoder
    model = fm.fit(data)
    late, early = model.predict([{"when": "2023-06-06 18:00"}, {"when": "2023-06-11T03:00:00Z"}])
    assert abs(late) < 0.3 and abs(early - 3) < 0.4
    found = model.explain({"when": "2023-06-11 03:00"})
    assert "when.weekday=Sunday" in [name for name, _ in found.linear]
    assert found.field_names == ("when",)
    with pytest.raises(ConfigError, match="expected a column with values, found when, a date one"):
        model.fold_in([{"when": "2023-06-11"}], [1.0], "when")
