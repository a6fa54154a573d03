"""Small real targets, copied by the steps and files of the copy itself, without Ray.

The tests run the bodies of the second line's tasks in this process, one after the other, as Ray does
on its workers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import lance
import pyarrow as pa
from rich.console import Console

from cfray.conversion import chunk_frames
from cfray.conversion.rejects import EMBED_STAGE
from cfray.conversion.steps import Steps, copied_schema
from cfray.copying.duplicates import Identities, remove_duplicates
from cfray.copying.removal import Removal, documents_of, remove_documents
from cfray.copying.write import Tally, new_nonce, publish, write_frames
from cfray.embedders.recipe import RECIPE_KEY, Recipe
from cfray.embedding import embed
from cfray.embedding.compute import ComputePiece, PieceReceipt
from cfray.embedding.join import JoinedFragment, JoinFragment, PiecesOfFragment
from cfray.embedding.pieces import Piece, VectorTask, divide, group_by_fragment
from cfray.embedding.swap import swap_vectors
from cfray.embedding.vectors import VectorMaker
from cfray.job.spec import JobSpec
from cfray.joining import headers
from cfray.planning.shape import work_out_shape
from cfray.proving.read_target import Fragments, sum_fragments
from cfray.report.progress import Progress
from cfray.report.run import Run
from cfray.runs import new_report, with_current_dimension
from cfray.sources.base import Description, Shard
from cfray.sources.session import SourceSession
from cfray.target.books import Books, Content, read_books
from cfray.target.commit import Target, commit_receipts
from cfray.target.creation import create_target
from cfray.target.ledger import EntryKind
from cfray.target.origins import RowOrigins
from cfray.target.receipts import EmbedReceipt, ShardReceipt
from cfray.target.state import Plan, State
from tests.embedding.letters import DIMENSION, IDENTITY, letters_model

ENDPOINT = {"endpoint": {"url": "http://127.0.0.1:9", "api": "tei"}}
MAPPING = {"id": "id", "text_content": "body", "title": "name", "collection": {"const": "c"}}


@dataclass
class SmallTarget:
    """A target whose shards are committed."""

    job: JobSpec
    plan: Plan
    target: Target

    @property
    def state(self) -> State:
        return State(self.target.uri)

    @property
    def books(self) -> Books:
        return read_books(self.state, self.target.ledger())

    @property
    def dataset(self) -> lance.LanceDataset:
        return self.target.open()

    def rows(self, *columns: str) -> dict[int, dict[str, Any]]:
        """Read the rows: row id -> row."""
        names = list(columns) or [name for name in self.dataset.schema.names if name != "raw_data"]
        table = self.dataset.to_table(columns=names, with_row_id=True)
        return {row.pop("_rowid"): row for row in table.to_pylist()}

    def row_ids(self, *ids: str) -> list[int]:
        """Find the documents of records by their id, which is their title here."""
        by_title = {
            row["title"]: row_id
            for row_id, row in self.rows().items()
            if row["record_type"] == "document" and not is_chunk(row)
        }
        return [by_title[record] for record in ids]

    def content(self) -> dict[str, Content]:
        """Read every row again as ``verify`` does: name of the entry -> its rows."""
        fragments = [fragment.fragment_id for fragment in self.dataset.get_fragments()]
        origins = RowOrigins(self.plan, self.target.ledger())
        scanned = Fragments(self.target.uri, self.dataset.version, fragments, origins)
        return sum_fragments(scanned).rows

    def remove(self, *ids: str) -> None:
        """Take records out as duplicates leave."""
        reasons = dict.fromkeys(self.row_ids(*ids), "same identity as another record")
        remove_duplicates(self.target, self.state, self.plan, Identities(reasons, 0), 100)

    def run(self, job: JobSpec | None = None) -> Run:
        """Give a command at work on the target."""
        job = job or self.job
        plan = with_current_dimension(self.plan, job)
        progress = Progress(Console(stderr=True), quiet=True)
        source = SourceSession(job.source)
        report = new_report("migrate", job)
        run = Run(*(job, self.state, self.target, plan, report, progress, source), True)
        run.count()
        return run

    def second_line(self, job: JobSpec | None = None, **recipe: Any) -> SecondLine:
        job = job or self.job
        return SecondLine.of(self, job, recipe_of(job, self.plan.shape.read_dimension, **recipe))


def job_of(uri: str, policy: str = "regenerate", **embedding: Any) -> JobSpec:
    """Give the job of a small target."""
    if policy != "keep":
        embedding |= ENDPOINT
    return JobSpec.model_validate(
        {
            "name": "n",
            "source": {"kind": "parquet", "uri": "x"},
            "mapping": MAPPING,
            "target": {"uri": uri},
            "embedding": {"policy": policy, **embedding},
        }
    )


def recipe_of(job: JobSpec, source_width: int, **changes: Any) -> Recipe:
    """Give the recipe that the plan of a job would have."""
    embedding = job.embedding
    width = source_width if embedding.policy == "keep" else DIMENSION
    if embedding.reduce is not None:
        width, changes = embedding.reduce.dimension, {"reduction": "truncate", **changes}
    model = None if embedding.policy == "keep" else IDENTITY
    return Recipe(embedding.policy, width, model, **changes)


def copy_target(
    folder: Any, shards: list[list[dict]], policy: str = "regenerate", **embedding: Any
):
    """Copy records shard by shard.

    Args:
        folder: for the dataset and the folder beside it.
        shards: of records with ``id``, ``body`` and, where the policy copies it, ``vector``; an id
            is the title, too.
        policy, embedding: of the job.
    """
    job = job_of(str(folder / "t.lance"), policy, **embedding)
    batches = [_records(records) for records in shards]
    description = Description(batches[0].schema, None, exact=False, size=0, consistency="none")
    shape = work_out_shape(job, description, batches)
    shape = replace(shape, source_dimension=shape.dimension)
    plan = Plan(
        [Shard(f"shard {number}", {}) for number in range(len(shards))],
        shape,
        "files",
        sum(map(len, shards)),
        exact=True,
        size=0,
        recipe=recipe_of(job, shape.dimension),
        fingerprint=job.fingerprint,
    )
    metadata = {RECIPE_KEY: Recipe("keep", shape.dimension).to_json()}
    target = create_target(job.target.uri, copied_schema(job, shape), metadata, job.fingerprint)
    small = SmallTarget(job, plan, target)
    small.state.save_jobs([{"fingerprint": job.fingerprint, "agreed": job.agreed}])
    small.state.save_plan(plan)
    for number, batch in enumerate(batches):
        commit_receipts(target, [_copy_shard(small, number, batch)])
    return small


def _records(records: list[dict]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"name": record["id"], **record} for record in records])


def _copy_shard(small: SmallTarget, number: int, batch: pa.RecordBatch) -> ShardReceipt:
    steps = Steps(small.job, small.plan.shape)
    converted = steps(batch, "")
    assert not converted.faults
    tally = Tally()
    uri = small.target.uri
    fragments, files = write_frames(uri, steps.schema, [converted.frames], tally)
    receipt = ShardReceipt(
        name=str(number),
        shard=small.plan.shards[number].id,
        nonce=new_nonce(),
        read=batch.num_rows,
        staged=batch.num_rows,
        frames=tally.frames,
        fragments=fragments,
        files=files,
        sums=tally.sums,
        centroids=tally.centroids(),
        counts=dict(converted.counts),
    )
    return publish(small.state, receipt, [])


@dataclass
class SecondLine:
    """One making of a small target's vectors, step by step."""

    small: SmallTarget
    task: VectorTask
    compute: ComputePiece

    @classmethod
    def of(cls, small: SmallTarget, job: JobSpec, recipe: Recipe) -> SecondLine:
        target = small.target
        name = target.ledger().next_name(EntryKind.EMBED)
        version = target.open().version
        task = VectorTask(job, recipe, target.recipe(), version, name, target.epoch)
        model = None if recipe.policy == "keep" else letters_model(job.embedding)
        maker = VectorMaker(job.embedding, recipe, target.uri, model)
        return cls(small, task, ComputePiece(task, maker))

    def pieces(self, rows: int = 3) -> dict[str, tuple[Piece, PieceReceipt]]:
        """Compute every piece."""
        return {piece.name: (piece, self.compute(piece)) for piece in divide(self.task, rows)}

    def refused(self, computed: dict[str, tuple[Piece, PieceReceipt]]) -> dict[int, str]:
        return {
            row: reason
            for _, receipt in computed.values()
            for row, reason in receipt.refused.items()
        }

    def removal(self, refused: dict[int, str]) -> Removal:
        """Gather what leaves with refused rows."""
        origins = RowOrigins(self.small.plan, self.small.target.ledger())
        reasons = documents_of(self.task.dataset, refused)
        return remove_documents(self.task.dataset, origins, reasons, EMBED_STAGE)

    def leaving(self, removal: Removal) -> list[int]:
        """Name the rows that leave with the swap: the refused ones, and headers of old vectors."""
        ledger = self.small.target.ledger()
        return [*removal.row_ids, *embed._header_rows(ledger)]

    def join(
        self, computed: dict[str, tuple[Piece, PieceReceipt]], removal: Removal
    ) -> list[JoinedFragment]:
        """Join the pieces of each fragment, as it is now."""
        origins = RowOrigins(self.small.plan, self.small.target.ledger())
        leaving = frozenset(self.leaving(removal))
        groups = group_by_fragment([piece for piece, _ in computed.values()])
        return [
            JoinFragment(self.task, origins)(
                PiecesOfFragment([computed[piece.name] for piece in pieces], leaving)
            )
            for pieces in groups
        ]

    def swap(
        self,
        computed: dict[str, tuple[Piece, PieceReceipt]],
        removal: Removal,
        joined: list[JoinedFragment],
    ) -> EmbedReceipt:
        """Publish the receipt, and commit vectors and headers."""
        small, job = self.small, self.task.job
        pieces = [piece for piece, _ in computed.values()]
        receipts = {name: receipt for name, (_, receipt) in computed.items()}
        receipt = embed._receipt(self.task, embed._Computed(pieces, receipts, 0), joined, removal)
        publish(small.state, receipt, removal.rejected)
        has_headers = EntryKind.HEADERS in small.target.ledger().entries
        run = small.run(job)
        companions = headers.headers_of_swap(run, self.task, receipt) if has_headers else None
        small.state.remember_job(job.fingerprint, job.agreed)
        swap_vectors(
            *(self.task, small.target, receipt, joined),
            leaving=self.leaving(removal),
            companions=companions,
        )
        return receipt

    def run(self, rows: int = 3) -> EmbedReceipt:
        """Compute, join and swap."""
        computed = self.pieces(rows)
        removal = self.removal(self.refused(computed))
        return self.swap(computed, removal, self.join(computed, removal))


def is_chunk(row: dict[str, Any]) -> bool:
    return row.get(chunk_frames.FIELD.name) is not None
