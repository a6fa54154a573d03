"""Open MongoDB's own client for one task, send its commands, and close it after the task.

Answers stay bytes: no document is decoded by the client.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from cfray.errors import SourceError
from cfray.runtime.sdk import import_sdk
from cfray.sources.base import Context
from cfray.sources.mongodb import errors
from cfray.sources.mongodb.elements import find_element, read_elements
from cfray.sources.mongodb.settings import MongoSettings

if TYPE_CHECKING:
    from pymongo import MongoClient

#: How the client calls itself in the server's log.
_APPLICATION = "cfray"
#: Seconds in which a server must be found.  An election takes longer; requests are sent again.
_SELECTION_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The documents of a command's answer.

    Attributes:
        data: the whole answer.
        spans: where each document begins and ends.
        time: cluster time of the snapshot that was read, or None.
    """

    data: bytes
    spans: list[tuple[int, int]]
    time: tuple[int, int] | None


@dataclass(frozen=True)
class Connection:
    """An open client and the run that it works for.

    Attributes:
        client: the vendor's.
        settings: of the source.
        context: of the run.
    """

    client: MongoClient[Any]
    settings: MongoSettings
    context: Context

    def run(self, database: str, command: Mapping[str, Any]) -> dict[str, Any]:
        """Run a command and decode its answer.

        Raises:
            SourceError: the server refused it, or did not answer.
        """
        action = partial(
            self.client[database].command,
            dict(command),
            # a command goes to the primary, whatever the address says, unless it is told
            read_preference=self.client.read_preference,
        )
        answer: dict[str, Any] = self.settings.send_request(action, self.context)
        return answer

    def find(self, database: str, command: Mapping[str, Any]) -> Answer:
        """Run a command that answers with documents, in the run's snapshot if it has one.

        Raises:
            SourceError: the server refused it, did not answer, or read no snapshot although it was
                told to.
        """
        concern = read_concern(self.context)
        answer = self.find_at(database, command, concern)
        if concern and answer.time != (concern["atClusterTime"].time, concern["atClusterTime"].inc):
            raise errors.no_snapshot(self.settings.address)
        return answer

    def find_at(
        self, database: str, command: Mapping[str, Any], concern: Mapping[str, Any] | None
    ) -> Answer:
        """Run a command that answers with documents, under a read concern.

        Raises:
            SourceError: the server refused it, or did not answer.
        """
        from bson.codec_options import CodecOptions
        from bson.raw_bson import RawBSONDocument

        options: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
        action = partial(
            self.client[database].command,
            {**command, **({"readConcern": concern} if concern else {})},
            codec_options=options,
            read_preference=self.client.read_preference,
        )
        raw: RawBSONDocument = self.settings.send_request(action, self.context)
        return split_answer(raw.raw)


def read_concern(context: Context) -> dict[str, Any] | None:
    """Give the read concern of the run's session; None for a live read."""
    from bson.timestamp import Timestamp

    state = context.session
    if not isinstance(state, dict):
        return None
    time = Timestamp(int(str(state["seconds"])), int(str(state["counter"])))
    return {"level": "snapshot", "atClusterTime": time}


def split_answer(data: bytes) -> Answer:
    """Find the documents of an answer.

    Raises:
        SourceError: the answer has no documents.
    """
    cursor = find_element(data, 0, len(data), b"cursor")
    if cursor is None:
        raise SourceError(
            "the server's answer to find has no cursor", "check that source.url is MongoDB's"
        )
    spans: list[tuple[int, int]] = []
    time: tuple[int, int] | None = None
    for name, _, start, end in read_elements(data, cursor.start, cursor.end):
        if name == b"firstBatch":
            spans = [(at, to) for _, _, at, to in read_elements(data, start, end)]
        elif name == b"atClusterTime":
            time = (
                int.from_bytes(data[start + 4 : start + 8], "little"),
                int.from_bytes(data[start : start + 4], "little"),
            )
    return Answer(data, spans, time)


@contextmanager
def open_connection(settings: MongoSettings, context: Context) -> Iterator[Connection]:
    """Open a client, and close it at the end.

    Raises:
        SourceError: the address or the credential cannot be used.
    """
    sdk = import_sdk("pymongo", "mongodb")
    milliseconds = int(settings.timeout * 1_000)
    try:
        client = sdk.MongoClient(
            settings.url,
            appname=_APPLICATION,
            retryReads=False,
            # an answer on a stream would be waited for after an election; a poll asks at once
            serverMonitoringMode="poll",
            serverSelectionTimeoutMS=int(1_000 * min(settings.timeout, _SELECTION_SECONDS)),
            connectTimeoutMS=milliseconds,
            socketTimeoutMS=milliseconds,
            **_credential_options(settings),
            **_certificate_options(settings),
        )
    except Exception as error:
        source_error = settings.classify_error(error)
        if source_error is None and not isinstance(error, ValueError | OSError | TypeError):
            raise
        raise settings.remove_secret(
            source_error
            or SourceError(
                f"cannot open a client for {settings.address}: {error}",
                "correct source.url and source.ca_file",
            )
        ) from None
    try:
        yield Connection(client, settings, context)
    finally:
        client.close()


def _credential_options(settings: MongoSettings) -> dict[str, Any]:
    if settings.username is None:
        return {}
    return {
        "username": settings.username,
        "password": settings.read_secret(),
        "authSource": settings.auth_source,
    }


def _certificate_options(settings: MongoSettings) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if settings.ca_file:
        options = {"tls": True, "tlsCAFile": settings.ca_file}
    if settings.insecure and settings.is_encrypted:
        options["tlsAllowInvalidCertificates"] = True
    return options
