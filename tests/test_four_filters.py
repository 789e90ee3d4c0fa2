"""The script that builds four kinds of recommender: on a small world in MovieLens' own format."""

import gzip
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import fm

ROOT = Path(__file__).parents[1]
PEOPLE, FILMS = 60, 60


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "scripts"))
    import four_filters

    return four_filters


@pytest.fixture(scope="module")
def folder(script, tmp_path_factory):
    """Women like musicals, men like westerns; half of the pairs are rated."""
    folder = tmp_path_factory.mktemp("ml-100k")
    rng = np.random.default_rng(5)
    film = np.argsort(rng.random((PEOPLE, FILMS)), axis=1)[:, : FILMS // 2].ravel()
    user = np.repeat(np.arange(PEOPLE), FILMS // 2)
    rating = np.where(user % 2 == film % 2, 5, 1) - rng.integers(0, 2, user.size) * (film % 2)
    lines = [
        f"{user[i] + 1}\t{film[i] + 1}\t{max(rating[i], 1)}\t{880000000 + i % 997}\n"
        for i in rng.permutation(user.size)
    ]
    (folder / "u.data").write_text("".join(lines))
    people = [f"{i + 1}|{20 + i % 40}|{'FM'[i % 2]}|writer|12345\n" for i in range(PEOPLE)]
    (folder / "u.user").write_text("".join(people))
    films = []
    for i in range(FILMS):
        flags = ["1" if name == ("Musical", "Western")[i % 2] else "0" for name in script.GENRES]
        date = "" if i == 7 else f"01-Jan-{1990 + i % 9}"
        films.append(f'{i + 1}|Café "{i + 1}" ({date[-4:]})|{date}||http://x|{"|".join(flags)}\n')
    with gzip.open(folder / "u.item.gz", "wt", encoding="latin-1") as file:
        file.write("".join(films))
    return folder


@pytest.fixture(scope="module")
def data(script, folder):
    return script.read_movielens(folder)


@pytest.fixture(scope="module")
def split(script, data):
    return script.split_rows(data.ratings, 0, "1")


@pytest.fixture(scope="module")
def table(script, data, split):
    return script.with_forms(data.ratings, split, 0)


@pytest.fixture(scope="module")
def shown(script, folder):
    with pytest.MonkeyPatch.context() as patch:
        parts = []
        patch.setattr("sys.stdout.write", parts.append)
        script.main([str(folder), "--epochs", "8", "--user", "2"])
    return "".join(parts)


def test_the_files_are_read_as_their_publisher_writes_them(data):
    assert data.films.num_rows == FILMS
    film = data.films.to_pylist()[7]
    assert film == {"film": "8", "title": 'Café "8" ()', "genres": "Western", "year": None}
    for row in data.ratings.to_pylist()[:50]:
        assert row["gender"] == "MF"[int(row["user"]) % 2]
        assert row["genres"] == ("Western", "Musical")[int(row["film"]) % 2]
        assert row["age"] == f"{(20 + (int(row['user']) - 1) % 40) // 10}0s"


def test_parts_are_disjoint_and_ask_what_they_are_called(data, split):
    user, film = (data.ratings[name].to_numpy() for name in ("user", "film"))
    told = np.concatenate([told for told, _ in split.new_people])
    parts = [split.train, split.known, split.last, split.new_films, told, split.strangers]
    together = np.concatenate(parts)
    assert len(together) == len(set(together.tolist())) <= data.ratings.num_rows
    people, films = set(user[split.train]), set(film[split.train])
    assert set(user[split.known]) <= people
    assert not set(user[split.strangers]) & people and not set(user[told]) & people
    assert not set(film[split.new_films]) & films and set(user[split.new_films]) <= people
    assert "1" in people
    assert sorted(user[split.last]) == sorted(people)
    time_of = data.ratings["time"].to_numpy()
    for row in split.last:
        mine = split.train[user[split.train] == user[row]]
        assert (time_of[mine] <= time_of[row]).all()


def test_forms_hold_the_genre_that_a_person_liked(table, split):
    wants, users = table["wants"].to_pylist(), table["user"].to_pylist()
    for row in [*split.train[:200].tolist(), *split.strangers.tolist()]:
        assert wants[row] == ("Western", "Musical")[int(users[row]) % 2]


def test_forms_know_nothing_of_what_is_tested(script, data, split, table):
    """Other ratings of the tested rows leave every form as it is."""
    y = data.ratings["rating"].to_numpy().copy()
    tested = np.concatenate([split.known, split.last, split.new_films, split.strangers])
    y[tested] = 6 - y[tested]
    at = data.ratings.column_names.index("rating")
    changed = script.with_forms(data.ratings.set_column(at, "rating", pa.array(y)), split, 0)
    assert changed["wants"] == table["wants"]


@pytest.mark.parametrize("task", ["regressor", "ranker"])
def test_an_id_that_is_not_told_adds_nothing(script, data, split, table, task):
    rows = table.take(pa.array(split.train))
    config = fm.TrainConfig(predictor_type=task, num_factors=4, epochs=2)
    for name, columns in script.KINDS.items():
        model, recommender = script.trained(columns, rows, config, data.films)
        assert recommender.catalogue.num_items == FILMS
        for column in script.IDS:
            features = model.feature_indices(column)
            assert bool(model.V[features].any()) == (column in columns), name
            assert bool(model.w[features].any()) <= (column in columns), name


def test_the_untold_id_had_no_part_in_training(script, data, split, table):
    """The same as a model of the kind's own columns, read without ids."""
    rows, columns = table.take(pa.array(split.train)), script.KINDS["knowledge-based"]
    config = fm.TrainConfig(num_factors=4, epochs=30, seed=1)
    model, _ = script.trained(columns, rows, config, data.films)
    plain = fm.fit(
        fm.read(
            rows.select([*columns, "rating"]), target="rating", multi=script.SETS,
            categorical=[name for name in columns if name not in script.SETS],
        ),
        config,
        progress=False,
    )  # fmt: skip
    names = plain.encoder.field_names
    errors = [
        script.rmse(model.predict(table.select(["user", "film", *names])), table["rating"]),
        script.rmse(plain.predict(table.select(names)), table["rating"]),
    ]
    assert errors[0] == pytest.approx(errors[1], rel=0.1)  # other initial values


def test_scores_after_ratings_are_those_of_a_model_with_that_person(script, data, split, table):
    from fm.recommending.extending import with_feature
    from fm.recommending.folding import fold_ratings

    rows = table.take(pa.array(split.train))
    config = fm.TrainConfig(num_factors=4, epochs=5)
    _, recommender = script.trained(script.KINDS["hybrid"], rows, config, data.films)
    model, person = recommender.model, {"gender": "F", "age": "20s"}
    ratings = {"1": 5.0, "2": 1.0, "3": 5.0}
    found = script.told_scores(recommender, person, ratings)
    folded, _ = fold_ratings(model, recommender.catalogue, recommender.contexts([person]), ratings)
    longer = with_feature(model, folded, "new")
    asked = [
        {"occupation": None, **person, "user": "new", **film} for film in data.films.to_pylist()
    ]
    for row in asked:
        del row["title"]
    np.testing.assert_allclose(found, longer.predict(asked), rtol=1e-4, atol=1e-5)


def test_ranks_are_places_in_the_list(script, table, split):
    films = table["film"].take(pa.array(split.last)).to_pylist()
    best = [["x"] * 3 + [film] if i % 2 else ["x"] for i, film in enumerate(films)]
    assert script.last_ranks(best, table, split).tolist() == [
        3 if i % 2 else 10 for i in range(len(films))
    ]
    users = table["user"].to_pylist()
    for row, met in zip(split.last, script.rated_besides(table, split), strict=True):
        assert table["film"][int(row)].as_py() not in met
        assert len(met) == users.count(users[row]) - 1


def test_averages_are_those_of_the_training_rows(script, table, split):
    line = script.averages(table, split)
    y, user, film = (table[name].to_numpy() for name in ("rating", "user", "film"))
    mean, train = y[split.train].mean(), split.train

    def damped(values):
        return sum(values) / (len(values) + script.DAMPING)

    of_film = {f: damped([y[i] - mean for i in train if film[i] == f]) for f in set(film)}
    of_user = {
        u: damped([y[i] - mean - of_film[film[i]] for i in train if user[i] == u])
        for u in set(user)
    }
    for part, found in ((split.known, line.known), (split.strangers, line.new_people)):
        scores = np.array([mean + of_film[film[i]] + of_user[user[i]] for i in part])
        assert found == pytest.approx(np.sqrt(np.mean((scores - y[part]) ** 2)))


def test_the_table_and_the_lists_are_shown(script, shown):
    for name in ("averages; most rated", *script.KINDS):
        assert f"\n{name:22}" in shown
        assert name in ("averages; most rated",) or f"training {name}: " in shown
    line = next(line for line in shown.splitlines() if line.startswith("knowledge-based    "))
    assert line.split()[3] == "-"  # nobody's own parameters, so nothing to learn from ratings
    known, lists = shown.partition("person 2 rated 30 films, among the best")[::2]
    assert known and lists.count('Café "') == 3 + 2 * script.TOP * len(script.KINDS)
    assert "wants Animation|Children|Musical" in lists


def test_people_are_told_apart_by_their_form_only_where_it_is_known(script, data, split, table):
    """On new people the form is worth something; ids alone know nothing of them."""
    options = script.parse(["folder", "--epochs", "20"])
    lines = {}
    for name in ("collaborative", "knowledge-based"):
        lines[name], _ = script.measured(name, table, data.films, split, options)
    ids, form = lines["collaborative"], lines["knowledge-based"]
    assert form.new_people < 0.8 * ids.new_people
    assert form.new_films < 0.8 * ids.new_films
    assert ids.told < 0.8 * ids.new_people  # ten ratings tell
    assert np.isnan(form.told)


def test_mistakes_are_said_in_a_line(script, folder, tmp_path):
    with pytest.raises(SystemExit, match="expected u.data, u.user and u.item .* found no u.data"):
        script.main([str(tmp_path)])
    with pytest.raises(SystemExit, match="--user: expected one of 60 people, found '61'"):
        script.main([str(folder), "--user", "61"])


def test_too_few_ratings_are_refused(script, data):
    with pytest.raises(SystemExit, match="more than 10 ratings, found too few"):
        script.split_rows(data.ratings.slice(0, 100), 0, "1")


def test_help_teaches(script, capsys):
    with pytest.raises(SystemExit) as ended:
        script.parse(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    for name in (*script.KINDS, "--ncf", "u.data", "python scripts/four_filters.py"):
        assert name in text


def test_ncf_is_compared_on_its_own_files(script, tmp_path, capsys, rng):
    lines = {"train.rating": [], "test.rating": [], "test.negative": []}
    for user in range(30):
        items = user % 2 + 2 * rng.permutation(60)[:9]
        lines["train.rating"] += [f"{user}\t{item}\t5\n" for item in items[:8]]
        lines["test.rating"].append(f"{user}\t{items[8]}\t5\t0\n")
        others = np.setdiff1d(np.arange(120), items)[:99]
        if user == 3:
            others[5] = items[8]  # the flaw
        lines["test.negative"].append("\t".join([f"({user},{items[8]})", *map(str, others)]) + "\n")
    for name, part in lines.items():
        (tmp_path / f"ml-1m.{name}").write_text("".join(part))
    figures = script.compare_with_ncf(tmp_path, factors=4, epochs=3, seed=0)
    shown = capsys.readouterr().out
    assert ((figures >= 0) & (figures <= 1)).all()
    rows = {line[:54].strip(): line[54:].split() for line in shown.splitlines() if line}
    assert rows["NeuMF, pretrained, 32 factors, as published"] == ["0.7260", "0.4450"]
    assert rows["fm, ranker, 4 factors"][:2] == [f"{figure:.4f}" for figure in figures[0]]
    assert "without the 1 people with flawed negatives" in shown


def test_movielens_itself(script, shared_data):
    data = script.read_movielens(shared_data / "ml-100k")
    assert (data.ratings.num_rows, data.films.num_rows) == (100_000, 1682)
    assert data.films["title"][0].as_py() == "Toy Story (1995)"
    assert data.films["genres"][0].as_py() == "Animation|Children|Comedy"
    split = script.split_rows(data.ratings, 0, "1")
    table = script.with_forms(data.ratings, split, 0)
    line = script.averages(table, split)
    options = script.parse(["folder", "--epochs", "10"])
    found, ranker = script.measured("collaborative", table, data.films, split, options)
    assert found.known < line.known and found.told < found.new_people
    assert len(ranker.recommend("1", 5).ids) == 5
