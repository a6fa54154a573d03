"""AWS's own client: open it with its retries off, and keep the answers' JSON as it came.

The client signs and sends.  Its parser takes an answer that was cut on the way for an empty one,
and would build Python objects for each number of each vector, at ten times the cost of reading the
JSON.  So every answer is checked before it is parsed, and a page is read with orjson.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType
from typing import Any

import orjson

from cfray.runtime.sdk import import_sdk
from cfray.sources.dynamodb.errors import BrokenAnswer
from cfray.sources.dynamodb.settings import DynamoDBSettings

#: Key under which an answer to a scan says how many bytes it had.
ANSWER_BYTES = "cfray.bytes"
#: Sessions make clients one at a time (boto3's guide, "Multithreading or multiprocessing").
_LOCK = threading.Lock()


@contextmanager
def open_client(settings: DynamoDBSettings) -> Iterator[Any]:
    """Open a client, and close it at the end.

    Raises:
        SourceError: the credential cannot be read, or the client refuses the settings.
        ConfigError: the client is not installed.
    """
    sdk = import_sdk("boto3", "dynamodb")
    from botocore.config import Config

    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    credential = dict(zip(names, settings.read_credential(), strict=False))
    try:
        with _LOCK:
            client = _session(sdk, settings.profile).client(
                "dynamodb",
                endpoint_url=settings.url,
                region_name=settings.signing_region,
                verify=settings.ca_file or not settings.insecure,
                config=Config(
                    connect_timeout=settings.timeout,
                    read_timeout=settings.timeout,
                    # cfray repeats a request itself: one pause then holds all workers off
                    retries={"total_max_attempts": 1, "mode": "standard"},
                ),
                **credential,
            )
    except Exception as error:
        source_error = settings.classify_error(error)
        if source_error is None:
            raise
        raise settings.remove_secret(source_error) from None
    client.meta.events.register("before-parse.dynamodb", _check_answer)
    try:
        yield client
    finally:
        client.close()


@lru_cache(maxsize=4)
def _session(sdk: ModuleType, profile: str | None) -> Any:
    """Give the session of a profile, which keeps the description of the service once loaded."""
    return sdk.session.Session(profile_name=profile)


def _check_answer(
    operation_model: Any,
    response_dict: dict[str, Any],
    customized_response_dict: dict[str, Any],
    **_: Any,
) -> None:
    """Refuse an answer that was cut or changed on the way, and keep the JSON of a page.

    An error's answer is left to the client.
    """
    if response_dict["status_code"] != 200:
        return
    body: bytes = response_dict["body"]
    expected = response_dict["headers"].get("x-amz-crc32")
    if expected is not None and zlib.crc32(body) != int(expected):
        raise BrokenAnswer("the answer does not have the checksum that it names")
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BrokenAnswer(f"the answer is no JSON: {error}") from None
    if not isinstance(answer, dict):
        raise BrokenAnswer("the answer is no JSON object")
    if operation_model.name == "Scan":
        customized_response_dict.update(answer)
        customized_response_dict[ANSWER_BYTES] = len(body)
        response_dict["body"] = b"{}"
