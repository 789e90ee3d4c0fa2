"""Runs with SDK 3: ModelTrainer in a local container, then the model behind LocalSession.

    python sdk3_local.py ARGUMENTS.json REPORT.json

The report says what each step gave and what was asked of AWS, which must be nothing.
"""

import json
import logging
import os
import sys
import tarfile
import time
from pathlib import Path

import botocore.httpsession
from sagemaker.core.local.local_session import LocalSession
from sagemaker.core.training.configs import Compute, InputData
from sagemaker.train.model_trainer import Mode, ModelTrainer

asked: list[str] = []


def spy(self, request):
    """What botocore would send; here nothing leaves the machine."""
    asked.append(f"{request.method} {request.url}")
    raise ConnectionError("no AWS in this test")


def main(arguments: dict) -> dict:
    root = Path(arguments["root"])
    os.chdir(root)
    container = root / arguments["project"]  # Compose names the project after it
    report: dict = {"seconds": {}}
    start = time.monotonic()
    trainer = ModelTrainer(
        training_mode=Mode.LOCAL_CONTAINER,
        training_image=arguments["image"],
        role="arn:aws:iam::111111111111:role/dummy",
        compute=Compute(
            instance_type="local_cpu", instance_count=arguments.get("instance_count", 1)
        ),
        hyperparameters=arguments["hyperparameters"],
        local_container_root=str(container),
    )
    trainer.train(
        [
            InputData(channel_name=name, data_source=path)
            for name, path in arguments["channels"].items()
        ]
    )
    report["seconds"]["train"] = round(time.monotonic() - start, 2)
    artifact = next(container.rglob("model.tar.gz"))
    with tarfile.open(artifact) as archive:
        report["model"] = sorted(archive.getnames())
    report["left"] = sorted(path.name for path in container.iterdir())

    if not arguments.get("only_fit"):
        serving = root / "serving"
        serving.mkdir()
        (serving / "model.tar.gz").write_bytes(artifact.read_bytes())
        session = LocalSession()
        session.config = {
            "local": {
                "local_code": True,
                "serving_port": arguments["port"],
                "container_root": str(root),
            }
        }
        client, runtime = session.sagemaker_client, session.sagemaker_runtime_client
        runtime.config = session.config
        start = time.monotonic()
        primary = {
            "Image": arguments["image"],
            "ModelDataUrl": f"file://{serving}",
            "Environment": {},
        }
        client.create_model("fm", primary)
        variant = {
            "VariantName": "AllTraffic",
            "ModelName": "fm",
            "InitialInstanceCount": 1,
            "InstanceType": "local",
        }
        client.create_endpoint_config("fm", [variant])
        client.create_endpoint("fm", "fm")
        report["seconds"]["deploy"] = round(time.monotonic() - start, 2)
        report["answers"] = {}
        for name, body in json.loads(Path(arguments["bodies"]).read_text()).items():
            answer = runtime.invoke_endpoint(
                json.dumps(body), "fm", "application/json", "application/json"
            )
            report["answers"][name] = json.loads(answer["Body"].read())
        client.delete_endpoint("fm")
    report["asked"] = asked
    return report


if __name__ == "__main__":
    logging.basicConfig(level="INFO", stream=sys.stderr)
    botocore.httpsession.URLLib3Session.send = spy
    given = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps(main(given)))
