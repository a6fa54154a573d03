"""An export as a Lance dataset: created empty, its fragments added in one commit."""

from __future__ import annotations

import json
from collections.abc import Iterable

import lance
import pyarrow as pa

from cfray.runtime.filesystems import storage_options
from cfray.runtime.storage_errors import classify_write_error
from cfray.sources.files.kinds import is_lance_dataset
from cfray.target.creation import STORAGE_VERSION
from cfray.transfers.exports.manifest import PartReceipt
from cfray.transfers.exports.part import FragmentReader, lance_schema
from cfray.transfers.exports.rows import RowMaker


def create(address: str, maker: RowMaker, reader: FragmentReader) -> None:
    """Create the dataset, if it is not there; it has no rows yet.

    Raises:
        TargetError: it cannot be written.
    """
    if is_lance_dataset(address):
        return
    empty = reader.open().scanner(limit=0, blob_handling="all_binary").to_table()
    batch = pa.RecordBatch.from_arrays(
        [column.combine_chunks() for column in empty.columns], schema=empty.schema
    )
    schema = lance_schema(maker.rows(batch).schema)
    try:
        lance.write_dataset(
            schema.empty_table(),
            address,
            mode="create",
            data_storage_version=STORAGE_VERSION,
            storage_options=storage_options(address),
        )
    except OSError as error:
        raise classify_write_error(error, f"could not write {address}") from error


def commit(address: str, receipts: Iterable[PartReceipt]) -> None:
    """Add the fragments that the workers wrote, once.

    Raises:
        TargetError: the dataset cannot be written.
    """
    options = storage_options(address)
    fragments = [
        lance.FragmentMetadata.from_json(json.dumps(item))
        for receipt in receipts
        for item in receipt.fragments
    ]
    if lance.dataset(address, storage_options=options).version > 1 or not fragments:
        return  # a run that was killed behind this commit made it
    try:
        lance.LanceDataset.commit(
            address,
            lance.LanceOperation.Append(fragments),
            read_version=1,
            storage_options=options,
        )
    except OSError as error:
        raise classify_write_error(error, f"could not write {address}") from error
