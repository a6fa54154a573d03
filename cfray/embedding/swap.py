"""Make the vectors of a finished dataset anew.

One column rewritten, every other file left as it is, the old version still there.

Vectors are computed in pieces of a few thousand rows, each kept in ``scratch/`` as
soon as it is done, so a kill costs the pieces in flight.  Then each fragment
gets a file with its new column, and one commit puts all of them in their place
together with the ledger and the recipe: no reader ever sees two spaces in one
column.  The field keeps its id and takes its new type, whatever the width; the
file of the old column stays for the versions that refer to it.

Operation: a Merge whose fragments name the new file for the field and mark it
as gone (-2) in the old one, as Lance's own ``update_columns`` does; measured on
pylance 14.0.2 with deletions, compaction and indexes (``tests/embedding/test_swap.py``).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from lance import LanceDataset
from lance.fragment import FragmentMetadata
from lance.schema import LanceSchema

from cfray.conversion.embed import ORIGIN
from cfray.copying.write import Tally, new_nonce, publish
from cfray.embedders.recipe import RECIPE_KEY
from cfray.embedding.pieces import Compute, Join, Joined, Rewriting, by_fragment, divided, seal
from cfray.embedding.sample import Drawn, candidates, gathered, with_text
from cfray.engine import failpoint
from cfray.engine.tasks import TaskOptions, each
from cfray.errors import TargetUnavailable
from cfray.records.vectors import matrix
from cfray.target.books import RowOrigins
from cfray.target.commit import SchemaChange, Target, commit, commits
from cfray.target.ledger import EMBED, Ledger
from cfray.target.receipts import Receipt
from cfray.target.state import State

#: What Lance writes for a field whose column another file has (``update_columns``).
_TOMBSTONE = -2
#: Cores that a task claims while embedding actors, half a core each, are up: on one core there must
#: be room for it.
_SHARED = 0.5


def draw_from(rewriting: Rewriting, most: int, *, titled: bool) -> Drawn | None:
    """Draw rows with text and vector from the dataset itself."""
    numbers = [fragment.fragment_id for fragment in rewriting.dataset.get_fragments()]
    some = [
        numbers[place]
        for place in sorted(
            {int(place) for place in np.linspace(0, len(numbers) - 1, min(64, len(numbers)))}
        )
    ]
    lean = replace(rewriting, embed=replace(rewriting.embed, pool=None))
    return gathered(
        each(
            _drawn_from,
            [(lean, number, most, titled) for number in some],
            TaskOptions(cpus=_SHARED),
        ),
        most,
    )


def _drawn_from(work: tuple[Rewriting, int, int, bool]) -> Drawn | None:
    """Draw from one fragment.  Body of a Ray task."""
    rewriting, number, most, titled = work
    found: Drawn | None = None
    scanner = rewriting.dataset.get_fragment(number).scanner(
        columns=["uuid", "text_content", "title", "vector"], filter="record_type = 'document'"
    )
    for batch in scanner.to_batches():
        one = candidates(
            batch, matrix(batch.column("vector")).any(axis=1) & with_text(batch), titled=titled
        )
        found = one if found is None else found.with_more(one, most)
    return found


def rewrite(rewriting: Rewriting, target: Target, places: RowOrigins) -> Receipt:
    """Compute what is missing, write the columns, commit them in one version.

    Raises:
        CfrayError: what is computed stays; the same command goes on.
    """
    state = State(target.uri)
    pieces = divided(rewriting)
    done = set(rewriting.scratch.names())
    left = [piece for piece in pieces if piece.file not in done]
    for _ in each(Compute(rewriting), left, TaskOptions().beside_actors()):
        failpoint.reached("piece")
    joined = list(each(Join(rewriting, places), by_fragment(pieces), TaskOptions(cpus=_SHARED)))
    receipt = _receipt(rewriting, joined, adopted=len(pieces) - len(left), pieces=len(pieces))
    publish(state, receipt, [])
    failpoint.reached("joined")
    target.check_held(target.ledger())
    dataset = target.open()
    if "vector_idx" in {item.name for item in dataset.describe_indices()}:
        with commits(target):  # an index of the old vectors must never answer for the new ones
            dataset.drop_index("vector_idx")
    failpoint.reached("unindexed")
    _commit(rewriting, target, receipt, {one.fragment: one for one in joined})
    failpoint.reached("embedded")
    for name in rewriting.scratch.names():
        rewriting.scratch.remove(name)
    return receipt


def _receipt(
    rewriting: Rewriting, joined: Sequence[Joined], *, adopted: int, pieces: int
) -> Receipt:
    """Make the receipt of the whole rewriting."""
    account = Tally()
    sums: dict[str, dict[str, int]] = {}
    counts: Counter[str] = Counter({"pieces": pieces, "pieces_adopted": adopted})
    for one in joined:
        counts.update(one.counts)
        for name, total in one.sums.items():
            sums[name] = {"vector": (sums.get(name, {"vector": 0})["vector"] + total) % 2**64}
        account.merge(one.centroids)
    files = [file for one in joined for file in one.files]
    return Receipt(
        rewriting.name, rewriting.name, new_nonce(), files=files, centroids=account.centroids(), counts=dict(counts), resolved=sums,
        size=sum(one.size for one in joined),
    )  # fmt: skip


def _commit(
    rewriting: Rewriting, target: Target, receipt: Receipt, joined: dict[int, Joined]
) -> None:
    """Put every new file in its place in one version, with the ledger and the recipe."""
    fields = (
        pa.field("vector", pa.list_(pa.float32(), rewriting.embed.layout.dimension)),
        pa.field(ORIGIN, pa.string()),
    )
    described = SchemaChange({RECIPE_KEY: rewriting.embed.recipe.to_json()}, fields)

    def change(ledger: Ledger) -> Ledger | None:
        if rewriting.name in ledger.entries:
            return None
        fingerprint = rewriting.embed.job.fingerprint
        accepted = (*(known for known in ledger.fingerprints if known != fingerprint), fingerprint)
        return replace(ledger, fingerprints=accepted).with_entry(rewriting.name, 0, receipt.nonce)

    commit(
        target, change, rewrite=lambda latest: replaced(latest, fields, joined), describe=described
    )


def replaced(
    dataset: LanceDataset, fields: tuple[pa.Field, ...], joined: dict[int, Joined]
) -> list[FragmentMetadata]:
    """Give the fragments with the new file for the rewritten fields.

    Raises:
        TargetUnavailable: somebody changed the dataset meanwhile.
    """
    schema = dataset.schema
    for changed in fields:
        place = schema.get_field_index(changed.name)
        schema = schema.append(changed) if place < 0 else schema.set(place, changed)
    ids = {field.name(): field.id() for field in LanceSchema.from_pyarrow(schema).fields()}
    wanted = [ids[changed.name] for changed in fields]
    found = []
    for fragment in dataset.get_fragments():
        one = joined.get(fragment.fragment_id)
        if one is None or one.seal != seal(fragment.metadata):
            raise TargetUnavailable(
                f"fragment {fragment.fragment_id} of {dataset.uri} was added or changed while its vectors were being made",
                "run the same command again",
            )
        body = fragment.metadata.to_json()
        for file in body["files"]:
            file["fields"] = [_TOMBSTONE if field in wanted else field for field in file["fields"]]
        body["files"].append({**one.file, "fields": wanted})
        found.append(FragmentMetadata.from_json(json.dumps(body)))
    return found


def name_of(ledger: Ledger) -> str:
    """Name the next rewriting."""
    return f"{EMBED}{len(ledger.embeds) + 1:04d}"
