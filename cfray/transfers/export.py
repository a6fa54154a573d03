"""Export a finished dataset: records or frames, in a format that others read.

Fragments go in and receipts come out, on Ray Data; the manifest, with the hash of every file, is
written last.  One version of the dataset is exported, however it changes meanwhile.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import lance
import pyarrow as pa

from cfray.conversion.frames_kept import FRAMES
from cfray.conversion.restore import Restoration
from cfray.engine import failpoint
from cfray.engine.lines import LineOptions, TaskLine
from cfray.errors import ConfigError, ProofFailed
from cfray.job.agreement import agreed_to_make_vectors
from cfray.job.mapping import Mapping, rule_paths
from cfray.records.values import type_name
from cfray.runtime.error_text import describe_error
from cfray.runtime.filesystems import Folder, open_filesystem, storage_options, strip_credentials
from cfray.runtime.plurals import counted
from cfray.runtime.storage_errors import classify_write_error
from cfray.sources.files.kinds import is_lance_dataset
from cfray.target.commit import Target
from cfray.target.creation import STORAGE_VERSION
from cfray.target.documents import dumps, parse_document
from cfray.target.state import State
from cfray.transfers.exports.fields import Column, Kinds, columns_of, describe_columns
from cfray.transfers.exports.manifest import MANIFEST, Manifest, PartReceipt
from cfray.transfers.exports.part import FragmentReader, Part, PartExport, Survey, lance_schema
from cfray.transfers.exports.rows import RowMaker, is_chosen, plain_fields
from cfray.transfers.exports.settings import TABULAR, ExportSettings
from cfray.transfers.files import list_sizes
from cfray.transfers.finished import identity_of, open_finished, pinned
from cfray.transfers.places import check_apart, check_held, held, read_file
from cfray.transfers.points import folder_beside

#: File beside an export that is not finished: of what it is.
CLAIM = "export.json"
_PARTS = "parts"
#: Bytes of the dataset's files that a part is made of at least, and parts of a smaller dataset.
_PART_BYTES = 128 * 1024 * 1024
_PARTS_AT_LEAST = 16
#: Names of files of a part, and of files that are not whole.
_OWN_NAME = re.compile(r"part-\d{5}-\d+-[0-9a-f]{8}\.\w+")
_UNFINISHED = re.compile(r".*\.[0-9a-f]{8}\.part")


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export did.

    Attributes:
        address: of the export.
        manifest: of the export.
        was_there: whether an earlier run had finished it.
    """

    address: str
    manifest: Manifest
    was_there: bool

    def as_json(self) -> dict[str, Any]:
        """Give what a program wants to know."""
        manifest = self.manifest
        return {
            "address": self.address,
            "rows": manifest.rows,
            "files": len(manifest.files),
            "bytes": sum(item.file.size for item in manifest.files),
            "version": manifest.version,
            "settings": asdict(manifest.settings),
            "lost": {field["name"]: field["lost"] for field in manifest.fields if "lost" in field},
            "verdict": self.sentence(),
            "exit_code": 0,
        }

    def sentence(self) -> str:
        """Say what was done."""
        manifest = self.manifest
        size = sum(item.file.size for item in manifest.files)
        noun = "record" if manifest.settings.form == "records" else "frame"
        said = (
            f"{counted(manifest.rows, noun)} of version {manifest.version} exported to "
            f"{self.address} as {manifest.settings.format}: {counted(len(manifest.files), 'file')} "
            f"({size:,} bytes), each read again for its hash in {MANIFEST}"
        )
        return f"nothing to do: {said}" if self.was_there else said

    def notes(self) -> list[str]:
        """Say what the format does not carry."""
        return [
            f"{field['name']}: {field['lost']}" for field in self.manifest.fields if "lost" in field
        ]


def export(uri: str, address: str, settings: ExportSettings) -> ExportReport:
    """Export a finished target.  Ray must be running.

    Args:
        uri: of the target.
        address: folder that the export goes to.
        settings: of the export.

    Raises:
        ConfigError: there is no finished target, the settings do not fit it, or something else
            stands at ``address``.
        ProofFailed: fewer or more rows were written than there are.
        TargetError: a file cannot be read or written.
    """
    settings.check()
    target, state = open_finished(uri)
    check_apart(address, [uri])
    dataset_name = identity_of(state, target.ledger())
    version = target.open().version
    known = _read_manifest(address)
    if known is not None:
        _check_same(known, address, settings, dataset_name, version)
        _forget(address)
        return ExportReport(address, known, was_there=True)
    _count(FragmentReader(uri, version, settings))  # which refuses a wrong condition
    parts = list(_parts(target.open(version)))
    version, parts = _claim(address, settings, dataset_name, version, parts)
    reader = FragmentReader(uri, version, settings)
    with held(address) as holding, pinned(target, version, address):
        manifest = _export(reader, state, address, dataset_name, parts)
        check_held(holding, address)
        Folder(address).publish(MANIFEST, dumps(manifest.to_json()))
    _forget(address)
    return ExportReport(address, manifest, was_there=False)


def _export(
    reader: FragmentReader, state: State, address: str, dataset_name: str, parts: list[Part]
) -> Manifest:
    """Write the parts that are not there yet."""
    settings, dataset, rows = reader.settings, reader.open(), _count(reader)
    plan = state.plan()
    assert plan is not None
    name = str(state.jobs()[-1]["agreed"]["name"])
    options = LineOptions(name, "export")
    restoration = _restoration(state, reader) if settings.form == "records" else None
    columns = _columns(reader, restoration, parts, options)
    work = PartExport(
        reader=reader,
        maker=_row_maker(settings, restoration, columns, dataset),
        is_fixed=restoration is None or restoration.shape.fixed,
        text_field=_text_field(restoration),
        destination=address,
        receipts=folder_beside(address).child(_PARTS).uri,
    )
    if settings.format == "lance":
        _create_dataset(address, work.maker, dataset)
    done = {receipt.number: receipt for receipt in _receipts(address)}
    line = TaskLine(options, work=work)
    for receipt in line.run([part for part in parts if part.number not in done]):
        done[receipt.number] = receipt
        failpoint.reach("part exported")
    receipts = [done[part.number] for part in parts]
    written = sum(receipt.rows for receipt in receipts)
    if written != rows:
        raise ProofFailed(
            f"{written:,} of {counted(rows, 'row')} were written to {address}",
            f"remove {address} and {address}.cfray, and run the same command again",
        )
    if settings.format == "lance":
        _commit_fragments(address, receipts)
    manifest = Manifest(
        settings=settings,
        source=strip_credentials(reader.uri),
        dataset=dataset_name,
        version=reader.version,
        name=name,
        rows=rows,
        dimension=dataset.schema.field("vector").type.list_size,
        fields=_described(columns, dataset, settings),
        types=plan.shape.metadata_types,
        files=[file for receipt in receipts for file in receipt.files],
    )
    _remove_left_over(address, manifest)
    return manifest


def _count(reader: FragmentReader) -> int:
    """Count the rows that are exported; the condition is read here for the first time.

    Raises:
        ConfigError: it is wrong.
    """
    dataset = reader.open()
    try:
        return reader.count()
    except (ValueError, OSError) as error:
        if not reader.settings.where:
            raise
        names = ", ".join(dataset.schema.names)
        raise ConfigError(
            f"--where cannot be read: {describe_error(error)[:300]}",
            f"write a SQL condition on the columns of the dataset: {names}",
        ) from error


def _restoration(state: State, reader: FragmentReader) -> Restoration:
    """Find how the records of a target are given back.

    Raises:
        ConfigError: a replay brought in rows under another mapping.
    """
    plan = state.plan()
    assert plan is not None
    ledger = Target(reader.uri).ledger_of(reader.version)
    if plan.shape.kind == FRAMES:
        raise ConfigError(
            "this target was made of frames, and does not know the fields of the source behind "
            "them",
            "export its rows as they are (--as frames), or the records of the dataset it came from",
        )
    agreed = [job["agreed"] for job in state.jobs() if job["fingerprint"] in ledger.fingerprints]
    if any(other["mapping"] != agreed[0]["mapping"] for other in agreed):
        raise ConfigError(
            "rows of this target came in by a replay with another mapping, so its records cannot "
            "be given back by one",
            "export its rows as they are: --as frames",
        )
    return Restoration(
        Mapping.model_validate(agreed[0]["mapping"]),
        plan.shape,
        has_made_vectors=any(agreed_to_make_vectors(job["embedding"]) for job in agreed),
    )


def _columns(
    reader: FragmentReader,
    restoration: Restoration | None,
    parts: list[Part],
    options: LineOptions,
) -> list[Column] | None:
    """Give the columns of records, in a format that has columns; None in another.

    Raises:
        ConfigError: a field that was asked for is none of them.
    """
    if restoration is None or reader.settings.format not in TABULAR:
        return None
    kinds = Kinds()
    survey = Survey(reader, restoration.shape.types)
    for found in TaskLine(replace(options, step="survey"), work=survey).run(parts):
        kinds.add(found)
    vector = reader.open().schema.field("vector").type
    return columns_of(restoration, kinds, vector)


def _row_maker(
    settings: ExportSettings,
    restoration: Restoration | None,
    columns: list[Column] | None,
    dataset: lance.LanceDataset,
) -> RowMaker:
    """Make what makes the rows.

    Raises:
        ConfigError: a field that was asked for is not there.
    """
    if restoration is None:
        vectors = {"vector", *_vector_columns(dataset.schema)}
        names = [field.name for field in plain_fields(dataset.schema)]
    else:
        vectors = {path[0] for path in restoration.vector_paths if len(path) == 1}
        names = (
            [restoration.first_name(path) for path in restoration.types]
            if columns is None
            else [column.name for column in columns]
        )
    unknown = [name for name in settings.columns if name not in names]
    if unknown and (columns is not None or restoration is None):
        raise ConfigError(
            f"--columns: there is no field {unknown[0]}", f"there are {', '.join(names)}"
        )
    return RowMaker(
        settings,
        restoration,
        None if columns is None else tuple(columns),
        frozenset(vectors),
    )


def _vector_columns(schema: pa.Schema) -> list[str]:
    """List further columns that hold one list of numbers a row."""
    return [
        field.name
        for field in schema
        if field.name.startswith("x_")
        and pa.types.is_fixed_size_list(field.type)
        and pa.types.is_floating(field.type.value_type)
    ]


def _text_field(restoration: Restoration | None) -> str | None:
    """Name the field that is the text of every document, which Markdown has behind the others."""
    if restoration is None:
        return "text_content"
    paths = rule_paths(restoration.mapping.text_content)
    if restoration.mapping.text_content is None and ("text",) in restoration.types:
        return "text"
    is_single = len(paths) == 1 and len(paths[0]) == 1 and not restoration.mapping.cases
    return paths[0][0] if is_single else None


def _parts(dataset: lance.LanceDataset) -> Iterator[Part]:
    """Divide the fragments of a version: few that are large, or many that are small, a part."""
    sizes = {
        fragment.fragment_id: sum(file.file_size_bytes or 0 for file in fragment.metadata.files)
        for fragment in dataset.get_fragments()
    }
    enough = min(_PART_BYTES, sum(sizes.values()) / _PARTS_AT_LEAST)
    numbers: list[int] = []
    size = count = 0
    for number, bytes_there in sizes.items():
        numbers.append(number)
        size += bytes_there
        if size >= enough:
            yield Part(count, tuple(numbers))
            count, numbers, size = count + 1, [], 0
    if numbers:
        yield Part(count, tuple(numbers))


def _described(
    columns: list[Column] | None, dataset: lance.LanceDataset, settings: ExportSettings
) -> list[dict[str, str]]:
    """Say what fields the export has."""
    if columns is not None:
        described = describe_columns(columns)
    elif settings.form == "frames":
        described = [
            {"name": field.name, "type": type_name(field.type)}
            for field in plain_fields(dataset.schema)
        ]
    else:
        return []
    chosen = settings.columns
    return [item for item in described if not chosen or is_chosen(item["name"], chosen)]


def _create_dataset(address: str, maker: RowMaker, dataset: lance.LanceDataset) -> None:
    """Create the Lance dataset that is exported to, if it is not there; it has no rows yet.

    Raises:
        TargetError: it cannot be written.
    """
    if is_lance_dataset(address):
        return
    empty = dataset.scanner(limit=0, blob_handling="all_binary").to_table()
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


def _commit_fragments(address: str, receipts: list[PartReceipt]) -> None:
    """Add the fragments that the workers wrote to the Lance dataset, once.

    Raises:
        TargetError: it cannot be written.
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


def _claim(
    address: str, settings: ExportSettings, dataset_name: str, version: int, parts: list[Part]
) -> tuple[int, list[Part]]:
    """Take an address, or go on with an export of the same that was interrupted.

    Returns:
        the version that is exported, and its parts.

    Raises:
        ConfigError: something else stands there.
    """
    folder = folder_beside(address)
    data = read_file(folder, CLAIM)
    settled = json.loads(dumps(asdict(settings)))
    if data is not None:
        begun = parse_document(
            data, f"{folder.uri}/{CLAIM}", json.loads, remedy="give another address"
        )
        if begun["settings"] == settled and begun["dataset"] == dataset_name:
            numbers = enumerate(begun["parts"])
            return int(begun["version"]), [Part(number, tuple(ids)) for number, ids in numbers]
        raise ConfigError(
            f"another export to {address} was interrupted",
            f"finish it, give another address, or remove {address} and {folder.uri}",
        )
    if folder.exists() or list_sizes(address):
        raise ConfigError(
            f"something is at {address} already; nothing was changed", "give another address"
        )
    body = {"settings": settled, "dataset": dataset_name, "version": version}
    folder.publish(CLAIM, dumps({**body, "parts": [part.fragments for part in parts]}))
    return version, parts


def _read_manifest(address: str) -> Manifest | None:
    data = read_file(Folder(address), MANIFEST)
    if data is None:
        return None
    return parse_document(
        data, f"{address}/{MANIFEST}", Manifest.from_json, remedy="give another address"
    )


def _check_same(
    manifest: Manifest, address: str, settings: ExportSettings, dataset_name: str, version: int
) -> None:
    """Find that a finished export is the one that is asked for.

    Raises:
        ConfigError: it is another.
    """
    asked = (settings, dataset_name, version)
    if (manifest.settings, manifest.dataset, manifest.version) != asked:
        raise ConfigError(
            f"another export is at {address} already (of version {manifest.version} of "
            f"{manifest.source}); nothing was changed",
            "give another address",
        )


def _receipts(address: str) -> Iterator[PartReceipt]:
    """Read the receipts of parts whose files are there."""
    folder = folder_beside(address).child(_PARTS)
    sizes: dict[str, int] | None = None
    for name in folder.list_names():
        data = folder.read(name)
        if data is None or not name.endswith(".json") or name.startswith("."):
            continue
        receipt = parse_document(data, f"{folder.uri}/{name}", PartReceipt.from_json)
        sizes = list_sizes(address) if sizes is None else sizes
        if all(sizes.get(item.file.path) == item.file.size for item in receipt.files):
            yield receipt


def _remove_left_over(address: str, manifest: Manifest) -> None:
    """Remove what killed attempts left: only files with names that an export gives."""
    system, root = open_filesystem(address)
    known = {item.file.path for item in manifest.files}
    for path in sorted(list_sizes(address).keys() - known):
        name = path.rpartition("/")[2]
        if _OWN_NAME.fullmatch(name) or _UNFINISHED.fullmatch(name):
            system.delete_file(f"{root}/{path}")


def _forget(address: str) -> None:
    """Remove the folder beside a finished export."""
    system, path = open_filesystem(folder_beside(address).uri)
    with suppress(FileNotFoundError):
        system.delete_dir(path)
