"""``fm serve``: a model behind HTTP."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fm.cli.options import Parser, positive
from fm.serving.limits import Limits, cores
from fm.serving.media import ANSWER_TYPES

EXAMPLES = """\
  fm serve model.safetensors                          http://127.0.0.1:8080
  fm serve model/ --host 0.0.0.0 --port 80 --workers 4
  fm serve model.tar.gz                               an artefact of SageMaker's built-in
  fm serve models/ --multi-model                      http://127.0.0.1:8080/models/NAME/invoke
  curl localhost:8080/invocations -H 'content-type: application/json' \\
       -d '{"instances": [{"user": "42", "film": "Alien (1979)"}]}'
  curl localhost:8080/invocations -H 'content-type: application/json' \\
       -d '{"recommend": {"user": "42", "k": 10}}'"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see ``fm serve --help``."""
    args = _parser().parse_args(argv)
    from fm.serving.server import run_server  # not earlier: --help needs no server

    run_server(
        args.model,
        bind=f"{args.host}:{args.port}",
        workers=args.workers,
        threads=args.threads,
        timeout=args.timeout,
        limits=Limits(body_bytes=args.max_body << 20),
        multi_model=args.multi_model,
        model_bytes=None if args.memory is None else args.memory << 20,
        default_accept=args.default_accept,
        batch=args.batch,
        access_log=args.access_log,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser("fm serve", "Answer HTTP requests with a model's predictions.", EXAMPLES)
    parser.add_argument(
        "model", metavar="MODEL", help="model file, directory with one, or built-in model.tar.gz"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s)")
    parser.add_argument("--port", type=positive, default=8080, help="port (%(default)s)")
    parser.add_argument(
        "--workers", type=positive, default=cores(), help="processes (%(default)s here)"
    )
    parser.add_argument(
        "--threads", type=positive, default=32, help="threads of each process (%(default)s)"
    )
    parser.add_argument(
        "--timeout",
        type=positive,
        default=60,
        metavar="SECONDS",
        help="a process that hangs for so long is replaced (%(default)s)",
    )
    parser.add_argument(
        "--max-body",
        type=positive,
        default=Limits().body_bytes >> 20,
        metavar="MB",
        help="larger bodies are refused (%(default)s)",
    )
    parser.add_argument(
        "--default-accept",
        choices=tuple(ANSWER_TYPES),
        metavar="TYPE",
        help="media type of answers to clients that accept any; not given: as the request",
    )
    parser.add_argument(
        "--batch", action="store_true", help="answer RecordIO in JSON Lines, for a batch transform"
    )
    parser.add_argument(
        "--multi-model",
        action="store_true",
        help="MODEL is a directory of models. NAME.safetensors, NAME.tar.gz and NAME/ in it are "
        "loaded at the start and asked by /models/NAME/invoke; POST /models loads more, DELETE "
        "/models/NAME unloads",
    )
    parser.add_argument(
        "--memory",
        type=positive,
        metavar="MB",
        help="with --multi-model: memory for all models together; not given: 70%% of what there is",
    )
    parser.add_argument("--access-log", action="store_true", help="log every request")
    return parser
