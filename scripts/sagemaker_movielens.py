#!/usr/bin/env python
r"""A film recommender on Amazon SageMaker, from the ratings to the clean-up.

MovieLens 100K becomes one-hot rows (943 people + 1,682 films = 2,625 features) in
RecordIO-protobuf; a training job learns who likes what (a rating of 4 or 5); an endpoint answers;
it is asked for predictions and for the films that one person would like most; then it is deleted.
In local mode the model file is on this machine: fm opens it, recommends, and says why.

In a virtual environment, one for each SDK:

  pip install -r scripts/sagemaker_requirements.txt 'sagemaker[local]>=2.257,<3'   SDK 2: Estimator
  pip install -r scripts/sagemaker_requirements.txt 'sagemaker-train>=1.27'   SDK 3: ModelTrainer,
                                                                              by --sdk 3

  # on this machine: no AWS account, no network
  docker build -t fm .
  python scripts/sagemaker_movielens.py --local --image fm --data ml-100k

  # on AWS: build and push the image first (scripts/build_and_push), then
  python scripts/sagemaker_movielens.py --image ACCOUNT.dkr.ecr.REGION.amazonaws.com/fm \
      --role arn:aws:iam::ACCOUNT:role/SageMakerRole --data ml-100k
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import logging
import os
import socket
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # fm, from the clone this lies in

from container.logs import METRIC_DEFINITIONS  # noqa: E402
from fm.errors import ModelFileError  # noqa: E402
from fm.formats.recordio import write_spmatrix_to_sparse_tensor  # noqa: E402
from fm.model.load import load  # noqa: E402
from fm.model.model import Model  # noqa: E402

JSON, RECORDIO = "application/json", "application/x-recordio-protobuf"
PUBLISHER = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
FILES = ("ua.base", "ua.test", "u.item")
DUMMY_ROLE = "arn:aws:iam::111111111111:role/local"
FILE = "file://"
ROWS_PER_REQUEST = 500

# What --tune tries. The objective is measured on the channel `validation`, so that the channel
# `test` stays what it is: rows that nothing was chosen by.
OBJECTIVE = "validation:binary_classification_cross_entropy"
RANGES = {
    "num_factors": ("integer", 4, 128),
    "factors_lr": ("continuous", 0.003, 0.1),
    "factors_wd": ("continuous", 0.002, 0.2),
}


def tuning(options: argparse.Namespace, integer: type, continuous: type) -> dict[str, Any]:
    """Return what both SDKs' tuners are told; the classes of ranges are the SDK's own."""
    kinds = {"integer": integer, "continuous": continuous}
    return {
        "objective_metric_name": OBJECTIVE,
        "objective_type": "Minimize",
        "metric_definitions": METRIC_DEFINITIONS,
        "hyperparameter_ranges": {
            name: kinds[kind](low, high, scaling_type="Logarithmic")
            for name, (kind, low, high) in RANGES.items()
        },
        "max_jobs": options.tune,
        "max_parallel_jobs": min(3, options.tune),
    }


# -- data ------------------------------------------------------------------------------------------


class Ratings(NamedTuple):
    """Ratings of a file, ids counted from 0."""

    user: np.ndarray
    film: np.ndarray
    rating: np.ndarray


class MovieLens(NamedTuple):
    """The article's split, and the titles of the films."""

    train: Ratings
    test: Ratings
    titles: list[str]
    num_users: int

    @property
    def num_features(self) -> int:
        """Return the width of a row."""
        return self.num_users + len(self.titles)

    def one_hot(self, user: np.ndarray, film: np.ndarray) -> sp.csr_matrix:
        """Return a row for each pair: people in the first columns, films behind them."""
        columns = np.stack([user, self.num_users + film], axis=1)
        parts = (np.ones(columns.size, np.float32), columns.ravel(), np.arange(len(user) + 1) * 2)
        return sp.csr_matrix(parts, shape=(len(user), self.num_features))


def fetch(folder: Path) -> Path:
    """Download MovieLens 100K from its publisher; return the folder it is in."""
    print(f"downloading {PUBLISHER} (research use only: see the README in it)")
    with urllib.request.urlopen(PUBLISHER, timeout=60) as answer:
        archive = zipfile.ZipFile(io.BytesIO(answer.read()))
    archive.extractall(folder)
    return folder / "ml-100k"


def read_text(folder: Path, name: str, encoding: str = "utf-8") -> list[str]:
    """Return the lines of a file, gzipped or not."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            opener = gzip.open if path.suffix == ".gz" else open
            with opener(path, "rt", encoding=encoding) as file:
                return file.read().splitlines()
    raise SystemExit(
        f"{folder}: expected {', '.join(FILES)} (or .gz) in it, found no {name}; unpack MovieLens "
        "100K there, or say --download"
    )


def read_movielens(folder: Path) -> MovieLens:
    """Read the article's split and the titles."""
    parts = []
    for name in ("ua.base", "ua.test"):
        rows = np.array([line.split("\t")[:3] for line in read_text(folder, name)], dtype=np.int64)
        parts.append(Ratings(rows[:, 0] - 1, rows[:, 1] - 1, rows[:, 2]))
    titles = [line.split("|")[1] for line in read_text(folder, "u.item", "latin-1")]
    return MovieLens(*parts, titles, num_users=1 + max(int(part.user.max()) for part in parts))


def liked(ratings: Ratings) -> np.ndarray:
    """Return the article's label: 1 for a rating of 4 or 5."""
    return (ratings.rating >= 4).astype(np.float32)


def records(X: sp.csr_matrix, labels: np.ndarray | None = None) -> bytes:
    """Return rows as RecordIO-protobuf, without any SDK."""
    file = io.BytesIO()
    write_spmatrix_to_sparse_tensor(file, X, labels)
    return file.getvalue()


def write_channels(data: MovieLens, folder: Path, seed: int, held_out: float) -> dict[str, Path]:
    """Write a folder for each channel: train (shuffled, as the article does it), test, validation.

    `held_out` is the part of the training rows for the channel `validation`; 0: there is none.
    """
    order = np.random.default_rng(seed).permutation(data.train.user.size)
    count = int(held_out * order.size)
    parts = {
        "train": Ratings(*(column[order[count:]] for column in data.train)),
        "test": data.test,
        "validation": Ratings(*(column[order[:count]] for column in data.train)),
    }
    found = {}
    for name, part in parts.items():
        if part.user.size:
            found[name] = folder / name
            found[name].mkdir()
            content = records(data.one_hot(part.user, part.film), liked(part))
            (found[name] / f"{name}.protobuf").write_bytes(content)
            print(f"  {name}: {part.user.size:,} rows, {liked(part).mean():.1%} liked")
    return found


# -- SDK 2: Estimator ------------------------------------------------------------------------------


class Sdk2:
    """The article's way, by the names that SDK 2 has for it (2.257 or newer, before 3)."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        os.environ.setdefault("SAGEMAKER_SUPPRESS_V2_WARNING", "1")
        import boto3
        import sagemaker
        from sagemaker.estimator import Estimator

        self.options, self.predictor = options, None
        if options.local:
            from sagemaker.local import LocalSession

            self.session = LocalSession(local_boto(options), sagemaker_config=quiet_config())
            self.session.config = local_config(work)
            output, role = f"file://{work / 'output'}", options.role or DUMMY_ROLE
        else:
            boto = boto3.Session(region_name=options.region)
            self.session = sagemaker.Session(boto, default_bucket=options.bucket)
            bucket = self.session.default_bucket()
            output = f"s3://{bucket}/{options.prefix}/output"
            role = options.role or sagemaker.get_execution_role(self.session)
        self.estimator = Estimator(
            image_uri=options.image,
            role=role,
            instance_count=1,
            instance_type=instance_type(options, "local"),
            output_path=output,
            sagemaker_session=self.session,
            hyperparameters=options.hyperparameters,
            metric_definitions=METRIC_DEFINITIONS,
            base_job_name="fm-movielens",
        )

    def upload(self, channels: dict[str, Path]) -> dict[str, str]:
        """Put the channels where a job finds them; return the addresses."""
        if self.options.local:
            return {name: f"file://{path}" for name, path in channels.items()}
        return {
            name: self.session.upload_data(
                str(path), key_prefix=f"{self.options.prefix}/{name}", bucket=self.options.bucket
            )
            for name, path in channels.items()
        }

    def train(self, channels: dict[str, str]) -> None:
        """Run one training job."""
        self.estimator.fit(channels)

    def tune(self, channels: dict[str, str]) -> None:
        """Run a tuning job; go on with its best model."""
        from sagemaker.tuner import ContinuousParameter, HyperparameterTuner, IntegerParameter

        search = tuning(self.options, IntegerParameter, ContinuousParameter)
        tuner = HyperparameterTuner(estimator=self.estimator, **search)
        tuner.fit(channels)
        print("the best job:", tuner.best_training_job())
        self.estimator = tuner.best_estimator()

    def deploy(self) -> None:
        """Start an endpoint and wait until it answers."""
        self.predictor = self.estimator.deploy(1, instance_type(self.options, "local"))

    def invoke(self, body: bytes, content_type: str, accept: str = JSON) -> bytes:
        """Send a request to the endpoint and return the answer."""
        about = {"ContentType": content_type, "Accept": accept}
        return self.predictor.predict(body, initial_args=about)

    def artifact(self) -> Path | None:
        """Return the model's archive, if it is on this machine."""
        address = str(self.estimator.model_data)
        return Path(address[len(FILE) :]) if address.startswith(FILE) else None

    def clean_up(self) -> None:
        """Delete what costs: the endpoint, and what belongs to it."""
        if self.predictor is not None:
            self.predictor.delete_model()
            self.predictor.delete_endpoint()


# -- SDK 3: ModelTrainer ---------------------------------------------------------------------------


class Sdk3:
    """The same with SDK 3, which has no Estimator."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        # SDK 3 looks for a region and for its own settings when it is imported.
        os.environ.setdefault("AWS_DEFAULT_REGION", options.region or "us-east-1")
        if options.local:
            os.environ.setdefault("AWS_ACCESS_KEY_ID", "none")
            os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "none")
            settings = work / "sdk.json"
            settings.write_text(json.dumps(quiet_config()))  # JSON is YAML, too
            os.environ.setdefault("SAGEMAKER_USER_CONFIG_OVERRIDE", str(settings))
        from sagemaker.core.helper.session_helper import Session, get_execution_role
        from sagemaker.core.shapes import MetricDefinition, OutputDataConfig
        from sagemaker.core.training.configs import Compute
        from sagemaker.train.model_trainer import Mode, ModelTrainer

        self.options, self.work, self.resources = options, work, []
        self.folder = work / f"{work.name}-job"  # Compose names the project after it
        self.name = f"fm-movielens-{time.strftime('%Y%m%d-%H%M%S')}"
        if options.local:
            self.role = options.role or DUMMY_ROLE
            where: dict[str, Any] = {
                "training_mode": Mode.LOCAL_CONTAINER,
                "local_container_root": str(self.folder),
            }
        else:
            self.session = Session(default_bucket=options.bucket)
            self.role = options.role or get_execution_role(self.session)
            output = f"s3://{self.session.default_bucket()}/{options.prefix}/output"
            where = {
                "sagemaker_session": self.session,
                "output_data_config": OutputDataConfig(s3_output_path=output),
            }
        self.trainer = ModelTrainer(
            training_image=options.image,
            role=self.role,
            compute=Compute(instance_type=instance_type(options, "local_cpu"), instance_count=1),
            hyperparameters=options.hyperparameters,
            base_job_name="fm-movielens",
            **where,
        ).with_metric_definitions(
            [MetricDefinition(name=one["Name"], regex=one["Regex"]) for one in METRIC_DEFINITIONS]
        )

    def upload(self, channels: dict[str, Path]) -> dict[str, str]:
        """Put the channels where a job finds them; return the addresses."""
        if self.options.local:
            return {name: str(path) for name, path in channels.items()}
        return {
            name: self.session.upload_data(
                str(path), bucket=self.options.bucket, key_prefix=f"{self.options.prefix}/{name}"
            )
            for name, path in channels.items()
        }

    def _inputs(self, channels: dict[str, str]) -> list[Any]:
        from sagemaker.core.training.configs import InputData

        return [InputData(channel_name=name, data_source=uri) for name, uri in channels.items()]

    def train(self, channels: dict[str, str]) -> None:
        """Run one training job."""
        self.trainer.train(input_data_config=self._inputs(channels))
        if self.options.local:
            artifact = next(self.folder.rglob("model.tar.gz"))
            folder = self.work / "serving"  # local mode unpacks it where it lies
            folder.mkdir()
            (folder / "model.tar.gz").write_bytes(artifact.read_bytes())
            self.model_data = f"file://{folder}"
        else:
            job = self.trainer._latest_training_job
            self.model_data = job.model_artifacts.s3_model_artifacts

    def tune(self, channels: dict[str, str]) -> None:
        """Run a tuning job; go on with its best model."""
        from sagemaker.core.parameter import ContinuousParameter, IntegerParameter
        from sagemaker.core.resources import TrainingJob
        from sagemaker.train.tuner import HyperparameterTuner

        search = tuning(self.options, IntegerParameter, ContinuousParameter)
        tuner = HyperparameterTuner(model_trainer=self.trainer, **search)
        tuner.tune(inputs=self._inputs(channels))
        best = tuner.best_training_job()
        print("the best job:", best)
        self.model_data = TrainingJob.get(best).model_artifacts.s3_model_artifacts

    def deploy(self) -> None:
        """Start an endpoint and wait until it answers."""
        if self.options.local:
            from sagemaker.core.local.local_session import LocalSession

            session = LocalSession(local_boto(self.options))
            session.config = local_config(self.work)
            self.client, self.runtime = session.sagemaker_client, session.sagemaker_runtime_client
            self.runtime.config = session.config
            about = {"Image": self.options.image, "ModelDataUrl": self.model_data}
            variant = {"VariantName": "AllTraffic", "ModelName": self.name}
            variant |= {"InitialInstanceCount": 1, "InstanceType": "local"}
            self.client.create_model(self.name, {**about, "Environment": {}})
            self.client.create_endpoint_config(self.name, [variant])
            self.client.create_endpoint(self.name, self.name)
            return
        from sagemaker.core.resources import Endpoint, EndpointConfig, Model
        from sagemaker.core.shapes import ContainerDefinition, ProductionVariant

        model = Model.create(
            model_name=self.name,
            primary_container=ContainerDefinition(
                image=self.options.image, model_data_url=self.model_data
            ),
            execution_role_arn=self.role,
        )
        self.resources.append(model)
        variant = ProductionVariant(
            variant_name="AllTraffic",
            model_name=self.name,
            initial_instance_count=1,
            instance_type=self.options.instance_type,
        )
        config = EndpointConfig.create(
            endpoint_config_name=self.name, production_variants=[variant]
        )
        self.resources.append(config)
        self.endpoint = Endpoint.create(endpoint_name=self.name, endpoint_config_name=self.name)
        self.resources.append(self.endpoint)
        self.endpoint.wait_for_status("InService")

    def invoke(self, body: bytes, content_type: str, accept: str = JSON) -> bytes:
        """Send a request to the endpoint and return the answer."""
        if self.options.local:
            answer = self.runtime.invoke_endpoint(body, self.name, content_type, accept)
            return answer["Body"].read()
        answer = self.endpoint.invoke(body=body, content_type=content_type, accept=accept)
        return answer.body.read()

    def artifact(self) -> Path | None:
        """Return the model's archive, if it is on this machine."""
        address = str(self.model_data)
        return Path(address[len(FILE) :]) / "model.tar.gz" if address.startswith(FILE) else None

    def clean_up(self) -> None:
        """Delete what costs: the endpoint, and what belongs to it."""
        if self.options.local:
            if hasattr(self, "client"):
                self.client.delete_endpoint(self.name)
            return
        for resource in reversed(self.resources):
            resource.delete()


# -- what both need --------------------------------------------------------------------------------


def instance_type(options: argparse.Namespace, local: str) -> str:
    """Return the type asked for, or the name that local mode goes by."""
    return local if options.local else options.instance_type


def local_boto(options: argparse.Namespace) -> Any:
    """Return a session of boto3 that never needs credentials."""
    import boto3

    keys = {"aws_access_key_id": "none", "aws_secret_access_key": "none"}
    return boto3.Session(region_name=options.region or "us-east-1", **keys)


def local_config(work: Path) -> dict[str, Any]:
    """Return the settings of local mode, with a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {"local": {"local_code": True, "serving_port": port, "container_root": str(work)}}


def quiet_config() -> dict[str, Any]:
    """Return settings of the SDKs by which local mode reports nothing to anybody."""
    modules = {"TelemetryOptOut": True}
    return {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": modules}}}


def scores(backend: Sdk2 | Sdk3, body: bytes, content_type: str) -> list[dict[str, float]]:
    """Ask for predictions in JSON."""
    return json.loads(backend.invoke(body, content_type))["predictions"]


def show_predictions(backend: Sdk2 | Sdk3, data: MovieLens) -> None:
    """Send the article's request: ten dense rows of the test part, as JSON."""
    rows = slice(1000, 1010)
    X = data.one_hot(data.test.user[rows], data.test.film[rows]).toarray()
    body = json.dumps({"instances": [{"features": row.tolist()} for row in X]}).encode()
    print(f"\nten rows of the test part, dense ({len(body):,} bytes of JSON):")
    found = scores(backend, body, JSON)
    for prediction, truth in zip(found, liked(data.test)[rows], strict=True):
        print(
            f"  score {prediction['score']:.3f}  label {prediction['predicted_label']:.0f}"
            f"  liked {truth:.0f}"
        )


def unseen(data: MovieLens, user: int) -> np.ndarray:
    """Return the films that a person has not rated, in neither part."""
    parts = [part.film[part.user == user] for part in (data.train, data.test)]
    return np.setdiff1d(np.arange(len(data.titles)), np.concatenate(parts))


def recommend(backend: Sdk2 | Sdk3, data: MovieLens, user: int, top: int) -> None:
    """Have the endpoint score every film that a person has not rated, and print the best."""
    mine, films = data.train.user == user, unseen(data, user)
    found = np.array([score for part in _scored(backend, data, user, films) for score in part])
    best = np.argsort(-found, kind="stable")[:top]
    favourites = data.train.film[mine][np.argsort(-data.train.rating[mine], kind="stable")][:3]
    rated = len(data.titles) - films.size
    print(f"\nperson {user + 1} rated {rated} films, among the best of them:")
    for film in favourites:
        print(f"           {data.titles[film]}")
    print(f"of the other {films.size:,}, these {best.size} would be liked most:")
    for place in best:
        print(f"  {found[place]:.3f}  {data.titles[films[place]]}")


def _scored(
    backend: Sdk2 | Sdk3, data: MovieLens, user: int, films: np.ndarray
) -> Iterator[list[float]]:
    """Yield the scores of films, one request after another, as sparse records."""
    for start in range(0, films.size, ROWS_PER_REQUEST):
        part = films[start : start + ROWS_PER_REQUEST]
        body = records(data.one_hot(np.full(part.size, user), part))
        yield [prediction["score"] for prediction in scores(backend, body, RECORDIO)]


def open_artifact(backend: Sdk2 | Sdk3) -> Model | None:
    """Return the model that was trained, if its archive is on this machine."""
    path = backend.artifact()
    if path is None or not path.exists():
        return None
    try:
        return load(path)
    except ImportError as err:
        print(f"\nthe model file is not opened: {err}; pip install safetensors")
    except ModelFileError as err:
        print(f"\nthe model file is not opened: {err}")
    return None


def recommend_locally(model: Model, data: MovieLens, user: int, top: int) -> None:
    """Print the films that a model file recommends to a person, and why.

    The log-odds of a liking are a sum: what holds for all that the person rates, what holds for all
    who rate the film, and what the two have in common.
    """
    first = data.num_users  # of the films' features
    if model.catalogue is None:
        print("\nthe model file recommends nothing: it was trained without the hyperparameter item")
        return
    candidates = [str(first + film) for film in unseen(data, user).tolist()]
    best = model.recommend(str(user), top, exclude=None, candidates=candidates).ids
    mine = (data.train.user == user) & (liked(data.train) == 1)
    favourites = {str(first + film) for film in data.train.film[mine].tolist()}
    print("\nthe same by the model file, without the endpoint, and why (log-odds):")
    for place, feature in enumerate(best, 1):
        found = model.explain(([user, int(feature)], None))
        (_, person), (_, film) = found.linear
        together = found.score - found.bias - person - film
        print(f"  {place:2}. {data.titles[int(feature) - first]}")
        print(
            f"      {found.probability:.3f}: the person {found.bias + person:+.2f}, the film "
            f"{film:+.2f}, the two together {together:+.2f}"
        )
        alike = model.similar_items(feature, len(data.titles)).ids
        nearest = next((other for other in alike if other in favourites), None)
        if nearest is not None:
            print(f"      of what the person liked, most like {data.titles[int(nearest) - first]}")


# -- command line ----------------------------------------------------------------------------------


def pair(text: str) -> tuple[str, str]:
    """Parse NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, found {text!r}")
    return name, value


def parse(words: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", required=True, help="the image: an ECR URI, or a local name")
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--data", type=Path, metavar="DIR", help=f"a folder with {', '.join(FILES)}")
    data.add_argument("--download", action="store_true", help="fetch them from their publisher")
    where = parser.add_argument_group("where")
    where.add_argument("--local", action="store_true", help="local mode: Docker on this machine")
    where.add_argument("--sdk", type=int, choices=(2, 3), default=2, help="default: %(default)s")
    where.add_argument("--role", help="ARN; default: the role of the notebook this runs in")
    where.add_argument("--region", help="default: that of your AWS configuration")
    where.add_argument("--bucket", help="default: the SDK's default bucket")
    where.add_argument("--prefix", default="fm-movielens", help="of keys; default: %(default)s")
    where.add_argument("--instance-type", default="ml.c5.xlarge", help="default: %(default)s")
    where.add_argument("--keep", action="store_true", help="leave the endpoint running (it costs)")
    what = parser.add_argument_group("what")
    what.add_argument(
        "--set", type=pair, action="append", default=[], metavar="NAME=VALUE", dest="given",
        help="a hyperparameter: num_factors=16, epochs=50, optimizer=sagemaker ...",
    )  # fmt: skip
    what.add_argument(
        "--tune", type=int, metavar="JOBS", nargs="?", const=12,
        help="instead of one job, look for good hyperparameters with this many (AWS only)",
    )  # fmt: skip
    what.add_argument("--user", type=int, default=1, help="recommend to this person (from 1)")
    what.add_argument("--top", type=int, default=10, help="this many films")
    what.add_argument("--seed", type=int, default=0, help="of the shuffle and of the training")
    options = parser.parse_args(words)
    if options.tune and options.local:
        parser.error("--tune needs AWS: local mode has no tuning jobs")
    if options.keep and options.local:
        parser.error("--keep needs AWS: a local endpoint ends with this program")
    return options


def main(words: list[str] | None = None) -> None:
    """Do it all."""
    options = parse(words)
    # the log of a job is the SDK's to print; its own remarks are of no use here
    logging.getLogger("sagemaker.config").setLevel("WARNING")
    with tempfile.TemporaryDirectory(prefix="fm-movielens-", ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        data = read_movielens(fetch(work) if options.download else options.data)
        if not 1 <= options.user <= data.num_users:
            raise SystemExit(f"--user: expected 1 to {data.num_users}, found {options.user}")
        print(f"{data.num_users} people, {len(data.titles):,} films")
        (work / "data").mkdir()
        held_out = 0.1 if options.tune else 0.0
        channels = write_channels(data, work / "data", options.seed, held_out)
        # the article's hyperparameters, but our optimizer and early stopping
        options.hyperparameters = {
            "feature_dim": data.num_features,
            "predictor_type": "binary_classifier",
            "num_factors": 64,
            "epochs": 100,
            "seed": options.seed,
            "user": f"0:{data.num_users}",  # which features are people, and which are films:
            "item": f"{data.num_users}:{data.num_features}",  # for recommending
            **dict(options.given),
        }
        if options.tune:
            for name in RANGES:
                options.hyperparameters.pop(name, None)
        backend = (Sdk2 if options.sdk == 2 else Sdk3)(options, work)
        try:
            uris = backend.upload(channels)
            (backend.tune if options.tune else backend.train)(uris)
            backend.deploy()
            show_predictions(backend, data)
            recommend(backend, data, options.user - 1, options.top)
            model = open_artifact(backend)
            if model is not None:
                recommend_locally(model, data, options.user - 1, options.top)
        finally:
            if options.keep:
                print("\nthe endpoint, if there is one, is left running: delete it when done")
            else:
                backend.clean_up()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except ImportError as err:
        sys.exit(f"{err}; install an SDK: python scripts/sagemaker_movielens.py --help says how")
