"""Which shards a comparison with the source has found alike: kept, so that it can go on.

A comparison of a large source takes as long as reading it did.  If it is killed, the next one on
the same target reads only the shards that were not yet found alike, and says since when.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from cfray.errors import TargetError
from cfray.runtime.clock import seconds_of, utc_now
from cfray.target.documents import dumps, parse_document
from cfray.target.state import State

#: File in the folder beside the target, while a comparison is under way.
FILE = "compared.json"
#: Seconds for which a shard counts as alike: a day.  Marks of writes do not show everything: a
#: file may be changed and given its old time.
_VALID = 86_400
#: Writing the file may take a twentieth of the time.
_SHARE = 20


@dataclass(slots=True)
class ShardsCompared:
    """The shards that were found alike.

    Attributes:
        state: of the target.
        basis: what must be the same for an earlier comparison to count: the ledger's digest, and
            the marks of the source.
        began: when the first comparison of this basis began, UTC.
        alike: name of a shard's entry -> records.
        resumed: of these, how many were found by earlier comparisons.
    """

    state: State
    basis: dict[str, Any]
    began: str = field(default_factory=utc_now)
    alike: dict[str, int] = field(default_factory=dict)
    resumed: int = 0
    _next: float = 0.0

    @classmethod
    def resume(cls, state: State, basis: dict[str, Any]) -> ShardsCompared:
        """Go on where a comparison of the same basis ended, or begin."""
        data = state.folder.read(FILE)
        if data is None:
            return cls(state, basis)
        try:
            body = parse_document(data, f"{state.folder.uri}/{FILE}", json.loads)
            is_old = time.time() - seconds_of(body["began"]) > _VALID
            if body["basis"] != basis or is_old:
                return cls(state, basis)
            alike = {str(name): int(records) for name, records in body["alike"].items()}
            return cls(state, basis, str(body["began"]), alike, len(alike))
        except (TargetError, ValueError, TypeError, LookupError, AttributeError):
            return cls(state, basis)  # a damaged file saves no work

    def add(self, name: str, records: int) -> None:
        """Note a shard that is alike."""
        self.alike[name] = records
        begin = time.monotonic()
        if begin < self._next:
            return
        body = {"basis": self.basis, "began": self.began, "alike": self.alike}
        self.state.folder.publish(FILE, dumps(body))
        end = time.monotonic()
        self._next = end + _SHARE * (end - begin)

    def forget(self) -> None:
        """Remove the file: the comparison came to its end."""
        self.state.folder.remove(FILE)
