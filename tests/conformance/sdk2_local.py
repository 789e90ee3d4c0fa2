"""Runs with SDK 2: a job of local mode by file:// paths, from fit to transform.

    python sdk2_local.py ARGUMENTS.json REPORT.json

The report says what each step gave and what was asked of AWS, which must be nothing.
"""

import json
import logging
import sys
import tarfile
import time
import urllib.request
from pathlib import Path

import boto3
import botocore.httpsession
from sagemaker.deserializers import JSONDeserializer
from sagemaker.estimator import Estimator
from sagemaker.local import LocalSession
from sagemaker.serializers import JSONSerializer

asked: list[str] = []


def spy(self, request):
    """What botocore would send; here nothing leaves the machine."""
    asked.append(f"{request.method} {request.url}")
    raise ConnectionError("no AWS in this test")


def local_session(root: Path, port: int) -> LocalSession:
    session = LocalSession(boto3.Session(region_name="us-east-1"))
    session.config = {
        "local": {"local_code": True, "serving_port": port, "container_root": str(root)}
    }
    return session


def deployed(estimator, port: int):
    """Deploy; look every 0.1 seconds whether the endpoint is up, where the SDK looks every 5."""
    predictor = estimator.deploy(
        1, "local", serializer=JSONSerializer(), deserializer=JSONDeserializer(), wait=False
    )
    for _ in range(600):
        try:
            if urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2).status == 200:
                return predictor
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("no endpoint in a minute")


def transformed(estimator, session, source: Path, output: Path, **how) -> str:
    """Run a transform job and return the one file that it writes."""
    split = {name: how.pop(name) for name in ("content_type", "split_type") if name in how}
    transformer = estimator.transformer(1, "local", output_path=f"file://{output}", **how)
    transformer.sagemaker_session = session
    # local mode is done when this returns; to wait would ask AWS for logs
    transformer.transform(f"file://{source}", **split, wait=False)
    return next(output.rglob("*.out")).read_text()


def main(arguments: dict) -> dict:
    root = Path(arguments["root"])
    session = local_session(root, arguments["port"])
    report: dict = {"seconds": {}}

    def timed(name, function, *args, **more):
        start = time.monotonic()
        result = function(*args, **more)
        report["seconds"][name] = round(time.monotonic() - start, 2)
        return result

    estimator = Estimator(
        image_uri=arguments["image"],
        role="arn:aws:iam::111111111111:role/dummy",
        instance_count=arguments.get("instance_count", 1),
        instance_type="local",
        sagemaker_session=session,
        output_path=f"file://{root / 'output'}",
    )
    estimator.set_hyperparameters(**arguments["hyperparameters"])
    timed(
        "fit",
        estimator.fit,
        {name: f"file://{path}" for name, path in arguments["channels"].items()},
    )
    with tarfile.open(root / "output" / "model.tar.gz") as archive:
        report["model"] = sorted(archive.getnames())
    if not arguments.get("only_fit"):
        bodies = json.loads(Path(arguments["bodies"]).read_text())
        predictor = timed("deploy", deployed, estimator, arguments["port"])
        report["answers"] = {
            name: timed(f"predict {name}", predictor.predict, body) for name, body in bodies.items()
        }
        predictor.delete_endpoint()
        time.sleep(3)  # until the port is free
        report["transform"] = {
            "lines": timed(
                "transform lines", transformed, estimator, session,
                Path(arguments["lines"]), root / "lines", content_type="application/jsonlines",
                split_type="Line", accept="application/jsonlines", strategy="MultiRecord",
            ),
            "records": timed(
                "transform records", transformed, estimator, session,
                Path(arguments["records"]), root / "records", split_type="RecordIO",
                content_type="application/x-recordio-protobuf", strategy="SingleRecord",
            ),
        }  # fmt: skip
    report["asked"] = asked
    return report


if __name__ == "__main__":
    logging.basicConfig(level="INFO", stream=sys.stderr)
    botocore.httpsession.URLLib3Session.send = spy
    given = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps(main(given)))
