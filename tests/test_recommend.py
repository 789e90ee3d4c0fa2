"""The command line that recommends: lists are those of brute force, however they are asked for."""

import io
import json
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fm.cli.lists
import fm.cli.main
import fm.cli.recommend
import fm.recommending.recommender
from fm.cli.lists import Items, write_text
from fm.config import TrainConfig
from fm.errors import DataError
from fm.model.load import load
from fm.model.model import Model
from fm.reading.read import read
from fm.tasks import CLASSIFIER, RANKER, REGRESSOR

FILMS = ["Alien", "Brazil", "Casablanca", "Dune", "Eraserhead", "Fargo", "Gilda"]
KINDS = ["horror", "satire", "drama", "epic", "horror", "satire", "drama"]
GENRES = dict(zip(FILMS, KINDS, strict=True))
USERS = ["ann", "bob", "eve", "joe"]
SEEN = {"ann": "ABC", "bob": "BCDE", "eve": "EFGA", "joe": "ABCDEF"}
FULL = {film[0]: film for film in FILMS}


def table():
    rows = [(user, FULL[letter]) for user, letters in SEEN.items() for letter in letters]
    hours = ["day" if i % 3 else "night" for i in range(len(rows))]
    return {
        "user": [user for user, _ in rows],
        "hour": hours,
        "film": [film for _, film in rows],
        "genre": [GENRES[film] for _, film in rows],
        "rating": [i % 2 for i in range(len(rows))],
    }


def model_of(task):
    data = read(table(), categorical=["user", "hour", "film", "genre"], item_columns="genre")
    rng = np.random.default_rng(5)
    return Model(
        0.5,
        rng.normal(size=data.num_features),
        rng.normal(size=(data.num_features, 3)),
        TrainConfig(task, 3),
        encoder=data.encoder,
        fields=data.fields,
        field_names=data.field_names,
        metrics={"mse": 0.5},
        catalogue=data.catalogue,
    )


def best(model, context, k=10, left_out=(), films=FILMS):
    """Score every item and sort: the slow twin of it all. Returns films and scores."""
    films = [film for film in films if film not in left_out]
    rows = [{**context, "film": film, "genre": GENRES[film]} for film in films]
    scores = model.scores(rows)
    order = np.argsort(-scores, kind="stable")[:k]
    return [films[i] for i in order], scores[order]


def met(user):
    return [FULL[letter] for letter in SEEN[user]]


@pytest.fixture(params=[REGRESSOR, CLASSIFIER])
def task(request):
    return request.param


@pytest.fixture
def folder(tmp_path, monkeypatch, task):
    """A folder with a model m, where the command is run."""
    monkeypatch.chdir(tmp_path)
    model_of(task).save("m")
    return tmp_path


regressor = pytest.mark.parametrize("task", [REGRESSOR], indirect=True)


def start(*argv):
    try:
        return fm.cli.main.main(["recommend", "m", *map(str, argv)])
    except SystemExit as err:  # argparse
        return err.code


@pytest.fixture
def lists(capsys):
    """Run the command and return its rows as dicts."""

    def run(*argv):
        capsys.readouterr()
        assert start(*argv, "--output-format", "jsonl") == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


@pytest.fixture
def fails(capsys):
    """Check that a command ends with exit code 2 and one line that matches."""

    def check(message, *argv):
        capsys.readouterr()
        assert start(*argv) == 2
        out, err = capsys.readouterr()
        assert not out and err.count("\n") == 1, err
        assert re.search(message, err), err

    return check


def films_of(rows):
    return [row["item"] for row in rows]


# -- for whom --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["o.csv", "o.tsv", "o.jsonl", "o.parquet", "o.csv.gz"])
def test_files_equal_brute_force(folder, task, capsys, name):
    import gzip

    assert start("--user", "eve,ann", "-k", 2, "-o", name) == 0
    assert capsys.readouterr() == ("", "")
    content = (folder / name).read_bytes()
    if name.endswith("parquet"):
        found = pa.parquet.read_table(name).to_pylist()
    elif name.endswith("jsonl"):
        found = [json.loads(line) for line in content.splitlines()]
    else:
        content = gzip.decompress(content) if name.endswith("gz") else content
        options = pa.csv.ParseOptions(delimiter="\t" if "tsv" in name else ",")
        found = pa.csv.read_csv(io.BytesIO(content), parse_options=options).to_pylist()
    kinds = ["score", "probability"] if task == CLASSIFIER else ["score"]
    assert list(found[0]) == ["user", "rank", "item", *kinds]
    wanted = [best(model_of(task), {"user": u}, 2, met(u)) for u in ("eve", "ann")]
    assert [(row["user"], row["rank"]) for row in found] == [
        ("eve", 1), ("eve", 2), ("ann", 1), ("ann", 2),
    ]  # fmt: skip
    assert films_of(found) == wanted[0][0] + wanted[1][0]
    scores = np.concatenate([wanted[0][1], wanted[1][1]]).astype(np.float64)
    np.testing.assert_allclose([row["score"] for row in found], scores, rtol=1e-4)
    if task == CLASSIFIER:
        expected = 1 / (1 + np.exp(-scores))
        np.testing.assert_allclose([row["probability"] for row in found], expected, rtol=1e-4)


def test_the_table(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = read({"user": [1, 1, 2], "film": ["A", "B", "B"], "rating": [1, 2, 3]})
    factors = [[0], [1], [-1], [0], [0], [1]]
    Model(2, [0, 0, 1, 0, 3, 1], factors, TrainConfig(num_factors=1), encoder=data.encoder,
          fields=data.fields, field_names=data.field_names, catalogue=data.catalogue
          ).save("m")  # fmt: skip
    (tmp_path / "t.csv").write_text("film,title\nA,The\x1b[1m Alien\nB,\n")
    argv = ["--user", "2,1", "--include-seen", "--titles", "t.csv", "--why"]
    assert start(*argv) == 0
    assert capsys.readouterr().out == (
        "user 2\n"
        "rank   score  item  title\n"
        "   1  6.0000  B\n"
        "      +3 film\n"
        "   2  3.0000  A     The [1m Alien\n"
        "      +1 film, -1 user=2 x film\n"
        "\n"
        "user 1\n"
        "rank   score  item  title\n"
        "   1  5.0000  B\n"
        "      +3 film\n"
        "   2  4.0000  A     The [1m Alien\n"
        "      +1 film, +1 user=1 x film\n"
    )


@regressor
def test_contexts(folder, lists, monkeypatch):
    model = load("m")
    found = lists("--context", '{"user": "bob", "hour": "night"}')
    assert list(found[0]) == ["user", "hour", "rank", "item", "score"]
    assert films_of(found) == best(model, {"user": "bob", "hour": "night"}, 9, met("bob"))[0]
    contexts = [{"hour": "day"}, {"user": "ann", "hour": "night"}, {"user": "eve"}]
    found = lists("--context", json.dumps(contexts), "--include-seen", "-k", 3)
    assert list(found[0]) == ["row", "hour", "user", "rank", "item", "score"]
    for row, context in enumerate(contexts, 1):
        mine = [line for line in found if line["row"] == row]
        assert films_of(mine) == best(model, context, 3)[0]
        assert all(line["user"] == context.get("user") for line in mine)


@regressor
def test_contexts_in_a_file(folder, lists, monkeypatch):
    model = load("m")
    monkeypatch.setattr(
        fm.recommending.recommender, "CONTEXTS_AT_ONCE", 2
    )  # three rows are two blocks
    text = "user,shoe,hour\nann,41,day\neve,42,night\nbob,,\n"
    (folder / "x.csv").write_text(text)
    found = lists("--input", "x.csv", "-k", 2)
    assert list(found[0]) == ["row", "user", "hour", "rank", "item", "score"]
    assert [line["row"] for line in found] == [1, 1, 2, 2, 3, 3]
    wanted = [
        best(model, {"user": user, "hour": hour}, 2, met(user))[0]
        for user, hour in (("ann", "day"), ("eve", "night"), ("bob", ""))
    ]
    assert films_of(found) == sum(wanted, [])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert lists("--input", "-", "-k", 2) == found
    (folder / "y.csv").write_text("ann\neve\n")
    found = lists("--input", "y.csv", "--names", "user", "-k", 2)
    assert films_of(found) == sum(
        (best(model, {"user": u}, 2, met(u))[0] for u in ("ann", "eve")), []
    )


def test_all_users_block_by_block(folder, lists, monkeypatch):
    together = lists("--all", "-k", 3)
    assert sorted({row["user"] for row in together}) == USERS
    monkeypatch.setattr(fm.recommending.recommender, "ITEMS_AT_ONCE", 9)  # three lists of three
    original, sizes = fm.recommending.recommender.Recommender.recommend, []

    def recommend(self, X, *args, **options):
        sizes.append(X.shape[0])
        return original(self, X, *args, **options)

    monkeypatch.setattr(fm.recommending.recommender.Recommender, "recommend", recommend)
    again = lists("--all", "-k", 3)
    assert sizes == [3, 1]
    for user in USERS:
        mine, mine_again = (
            [row for row in rows if row["user"] == user] for rows in (together, again)
        )
        assert films_of(mine) == best(load("m"), {"user": user}, 3, met(user))[0]
        assert films_of(mine) == films_of(mine_again) == films_of(lists("--user", user, "-k", 3))
    assert start("--all", "-o", "a.parquet") == 0
    assert pa.parquet.read_table("a.parquet").num_rows == sum(7 - len(s) for s in SEEN.values())


@regressor
def test_progress_on_a_terminal(folder, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    assert start("--all", "-o", "o.csv") == 0
    assert "recommending" in sys.stderr.getvalue() and "100%" in sys.stderr.getvalue()


def test_strangers_and_empty_lists_are_named(folder, task, capsys):
    assert start("--user", "zoe,ann,max", "-k", 1, "-o", "o.csv") == 0
    assert capsys.readouterr().err == (
        "fm: warning: users not in the training data: zoe, max; they get the lists of an "
        "unknown user\n"
    )
    (folder / "c").write_text("Alien\n")
    for name in (["-o", "o.csv"], ["-o", "o.parquet"], []):
        assert start("--user", "ann,joe", "--candidates", "c", "--why", *name) == 0
        out, err = capsys.readouterr()
        assert (out, err) == ("", "fm: warning: no item is left to recommend to user ann, joe\n")
    found = (folder / "o.csv").read_text()
    assert found.startswith('"user","rank","item",') and found.count("\n") == 1


# -- somebody new ----------------------------------------------------------------------------------


def test_ratings_of_somebody_new(folder, task, lists):
    model = load("m")
    ratings = {"Alien": 1, "Gilda": 0}
    wanted = model.recommend({}, 4, ratings=ratings)
    found = lists("--ratings", json.dumps(ratings), "-k", 4)
    assert list(found[0])[:2] == ["rank", "item"]
    assert films_of(found) == wanted.ids and "Alien" not in films_of(found)
    (folder / "r.csv").write_text("film,stars\nGilda,0\nAlien,0\nAlien,1\n")  # the last one counts
    (folder / "r2.tsv").write_text("1\tAlien\n0\tGilda\n")
    assert lists("--rated", "r.csv", "-k", 4) == found
    (folder / "r2.csv").write_text("rating,when,film\n1,x,Alien\n0,y,Gilda\n")
    assert lists("--rated", "r2.csv", "-k", 4) == found
    everything = lists("--ratings", json.dumps(ratings), "--include-seen")
    assert sorted(films_of(everything)) == FILMS
    context = {"hour": "night"}
    wanted = model.recommend(context, 4, ratings=ratings)
    found = lists("--ratings", json.dumps(ratings), "-k", 4, "--context", json.dumps(context))
    assert films_of(found) == wanted.ids


@pytest.mark.parametrize("task", [CLASSIFIER, RANKER], indirect=True)
def test_likes_of_somebody_new(folder, lists):
    wanted = load("m").recommend({}, 3, liked=["Alien", "Dune"]).ids
    assert films_of(lists("--liked", "Alien, Dune", "-k", 3)) == wanted
    assert films_of(lists("--liked", '["Alien", "Dune"]', "-k", 3)) == wanted


# -- which items -----------------------------------------------------------------------------------


@regressor
def test_exclude_and_candidates(folder, lists):
    model = load("m")
    (folder / "c.txt").write_text("Gilda\n\n Dune \nAlien\nFargo\n")
    found = lists("--user", "ann", "--candidates", "c.txt")
    assert (
        films_of(found)
        == best(model, {"user": "ann"}, 9, met("ann"), ["Dune", "Fargo", "Gilda"])[0]
    )
    found = lists("--user", "ann", "--candidates", "c.txt", "--exclude", "Dune", "--include-seen")
    assert films_of(found) == best(model, {"user": "ann"}, 9, (), ["Alien", "Fargo", "Gilda"])[0]
    found = lists("--user", "ann", "--exclude", "Dune", "--exclude", "Fargo")
    assert films_of(found) == best(model, {"user": "ann"}, 9, [*met("ann"), "Dune", "Fargo"])[0]


@regressor
def test_titles(folder, lists, fails):
    lines = [f"{film},{film} (19{i}0)" for i, film in enumerate(FILMS[:-1])]
    (folder / "t.csv").write_text("film,Title\n" + "\n".join(lines) + "\n")
    found = lists("--user", "ann", "--titles", "t.csv")
    assert list(found[0]) == ["user", "rank", "item", "title", "score"]
    assert {row["item"]: row["title"] for row in found} == {
        film: None if film == "Gilda" else f"{film} (19{FILMS.index(film)}0)" for film in FILMS[3:]
    }
    plain = lists("--user", "ann", "--exclude", "Dune")
    assert films_of(lists("--user", "ann", "--titles", "t.csv", "--exclude", "Dune (1930)")) == (
        films_of(plain)
    )
    rated = lists("--ratings", '{"Alien (1900)": 1, "Dune": 0}', "--titles", "t.csv")
    assert films_of(rated) == films_of(lists("--ratings", '{"Alien": 1, "Dune": 0}'))
    fails("film: expected the id or title of an item, found 'Alie'; did you mean 'Alien .1900.'",
          "--titles", "t.csv", "--similar-to", "Alie")  # fmt: skip
    (folder / "u.item").write_text("1|x|Alien|9\n2|y|Dune|9\n")  # no header, as MovieLens has it
    found = lists("--similar-to", "y", "--titles", "u.item", "--id", 2, "--title", 1)
    assert {row["item"]: row["title"] for row in found if row["title"]} == {"Alien": "x"}
    fails("expected ids of the model's items in column 0, found none; .* --id", "--user", "ann",
          "--titles", "u.item")  # fmt: skip
    fails("--title: expected one of film, Title, found 'name'", "--user", "ann", "--titles",
          "t.csv", "--title", "name")  # fmt: skip


@regressor
def test_a_table_of_items(folder, lists):
    model = load("m")
    (folder / "i.csv").write_text(
        "film,genre,name\nAlien,horror,A\nDune,epic,D\nnew,satire,The New\nGilda,drama,\n"
    )
    found = lists("--user", "bob", "--items", "i.csv", "--why")
    rows = {"Alien": "horror", "new": "satire", "Gilda": "drama"}  # bob has met Dune
    scores = {
        film: model.scores([{"user": "bob", "film": film, "genre": genre}])[0]
        for film, genre in rows.items()
    }
    assert films_of(found) == sorted(rows, key=lambda film: -scores[film])
    assert {row["item"]: row["title"] for row in found} == {
        "Alien": "A", "new": "The New", "Gilda": None,
    }  # fmt: skip
    (why,) = (row["why"] for row in found if row["item"] == "new")
    assert "film=<unknown>" in why or "genre=satire" in why


def test_titles_that_two_items_share():
    items = Items(["1", "2", "3", "Emma"], {"1": "Emma", "2": "Big", "3": "Big", "9": "x"}, "film")
    assert items.id_of("Emma") == "Emma"  # an id goes before a title
    with pytest.raises(DataError, match=r"found 2 called 'Big'; name it by its id \(2, 3\)"):
        items.id_of("Big")
    with pytest.raises(DataError, match="found 'x'"):
        items.id_of("x")
    assert Items(["1"], {}, "film").id_of("y") == "y"  # is for the catalogue to refuse


# -- why, what is alike, vectors -------------------------------------------------------------------


@pytest.mark.parametrize("new", [False, True])
def test_reasons_are_the_largest_terms_of_the_item(folder, task, lists, new):
    from fm.recommending.extending import with_feature
    from fm.recommending.folding import fold_ratings

    model, context = load("m"), {"user": "(new)" if new else "ann", "hour": "day"}
    if new:
        rows = lists("--ratings", '{"Brazil": 1}', "--context", '{"hour": "day"}', "--why")
        folded, _ = fold_ratings(model, model.catalogue, {"hour": "day"}, {"Brazil": 1})
        model = with_feature(model, folded, "(new)")
    else:
        rows = lists("--context", json.dumps(context), "--why")
    assert len(rows) == 7 - (1 if new else 3)
    for row in rows:
        film = row["item"]
        found = model.explain({**context, "film": film, "genre": GENRES[film]})
        terms = [*found.linear, *((f"{a} x {b}", value) for a, b, value in found.pairs)]
        terms = [(name.replace(f"film={film}", "film"), value) for name, value in terms]
        terms = [term for term in terms if "film" in term[0] or "genre" in term[0]]
        terms.sort(key=lambda term: -term[1])
        assert len(terms) == 2 + 5
        assert row["why"] == ", ".join(f"{value:+.2g} {name}" for name, value in terms[:3])


def test_reasons_are_of_the_score_that_is_listed(tmp_path, monkeypatch, lists):
    monkeypatch.chdir(tmp_path)
    ages = dict(zip(USERS, ("20", "30", "20", "40"), strict=True))
    rows = table()
    rows["age"] = [ages[user] for user in rows["user"]]
    columns = ["user", "hour", "film", "genre", "age"]
    data = read(rows, categorical=columns, item_columns="genre")
    assert data.catalogue.user_columns == ("age",)
    rng, n = np.random.default_rng(6), data.num_features
    Model(
        0.5, rng.normal(size=n), rng.normal(size=(n, 3)), TrainConfig(num_factors=3),
        encoder=data.encoder, fields=data.fields, field_names=data.field_names,
        catalogue=data.catalogue, metrics={"mse": 0.5},
    ).save("m")  # fmt: skip
    explained, totals = fm.cli.lists.explain, []

    def explain(model, row, **options):
        found = explained(model, row, **options)
        totals.append(found.score)
        return found

    monkeypatch.setattr(fm.cli.lists, "explain", explain)
    told = ("--ratings", '{"Brazil": 3}')
    for asked in (
        ("--user", "ann"),
        told,
        (*told, "--context", '{"hour": "day", "age": "30"}'),
        (*told, "--context", '{"user": "ann"}'),  # her age is known
    ):
        totals.clear()
        found = [row["score"] for row in lists(*asked, "--why")]
        np.testing.assert_allclose(totals, found, rtol=1e-5)


@regressor
def test_similar_items(folder, lists):
    wanted = load("m").similar_items("Alien", 3)
    found = lists("--similar-to", "Alien", "-k", 3)
    assert films_of(found) == wanted.ids
    np.testing.assert_allclose([row["similarity"] for row in found], wanted.scores, rtol=1e-6)
    assert list(found[0]) == ["rank", "item", "similarity"]


@regressor
def test_export(folder, capsys):
    assert start("--export", "vectors") == 0
    names = capsys.readouterr().out.split()
    assert len(names) == 4 and np.load(names[0]).shape == (7, 4)


# -- models of numbered features -------------------------------------------------------------------


@regressor
def test_features_without_names(folder, lists, fails, rng):
    rows = [f"1 {u}:1 {i}:1" for u, i in ((0, 3), (0, 4), (1, 5), (2, 3))]
    (folder / "t.libsvm").write_text("\n".join(rows) + "\n")
    data = read("t.libsvm", zero_based=True, user="0:3", item="3:6")
    model = Model(0, rng.normal(size=6), rng.normal(size=(6, 2)), TrainConfig(num_factors=2),
                  catalogue=data.catalogue, zero_based=True, metrics={"mse": 1.0})  # fmt: skip
    model.save("m")
    found = lists("--user", "0")
    assert [(row["user"], row["item"]) for row in found] == [("0", "5")]
    assert {row["user"]: row["item"] for row in lists("--all", "-k", 1)}["0"] == "5"
    by_row = lists("--input", "t.libsvm", "--zero-based")
    assert [(row["row"], row["item"]) for row in by_row][:2] == [(1, "5"), (2, "5")]
    assert len(lists("--ratings", '{"3": 2}')) == 2
    fails("no encoder for named columns", "--context", '{"user": 0}')
    fails("cannot name somebody new", "--ratings", '{"3": 2}', "--why")
    fails("expected libsvm.*found a table", "--input", "t.libsvm", "--format", "csv")
    fails("cannot describe them", "--user", "0", "--items", "t.libsvm")


@regressor
def test_movielens(folder, shared_data, lists, rng):
    """MovieLens 100K: titles from a table without a header, and everybody's lists in a file."""
    source = shared_data / "ml-100k"
    data = read(source / "ua.base.gz", header=["user", "item", "rating", "time"], ignore=["time"])
    Model(3.5, rng.normal(size=data.num_features), rng.normal(size=(data.num_features, 4)),
          TrainConfig(num_factors=4), encoder=data.encoder, fields=data.fields,
          field_names=data.field_names, catalogue=data.catalogue).save("m")  # fmt: skip
    titles = ["--titles", source / "u.item.gz"]
    by_title = lists("--similar-to", "Alien (1979)", *titles)
    assert films_of(by_title) == films_of(lists("--similar-to", "183"))
    assert start("--all", "-o", "all.parquet", *titles) == 0
    found = pa.parquet.read_table("all.parquet").to_pydict()
    pairs = set(zip(found["user"], found["item"], strict=True))
    assert len(pairs) == len(found["user"]) == 943 * 10 and all(found["title"])
    users, items = data.catalogue.seen.nonzero()
    ids = load("m").recommender.user_ids[:], data.catalogue.item_ids[:]
    assert not pairs & {(ids[0][u], ids[1][i]) for u, i in zip(users, items, strict=True)}


# -- complaints ------------------------------------------------------------------------------------


@regressor
def test_complaints(folder, fails):
    fails("expected an option that says for whom; give --user")
    fails("--user, --all: expected one of them, found 2", "--user", "ann", "--all")
    fails("--ratings, --liked: expected one of them", "--ratings", "{}", "--liked", "Alien")
    fails("--rated: is for somebody new; leave out --all", "--rated", "x", "--all")
    fails("argument -k: expected an integer >= 1, found '0'", "--user", "ann", "-k", 0)
    fails("film: expected one of the 7 items of the model, found 'Alie'; did you mean 'Alien'",
          "--user", "ann", "--exclude", "Alie")  # fmt: skip
    fails("found 'Nosferatu'", "--similar-to", "Nosferatu")
    fails("found 'Nosferatu'", "--ratings", '{"Nosferatu": 1}')
    fails("--why: has no effect with --similar-to; leave it out", "--similar-to", "Dune", "--why")
    fails("--output: has no effect with --export", "--export", "v", "-o", "x.csv")
    fails("--title, --id: name columns of --items or --titles", "--user", "ann", "--id", "film")
    fails("say how --input is read, which is not given", "--user", "ann", "--names", "a")
    (folder / "x.csv").write_text("user,b\nann,2\n")
    fails("--zero-based: does not apply to a table", "--input", "x.csv", "--zero-based")
    fails("cannot tell the format from 'o.xls'; give --output-format", "--all", "-o", "o.xls")
    fails("--output: m is the file of the model", "--all", "-o", "m", "--output-format", "csv")
    fails("--context: expected JSON, an object .*found '{'", "--context", "{")
    fails("--context: expected an object .*found '3'", "--context", "3")
    fails("--context: expected an object .*found '..'", "--context", "[]")
    fails("there is no column 'usr'.*did you mean 'user'", "--context", '{"usr": 1}')
    fails(
        "--context: expected one object for one person", "--ratings", "{}", "--context", "[{},{}]"
    )
    fails("--ratings: expected one object for one person", "--ratings", "[{},{}]")
    fails(
        "ratings: expected a finite number for item 'Dune', found 'x'", "--ratings", '{"Dune": "x"}'
    )
    fails("liked: the model predicts ratings", "--liked", "Dune")
    fails("argument --liked: expected a list of items, found '.1.5.'", "--liked", "[1.5]")
    fails("argument --liked: expected names", "--liked", "")
    fails("nowhere: ", "--user", "ann", "--candidates", "nowhere")
    fails("nowhere: ", "--user", "ann", "--titles", "nowhere")
    fails("nowhere: ", "--input", "nowhere")
    (folder / "empty").write_text("\n")
    fails("empty: expected an item in each line, found none", "--all", "--candidates", "empty")
    (folder / "r.csv").write_text("film,rating\nDune,3\nAlien,\n")
    fails("r.csv: expected an item in column film and its rating in column rating, found 'Alien' "
          "and None", "--rated", "r.csv")  # fmt: skip
    (folder / "x.csv").write_text("a,b\n1,2\n")
    fails("expected some of the columns user, hour, found only a, b", "--input", "x.csv")
    (folder / "i.csv").write_text("film,style\nDune,1\n")
    fails("genre", "--user", "ann", "--items", "i.csv")


@regressor
def test_models_that_cannot_recommend(folder, fails):
    import dataclasses

    model = load("m")
    dataclasses.replace(model, catalogue=None).save("m")
    fails("m: the model does not know which of its features are items; say it with --item-column",
          "--user", "ann")  # fmt: skip
    fails("--user-column: expected --item-column too", "--user", "ann", "--user-column", "user")
    fails(r"item: expected one of the columns \(user, hour, film, genre\), found 'song'",
          "--user", "ann", "--item-column", "song")  # fmt: skip
    assert start("--user", "ann", "--item-column", "film", "--user-column", "user") == 0
    dataclasses.replace(model).save("m")
    fails("--item-column, --user-column: m knows its items .film.; leave them out",
          "--user", "ann", "--item-column", "film")  # fmt: skip
    nobody = dataclasses.replace(
        model.catalogue, user="", user_keys=np.zeros(0, np.int32), seen=None, users=None
    )
    dataclasses.replace(model, catalogue=nobody).save("m")
    fails("--all: the model does not know its users; train it with --user", "--all")
    fails("does not know which column is the user", "--user", "ann")
    fails("does not know which column is the user", "--ratings", "{}")


def test_it_never_loads_numba(folder):
    code = (
        "import sys; sys.argv[0] = 'x'\nimport runpy\n"
        "try:\n runpy.run_module('fm.recommend', run_name='__main__')\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert 'numba' not in sys.modules and 'sklearn' not in sys.modules"
    )
    argv = [sys.executable, "-c", code, "m", "--ratings", '{"Dune": 1}', "--why"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("rank")


def test_help_teaches_by_examples(capsys):
    assert fm.cli.main.main(["--help"]) == 0
    assert "\n  recommend " in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        fm.cli.main.main(["recommend", "--help"])
    assert "fm recommend model/ --user 42" in capsys.readouterr().out


@given(
    titles=st.lists(st.text(max_size=80), min_size=1, max_size=4),
    score=st.floats(-1e6, 1e6, width=32),
)
@settings(max_examples=50, deadline=None)
def test_any_title_is_one_line(titles, score):
    ids = [str(i) for i in range(len(titles))]
    items = Items(ids, dict(zip(ids, titles, strict=True)), "film")
    found = {
        "context": ids,
        "rank": range(1, len(ids) + 1),
        "item": ids,
        "score": [score] * len(ids),
    }
    labels = {"title": pa.array(["odd\nuser"] * len(ids))}  # a name that the list has, too
    table = items.table(labels, pa.table({name: pa.array(part) for name, part in found.items()}))
    assert table.column_names == ["context_title", "rank", "item", "title", "score"]
    file = io.BytesIO()
    write_text(file, iter([table, table]))
    lines = file.getvalue().decode().split("\n")
    assert len(lines) == 2 * (2 + len(ids)) + 2 and lines[-1] == ""
    assert lines[0] == "context_title odd user" and lines[2 + len(ids)] == ""
