"""Files of elasticdump: a document a line, as a search gives it, plain or compressed.

A file is of one index, whose name its first line tells.  What the mapping declares is in another
file of elasticdump (``--type=mapping``): one whose name ends in ``mapping.json``, beside the data,
makes the records equal to those of a live read.  Without it a vector stays a list of numbers
under its field's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, ClassVar, Literal

import pyarrow as pa

from cfray.errors import SourceError
from cfray.formats import lines
from cfray.formats.jsontext import InexactJson, parse_json
from cfray.records.record import MISSING, Reject
from cfray.runtime import filesystems
from cfray.sources.base import Collection, Context, Description, Json, Shard
from cfray.sources.files import listing, locations, notes
from cfray.sources.files.base import FilePart, FileSource, pack_parts, parts_of
from cfray.sources.files.json_text import open_text
from cfray.sources.files.listing import PinnedFile, open_file
from cfray.sources.lucene.records import Hit, convert_page, find_value
from cfray.sources.lucene.schema import NO_SCHEMA, IndexSchema, ParseVector, parse_schema
from cfray.sources.lucene.settings import LuceneSettings

#: How the names of files end that hold a mapping and no documents.
_MAPPING_SUFFIX = "mapping.json"
#: Ends of the names of elasticdump's other files, which hold no documents either.
_OTHER_SUFFIXES = ("settings.json", "alias.json", "template.json", "analyzer.json", "index.json")
#: Bytes of lines that become a batch at most.
_BATCH_BYTES = 4 * 1024 * 1024
#: Lines, and bytes, of a file that are looked at for the vectors that the mapping declares.
_SAMPLED_LINES, _SAMPLE_BYTES = 200, 1024 * 1024
#: Bytes in which the first line of a file is looked for.
_HEAD_BYTES = 16 * 1024 * 1024


class _DumpFiles(FileSource):
    """The data files at a location."""

    suffixes: ClassVar[tuple[str, ...]] = (".json", ".ndjson", ".jsonl")

    kind: Literal["elasticdump"] = "elasticdump"

    def find_data(self) -> list[PinnedFile]:
        """List the files of documents, sorted by name."""
        files = [
            file
            for file in self.find_files()
            if not file.name.endswith((_MAPPING_SUFFIX, *_OTHER_SUFFIXES))
        ]
        if not files:
            raise SourceError(
                f"no file of documents at {self.uri}",
                "correct source.uri: it names files that elasticdump wrote with --type=data",
            )
        return files

    def name_unread(self, kind: str, shards: Sequence[Shard]) -> Iterator[str]:
        """Name the files that are not read.

        Args:
            kind: of the source that reads the others.
            shards: of the plan.
        """
        selection = self._select()
        yield from notes.selection_notes(selection, kind, self.suffixes)
        others = [file.name for file in selection.files if file.name.endswith(_OTHER_SUFFIXES)]
        if others:
            yield (
                f"not read ({len(others):,}), elasticdump's files without documents: "
                f"{notes.list_names(others)}"
            )
        read = {file.name for shard in shards for file, _ in parts_of(shard)}
        left = [file for file in self.find_data() if file.name not in read]
        empty = [file for file in left if _first_index(file) is None]
        yield from notes.empty_notes(empty)
        unchosen = [file.name for file in left if file not in empty]
        if unchosen:
            yield (
                f"not read ({len(unchosen):,}), of indices that source.collections leaves out: "
                f"{notes.list_names(unchosen)}"
            )

    def split_file(self, file: PinnedFile, context: Context) -> list[FilePart]:
        """Cut a file at line breaks; one that is compressed stays whole."""
        if not file.size:
            return []
        if file.codec is not None:
            return [FilePart(file, "0", {"from": 0, "to": None}, file.size, splittable=False)]
        with open_file(file) as stream:
            ranges = lines.split_at_newlines(stream, 0, file.size, self.shard_bytes)
        return [
            FilePart(file, f"{start:015d}", {"from": start, "to": end}, end - start)
            for start, end in ranges
        ]

    def read_part(
        self, file: PinnedFile, where: dict[str, Json], context: Context
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Stream one part; the shard says of which index."""
        raise NotImplementedError


def plan_shards(settings: LuceneSettings, parse_vector: ParseVector) -> list[Shard]:
    """Cut the files of each chosen index into shards.

    Raises:
        SourceError: no file, or one whose first line is no document.
    """
    assert settings.uri
    source = _DumpFiles(uri=settings.uri, shard_bytes=settings.shard_bytes)
    files: dict[str, list[PinnedFile]] = {}
    for file in source.find_data():
        if (index := _first_index(file)) is not None:
            files.setdefault(index, []).append(file)
    mappings = _read_mappings(settings.uri)
    shards: list[Shard] = []
    for index in settings.choose_collections(files):
        schema = NO_SCHEMA
        if index in mappings:
            schema = parse_schema(mappings[index], parse_vector)
        parts = [part for file in files[index] for part in source.split_file(file, Context())]
        shards += [
            replace(
                shard,
                id=f"{index}#{shard.id}",
                where={**shard.where, "index": index, "schema": schema.to_json()},
                collection=index,
            )
            for shard in pack_parts(parts, settings.shard_bytes)
        ]
    return shards


def _first_index(file: PinnedFile) -> str | None:
    """Give the index of a file's first document; None where the file is empty."""
    with listing.explain_read_errors(file), open_text(file, _HEAD_BYTES) as blocks:
        head = next(blocks, b"").lstrip()
    line = head.partition(b"\n")[0].strip()
    if not line:
        return None
    try:
        hit = parse_json(line)
    except InexactJson:
        hit = None
    if not isinstance(hit, dict) or not isinstance(hit.get("_index"), str):
        raise SourceError(
            f"the first line of {file.uri} is no document of elasticdump: an object with _index, "
            "_id and _source",
            "correct source.uri, or name the file so that it ends in mapping.json or settings.json "
            "if it is one",
        )
    return str(hit["_index"])


def _read_mappings(uri: str) -> dict[str, Mapping[str, Any]]:
    """Read the mappings beside the data: index -> mapping."""
    system, path = filesystems.open_filesystem(uri)
    is_folder = system.get_file_info(path).type.name == "Directory"
    folder = uri if is_folder else locations.folder_above(uri, 1)
    mappings: dict[str, Mapping[str, Any]] = {}
    for file in locations.list_files(folder):
        if not file.name.endswith(_MAPPING_SUFFIX):
            continue
        try:
            content = parse_json(listing.read_file(file.uri))
        except InexactJson as error:
            raise SourceError(
                f"{file.uri} is no mapping of elasticdump: {error}",
                "write it again (elasticdump --type=mapping), or remove it",
            ) from error
        if isinstance(content, dict):
            for index, described in content.items():
                if isinstance(described, dict) and isinstance(described.get("mappings"), dict):
                    mappings[index] = _without_type(described["mappings"])
    return mappings


def _without_type(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take the type's name off a mapping that a server before 7 wrote."""
    if "properties" not in mapping and len(mapping) == 1:
        (inner,) = mapping.values()
        if isinstance(inner, dict) and "properties" in inner:
            return inner
    return mapping


def read_shard(shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
    """Read the parts of a shard, one after the other."""
    where: Any = shard.where
    schema = IndexSchema.from_json(where["schema"])
    for file, part in parts_of(shard):
        with ExitStack() as stack:
            start, end = part["from"], part["to"]
            assert isinstance(start, int)
            if isinstance(end, int):
                stream = stack.enter_context(open_file(file))
                stream.seek(start)
                blocks = lines.read_blocks(stream, end - start)
            else:
                blocks = stack.enter_context(open_text(file))
            runs = lines.gather_records(
                blocks, lines.line_ends, lines.record_limit(context.max_record), start
            )
            yield from _decode(runs, file.name, where["index"], schema, context)


def _decode(
    runs: Iterable[lines.RecordRun | lines.OversizedRecord],
    name: str,
    index: str,
    schema: IndexSchema,
    context: Context,
) -> Iterator[pa.RecordBatch | Reject]:
    hits: list[Hit] = []
    size = 0
    for run in runs:
        if isinstance(run, lines.OversizedRecord):
            yield from convert_page(hits, schema, context, index) if hits else ()
            hits, size = [], 0
            yield run.reject(name, "line")
            continue
        for offset, record in run.records():
            line = record.strip()
            if not line:
                continue
            hit = _read_hit(line, index)
            if isinstance(hit, str):
                yield from convert_page(hits, schema, context, index) if hits else ()
                hits, size = [], 0
                yield Reject(hit, f"{name}:byte {offset}", line)
                continue
            hits.append(hit)
            size += len(line)
            if size >= min(context.batch_bytes, _BATCH_BYTES):
                yield from convert_page(hits, schema, context, index)
                hits, size = [], 0
    if hits:
        yield from convert_page(hits, schema, context, index)


def _read_hit(line: bytes, index: str) -> Hit | str:
    """Read a line as a document of the index, or say why it is none."""
    try:
        hit = parse_json(line.removeprefix(lines.BOM))
    except InexactJson as error:
        return f"line: {error}"
    if not isinstance(hit, dict) or not isinstance(hit.get("_id"), str):
        return "line is no document of elasticdump: it has no _id"
    if not isinstance(hit.get("_source"), dict):
        return "line has no _source: the document itself was not exported"
    if hit.get("_index") != index:
        return (
            f"line is of the index {str(hit.get('_index'))[:80]}, and the file's first line of "
            f"{index}: export each index into a file of its own"
        )
    return hit


def describe_files(settings: LuceneSettings, shards: Sequence[Shard]) -> Description:
    """Say what the files are, which are not read, and what they cannot tell."""
    assert settings.uri
    schemas = {shard.collection: IndexSchema.from_json(shard.where["schema"]) for shard in shards}
    sentences = [
        *_DumpFiles(uri=settings.uri).name_unread(settings.kind, shards),
        (
            "elasticdump loses the last documents in some runs (elasticsearch-dump#741): compare "
            "the number of records with _count of the index"
        ),
        (
            "elasticdump rounds integers beyond 2^53 unless it is run with --support-big-int, and "
            "writes floats without a fraction as integers: the files are read as they are written"
        ),
    ]
    collections: list[Collection] = []
    for index, schema in schemas.items():
        if schema == NO_SCHEMA:
            sentences.append(
                f"{index}: no mapping beside the files, so vectors are lists under their fields' "
                f"names; elasticdump --type=mapping writes one (a name that ends in "
                f"{_MAPPING_SUFFIX})"
            )
        main = schema.vectors.get("")
        named: dict[str, Any] = {
            name: (vector.width or None, None) for name, vector in schema.vectors.items() if name
        }
        width = main.width or None if main else None
        collections.append(Collection(index, None, width, None, named))
    return Description(
        schema=None,
        rows=None,
        exact=False,
        size=sum(shard.size for shard in shards),
        consistency="pinned files",
        notes=tuple(sentences),
        collections=tuple(collections),
        unread=tuple(_absent_vectors(shards)),
    )


def _absent_vectors(shards: Sequence[Shard]) -> Iterator[str]:
    """Say which declared vectors the first documents of an index's first file all lack.

    Servers from Elasticsearch 9.2 on leave vectors out of what elasticdump asks for.
    """
    first_shards: dict[str, Shard] = {}
    for shard in shards:
        first_shards.setdefault(shard.collection, shard)
    for index, shard in first_shards.items():
        where: Any = shard.where
        vectors = IndexSchema.from_json(where["schema"]).vectors.values()
        file, _ = next(parts_of(shard))
        documents = [hit["_source"] for hit in _head_hits(file, index)]
        absent = [
            vector.path
            for vector in vectors
            if all(find_value(document, vector.path) is MISSING for document in documents)
        ]
        if absent:
            yield (
                f"{index}: none of the first {len(documents)} documents in {file.name} has the "
                f"vector {', '.join(absent)}, which the mapping declares: run elasticdump with "
                '--searchBody=\'{"query":{"match_all":{}},"_source":{"exclude_vectors":false}}\' '
                "if the server left it out"
            )


def _head_hits(file: PinnedFile, index: str) -> list[Hit]:
    """Read the first whole lines of a file that are documents of the index."""
    with listing.explain_read_errors(file), open_text(file, _SAMPLE_BYTES) as blocks:
        lines_of_head = next(blocks, b"").split(b"\n")
    hits = [_read_hit(line.strip(), index) for line in lines_of_head[:_SAMPLED_LINES]]
    return [hit for hit in hits if not isinstance(hit, str)]
