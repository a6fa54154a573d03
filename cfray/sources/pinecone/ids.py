"""The ids of a Pinecone namespace: listed page by page, or read from the user's file.

A list of ids, 100 a request, is the only complete way through a namespace, and nothing
else proves that it is complete.  So its order is checked, and that it advances.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from cfray.errors import SourceError
from cfray.runtime import filesystems
from cfray.sources.pinecone.client import LIST_LIMIT, SendRequest
from cfray.sources.pinecone.types import PineconeNamespace

INVALID_ID = (
    "an id that Pinecone's client does not ask for: ids are 1 to 512 ASCII characters without NUL"
)


def is_valid_id(text: str) -> bool:
    """Tell whether the client asks for a text as an id.

    The limits are those of the pattern ``ids`` in the description of Pinecone's API.
    """
    return 1 <= len(text) <= 512 and text.isascii() and "\0" not in text


def list_ids(index: Any, namespace: PineconeNamespace, send: SendRequest) -> Iterator[str]:
    """List the ids of a namespace in the order that Pinecone promises: by their bytes.

    Raises:
        SourceError: an id out of order or twice, or a list that does not advance: ids may be
            missing from it, and nobody could say which.
    """
    token: str | None = None
    last_id = ""
    while True:
        page, next_token = send(partial(_list_page, index, namespace, token))
        for record_id in page:
            if record_id <= last_id:
                raise SourceError(
                    f"the list of ids of namespace {namespace.api_name} is not in order: "
                    f"{record_id[:80]!r} came after {last_id[:80]!r}",
                    "run again; if it happens again, give the ids in a file with source.ids",
                )
            last_id = record_id
            yield record_id
        if not next_token:
            return
        if next_token == token:
            raise SourceError(
                f"the list of ids of namespace {namespace.api_name} gives the same page again",
                "run the same command again",
            )
        token = next_token


def _list_page(
    index: Any, namespace: PineconeNamespace, token: str | None
) -> tuple[list[str], str | None]:
    """Ask for one page of ids, and for the token of the next page."""
    if namespace.holds_documents:
        listing = index.documents.list(
            namespace=namespace.api_name, limit=LIST_LIMIT, pagination_token=token
        )
        page = next(iter(listing.pages()))
        return [document.id for document in page.items], page.pagination_token
    answer = index.list_paginated(
        namespace=namespace.name, limit=LIST_LIMIT, pagination_token=token
    )
    next_token = answer.pagination.next if answer.pagination else None
    return [str(vector.id or "") for vector in answer.vectors], next_token


def read_ids_file(uri: str) -> list[str]:
    """Read a file of ids, sorted and without repetitions.

    The file has one id a line; the lines of a ``.jsonl`` file are JSON strings.

    Raises:
        SourceError: the file cannot be read, or a line of ``.jsonl`` is no string.
    """
    system, path = filesystems.open_filesystem(uri)
    try:
        with system.open_input_stream(path) as stream:
            lines = [line.removesuffix("\r") for line in stream.read().decode().split("\n")]
        ids = {json.loads(line) if uri.endswith(".jsonl") else line for line in lines if line}
    except (OSError, ValueError, TypeError) as error:
        raise SourceError(
            f"the file of ids {uri} cannot be read: {error}",
            "correct source.ids: one id a line, UTF-8; in .jsonl a JSON string",
        ) from None
    if not all(isinstance(record_id, str) for record_id in ids):
        raise SourceError(
            f"the file of ids {uri} holds values that are no strings",
            "write each id as a JSON string, or name the file .txt",
        )
    return sorted(ids)
