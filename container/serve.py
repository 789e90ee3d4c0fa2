"""``serve``: the program of an endpoint, a batch transform or a multi-model endpoint.

    python -m container.serve

The server is that of ``fm serve``. Decided here: which environment variables set what.

=======================================  ==========================================================
SAGEMAKER_BIND_TO_PORT                   port (8080). No other port is opened, so
                                         SAGEMAKER_SAFE_PORT_RANGE has nothing to limit
SAGEMAKER_MODEL_SERVER_WORKERS           processes (one for each core)
SAGEMAKER_MODEL_SERVER_TIMEOUT           seconds after which a process that hangs is replaced (60)
SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT     media type of answers if a request does not say
SAGEMAKER_BATCH                          true: requests come from a batch transform
SAGEMAKER_MULTI_MODEL                    true: requests load and unload models
MAX_CONTENT_LENGTH                       bytes of the largest body (128 MB)
SAGEMAKER_MAX_PAYLOAD_IN_MB              raises that limit; 0: bodies of any size
SAGEMAKER_CONTAINER_LOG_LEVEL            10 or less: every request is logged
=======================================  ==========================================================
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal comes; return the exit code."""
    # First of all: the imports below take longer than a signal may wait.
    signal.signal(signal.SIGTERM, _leave)
    # A process answers with many threads; threads inside the linear algebra slow them down.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from container.paths import Paths
    from fm.cli.messages import run

    def serve(given: Sequence[str] | None) -> int:
        from fm.serving.server import run_server

        paths, options = Paths.of(os.environ), settings(os.environ)
        path = paths.base / "models" if options["multi_model"] else paths.model
        if options["multi_model"]:
            with contextlib.suppress(OSError):
                path.mkdir(parents=True, exist_ok=True)
        run_server(path, **options)

    return run(serve, argv)


def settings(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the keyword arguments of ``run_server`` that the environment sets.

    Raises
    ------
    ConfigError
        One error that names every variable that is wrong.

    Examples
    --------
    >>> found = settings({"SAGEMAKER_BIND_TO_PORT": "9090", "SAGEMAKER_BATCH": "True"})
    >>> found["bind"], found["batch"], found["multi_model"], found["timeout"]
    ('0.0.0.0:9090', True, False, 60)
    """
    from fm.errors import ConfigError
    from fm.parameter import Parameter
    from fm.serving.limits import Limits, cores

    problems: list[str] = []

    def value(kind: type, default: Any, *names: str, low: int = 1, high: int | None = None) -> Any:
        """Return the value of the first variable that is set."""
        least = low if kind is int else None
        for name in names:
            parameter = Parameter(name, kind, None, "", "", least, high, optional=True)
            try:
                found = parameter.parse(environ.get(name))
            except ConfigError as err:
                problems.append(str(err))
                continue
            if found is not None:
                return found
        return default

    limit = value(int, Limits().body_bytes, "MAX_CONTENT_LENGTH")
    payload = value(int, None, "SAGEMAKER_MAX_PAYLOAD_IN_MB", low=0)
    if payload is not None:
        limit = max(limit, payload << 20) if payload else sys.maxsize
    result = {
        "bind": f"0.0.0.0:{value(int, 8080, 'SAGEMAKER_BIND_TO_PORT', high=65535)}",
        "workers": value(int, cores(), "SAGEMAKER_MODEL_SERVER_WORKERS", "MODEL_SERVER_WORKERS"),
        "timeout": value(
            int,
            60,
            "SAGEMAKER_MODEL_SERVER_TIMEOUT",
            "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS",
            "MODEL_SERVER_TIMEOUT",
        ),
        "limits": Limits(body_bytes=limit),
        "multi_model": value(bool, False, "SAGEMAKER_MULTI_MODEL"),
        "batch": value(bool, False, "SAGEMAKER_BATCH"),
        "default_accept": environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or None,
        "access_log": value(int, 20, "SAGEMAKER_CONTAINER_LOG_LEVEL", low=0) <= 10,
    }
    if problems:
        raise ConfigError("; ".join(problems))
    return result


def _leave(*_: Any) -> NoReturn:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
