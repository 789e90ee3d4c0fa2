"""Training a ranker: what is learnt, held out, judged and refused; and the estimator for it."""

import dataclasses

import naive
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from test_kernels import OPTIMIZERS

import fm.training.interactions
from fm import Dataset, TrainConfig, fit, read
from fm.errors import ConfigError, DataError, DivergenceError, ModelFileError
from fm.estimators.ranker import FMRanker
from fm.evaluating.rankings import evaluate_ranking
from fm.kernels.negatives import alias_table, draw_negatives, known_pairs
from fm.reading.finding_items import catalogue_of
from fm.recipes import RANKING_LOSSES
from fm.tasks import RANKER
from fm.training.fit import fit_pass
from fm.training.interactions import interactions
from fm.training.judging import ListJudge, make_judge
from fm.training.solvers.negatives import Negatives, _first_state
from fm.training.solvers.solver import make_solver
from fm.training.split import split_rows

USERS, ITEMS, TASTES = 120, 40, 4


def table(rng, each=10, hours=False):
    """People who mostly meet the items of their taste."""
    rows = []
    for user in range(USERS):
        likely = np.where(np.arange(ITEMS) % TASTES == user % TASTES, 1.0, 0.04)
        for item in rng.choice(ITEMS, each, replace=False, p=likely / likely.sum()):
            rows.append((f"u{user}", f"i{item}", f"g{item % 3}", f"h{item % 5}"))
    columns = dict(zip(("user", "item", "genre", "hour"), zip(*rows, strict=True), strict=True))
    return {name: list(columns[name]) for name in ("user", "item", *(["genre", "hour"] * hours))}


def config(**more):
    return TrainConfig(**{"predictor_type": RANKER, "num_factors": 4, "epochs": 3, **more})


def numbered(rng, n=30, users=6, items=5, more=3, weight=None):
    """Rows of ragged contexts with values: users, further features, then items of two features."""
    u, i = rng.integers(0, users, n), rng.permutation(np.arange(n) % items)
    X = np.zeros((n, users + more + 2 * items), np.float32)
    X[np.arange(n), u] = 1
    X[:, users : users + more] = rng.normal(0, 1, (n, more)) * rng.integers(0, 2, (n, more))
    X[np.arange(n), users + more + i] = 1
    X[np.arange(n), users + more + items + i] = 0.5 + 0.1 * i
    data = Dataset.from_arrays(X, weight=weight)
    start = users + more
    catalogue = catalogue_of(data, user=f"0:{users}", item=f"{start}:{start + items}")
    side = catalogue.item_side.copy()
    side[start + items :] = True
    rows = [X[np.flatnonzero(i == j)[0]] * side for j in range(items)]
    sides = sp.csr_matrix(np.array(rows))
    catalogue = dataclasses.replace(catalogue, items=sides, item_side=side)
    return dataclasses.replace(data, catalogue=catalogue), u, i


# --- what is learnt -------------------------------------------------------------------------------
@pytest.mark.parametrize("loss", RANKING_LOSSES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_loss_and_optimizer_learns_tastes(loss, optimizer, rng):
    data = read(table(rng))
    settings = config(ranking_loss=loss, optimizer=optimizer, num_factors=8, epochs=60)
    model = fit(data, settings)
    assert model.metrics["hit_rate"] > 0.5  # 10 of 40 items, most of which are not of the taste
    assert model.metrics["ndcg"] > 0.25
    rows = {"user": ["u0"] * ITEMS, "item": [f"i{item}" for item in range(ITEMS)]}
    best = np.argsort(-model.predict(rows))[:6]
    assert (best % TASTES == 0).mean() >= 0.6
    assert np.array_equal(model.predict(rows), model.scores(rows))


def test_context_is_learnt(rng):
    """The item depends on the hour alone: it is one of 12, of which 10 are shown."""
    hours = rng.integers(0, 4, 1200)
    items = (hours * 10 + rng.integers(0, 12, 1200)) % 40
    frame = {"user": (np.arange(1200) % 300).tolist(), "hour": [f"h{h}" for h in hours],
             "item": [f"i{i}" for i in items]}  # fmt: skip
    found = {}
    for names in (("user", "item"), ("user", "hour", "item")):
        data = read({name: frame[name] for name in names})
        found[len(names)] = fit(
            data, config(num_factors=8, epochs=40, optimizer="adagrad")
        ).metrics["hit_rate"]
    assert found[3] > 0.75 > found[2] + 0.2


@pytest.mark.parametrize("weighted", [False, True])
def test_logistic_is_log_loss_of_rows_and_their_negatives(weighted, rng):
    weight = rng.uniform(0.2, 2, 30) if weighted else None
    data, _, _ = numbered(rng, weight=weight)
    settings = config(
        optimizer="sgd", num_negatives=3, epochs=2, lr_decay=0, factors_init_sigma=0.3, seed=5
    )
    epochs = []
    model = fit(data, settings, callbacks=[lambda e: epochs.append((e.rows.copy(), e.loss))])

    full, n, k = settings.resolved(), data.num_features, 4
    gen = np.random.default_rng([5, 0])
    start = np.concatenate([gen.standard_normal((n, k), np.float32) * np.float32(0.3)])
    seen = np.bincount(data.X.indices, minlength=n) > 0
    start[~seen] = 0
    theta = {
        "bias": np.array([np.log(1 / 3)]),
        "linear": np.zeros(n),
        "factors": start.astype(float),
    }
    s = naive.Settings(
        {part: getattr(full, f"{part}_lr") for part in naive.PARTS},
        {part: getattr(full, f"{part}_wd") for part in naive.PARTS},
    )
    factor = min(1, 2 / (np.square(data.X.data).sum() / 30))  # as for all sgd: see fm.training.fit
    s.lr = {part: lr * factor for part, lr in s.lr.items()}
    _, items = data.catalogue.rows_of_keys(data.X)
    users = fm.training.interactions._alike(
        data.catalogue.contexts(data.X)
    )  # so few items are met again and again
    known = known_pairs(users, items, users.max() + 1, 5)
    contexts, sides = (
        naive.rows_of(X) for X in (data.catalogue.contexts(data.X), data.catalogue.items)
    )
    memory = naive.no_memory(theta)
    for number, (rows, loss) in enumerate(epochs):
        drawn = np.empty(90, np.int32)
        state = _first_state(5, number)
        order = np.ascontiguousarray(rows)
        draw_negatives(order, 0, 30, 3, users, items, 5, known, alias_table(None), state, drawn)
        total = 0.0
        for r, negatives in zip(rows, drawn.reshape(-1, 3), strict=True):
            for item, y in [(items[r], 1), *((item, 0) for item in negatives if item >= 0)]:
                row, w = contexts[r] + sides[item], 1.0 if weight is None else weight[r]
                p = naive.score(row, theta)
                total += w * naive.loss_value("logistic", p, y)
                g = naive.derivative("logistic", p, y, s)
                naive.sgd(theta, naive.slopes(row, theta), g, w, s, memory)
        assert loss == pytest.approx(total / 4 / (30 if weight is None else weight.sum()), rel=1e-4)
    assert model.w0 == pytest.approx(theta["bias"][0], rel=1e-4)
    assert np.allclose(model.w, theta["linear"], atol=1e-5)
    assert np.allclose(model.V, theta["factors"], atol=1e-5)


@pytest.mark.parametrize("loss", RANKING_LOSSES)
@pytest.mark.parametrize("kind", ["onehot", "ragged"])
def test_the_chunks_an_epoch_is_cut_into_change_nothing(loss, kind, rng, monkeypatch):
    data = read(table(rng, each=3)) if kind == "onehot" else numbered(rng)[0]
    models = []
    for chunk in (1 << 20, 64):
        monkeypatch.setattr(Negatives, "chunk", chunk)
        models.append(fit(data, config(ranking_loss=loss, num_negatives=5)))
    assert models[0] == models[1]


@pytest.mark.parametrize("loss", RANKING_LOSSES)
def test_scores_told_to_callbacks_are_those_before_the_step(loss, rng):
    data, _, items = numbered(rng)
    still = {f"{part}_lr": 0 for part in naive.PARTS}
    epochs = []
    settings = config(ranking_loss=loss, factors_init_sigma=0.5, epochs=1, **still)
    model = fit(data, settings, callbacks=[epochs.append])
    assert sorted(epochs[0].rows) == list(range(30)) and epochs[0].scores.shape == (30,)
    if loss == "logistic":
        rows = data.catalogue.contexts(data.X) + data.catalogue.items[items]
        assert np.allclose(epochs[0].scores, model.scores(rows)[epochs[0].rows], atol=1e-5)


@pytest.mark.parametrize("loss", RANKING_LOSSES)
def test_rows_of_weight_0_move_nothing(loss, rng):
    data, users, _ = numbered(rng)
    weight = np.where(users == 2, 0, 1).astype(np.float32)
    settings = config(ranking_loss=loss, factors_wd=0, linear_wd=0)
    model = fit(dataclasses.replace(data, weight=weight), settings)
    fresh = fit(data, config(ranking_loss=loss, **{f"{p}_lr": 0 for p in naive.PARTS}))
    assert np.array_equal(model.V[2], fresh.V[2]) and not np.array_equal(model.V[1], fresh.V[1])


def test_popular_items_are_drawn_more_often(rng):
    """Then the scores of popular items are lower than with uniform negatives."""
    items = np.minimum(rng.geometric(0.1, 3000), 60) - 1
    data = read({"user": (np.arange(3000) % 600).tolist(), "item": items.tolist()})
    weights = []
    for how in ("uniform", "popularity"):
        model = fit(data, config(negative_sampling=how, epochs=10, validation_fraction=0))
        names = [model.encoder.feature_name(j) for j in range(model.num_features)]
        weights.append(model.w[names.index("item=0")] - model.w[names.index("item=30")])
    assert weights[0] > weights[1] + 0.5


# --- what is held out, and judged -----------------------------------------------------------------
def test_one_row_of_each_user_with_two_is_held_out(rng):
    frame = table(rng)
    for name in frame:
        frame[name].append({"user": "once", "item": "i0"}[name])
    data = interactions(read(frame))
    split = split_rows(data, config().resolved(), hold_out=True)
    users, _ = data.catalogue.rows_of_keys(data.X)
    assert np.array_equal(np.sort(users[split.held_out]), np.arange(USERS))
    assert np.array_equal(np.sort([*split.rows, *split.held_out]), np.arange(data.num_rows))
    some = split_rows(data, config(validation_fraction=0.25).resolved(), hold_out=True)
    assert some.held_out.size == USERS // 4
    settings = config(validation_fraction=0).resolved()
    none = split_rows(data, settings, hold_out=True)
    assert none.held_out is None
    assert make_judge(make_solver(data, settings, none), None) is None


def test_rows_held_out_are_not_known_while_they_are(rng):
    data = interactions(read(table(rng)))
    first = split_rows(data, config().resolved(), hold_out=True).met
    again = split_rows(data, config().resolved()).met
    assert again.known.indices.size - first.known.indices.size == USERS


def test_few_are_held_out_where_there_are_many_items(rng, monkeypatch):
    for module in ("interactions", "judging"):
        monkeypatch.setattr(f"fm.training.{module}.MOST_SCORES", 7 * ITEMS)
    data, settings = interactions(read(table(rng))), config().resolved()
    assert split_rows(data, settings, hold_out=True).held_out.size == 7
    judged = []
    monkeypatch.setattr(ListJudge, "metrics", lambda self, w, V: judged.append(self.ranks(w, V)))
    solver = make_solver(data, settings, split_rows(data, settings))
    make_judge(solver, data)()
    assert judged[0].size == 7


def test_without_users_a_tenth_of_the_rows_is_held_out(rng):
    frame = table(rng, hours=True)
    del frame["user"]
    data = interactions(read(frame))
    split = split_rows(data, config().resolved(), hold_out=True)
    assert split.held_out.size == 120 and not split.met.known.indices.size
    assert fit(data, config(epochs=2)).metrics["ndcg"] > 0


@pytest.mark.parametrize("repeats", [False, True])
def test_ranks_equal_brute_force(repeats, rng):
    data, users, items = numbered(rng, n=60, users=8, items=20)
    n = data.num_features
    shapes = {"bias": 1, "linear": n, "factors": (n, 3)}
    theta = {name: np.round(rng.normal(0, 1, shape), 1) for name, shape in shapes.items()}
    sides = data.catalogue.items.tolil()
    sides[7] = sides[3]  # the same scores
    sides = sides.tocsr()
    catalogue = dataclasses.replace(data.catalogue, items=sides)
    half = np.arange(30)
    met = half if not repeats else np.arange(60)
    known = known_pairs(users[met].astype(np.int32), items[met].astype(np.int32), 8, 20)
    old = {(u, i) for u, i in zip(users[half], items[half], strict=True)}
    test = np.array([r for r in range(30, 60) if repeats or (users[r], items[r]) not in old])
    judge = ListJudge(catalogue, data.X[test], users[test], items[test], known)
    ranks = judge.ranks(theta["linear"].astype("f4"), theta["factors"].astype("f4"))
    contexts, sides = naive.rows_of(catalogue.contexts(data.X)), naive.rows_of(sides)
    for r, rank in zip(test, ranks, strict=True):
        scores = np.array([naive.score(contexts[r] + side, theta) for side in sides])
        if not repeats:
            gone = set(items[half][users[half] == users[r]])
            scores[[i for i in gone if i != items[r]]] = -np.inf
        own = scores[items[r]]
        above, equal = (scores > own + 1e-6).sum(), (np.abs(scores - own) < 1e-6).sum() - 1
        if equal and items[r] not in (3, 7):
            continue  # a tie of rounded numbers, which float32 may part
        assert rank == pytest.approx(above + equal / 2)


def test_metrics_of_ranks():
    judge = object.__new__(ListJudge)
    judge.ranks = lambda w, V: np.array([0.0, 1.0, 9.0, 9.5, 10.0])
    found = judge.metrics(None, None)
    assert found["hit_rate"] == 0.8
    gains = 1 + 1 / np.log2(3) + 1 / np.log2(11) + 1 / np.log2(11.5)
    assert found["ndcg"] == pytest.approx(gains / 5)


def test_early_stopping_keeps_the_best_epoch_and_trains_again(rng):
    model = fit(read(table(rng)), config(epochs=40, factors_lr=0.5, patience=2))
    first = [entry for entry in model.history if "refit" not in entry]
    second = [entry for entry in model.history if "refit" in entry]
    best = int(np.argmax([entry["ndcg"] for entry in first]))
    assert len(first) < 40 and len(second) == best + 1 and "ndcg" not in second[0]
    assert model.metrics["ndcg"] == first[best]["ndcg"]


def test_validation_rows_given(rng):
    frame = pd.DataFrame(table(rng))
    data = read(frame.iloc[::2])
    validation = read(frame.iloc[1::2], encoder=data.encoder)
    model = fit(data, config(epochs=5, metric="hit_rate"), validation=validation)
    assert model.history[-1].keys() == {"epoch", "loss", "ndcg", "hit_rate"}


# --- the rest of fit ------------------------------------------------------------------------------
def test_the_seed_decides_and_a_resumed_run_is_the_same(rng, tmp_path):
    data, path = read(table(rng)), tmp_path / "checkpoint"
    whole = fit(data, config(epochs=6, refit=False))
    assert whole == fit(data, config(epochs=6, refit=False))
    assert whole.history == fit(data, config(epochs=6, refit=False)).history
    assert not np.array_equal(whole.V, fit(data, config(epochs=6, refit=False, seed=1)).V)
    fit(data, config(epochs=3, refit=False), checkpoint=path)
    resumed = fit(data, config(epochs=6, refit=False), checkpoint=path, resume=True)
    assert np.array_equal(resumed.V, whole.V) and np.array_equal(resumed.w, whole.w)
    assert resumed.history == whole.history


def test_a_checkpoint_of_other_sides_is_refused(tmp_path):
    X, path = np.kron(np.ones((6, 2)), np.eye(4)), tmp_path / "checkpoint"
    fit(read(X, user="0:4", item="4:8"), config(), checkpoint=path)
    with pytest.raises(ModelFileError, match="written for other training data"):
        fit(read(X, user="4:8", item="0:4"), config(epochs=6), checkpoint=path, resume=True)


def test_training_goes_on_from_a_model(rng):
    data = read(table(rng))
    model = fit(data, config(epochs=15))
    more = fit(data, config(epochs=1, refit=False), init=model)
    assert more.history[0]["ndcg"] > fit(data, config(epochs=1, refit=False)).history[0]["ndcg"]


def test_what_was_met_before_is_no_negative(rng):
    frame = pd.DataFrame(table(rng))
    first = read(frame.iloc[::2])
    model = fit(first, config(epochs=1))
    data = interactions(read(frame.iloc[1::2], encoder=first.encoder, user="user", item="item"))
    met = {
        pair for half in (first, data) for pair in zip(*half.catalogue.seen.nonzero(), strict=True)
    }
    found = split_rows(data, config().resolved(), init=model).met.known
    parts = np.ones(found.indices.size), found.indices, found.indptr
    known = sp.csr_matrix(parts, model.catalogue.seen.shape)
    assert set(zip(*known.nonzero(), strict=True)) == met
    again = interactions(first)  # rows held out are not, even if the model was trained on them
    settings = config(validation_fraction=0.5).resolved()
    split = split_rows(again, settings, hold_out=True, init=model)
    found = split.met
    assert split.held_out.size
    for row in split.held_out:
        user, item = found.users[row], found.items[row]
        rows = (found.users[split.rows] == user) & (found.items[split.rows] == item)
        met = found.known.indices[found.known.indptr[user] : found.known.indptr[user + 1]]
        assert (item in met) == rows.any()


def test_more_features_than_the_data_have(rng):
    data = numbered(rng)[0]
    model = fit(data, config(feature_dim=500, epochs=1))
    assert model.num_features == 500 and not model.V[data.num_features :].any()


@pytest.mark.parametrize("loss", RANKING_LOSSES)
def test_a_user_who_met_everything(loss):
    data = read({"user": ["a", "a", "b"], "item": ["x", "y", "x"]})
    model = fit(data, config(ranking_loss=loss))
    assert np.isfinite(model.V).all() and np.isfinite(model.history[-1]["loss"])


def test_one_row():
    data = read({"user": ["a"], "item": ["x"]})
    assert np.isfinite(fit(data, config()).predict({"user": ["a"], "item": ["x"]})).all()


def test_rows_without_an_item_are_left_out():
    frame = {"user": ["a", "a", "b", "b", "c"], "item": ["x", "x", "y", "y", "rare"]}
    data = read(frame, min_count=2)
    split = split_rows(interactions(data), config().resolved())
    assert split.rows.tolist() == [0, 1, 2, 3]


def test_diverging_says_so(rng):
    settings = config(optimizer="adagrad", factors_lr=1e18, epochs=5)
    with pytest.raises(DivergenceError, match=r"training diverged in epoch 1 .* divide the learn"):
        fit(read(table(rng)), settings)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (lambda: read({"user": ["a"], "item": ["x"], "y": [0]}, target="y"), DataError,
         r"row 1: expected an interaction, that is no target or one above 0, because "
                r"predictor_type "
         r"is ranker, found 0; leave such rows out"),
        (lambda: read({"user": ["a"], "where": ["x"]}), ConfigError,
         r"item: expected the column of the items, because predictor_type is ranker, found none "
         r"\(user, where\); name it"),
        (lambda: Dataset.from_arrays(np.eye(2)), ConfigError, "give a range of features"),
        (lambda: read({"user": ["a", "b"], "item": ["x", "y"]}, min_count=2), DataError,
         r"expected rows with an item \(item\), found none"),
    ],
)  # fmt: skip
def test_what_is_refused(data, error, message):
    with pytest.raises(error, match=message):
        fit(data(), config())


def test_validation_rows_without_known_items_are_refused():
    data = read({"user": ["a", "b"], "item": ["x", "y"]})
    validation = read({"user": ["a"], "item": ["new"]}, encoder=data.encoder)
    with pytest.raises(DataError, match="expected rows with an item of the training data"):
        fit(data, config(), validation=validation)


def test_no_training_piece_by_piece():
    with pytest.raises(ConfigError, match="a ranker draws from all items and cannot be trained"):
        fit_pass(read({"user": ["a"], "item": ["x"]}), config())


# --- the estimator --------------------------------------------------------------------------------
def test_the_estimator_ranks(rng):
    frame = pd.DataFrame(table(rng))
    model = FMRanker(num_factors=8, epochs=40).fit(frame)
    rows = pd.DataFrame({"user": "u1", "item": [f"i{i}" for i in range(ITEMS)]})
    scores = model.predict(rows)
    assert (np.argsort(-scores)[:6] % TASTES == 1).mean() >= 0.6
    assert scores.dtype == np.float64 and model.history_[0]["ndcg"] > 0
    assert not hasattr(model, "partial_fit")


def test_the_estimator_takes_numbers_in_a_frame_as_ids_and_named_columns(rng):
    frame = pd.DataFrame({"person": rng.integers(0, 20, 80), "thing": rng.integers(0, 9, 80)})
    model = FMRanker(item="thing", user="person", num_factors=2, epochs=2)
    assert clone(model).get_params()["item"] == "thing"
    model.fit(frame, sample_weight=np.ones(80))
    assert model.model_.num_features == frame.nunique().sum() + 2
    model.fit(frame, np.ones(80), eval_set=(frame, None))
    assert "ndcg" in model.history_[0]


def test_the_estimator_takes_arrays_with_a_range(rng):
    X = np.zeros((40, 15), np.float32)
    X[np.arange(40), rng.integers(0, 10, 40)] = 1
    X[np.arange(40), 10 + rng.integers(0, 5, 40)] = 1
    model = FMRanker(item="10:15", user="0:10", num_factors=2, epochs=2).fit(sp.csr_matrix(X))
    assert model.predict(X).shape == (40,)
    with pytest.raises(ConfigError, match="item: expected the column of the items"):
        FMRanker().fit(X)
    with pytest.raises(DataError, match="expected an interaction"):
        FMRanker(item="10:15", num_factors=2).fit(X, np.zeros(40))


def test_the_estimator_learns_from_repeated_rows_as_fit_does(rng):
    rows = rng.permutation(np.repeat(np.arange(80), 20))  # each user plays some items 20 times
    frame = pd.DataFrame({"user": rows // 4, "item": rows % 9})
    model = FMRanker(num_factors=4, epochs=3).fit(frame).model_
    assert model == fit(read(frame), config())
    assert "ndcg" in model.metrics  # of rows held out: there are more than 1,000


def test_the_estimator_has_a_score_and_is_searched_by_it(rng):
    frame = pd.DataFrame(table(rng))
    cv = KFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(FMRanker(num_factors=8), {"epochs": [1, 40]}, cv=cv).fit(frame)
    assert search.best_params_ == {"epochs": 40} and search.best_score_ > 0.15
    train, test = next(cv.split(frame))
    model = FMRanker(num_factors=8, epochs=40).fit(frame.iloc[train])
    judged = evaluate_ranking(model.model_, frame.iloc[test])["metrics"]["model"]["ndcg@10"]
    assert model.score(frame.iloc[test]) == judged
    assert model.score(frame.iloc[test][["item", "user"]], np.ones(test.size)) == judged
    assert search.cv_results_["split0_test_score"][1] == judged
    scores = cross_val_score(FMRanker(num_factors=8, epochs=40), frame, cv=cv)
    assert scores[0] == judged
    assert model.score(pd.DataFrame({"user": ["u1"], "item": ["unknown"]})) == 0
    with pytest.raises(NotFittedError):
        FMRanker().score(frame)


def test_the_estimator_says_how_to_name_the_items(rng):
    frame = pd.DataFrame({"user": [1.0, 1.0, 2.0], "item": [3.0, 4.0, 4.0]})
    match = r"found none \(user: numeric, item: numeric\); .*categorical=\['user', 'film'\]"
    with pytest.raises(ConfigError, match=match):
        FMRanker().fit(frame)
    model = FMRanker(categorical=["user", "item"], num_factors=2, epochs=2).fit(frame)
    assert list(model.model_.catalogue.item_ids) == ["4", "3"]


def test_what_is_met_again_and_again_is_spared_in_its_own_context_only():
    hours = ["am", "pm"] * 20
    columns = {"user": ["a", "a", "b", "b"] * 10, "item": ["tea", "rum"] * 20, "hour": hours}
    data = read({**columns, "item": [*columns["item"][:-1], "milk"]}, item_columns=[])
    model = fit(data, config(epochs=30, validation_fraction=0))
    assert model.recommend({"user": "a", "hour": "am"}, 1, exclude=None).ids == ["tea"]
    assert model.recommend({"user": "a", "hour": "pm"}, 1, exclude=None).ids == ["rum"]


def test_rows_are_alike_if_all_their_entries_are():
    X = sp.csr_matrix([[1, 0, 2], [1, 0, 0], [1, 0, 2], [0, 0, 0], [0, 0, 0]], dtype=np.float32)
    a, b, c, d, e = fm.training.interactions._alike(X).tolist()
    assert a == c and d == e and len({a, b, d}) == 3
