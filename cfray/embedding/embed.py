"""The second line: make the vectors of a target in four steps.

1. Learn: a map or a projection, where the job asks for one.
2. Compute: the new columns of each piece; what is computed is kept until the swap.
3. Join: a new data file for each fragment, and one receipt for all of them.
4. Swap: one commit puts all new files in place, and takes out the rows that were refused.

``cfray migrate`` does this after the copy, ``cfray embed`` on a finished target.  A kill at any
moment costs the pieces in flight: the same command goes on where it stopped.  Readers of the old
version are not disturbed, and the old version stays readable.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace

from cfray.conversion.rejects import EMBED_STAGE
from cfray.copying.driver import allowed_quarantine
from cfray.copying.removal import Removal, documents_of, remove_documents
from cfray.copying.write import Tally, new_nonce, publish
from cfray.embedders.recipe import Recipe
from cfray.embedding.compute import PieceReceipt
from cfray.embedding.join import JoinedFragment, JoinFragment, PiecesOfFragment
from cfray.embedding.learn import learn_missing, needs_learning
from cfray.embedding.learn_map import Learning, judge_again
from cfray.embedding.line import EmbeddingLine
from cfray.embedding.pieces import Piece, VectorTask, divide, group_by_fragment, piece_rows
from cfray.embedding.sample import TargetSampling, draw_from_target
from cfray.embedding.swap import Companions, drop_vector_index, swap_vectors
from cfray.engine import failpoint
from cfray.engine.tasks import run_tasks
from cfray.errors import LimitReached, TargetError
from cfray.frames.digests import add_sums
from cfray.job.mapping import rule_paths
from cfray.report.run import Run
from cfray.runtime.plurals import counted
from cfray.target.documents import parse_document
from cfray.target.exact_vectors import ExactVectors
from cfray.target.ledger import EntryKind, Ledger
from cfray.target.maps import load_map, load_projection
from cfray.target.origins import RowOrigins
from cfray.target.quarantine_counts import count_name
from cfray.target.receipts import EmbedReceipt

#: Receipts of pieces that are read at the same time: on an object store each costs a round trip.
_READERS = 16


#: Makes the rows that come with the vectors, from the receipt of the vectors.
MakeCompanions = Callable[[VectorTask, EmbedReceipt], Companions]


def embed_target(
    run: Run, recipe: Recipe, *, force: bool, companions: MakeCompanions | None = None
) -> EmbedReceipt:
    """Learn, compute, join and swap; go on with what an earlier command left.

    Args:
        run: a command that holds the target.
        recipe: of the new vectors, without what is still to be learned.
        force: use a fitted map although the gate refuses it.
        companions: makes the headers anew, where the target has headers.

    Returns:
        The receipt of the vectors, as the swap committed it.

    Raises:
        ProofFailed: the gate refuses the map; no vector changed.
        LimitReached: too many records were refused; no vector changed.
        CfrayError: what is computed is kept, and the same command goes on.
    """
    task = VectorTask.of(run, run.job, recipe, EntryKind.EMBED)
    line = EmbeddingLine.of(run, recipe)
    try:
        task = _learn(run, task, line, force=force)
        receipt = run.timed("embed", lambda: _embed_all(run, task, line, companions))
    finally:
        line.report(run)
    run.report.counts |= {count: receipt.counts[count] for count in ("pieces", "pieces_adopted")}
    run.state.scratch.remove(_recipe_file(task))
    return receipt


def _learn(run: Run, task: VectorTask, line: EmbeddingLine, *, force: bool) -> VectorTask:
    """Learn a map or a projection where the job asks for one, or read what was learned before."""
    scratch, file = run.state.scratch, _recipe_file(task)
    recipe = _saved_recipe(run, file) or task.recipe
    if needs_learning(task.job, recipe):
        recipe = _learn_from_target(run, task, recipe, line, force=force)
        scratch.publish(file, recipe.to_json().encode())
        failpoint.reach("learned")
    elif recipe.map:
        recipe = judge_again(run.report, task.job, recipe, force=force)
    return replace(task, recipe=recipe)


def _saved_recipe(run: Run, file: str) -> Recipe | None:
    """Read the recipe of an earlier command that had learned what it needs.

    What was learned and is gone or damaged is learned anew: no vector was made with it yet.

    Raises:
        TargetError: the file is damaged.
    """
    scratch, uri = run.state.scratch, run.target.uri
    data = scratch.read(file)
    if data is None:
        return None
    recipe = parse_document(
        data,
        f"{scratch.uri}/{file}",
        lambda text: Recipe.from_json(json.loads(text)),
        remedy="remove this file, then run the same command again: it learns anew",
    )
    try:
        if recipe.map:
            load_map(uri, recipe.map)
            ExactVectors.load(run.state, recipe.map)
        if recipe.reduction not in ("", "truncate"):
            load_projection(uri, recipe.reduction)
    except TargetError as error:
        run.report.notes.append(f"learned anew: {error.what}")
        return None
    return recipe


def _learn_from_target(
    run: Run, task: VectorTask, recipe: Recipe, line: EmbeddingLine, *, force: bool
) -> Recipe:
    """Learn from a sample of the target's own documents."""
    has_titles = bool(rule_paths(task.job.mapping.title))
    sampling = TargetSampling(task.uri, task.version, recipe.policy, 0, has_titles)
    learning = Learning(
        task.job,
        run.target,
        run.report,
        draw=lambda max_rows: draw_from_target(replace(sampling, max_rows=max_rows)),
        rows=run.report.counts["frames"],
        force=force,
    )
    return run.timed("learn", lambda: learn_missing(learning, recipe, line))


@dataclass(frozen=True, slots=True)
class _Computed:
    """The pieces of a target, each computed.

    Attributes:
        pieces: in the order of the rows.
        receipts: name of a piece -> its receipt.
        adopted: pieces that an earlier command computed.
    """

    pieces: list[Piece]
    receipts: dict[str, PieceReceipt]
    adopted: int

    @property
    def refused(self) -> dict[int, str]:
        """Give the rows that cannot have a vector: row id -> why."""
        return {
            row: reason
            for receipt in self.receipts.values()
            for row, reason in receipt.refused.items()
        }

    @property
    def counts(self) -> dict[str, int]:
        """Add up the pieces' figures."""
        counts = Counter({"pieces": len(self.pieces), "pieces_adopted": self.adopted})
        for piece in self.pieces:
            counts.update(self.receipts[piece.name].counts)
        return dict(counts)


def _embed_all(
    run: Run, task: VectorTask, line: EmbeddingLine, make_companions: MakeCompanions | None
) -> EmbedReceipt:
    """Compute, join and swap."""
    computed = _compute(run, task, line)
    origins = RowOrigins(run.plan, run.target.ledger())
    reasons = documents_of(task.dataset, computed.refused)
    removal = remove_documents(task.dataset, origins, reasons, EMBED_STAGE)
    leaving = removal.row_ids
    if make_companions is not None:
        leaving = [*leaving, *_header_rows(run.target.ledger())]
    joined = _join(task, computed, origins, leaving)
    receipt = _receipt(task, computed, joined, removal)
    publish(run.state, receipt, removal.rejected)
    companions = None if make_companions is None else make_companions(task, receipt)
    failpoint.reach("joined")
    run.target.check_held(run.target.ledger())
    drop_vector_index(run.target)
    failpoint.reach("unindexed")
    run.state.remember_job(task.job.fingerprint, task.job.agreed)
    swap_vectors(task, run.target, receipt, joined, leaving=leaving, companions=companions)
    failpoint.reach("embedded")
    task.remove_scratch(computed.pieces)
    return receipt


def _compute(run: Run, task: VectorTask, line: EmbeddingLine) -> _Computed:
    """Compute the pieces that no earlier command computed.

    Raises:
        LimitReached: too many records are in quarantine or refused.
    """
    pieces = divide(task, piece_rows(task, line.settings.device))
    receipts = _published(task, {piece.name for piece in pieces})
    adopted = len(receipts)
    missing_pieces = [piece for piece in pieces if piece.name not in receipts]
    refused = {row: why for receipt in receipts.values() for row, why in receipt.refused.items()}
    _check_limit(run, task, refused)
    run.progress.start_pieces(len(pieces), adopted)
    with closing(line.compute(task, missing_pieces)) as computed_pieces:
        for receipt in computed_pieces:
            receipts[receipt.piece] = receipt
            refused |= receipt.refused
            run.progress.add_piece()
            _check_limit(run, task, refused)
            failpoint.reach("piece")
    return _Computed(pieces, receipts, adopted)


def _published(task: VectorTask, names: set[str]) -> dict[str, PieceReceipt]:
    """Read the receipts of pieces that an earlier command computed; of two, either will do.

    Raises:
        TargetError: a receipt is damaged, or another piece's.
    """
    files: dict[str, str] = {}
    for file in sorted(task.receipts.list_names()):
        name = file.split(".")[0]
        if name in names:
            files.setdefault(name, file)
    with ThreadPoolExecutor(_READERS) as readers:
        receipts = readers.map(
            lambda file: PieceReceipt.read(task.receipts, file[1], of=file[0]), files.items()
        )
        return dict(zip(files, receipts, strict=True))


def _check_limit(run: Run, task: VectorTask, refused: dict[int, str]) -> None:
    """Stop before the swap where more records would be in quarantine than the job allows.

    Args:
        run: whose records are counted.
        task: what is made.
        refused: row id -> why; a record leaves whole, however many of its chunks are refused.

    Raises:
        LimitReached: no vector changed; what is computed is kept.
    """
    counts = run.report.counts
    allowed = allowed_quarantine(run.job, counts["read"]) - counts["quarantined"]
    if len(refused) > allowed and len(leaving := documents_of(task.dataset, refused)) > allowed:
        raise LimitReached(
            f"the embedding refused {counted(len(leaving), 'record')} so far; with "
            f"{counts['quarantined']:,} in quarantine already that is more than "
            f"limits.max_quarantined ({run.job.limits.max_quarantined}) allows",
            "raise limits.max_quarantined, or set embedding.on_long_text or missing_vector to "
            "another value; then run the same command again",
        )


def _header_rows(ledger: Ledger) -> range:
    entry = ledger.entries.get(EntryKind.HEADERS)
    return range(0) if entry is None else range(entry.start, entry.start + entry.rows)


def _join(
    task: VectorTask, computed: _Computed, origins: RowOrigins, leaving: Sequence[int]
) -> list[JoinedFragment]:
    """Write the new data file of every fragment."""
    ids = frozenset(leaving)
    work = [
        PiecesOfFragment([(piece, computed.receipts[piece.name]) for piece in pieces], ids)
        for pieces in group_by_fragment(computed.pieces)
    ]
    return list(run_tasks(JoinFragment(task, origins), work))


def _receipt(
    task: VectorTask, computed: _Computed, joined: Sequence[JoinedFragment], removal: Removal
) -> EmbedReceipt:
    """Add up the fragments to a single receipt."""
    tally = Tally()
    sums: dict[str, int] = {}
    counts = Counter(computed.counts)
    for fragment in joined:
        sums = add_sums(sums, fragment.sums)
        tally.merge(fragment.collections)
        counts.update(fragment.counts)
    counts.update(count_name(row.reason, row.stage) for row in removal.rejected)
    return EmbedReceipt(
        name=task.name,
        nonce=new_nonce(),
        files=[file for fragment in joined for file in fragment.files],
        quarantined=len(removal.rejected),
        centroids=tally.centroids(),
        counts=dict(counts),
        vector_sums={entry: {"vector": total} for entry, total in sums.items()},
        left=removal.left,
        size=sum(fragment.size for fragment in joined),
    )


def _recipe_file(task: VectorTask) -> str:
    """Name the file that keeps what was learned until the swap commits it."""
    return f"{task.name}-{task.job.fingerprint[:16]}.json"
