"""A server as the plan and the readers see it: requests, and the few words that products differ in.

Requests go through the vendor's client, and answers are parsed here, exactly: the clients' own
parsers would round what is beyond 64 bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

from cfray.errors import SourceError
from cfray.formats.jsontext import InexactJson, InvalidJson, parse_json
from cfray.sources.base import Context, Json
from cfray.sources.lucene.errors import InexactAnswer, InvalidAnswer, lost_view
from cfray.sources.lucene.facts import IndexFacts
from cfray.sources.lucene.schema import VectorField
from cfray.sources.lucene.settings import LuceneSettings


class Server(ABC):
    """An opened client with the settings and the budget of a run.

    Attributes:
        version: of the server, its first two numbers.
    """

    #: The kind of the job file, which the server must be.
    product: ClassVar[str]

    def __init__(self, settings: LuceneSettings, context: Context) -> None:
        """Ask for nothing yet."""
        self.settings = settings
        self.context = context
        self.version: tuple[int, int] = (0, 0)

    @abstractmethod
    def call(self, method: str, target: str, body: Json) -> Any:
        """Send one request with the vendor's client; give the parsed answer."""

    @abstractmethod
    def open_view(self, index: str) -> str:
        """Open a point in time of an index; give its id."""

    @abstractmethod
    def close_view(self, view: str) -> None:
        """Let a point in time go."""

    @property
    @abstractmethod
    def order(self) -> str:
        """Name what pages are sorted by: a total order, in which no record has another's place."""

    @property
    @abstractmethod
    def source_filter(self) -> Json:
        """Say which part of a document to give: all of it, its vectors too."""

    @staticmethod
    @abstractmethod
    def parse_vector(path: str, declared: Mapping[str, Any]) -> VectorField | None:
        """Read what a mapping declares of a field; None where it is no vector."""

    def restores_vectors(self, facts: IndexFacts) -> bool:
        """Tell whether the server puts vectors back that a mapping keeps out of ``_source``."""
        return False

    @abstractmethod
    def vector_notes(self, facts: IndexFacts) -> Iterator[str]:
        """Say which vectors the server gives otherwise than they were written."""

    @staticmethod
    @abstractmethod
    def nearest(
        field: str, vector: list[float], k: int, condition: dict[str, Json] | None
    ) -> dict[str, Json]:
        """Write the search for the k nearest vectors."""

    def send(self, method: str, path: str, body: Json = None, **params: str | int) -> Any:
        """Send a request within the run's budget; again after a transient error."""
        target = f"{path}?{urlencode(params)}" if params else path
        return self.settings.send_request(partial(self.call, method, target, body), self.context)

    def check_product(self) -> None:
        """Ask the server what it is, and note its version.

        Raises:
            SourceError: it is of the other product, or of none of the two.
        """
        answer = self.send("GET", "/")
        version = answer.get("version") if isinstance(answer, dict) else None
        numbers = str(version.get("number")).split(".") if isinstance(version, dict) else []
        if len(numbers) < 2 or not all(number.isdigit() for number in numbers[:2]):
            raise SourceError(
                f"what answers at {self.settings.address} is no server of {self.product}",
                "correct source.url in the job file",
            )
        assert isinstance(version, dict)
        product = str(version.get("distribution", "elasticsearch"))
        if product != self.product:
            raise SourceError(
                f"{self.settings.address} is a server of {product}, not of {self.product}",
                f"write source.kind: {product} in the job file",
            )
        self.version = int(numbers[0]), int(numbers[1])

    def keep_alive(self) -> str:
        """Write how long a point in time lives on after a request."""
        return f"{self.settings.keep_alive_seconds}s"

    def close_quietly(self, view: str) -> None:
        """Let a point in time go; it expires by itself where the server does not answer."""
        try:
            self.close_view(view)
        except SourceError:
            return

    @contextmanager
    def view_of(self, index: str) -> Iterator[str]:
        """Give the session's point in time of an index, or open one for the block.

        Where shards are read by scrolls it is empty.

        Raises:
            SourceError: the session has none of this index.
        """
        if self.settings.read_by == "scroll":
            yield ""
            return
        views = session_views(self.context.session)
        if views is not None:
            if index not in views:
                raise lost_view(self.settings.address, index)
            yield views[index]
            return
        view = self.open_view(index)
        try:
            yield view
        finally:
            self.close_quietly(view)


def session_views(session: Json) -> dict[str, str] | None:
    """Give index -> point in time of a session; None where no session is open."""
    views = session.get("views") if isinstance(session, dict) else None
    if not isinstance(views, dict):
        return None
    return {index: str(view) for index, view in views.items()}


def parse_answer(data: bytes | str) -> Any:
    """Parse an answer exactly.

    Raises:
        InvalidAnswer: it is no JSON.
        InexactAnswer: it is, and its meaning cannot be kept.
    """
    content = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    try:
        return parse_json(content) if content else None
    except InvalidJson as error:
        raise InvalidAnswer(str(error)) from None
    except InexactJson as error:
        raise InexactAnswer(str(error), content) from None


def path_of(*names: str) -> str:
    """Write a path of names, each with its special characters as %XX."""
    return "/" + "/".join(quote(name, safe="") for name in names)
