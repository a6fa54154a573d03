"""What an export checks before it says that it is whole."""

from __future__ import annotations

import lance
import pyarrow as pa
import pytest

from cfray.errors import ConfigError, ProofFailed
from cfray.target.commit import Target
from cfray.transfers.export import _check_names, _check_version
from cfray.transfers.exports.manifest import ExportedFile, PartReceipt
from cfray.transfers.exports.part import FragmentReader, Part
from cfray.transfers.exports.settings import ExportSettings
from cfray.transfers.files import HashedFile


def receipt(number, *paths):
    files = [ExportedFile(HashedFile(path, 1, "0"), 1) for path in paths]
    return PartReceipt(number, len(files), files)


def test_documents_that_took_the_file_of_another_are_named():
    _check_names("x", [receipt(0, "a/1.md", "b/1.md"), receipt(1, "a/2.md"), receipt(2)])
    with pytest.raises(ProofFailed, match=r"2 documents would have the name a/1\.md"):
        _check_names("x", [receipt(0, "a/1.md"), receipt(1, "a/1.md")])


def test_a_row_of_another_program_is_exported_whatever_it_is_called(tmp_path):
    uri = str(tmp_path / "x.lance")
    kinds = ["document", None, "frameset", "collection_header", "dataset_header"]
    table = pa.table({"record_type": kinds, "collection": ["a"] * 5, "raw_data_type": ["b"] * 5})
    lance.write_dataset(table, uri)
    reader = FragmentReader(uri, 1, ExportSettings("jsonl", where="collection = 'a' OR true"))
    assert reader.count() == 3
    (batch,) = reader.batches(Part(0, (0,)))
    assert batch.column("record_type").to_pylist() == kinds[:3]


def test_a_version_that_was_cleaned_up_is_named(tmp_path):
    uri = str(tmp_path / "x.lance")
    lance.write_dataset(pa.table({"a": [1]}), uri)
    _check_version(Target(uri), 1, "out")
    with pytest.raises(ConfigError, match="was cleaned up"):
        _check_version(Target(uri), 7, "out")
