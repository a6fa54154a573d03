"""Find the fields of many documents at the price of comparing names that are expected.

The documents of a page mostly have the same fields in the same order.  A tree holds the
orders that were seen: from each field, the fields that came next.  A document walks the tree
with one comparison an element, and a new field makes a new branch.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import error as StructError  # noqa: N812  # its own name says nothing
from typing import TypeAlias

from cfray.sources.mongodb.elements import (
    BESIDE_LENGTH,
    BINARY,
    LENGTHS,
    DamagedBsonError,
    read_int32,
    variable_length,
)

#: Where a value begins and ends.
Span: TypeAlias = tuple[int, int]
#: Branches of a field that are compared one after the other; more are looked up by name.
_FEW = 8


class Step:
    """A field behind the fields that lead to it.

    Attributes:
        head: bytes of the type, the name and its zero; empty for the root.
        kind: number of the type.
        head_length: bytes of ``head``.
        length: bytes of the value; None where it says so itself.
        beside_length: bytes beside what the length counts that such a value begins with; None
            where it begins with none.
        parent: the field before; None for the root.
        documents: row and values of each document that ends here.
        next_steps: the fields that came next, in the order in which they were first seen.
    """

    __slots__ = (
        "_by_head", "beside_length", "documents", "head", "head_length", "kind", "length",
        "next_steps", "parent",
    )  # fmt: skip

    def __init__(self, head: bytes = b"", parent: Step | None = None) -> None:
        """Start without documents.

        Raises:
            DamagedBsonError: the type does not exist.
        """
        self.head = head
        self.kind = head[0] if head else 0
        self.head_length = len(head)
        self.length = LENGTHS.get(self.kind)
        self.beside_length = BESIDE_LENGTH.get(self.kind)
        self.parent = parent
        self.documents: list[tuple[int, list[Span]]] = []
        self.next_steps: list[Step] = []
        self._by_head: dict[bytes, Step] = {}

    @property
    def fields(self) -> list[tuple[bytes, int]]:
        """Give name and type of each field up to this one."""
        steps: list[Step] = []
        step: Step | None = self
        while step is not None and step.head:
            steps.append(step)
            step = step.parent
        return [(step.head[1:-1], step.kind) for step in reversed(steps)]

    def follow(self, data: bytes, position: int, end: int) -> Step:
        """Give the field that comes next at a position.

        Raises:
            DamagedBsonError: there is no name.
        """
        if len(self.next_steps) <= _FEW:
            for step in self.next_steps:
                if data.startswith(step.head, position):
                    return step
        name_end = data.find(0, position + 1, end)
        if name_end < 0:
            raise DamagedBsonError(f"an element at byte {position} has no name")
        head = data[position : name_end + 1]
        step = self._by_head.get(head) or Step(head, self)
        if head not in self._by_head:
            self._by_head[head] = step
            self.next_steps.append(step)
        return step

    def all_steps(self) -> Iterator[Step]:
        """Give this field and all that come behind it."""
        waiting = [self]
        while waiting:
            step = waiting.pop()
            yield step
            waiting += step.next_steps


def add_document(root: Step, row: int, data: bytes, start: int, end: int) -> None:
    """Walk through a document and note where its values are.

    Raises:
        DamagedBsonError: it is damaged.
    """
    spans: list[Span] = []
    step, position, last = root, start + 4, end - 1
    begins_with, add = data.startswith, spans.append
    try:
        while position < last:
            expected = step.next_steps
            if expected and begins_with(expected[0].head, position):
                step = expected[0]
            else:
                step = step.follow(data, position, last)
            value = position + step.head_length
            length = step.length
            if length is None:
                beside = step.beside_length
                if beside is None:
                    length = variable_length(data, step.kind, value, last)
                else:
                    length = read_int32(data, value)[0] + beside
                    if (length <= beside and step.kind != BINARY) or length < beside:
                        raise DamagedBsonError(f"it says that it has {length - beside} bytes")
            position = value + length
            add((value, position))
    except (ValueError, StructError) as error:
        raise DamagedBsonError(f"an element at byte {position} is damaged: {error}") from None
    if position != last:
        raise DamagedBsonError(f"an element ends behind its document, at byte {position}")
    step.documents.append((row, spans))
