"""The two lines of older SageMaker notebooks that newer SDKs break, whatever the image.

SDK 1 took plain functions to encode requests and to decode answers; SDK 2 and 3 want objects, and
SDK 2 no longer exports ``json_deserializer`` from ``sagemaker.predictor`` (since 2.154). A notebook
goes on with::

    from fm.sagemaker_compat import Serializer, json_deserializer

    predictor.serializer = Serializer(fm_serializer)     # was: = fm_serializer
    predictor.deserializer = json_deserializer           # as it was

Both still work with SDK 1, which calls them. No SDK is imported here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import IO, Any

JSON = "application/json"


class Serializer:
    """What encodes the data of a request: an object for SDK 2 and 3 around a function for SDK 1.

    Parameters
    ----------
    function : callable
        Takes what is given to ``predictor.predict`` and returns the body of the request.
    content_type : str
        What the body is.

    Examples
    --------
    >>> serializer = Serializer(lambda rows: json.dumps({"instances": rows}))
    >>> serializer.serialize([{"features": [0.5]}]), serializer.CONTENT_TYPE
    ('{"instances": [{"features": [0.5]}]}', 'application/json')
    """

    def __init__(self, function: Callable[[Any], str | bytes], content_type: str = JSON) -> None:
        self.function = function
        self.CONTENT_TYPE = content_type

    def serialize(self, data: Any) -> str | bytes:
        """Return the body for `data`."""
        return self.function(data)

    def __call__(self, data: Any) -> str | bytes:
        """Return the body for `data`, where SDK 1 asks for it."""
        return self.function(data)


class JSONDeserializer:
    """What decodes the body of an answer in JSON.

    Examples
    --------
    >>> import io
    >>> json_deserializer.deserialize(io.BytesIO(b'{"predictions": []}'), "application/json")
    {'predictions': []}
    """

    ACCEPT = (JSON,)

    def deserialize(self, stream: IO[bytes], content_type: str = JSON) -> Any:
        """Return the content of `stream`, which is closed."""
        try:
            return json.loads(stream.read())
        finally:
            stream.close()

    __call__ = deserialize


json_deserializer = JSONDeserializer()
