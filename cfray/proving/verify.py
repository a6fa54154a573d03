"""Prove that the target holds what was handed to ``write``, shard by shard.

That no file has changed a bit.

Re-reads everything, independent of the source: row count and content hash per
column group of each shard against its receipt, and the digest of every data
and blob file.  Lance itself reads most flipped bits without a word
(``reliability.md`` 3: 11 of 14), which is why.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import lance
import pyarrow as pa
from lance import LanceDataset

from cfray.copying.write import digest_file
from cfray.engine import cluster
from cfray.engine.tasks import each
from cfray.errors import TargetError
from cfray.finishing import index
from cfray.frames import digests
from cfray.report.facts import Report
from cfray.runtime import filesystems
from cfray.target.books import RowOrigins, by_shard
from cfray.target.commit import Target
from cfray.target.ledger import DUPLICATES, Ledger
from cfray.target.state import Plan, State

Sums = dict[str, int]
#: Bytes of Arrow data a verifying scan holds at once.
_BATCH_BYTES = 16 * 1024 * 1024
#: Batches and bytes a scan reads ahead; Lance's own 16 batches and 2 GiB would make the reader, not
#: the data, set the peak of a run.
_READAHEAD = 4
_IO_BUFFER = 64 * 1024 * 1024
_NAMED = 5  # mismatches that a report names one by one


@dataclass(frozen=True, slots=True)
class Found:
    """Rows and sums of one shard, as re-read."""

    rows: int
    sums: Sums


def verify(target: Target, state: State, plan: Plan, report: Report) -> None:
    """Run every check at the ledger level and note what came of each."""
    dataset = target.open()
    ledger = Ledger.from_metadata(dataset.schema.metadata, target.uri)
    unfinished = [
        shard.id for number, shard in enumerate(plan.shards) if str(number) not in ledger.entries
    ]
    report.check(
        "every shard committed",
        "fail" if unfinished else "pass",
        f"{len(plan.shards) - len(unfinished)} of {len(plan.shards)} shards"
        + (f"; first missing: {unfinished[0]}" if unfinished else ""),
    )
    damaged = _check_files(target, dataset, state, report)
    try:
        found, rows = _reread(target, dataset, plan, ledger)
    except (
        OSError,
        pa.ArrowException,
    ) as error:  # what Lance raises depends on where in a file the damage is
        why = f"the dataset cannot be read: {str(error).splitlines()[0][:200]}"
        report.check(
            "content of every shard",
            "fail",
            why + (f"; damaged: {', '.join(damaged)}" if damaged else ""),
        )
        return
    _check_content(ledger, state, plan, found, report)
    report.stage("verify").rows = rows
    _check_indexes(dataset, report)


def _check_content(
    ledger: Ledger, state: State, plan: Plan, found: dict[str, Found], report: Report
) -> None:
    """Compare each shard with its receipt, less the duplicates that were taken out."""
    expected = {
        receipt.name: Found(receipt.frames, receipt.sums)
        for receipt in state.committed(ledger)
        if receipt.name != DUPLICATES
    }
    if DUPLICATES in ledger.entries:
        for name, part in state.receipt(
            DUPLICATES, ledger.entries[DUPLICATES].nonce
        ).resolved.items():
            sums = {
                group: (total - part["sums"][group]) % 2**64
                for group, total in expected[name].sums.items()
            }
            expected[name] = Found(expected[name].rows - part["rows"], sums)
    order = list(ledger.entries)
    for (
        embed
    ) in ledger.embeds:  # the vectors of what stood before it were made anew; the last time counts
        before = set(order[: order.index(embed)])
        for name, sums in state.receipt(embed, ledger.entries[embed].nonce).resolved.items():
            if name in expected and name in before:
                expected[name] = Found(expected[name].rows, {**expected[name].sums, **sums})
    wrong: list[str] = []
    for name, want in expected.items():
        have = found.get(name, Found(0, {}))
        label = plan.shards[int(name)].id if name.isdigit() else name
        if have.rows != want.rows:
            wrong.append(f"{label} has {have.rows:,} rows, {want.rows:,} were written")
        elif want.rows:
            groups = [group for group, total in want.sums.items() if have.sums.get(group) != total]
            wrong += (
                [f"{label}: {', '.join(groups)} differ from what was written"] if groups else []
            )
    strangers = found.get("", Found(0, {})).rows
    total = sum(want.rows for want in expected.values())
    detail = (
        f"{total:,} rows of {len(expected)} shards re-read and compared by {', '.join(digests.GROUPS)}"
        if not wrong
        else "; ".join(wrong[:_NAMED])
        + (f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else "")
    )
    report.check("content of every shard", "fail" if wrong else "pass", detail)
    if strangers:
        report.check(
            "rows that cfray did not write",
            "not_run",
            f"{strangers:,} rows were added by others; nothing is known of them",
        )


def _reread(
    target: Target, dataset: LanceDataset, plan: Plan, ledger: Ledger
) -> tuple[dict[str, Found], int]:
    """Re-read the whole dataset, group by group of fragments, and sum by shard."""
    options = filesystems.storage_options(target.uri)
    numbers = [fragment.fragment_id for fragment in dataset.get_fragments()]
    pieces = max(1, min(len(numbers), cluster.cores() * 4))
    work = [
        (target.uri, dataset.version, options, numbers[piece::pieces], RowOrigins(plan, ledger))
        for piece in range(pieces)
    ]
    found: dict[str, Found] = {}
    for part in each(_sum_fragments, work):
        for name, one in part.items():
            before = found.get(name, Found(0, {}))
            sums = {
                group: (before.sums.get(group, 0) + total) % 2**64
                for group, total in one.sums.items()
            }
            found[name] = Found(before.rows + one.rows, sums)
    return found, sum(one.rows for one in found.values())


def _sum_fragments(
    work: tuple[str, int, dict[str, str], list[int], RowOrigins],
) -> dict[str, Found]:
    """Hash the rows of some fragments and sum them by shard.

    Rows of nobody's go under "".  Body of a Ray task.
    """
    uri, version, options, numbers, places = work
    dataset = lance.dataset(uri, version=version, storage_options=options)
    wanted = [name for names in digests.group_columns(dataset.schema).values() for name in names]
    found: dict[str, Found] = {}
    for number in numbers:
        scanner = dataset.get_fragment(number).scanner(
            columns=["uuid", *wanted],
            with_row_id=True,
            batch_size_bytes=_BATCH_BYTES,
            batch_readahead=_READAHEAD,
            io_buffer_size=_IO_BUFFER,
        )
        for batch in scanner.to_batches():
            for name, part in by_shard(batch, places):
                before = found.get(name, Found(0, {}))
                found[name] = Found(
                    before.rows + part.num_rows,
                    digests.add(before.sums, digests.content_hashes(part)),
                )
    return found


def _check_files(target: Target, dataset: LanceDataset, state: State, report: Report) -> list[str]:
    """Digest every data and blob file anew; name those that changed."""
    recorded = {
        file.path: file
        for name, nonces in state.staged_names().items()
        for nonce in nonces
        for file in state.receipt(name, nonce).files
    }
    stems = {
        PurePosixPath(file.path).stem
        for fragment in dataset.get_fragments()
        for file in fragment.metadata.files
    }
    current = [path for path in recorded if _stem(path) in stems]
    unknown = stems - {_stem(path) for path in current}
    chunks = max(1, min(len(current), cluster.cores() * 4))
    wrong: list[str] = []
    for part in each(
        _digest_files, [(target.uri, current[piece::chunks]) for piece in range(chunks)]
    ):
        for path, digest in part.items():
            if digest is None or digest != (recorded[path].size, recorded[path].digest):
                wrong.append(f"{path} ({'missing' if digest is None else 'changed'})")
    wrong.sort()
    detail = (
        f"{len(current)} data and blob files unchanged since they were written"
        if not wrong
        else ", ".join(wrong[:_NAMED])
    )
    report.check("every data file", "fail" if wrong else "pass", detail)
    if unknown:
        report.check(
            "data files of other writers",
            "not_run",
            f"{len(unknown)} files have no recorded digest",
        )
    return wrong


def _stem(path: str) -> str:
    """Give the data file a path below the dataset belongs to.

    Blob side files stand in a folder of its name.
    """
    return PurePosixPath(path).parts[1].removesuffix(".lance")


def _digest_files(work: tuple[str, list[str]]) -> dict[str, tuple[int, str] | None]:
    """Digest some files; None for one that is gone.  Body of a Ray task."""
    uri, paths = work
    system, root = filesystems.filesystem(uri)
    found: dict[str, tuple[int, str] | None] = {}
    for path in paths:
        try:
            found[path] = digest_file(system, f"{root}/{path}")
        except FileNotFoundError:
            found[path] = None
        except OSError as error:
            raise TargetError(
                f"cannot read {uri}/{path}: {error}", "check the storage, then run verify again"
            ) from error
    return found


def _check_indexes(dataset: LanceDataset, report: Report) -> None:
    """State what the indexes cover; their files are derived and not digested."""
    everything = {fragment.fragment_id for fragment in dataset.get_fragments()}
    covered = index.coverage(dataset)
    lagging = sorted(name for name, fragments in covered.items() if not everything <= fragments)
    if covered:
        detail = (
            f"{', '.join(sorted(covered))} cover every fragment"
            if not lagging
            else f"{', '.join(lagging)} do not cover every fragment: run cfray optimize"
        )
        report.check("index coverage", "fail" if lagging else "pass", detail)
        report.check(
            "index files",
            "not_run",
            "index files are derived from the data and not digested; cfray optimize can build them anew",
        )
