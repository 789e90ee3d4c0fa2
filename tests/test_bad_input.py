"""Bad input of every kind, through the commands and functions that people call.

One table: what is wrong, how it is made, who is given it, what is said. For each line the error is
one of ours and in one line, names the place, what was expected and what was found; a command exits
with code 2; and no file is left behind, half-written or changed: above all not the old output.
"""

import gzip
import io
import os
import pickle
import re
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from pyarrow import parquet

import fm
import fm.cli.main
from fm.cli.messages import EXIT_WRONG
from fm.errors import FMError
from fm.formats.recordio import write_numpy_to_dense_tensor

HEADER = "user,film,age,rating\n"


class Bad(NamedTuple):
    """A line of the table."""

    name: str
    make: Callable[[], None] | None  # writes the bad file; None: the files of the desk will do
    call: str | Callable[[], object]  # a command line, or a call in Python
    message: str  # regular expression


# -- how bad files are made ------------------------------------------------------------------------


def text(name, content):
    return lambda: Path(name).write_text(content)


def raw(name, content):
    return lambda: Path(name).write_bytes(content)


def cells(name, *lines):
    """Write a table with the columns of the model `table.safetensors`."""
    return text(name, HEADER + "\n".join(lines) + "\n")


def cut(name, source, part):
    """Write the first part of a file."""
    return lambda: Path(name).write_bytes(
        Path(source).read_bytes()[: int(Path(source).stat().st_size * part)]
    )


def flipped(name, source, at):
    """Write a file of which one bit is changed."""

    def make():
        content = bytearray(Path(source).read_bytes())
        content[at] ^= 0x20
        Path(name).write_bytes(content)

    return make


def records(values, labels=None):
    file = io.BytesIO()
    write_numpy_to_dense_tensor(file, np.asarray(values, np.float32), labels)
    return file.getvalue()


def archive(name, member, content, kind=tarfile.REGTYPE):
    """Write a model.tar.gz with one member."""

    def make():
        entry = tarfile.TarInfo(member)
        entry.type, entry.size, entry.linkname = kind, len(content), "/etc/passwd"
        with tarfile.open(name, "w:gz") as file:
            file.addfile(entry, io.BytesIO(content))

    return make


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for member, content in members.items():
            packed.writestr(member.replace("_json", ".json"), content)
    return file.getvalue()


def table(name, rows):
    return lambda: parquet.write_table(pa.Table.from_pylist(rows), name)


def model():
    return fm.load("rows.safetensors")


THREE = np.eye(3, dtype=np.float32)
ONE, NAN = struct.pack("<f", 1), struct.pack("<f", np.nan)
RECORDS = records(THREE, np.ones(3, np.float32))
ONE_RECORD = RECORDS[: len(RECORDS) // 3]
BOMB = gzip.compress(b"1 1:1\n" * 100_000) * 40  # 24 MB in 50 kB; the limit is lowered to 1 MB
MEGABYTE = {"meta_json": "{}", "symbol_json": "{}", "params": bytes(1 << 20)}
# It says of itself that there is a gigabyte in it.
ZIP_BOMB = zipped(**MEGABYTE).replace(struct.pack("<I", 1 << 20), struct.pack("<I", 1 << 30))
ZIPPED_TABLE = gzip.compress((HEADER + "ann,Alien,30.5,4\n" * 3000).encode())

# -- the table -------------------------------------------------------------------------------------

ROWS_OF_FEATURES = [
    Bad("RecordIO cut off", raw("b.recordio", RECORDS[:-7]), "train b.recordio",
        r"b\.recordio record 3 \(byte \d+\): expected a frame of \d+ bytes, found \d+"),
    Bad("RecordIO with a wrong magic", raw("b.recordio", b"\x0a\x23\xd7\xcf" + RECORDS[4:]),
        "train b.recordio --format recordio",
        r"b\.recordio: expected RecordIO-protobuf \(first bytes 0a 23 d7 ce\), found the bytes"),
    Bad("RecordIO whose second record is none", raw("b.recordio", ONE_RECORD + b"\1" * 40),
        "predict rows.safetensors b.recordio",
        r"b\.recordio record 2 \(byte \d+\): expected a frame .*found 01 01 01 01"),
    Bad("RecordIO without labels", raw("b.recordio", records(THREE)), "train b.recordio",
        r"b\.recordio record 1 \(byte 0\): expected a label .*found none"),
    Bad("RecordIO with a NaN", raw("b.recordio", RECORDS.replace(ONE, NAN)), "train b.recordio",
        r"b\.recordio record 1 \(byte 0\): the value nan of feature 0 is not a finite float32"),
    Bad("RecordIO wider than the model", raw("b.recordio", records(np.eye(99)[:1], THREE[:1, 0])),
        "evaluate rows.safetensors b.recordio",
        r"b\.recordio record 1 \(byte 0\): expected at most 8 values .*found 99"),
    Bad("index beyond the model", text("b.libsvm", "1 1:1\n0 99:1\n"),
        "predict rows.safetensors b.libsvm",
        r"b\.libsvm line 2: feature index 99 is outside \[1, 9\)"),
    Bad("index beyond the model, in a test file", text("b.libsvm", "1 1:1\n0 99:1\n"),
        "train good.libsvm --test b.libsvm",
        r"b\.libsvm line 2: feature index 99 is outside \[1, 9\)"),
    Bad("index beyond feature_dim", text("b.libsvm", "1 1:1\n0 6:1\n"),
        "train b.libsvm --feature-dim 5",
        r"b\.libsvm line 2: feature index 6 is outside \[1, 6\)"),
    Bad("index beyond feature_dim, converting", text("b.libsvm", "1 1:1\n0 6:1\n"),
        "convert b.libsvm old.recordio --feature-dim 5",
        r"b\.libsvm line 2: feature index 6 is outside"),
    Bad("negative index", text("b.libsvm", "1 1:1\n0 -1:1\n"), "train b.libsvm",
        r"b\.libsvm line 2: expected a whole number as index, found a negative one in '-1:1'"),
    Bad("index 2^63", text("b.libsvm", f"1 1:1\n0 {2**63}:1\n"), "train b.libsvm",
        r"b\.libsvm line 2: the index in '9223372036854775808:1' is too large; at most 2147483646"),
    Bad("index that is no number", text("b.libffm", "1 0:1:1\n0 a:2:1\n"), "train b.libffm",
        r"b\.libffm line 2: expected a whole number as index, found 'a' in 'a:2:1'"),
    Bad("index twice in a row", text("b.libsvm", "1 1:1\n0 3:1 3:1\n"), "train b.libsvm",
        r"b\.libsvm line 2: feature index 3 occurs twice"),
    Bad("value NaN", text("b.libsvm", "1 1:1 2:nan\n"), "train b.libsvm",
        r"b\.libsvm line 1: expected a finite float32 number as a value in '2:nan', found 'nan'"),
    Bad("value inf", text("b.libsvm", "1 1:1\n0 2:inf\n"), "predict rows.safetensors b.libsvm",
        r"b\.libsvm line 2: expected a finite float32 number as a value in '2:inf', found 'inf'"),
    Bad("label NaN", text("b.libsvm", "nan 1:1\n"), "train b.libsvm",
        r"b\.libsvm line 1: expected a finite float32 number as a label, found 'nan'"),
    Bad("label missing", text("b.libsvm", "1:1\n2:1\n"), "train b.libsvm",
        r"b\.libsvm line 1: expected a label at the beginning of the line, found '1:1'"),
    Bad("no colon", text("b.libsvm", "1 1:1\n0 2=1\n"), "train b.libsvm",
        r"b\.libsvm line 2: expected index:value, found '2=1'"),
    Bad("empty libsvm", text("b.libsvm", ""), "train b.libsvm",
        r"b\.libsvm: expected at least one row, found an empty file"),
    Bad("label 2 of a classifier", text("b.libsvm", "1 1:1\n2 2:1\n0 2:1\n"),
        "train b.libsvm --predictor-type binary_classifier",
        r"b\.libsvm row 2: label 2, but a binary classifier expects 0 or 1; .*--predictor-type"),
    Bad("label 2 to measure a classifier by", text("b.libsvm", "1 1:1\n2 2:1\n"),
        "evaluate labels.safetensors b.libsvm", r"b\.libsvm row 2: expected label 0 or 1.*found 2"),
]  # fmt: skip

TABLES = [
    Bad("empty file", text("b.csv", ""), "train b.csv",
        r"b\.csv: the file is empty; expected rows"),
    Bad("blank lines only", text("b.csv", "\n\n"), "train b.csv",
        r"b\.csv: the file has only blank lines; expected rows"),
    Bad("header only", text("b.csv", HEADER), "train b.csv",
        r"b\.csv: the file has no rows below the header; .*--no-header"),
    Bad("header only, to predict", text("b.csv", HEADER), "predict table.safetensors b.csv",
        r"b\.csv: the file has no rows below the header"),
    Bad("a column that is not there", None, "train good.csv --categorical usr",
        r"good\.csv: there is no column 'usr'; the columns are user, film, .*did you mean 'user'"),
    Bad("a target that is not there", None, "train good.csv --target stars",
        r"good\.csv: there is no column 'stars'; the columns are user, film, age, rating"),
    Bad("a weight that is not there", None, "train good.csv --weight w",
        r"good\.csv: there is no column 'w'; the columns are"),
    Bad("no column looks like a target", text("b.csv", "a,b\nx,1\n"), "train b.csv",
        r"b\.csv: no column is called rating, label, .*; the columns are a, b; .* --target$"),
    Bad("a target of words", None, "train good.csv --target film",
        r"good\.csv row \d+, column 'film': expected .* two labels, found 9 texts"),
    Bad("a missing target", text("b.csv", "a,rating\nx,1\ny,\n"), "train b.csv",
        r"b\.csv row 2, column 'rating': expected a number as target, found none"),
    Bad("target inf", text("b.csv", "a,rating\nx,1\ny,inf\n"), "train b.csv",
        r"b\.csv row 2, column 'rating': expected a number, found 'inf'"),
    Bad("target beyond float32", text("b.csv", "a,rating\nx,1e300\ny,1\n"), "train b.csv",
        r"b\.csv row 1: the target 1e\+300 is not a finite number"),
    Bad("a word in a numeric column", text("b.csv", "a,rating\n1.5,1\nthirty,2\n"),
        "train b.csv --numeric a",
        r"b\.csv row 2, column 'a': expected a finite number, found 'thirty'"),
    Bad("a word in a numeric column, to predict", cells("b.csv", "u1,f1,30.5,3", "u1,f1,thirty,3"),
        "predict table.safetensors b.csv",
        r"b\.csv row 2, column 'age': expected a finite number, found 'thirty'"),
    Bad("inf in a numeric column", text("b.csv", "a,rating\n1.5,1\ninf,2\n"),
        "train b.csv --numeric a",
        r"b\.csv row 2, column 'a': expected a finite number, found 'inf'"),
    Bad("a number beyond float32", text("b.csv", "a,rating\n1e300,1\n2,2\n"),
        "train b.csv --numeric a",
        r"b\.csv row 1, column 'a': expected a finite number, found '1e300'"),
    Bad("mixed delimiters", cells("b.csv", "u1,f1,30.5,3", "u1;f1;30.5;3"), "train b.csv",
        r"b\.csv line 3: expected 4 cells separated by ',', found 1, and 4 separated by ';'"),
    Bad("too many cells", cells("b.csv", "u1,f1,30.5,3", "u1,f1,30.5,3,9"), "train b.csv",
        r"b\.csv line 3: expected 4 cells separated by ',', found 5"),
    Bad("too many cells, to predict", cells("b.csv", "u1,f1,30.5,3", "u1,f1,30.5,3,9"),
        "predict table.safetensors b.csv", r"b\.csv line 3: expected 4 cells .*found 5"),
    Bad("too few cells", cells("b.csv", "u1,f1,30.5,3", "u1,f1"), "train b.csv",
        r"b\.csv line 3: expected 4 cells separated by ',', found 2"),
    Bad("a quote that is not closed", cells("b.csv", "u1,f1,30.5,3", '"u1,f1,30.5,3'),
        "train b.csv",
        r"b\.csv line 3: a quoted cell that begins here is not closed"),
    Bad("one name for two columns", text("b.csv", "user,user,rating\na,b,3\n"), "train b.csv",
        r"b\.csv: the column name 'user' occurs twice"),
    Bad("too few --names", None, "train good.csv --names a,b",
        r"good\.csv: header names 2 columns, but the first row has 4 cells"),
    Bad("--names and --header", None, "train good.csv --names a,b,c,d --header",
        r"names: expected a table without a header; give --names or --header, not both"),
    Bad("one column of two kinds", None, "train good.csv --categorical user --numeric user",
        r"numeric: column 'user' is also named as categorical"),
    Bad("a column the model needs", text("b.csv", "user,age\nu1,3\n"),
        "predict table.safetensors b.csv",
        r"b\.csv: there is no column 'film'; the columns are user, age"),
    Bad("all weights 0", text("b.csv", "a,w,rating\nx,0,1\ny,0,2\nz,0,3\n"),
        "train b.csv --weight w",
        r"b\.csv: expected a weight above 0, found all of them 0"),
    Bad("all weights 0, to measure by", text("b.csv", "user,film,age,w,rating\nu1,f1,3.5,0,2\n"),
        "evaluate table.safetensors b.csv --weight w --target rating",
        r"b\.csv: expected a weight above 0, found all of them 0"),
    Bad("a negative weight", text("b.csv", "a,w,rating\nx,1,1\ny,-1,2\n"), "train b.csv --weight w",
        r"b\.csv row 2: weight -1 is negative; expected a number >= 0"),
    Bad("a missing weight", text("b.csv", "a,w,rating\nx,1,1\ny,,2\n"), "train b.csv --weight w",
        r"b\.csv row 2, column 'w': expected a number as .*weight, found none"),
    Bad("bytes that are no text", raw("b.csv", bytes(range(256)) * 4), "train b.csv",
        r"b\.csv: expected delimited text, found the bytes 00 01 02"),
    Bad("an unscaled column at high rates",
        text("b.csv", "x,rating\n" + "".join(f"{i}e18,{i % 5}\n" for i in range(1, 40))),
        "train b.csv --numeric x --no-standardize --scale-features false --optimizer adam "
        "--linear-lr 1e3 --factors-lr 1e3",
        r"b\.csv: training diverged in epoch \d.*cause: x is not scaled \(it reaches 3\.9e\+19\)"),
]  # fmt: skip

FILES = [
    Bad("a gzip bomb", raw("b.libsvm.gz", BOMB), "train b.libsvm.gz",
        r"b\.libsvm\.gz: expected at most \d+ bytes after decompression, found more in \d+ bytes"),
    Bad("a gzip bomb, to predict", raw("b.libsvm.gz", BOMB), "predict rows.safetensors b.libsvm.gz",
        r"b\.libsvm\.gz: expected at most \d+ bytes after decompression, found more"),
    Bad("gzip cut off", raw("b.csv.gz", ZIPPED_TABLE[: len(ZIPPED_TABLE) // 2]), "train b.csv.gz",
        r"b\.csv\.gz: the gzip data .*(truncated|end too early)"),
    Bad("gzip cut off, to predict", raw("b.csv.gz", ZIPPED_TABLE[: len(ZIPPED_TABLE) // 2]),
        "predict table.safetensors b.csv.gz",
        r"b\.csv\.gz: the gzip data .*(truncated|end too early)"),
    Bad("gzip with a wrong checksum",
        raw("b.csv.gz", ZIPPED_TABLE[:-8] + b"abcd" + ZIPPED_TABLE[-4:]),
        "train b.csv.gz", r"b\.csv\.gz: the gzip data are damaged"),
    Bad("Parquet cut in half", cut("b.parquet", "good.parquet", 0.5), "train b.parquet",
        r"b\.parquet: not a Parquet file .*damaged or truncated"),
    Bad("Parquet cut in half, to predict", cut("b.parquet", "good.parquet", 0.5),
        "predict table.safetensors b.parquet",
        r"b\.parquet: not a Parquet file .*damaged or truncated"),
    Bad("Parquet with a list as target", table("b.parquet", [{"a": "x", "rating": [1, 2]}]),
        "train b.parquet", r"b\.parquet.*'rating': expected a number"),
    Bad("a table said to be Parquet", None, "train good.csv --format parquet",
        r"good\.csv: not a Parquet file"),
    Bad("a table said to be libsvm", None, "train good.csv --format libsvm",
        r"good\.csv line 1: expected a label and index:value entries .*found a comma"),
    Bad("a table said to be RecordIO", None, "train good.csv --format recordio",
        r"good\.csv: expected RecordIO-protobuf .*found text"),
    Bad("Parquet said to be CSV", None, "predict table.safetensors good.parquet --format csv",
        r"good\.parquet: expected delimited text, found a Parquet file"),
    Bad("a format that is none", None, "train good.csv --format xls",
        r"--format: invalid choice: 'xls' \(choose from '?libsvm"),
    Bad("a picture to learn from", raw("b.png", b"\x89PNG\r\n\x1a\n" + bytes(99)), "train b.png",
        r"b\.png: expected delimited text, found the bytes 89 50 4e 47"),
    Bad("a table for a model of numbered features", None, "predict rows.safetensors good.csv",
        r"good\.csv: expected libsvm.* because rows\.safetensors .* found a table \(csv\)"),
    Bad("the same, to measure", None, "evaluate rows.safetensors good.csv",
        r"good\.csv: expected libsvm.* because rows\.safetensors .* found a table \(csv\)"),
    Bad("the same, to start from", None, "train good.csv --init rows.safetensors",
        r"good\.csv: expected libsvm.* because rows\.safetensors .* found a table \(csv\)"),
    Bad("numbered features for a model of columns", None, "predict table.safetensors good.libsvm",
        r"expected a table with the columns user, film, age, .*found libsvm"),
    Bad("no such file", None, "train absent.csv", r"absent\.csv: no such file"),
    Bad("no such file, to predict", None, "predict table.safetensors absent.csv",
        r"absent\.csv: no such file"),
    Bad("a path through a file", None, "train good.csv/x.csv", r"good\.csv/x\.csv: no such file"),
    Bad("a link to itself", lambda: os.symlink("b.csv", "b.csv"), "train b.csv",
        r"b\.csv: no such file"),
    Bad("a directory without files", lambda: os.mkdir("b"), "train b",
        r"b: expected data files, found none"),
]  # fmt: skip

MODELS = [
    Bad("no such model", None, "predict absent good.csv",
        r"absent: no such file; expected a model"),
    Bad("a directory without a model", lambda: os.mkdir("b"), "predict b good.csv",
        r"b: expected one of model\.safetensors, .*found none"),
    Bad("a bit of the header's length", flipped("b", "table.safetensors", 7), "predict b good.csv",
        r"b: expected a safetensors file of fm, found something else or a damaged file \(.*header"),
    Bad("a bit of the header", flipped("b", "table.safetensors", 30), "predict b good.csv",
        r"b: expected a safetensors file of fm, found something else or a damaged file"),
    Bad("a bit of a weight", flipped("b", "rows.safetensors", -9), "predict b good.libsvm",
        r"b: (w|V|w0) was changed after the file was written \(its SHA-256 is not the noted one\)"),
    Bad("a bit of the encoder", flipped("b", "table.safetensors", -9), "evaluate b good.csv",
        r"b: \w+ was changed after the file was written"),
    Bad("a bit of the model to start from", flipped("b", "table.safetensors", -9),
        "train good.csv --init b", r"b: \w+ was changed after the file was written"),
    Bad("a model cut in half", cut("b", "table.safetensors", 0.5), "predict b good.csv",
        r"b: expected a safetensors file of fm, found .*damaged file \(.*incomplete"),
    Bad("an empty model", raw("b", b""), "predict b good.csv",
        r"b: expected a safetensors file of fm"),
    Bad("a header of a terabyte", raw("b", struct.pack("<Q", 1 << 40) + b"{}"),
        lambda: fm.load("b"),
        r"b: expected a safetensors file of fm, found .*header too large"),
    Bad("a pickle", raw("b", pickle.dumps({"w": [1.0]})), "predict b good.csv",
        r"b: expected a safetensors file of fm, found something else"),
    Bad("a picture", raw("b", b"\x89PNG\r\n\x1a\n" + bytes(99)), "convert b old.tar.gz",
        r"b: expected a safetensors file of fm, found something else"),
    Bad("a table", None, "predict good.csv good.csv",
        r"good\.csv: expected a safetensors file of fm, found something else"),
    Bad("a zip archive of other things", raw("b", zipped(readme="hello")), "predict b good.csv",
        r"b: expected meta\.json, symbol\.json and params in model_algo-1, found readme"),
    Bad("a path that leads out of the archive", archive("b.tar.gz", "../../evil", b"x"),
        "predict b.tar.gz good.csv",
        r"b\.tar\.gz: expected model_algo-1 .* in the archive, found evil"),
    Bad("a link in the archive", archive("b.tar.gz", "model_algo-1", b"", tarfile.SYMTYPE),
        "predict b.tar.gz good.csv", r"b\.tar\.gz: expected model_algo-1 .* in the archive, found"),
    Bad("a zip bomb in the archive",
        archive("b.tar.gz", "model_algo-1", ZIP_BOMB), "predict b.tar.gz good.csv",
        r"b\.tar\.gz: params unpacks to more than \d+ times its size"),
    Bad("an archive cut off", cut("b.tar.gz", "rows.tar.gz", 0.7),
        "convert b.tar.gz old.safetensors",
        r"b\.tar\.gz: expected an artefact of the built-in .*found a damaged"),
    Bad("an encoder that is none", text("b.json", "[1]"),
        "convert good.csv old.recordio --encoder b.json",
        r"expected an object with a list of columns"),
]  # fmt: skip

HYPERPARAMETERS = [
    Bad("an unknown option", None, "train good.csv --num-factor 3",
        r"unknown argument --num-factor; did you mean --num-factors\?"),
    Bad("an unknown hyperparameter", None, lambda: fm.TrainConfig.from_strings({"num_factor": "3"}),
        r"num_factor: unknown hyperparameter \(did you mean num_factors\?\)"),
    Bad("several at once", None,
        "train good.csv --num-factors 0 --factors-lr -1 --optimizer rmsprop",
        r"num_factors: expected an integer from 1 to 10,000, found '0'; optimizer: expected one of "
        r"sgd, .*found 'rmsprop'; factors_lr: expected a number >= 0, found '-1'$"),
    Bad("several at once, in Python", None, lambda: fm.TrainConfig(epochs="many", patience=-1),
        r"epochs: expected an integer >= 1, found 'many'; patience: expected .*>= 0, found -1"),
    Bad("a metric of the other task", None,
        "train good.csv --predictor-type regressor --metric auc",
        r"metric: expected auto, rmse, mae because predictor_type is regressor, found 'auc'"),
    Bad("half of a setting", None, "train good.csv --factors-init-method uniform",
        r"factors_init_scale: expected a number because .* is uniform, found nothing"),
    Bad("a count that is none", None, "train good.csv --hash-dim 0",
        r"--hash-dim: expected an integer >= 1, found '0'"),
    Bad("a long delimiter", None, "train good.csv --delimiter ab",
        r"delimiter: expected one ASCII character or '::', found 'ab'"),
    Bad("a checkpoint of other data", None, "train test.csv --checkpoint checkpoint --resume",
        r"checkpoint: .*written for other training data; delete the file or"),
    Bad("a checkpoint of other hyperparameters", None,
        "train good.csv --checkpoint checkpoint --resume --num-factors 3",
        r"checkpoint: .*other hyperparameters \(.*num_factors: 64 there, 3 here\); delete"),
    Bad("a checkpoint of other validation data", None,
        "train good.csv --checkpoint checkpoint --resume --validation test.csv",
        r"checkpoint: .*other validation data.*; delete"),
    Bad("a checkpoint cut off", cut("b", "checkpoint", 0.9),
        "train good.csv --checkpoint b --resume",
        r"b: damaged checkpoint \(.*\); delete the file"),
    Bad("a model as checkpoint", None, "train good.csv --checkpoint table.safetensors --resume",
        r"table\.safetensors: expected a checkpoint or no file, found another file"),
]  # fmt: skip

PLACES = [
    Bad("predictions over their input", None, "predict table.safetensors good.csv -o good.csv",
        r"--output: good\.csv is the file of the input; name another"),
    Bad("predictions over the model", None,
        "predict table.safetensors good.csv --output-format csv -o table.safetensors",
        r"--output: table\.safetensors is the file of the model; name another"),
    Bad("predictions over their input, by a link", lambda: os.symlink("good.csv", "b.csv"),
        "predict table.safetensors good.csv -o b.csv",
        r"--output: b\.csv is the file of the input"),
    Bad("a model over its data", None, "train good.csv -o good.csv",
        r"--output: good\.csv is the file of data; name another"),
    Bad("a model over the test data", None, "train good.csv --test test.csv -o test.csv",
        r"--output: test\.csv is the file of test; name another"),
    Bad("a checkpoint over the data", None, "train good.csv --checkpoint good.csv",
        r"--checkpoint: good\.csv is the file of data; name another"),
    Bad("a checkpoint over the model", None, "train good.csv --checkpoint b -o b",
        r"--checkpoint: b is the file of output; name another"),
    Bad("a conversion over its input", None, "convert good.csv good.csv",
        r"OUTPUT: good\.csv is the file of the input; name another"),
    Bad("an encoder over the rows", None, "convert good.csv b.libsvm --save-encoder b.libsvm",
        r"--save-encoder: b\.libsvm is the file of OUTPUT; name another"),
    Bad("predictions below a file", None, "predict table.safetensors good.csv -o good.csv/b.csv",
        r"--output: .*good\.csv is no directory that can be written to"),
    Bad("a model below a file", None, "train good.csv -o test.csv/b",
        r"--output: .*test\.csv is no directory that can be written to"),
    Bad("predictions in a format that is none", None, "predict table.safetensors good.csv -o b.xls",
        r"--output: cannot tell the format from 'b\.xls'; give --output-format"),
    Bad("a conversion to a format that is none", None, "convert good.csv b.xls",
        r"OUTPUT: cannot tell the format from 'b\.xls'; give --to"),
    Bad("predictions on a full disk", None,
        "predict table.safetensors good.csv --output-format csv -o /dev/full",
        r"/dev/full: No space left on device"),
]  # fmt: skip

PYTHON = [
    Bad("nothing that can be read", None, lambda: fm.read(3),
        r"expected a path, a frame .*found int"),
    Bad("columns of different lengths", None, lambda: fm.read({"a": [1, 2], "b": [1]}),
        r"expected the same number of values in each, found a: 2, b: 1"),
    Bad("a directory to read", None, lambda: fm.read("absent/"),
        r"absent: no such file or directory"),
    Bad("a matrix with a NaN", None, lambda: fm.read((np.array([[1, np.nan]]), [1.0])),
        r"data row 1, feature 1: the value nan is not a finite float32 number"),
    Bad("one target too many", None, lambda: fm.read((THREE, np.ones(4))),
        r"data: expected one target per row, shape \(3,\), found \(4,\)"),
    Bad("an index outside a sparse matrix", None,
        lambda: fm.read((_out_of_range(), np.ones(1))),
        r"data row 1: feature index 7 .*(outside|expected)"),
    Bad("nothing to learn", None, lambda: fm.fit(fm.read({"a": ["x", "y"]})),
        r"no target to train on; name its column with target="),
    Bad("label 2", None,
        lambda: fm.fit(fm.read((THREE, [0, 1, 2])), fm.TrainConfig("binary_classifier")),
        r"data row 3: label 2, but a binary classifier expects 0 or 1"),
    Bad("three classes", None, lambda: fm.FMClassifier().fit(THREE, ["a", "b", "c"]),
        r"Only binary classification is supported\. The type of the target is multiclass"),
    Bad("words as numbers", None, lambda: fm.FMRegressor().fit(THREE, ["a", "b", "c"]),
        r"data row 3: .* two labels, found 3 texts"),
    Bad("a negative weight", None,
        lambda: fm.FMRegressor(epochs=1).fit(THREE, [1, 2, 3], sample_weight=[1, -1, 1]),
        r"row 2: weight -1 is negative; expected a number >= 0"),
    Bad("a wrong hyperparameter", None, lambda: fm.FMRegressor(epochs="x").fit(THREE, [1, 2, 3]),
        r"epochs: expected an integer >= 1, found 'x'"),
    Bad("a feature beyond the model", None, lambda: model().score_row([8]),
        r"row: feature 8 is outside \[0, 8\)"),
    Bad("feature -1", None, lambda: model().score_row([-1]),
        r"row: feature -1 is outside \[0, 8\)"),
    Bad("feature 2^63", None, lambda: model().score_row([2**63]),
        r"row: feature 9223372036854775808 is outside \[0, 8\)"),
    Bad("a value NaN", None, lambda: model().score_row([1], [np.nan]),
        r"row 1, feature 1: the value nan is not a finite"),
    Bad("a wide matrix", None, lambda: model().predict(np.ones((2, 99))),
        r"data: expected 8 columns, one for each feature of the model, found 99"),
    Bad("a column unknown to the model", None,
        lambda: fm.load("table.safetensors").predict([{"usr": "u1"}]),
        r"row 1: there is no column 'usr'; the columns are user, film, age; did you mean 'user'\?"),
    Bad("a word for a number", None, lambda: fm.load("table.safetensors").predict([{"age": "x"}]),
        r"row 1, column 'age': expected a .*number.*, found 'x'"),
    Bad("probabilities of a regressor", None,
        lambda: fm.load("table.safetensors").probabilities("good.csv"),
        r"probabilities: the model is a regressor and has none"),
]  # fmt: skip

TABLE = [*ROWS_OF_FEATURES, *TABLES, *FILES, *MODELS, *HYPERPARAMETERS, *PLACES, *PYTHON]


def _out_of_range():
    """Return a matrix of 3 columns with an entry in column 7, which scipy does not notice."""
    X = sp.csr_matrix((np.ones(1, np.float32), [0], [0, 1]), shape=(1, 3))
    X.indices[0] = 7
    return X


# -- the desk, and how each line is tried ----------------------------------------------------------


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with good data, models trained on them, a checkpoint, and outputs of yesterday."""
    folder, rng = tmp_path_factory.mktemp("desk"), np.random.default_rng(5)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, count in (("good.csv", 60), ("test.csv", 20)):
            cells(name, *(f"u{u},f{f},{20.5 + u},{1 + (u + f) % 5}"
                          for u, f in rng.integers(9, size=(count, 2))))()  # fmt: skip
        rows = [f"{i % 2} {1 + i % 4}:1 {6 + i % 3}:0.5" for i in range(30)]
        Path("good.libsvm").write_text("\n".join(rows))
        columns = "--numeric age --categorical user,film"
        for command in (
            "convert good.csv good.parquet",
            f"train good.csv {columns} -o table.safetensors",
            "train good.csv --checkpoint checkpoint -o table2.safetensors",
            "train good.libsvm -o labels.safetensors",
            "train good.libsvm --predictor-type regressor -o rows.safetensors",
            "convert rows.safetensors rows.tar.gz",
        ):
            quiet = ["--quiet", "--epochs", "2"] if command.startswith("train") else []
            assert fm.cli.main.main([*command.split(), *quiet]) == 0
        for name in ("old.csv", "old.safetensors", "old.recordio", "old.tar.gz"):
            Path(name).write_text("yesterday")
    return folder


@pytest.fixture
def desk(template, tmp_path, monkeypatch):
    monkeypatch.setattr("fm.formats.files.FREE_EXPANSION", 1 << 20)
    folder = tmp_path / "desk"
    shutil.copytree(template, folder)
    monkeypatch.chdir(folder)
    return folder


def contents(folder):
    """Return what is in a folder and below: name -> bytes, or what else it is."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else path.is_dir()
        for path in folder.rglob("*")
    }


def arguments(command):
    """Return the words of a command, with what keeps it short and an output of yesterday."""
    words = command.split()
    if words[0] == "train":
        words += ["--quiet", "--epochs", "2"]
    if words[0] in ("train", "predict") and "-o" not in words:
        words += ["-o", "old.safetensors" if words[0] == "train" else "old.csv"]
    return words


def run(words):
    try:
        return fm.cli.main.main(words)
    except SystemExit as end:  # argparse
        return end.code


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(bad, desk, capsys):
    if bad.make is not None:
        bad.make()
    before = contents(desk)
    if callable(bad.call):
        with pytest.raises(FMError) as caught:
            bad.call()
        error = str(caught.value)
    else:
        assert run(arguments(bad.call)) == EXIT_WRONG
        shown, said = capsys.readouterr()
        assert shown == ""
        *warnings, error = said.splitlines()
        assert all(line.startswith("fm: warning: ") for line in warnings)
        assert re.match(r"fm( train| predict)?: error: ", error)
    assert re.search(bad.message, error), error
    assert "\n" not in error and len(error) < 500
    assert contents(desk) == before
    assert not (desk.parent / "evil").exists()


def test_the_table_has_no_line_twice():
    assert len({bad.name for bad in ROWS_OF_FEATURES + TABLES + FILES}) > 60
    calls = [(bad.name, str(bad.call)) for bad in TABLE]
    assert len(set(calls)) == len(calls)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all files")
@pytest.mark.parametrize(
    "command", ["train b.csv", "predict table.safetensors b.csv", "predict b.csv b.csv"]
)
def test_a_file_that_may_not_be_read(desk, capsys, command):
    shutil.copy("good.csv", "b.csv")
    os.chmod("b.csv", 0)
    assert run(arguments(command)) == EXIT_WRONG
    assert re.search(r"b\.csv: .*(Permission denied)", capsys.readouterr().err)
    assert Path("old.csv").read_text() == Path("old.safetensors").read_text() == "yesterday"


@pytest.mark.parametrize(
    "command",
    [
        "train good.csv -o old.safetensors",
        "predict table.safetensors good.csv -o old.csv",
        "predict table.safetensors good.csv -o b.parquet",
        "convert rows.safetensors old.tar.gz",
        "convert rows.tar.gz old.safetensors",
        "convert good.csv old.recordio --target rating --save-encoder b.json",
    ],
)
def test_a_full_disk_leaves_the_old_output(desk, monkeypatch, capsys, command):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = contents(desk)
    monkeypatch.setattr("os.fsync", full)
    assert run(arguments(command)) == EXIT_WRONG
    shown, said = capsys.readouterr()
    assert shown == ""
    name = command.split()[-1] if "--save" not in command else "old.recordio"
    assert re.search(rf"^fm: error: {name}: No space left on device$", said.splitlines()[-1])
    assert contents(desk) == before
