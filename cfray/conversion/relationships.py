"""Relationships: the references of a record, rewritten to the uuids of the frames they point to.

A reference is not looked up: the uuid of a frame follows from its id, so a reference can be written
before the frame that it points to, by another worker.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion import identity
from cfray.conversion.fields import Fields
from cfray.conversion.reference_ids import read_references
from cfray.frames.schema import RELATIONSHIP, gather_lists, record_uuids, uuid_namespace
from cfray.job.mapping import RelationshipRule, SourceShape, dotted, rule_paths
from cfray.job.spec import JobSpec

#: Type of another job's ids -> the tag that references are cast to; each keeps its own where the
#: job file does not say it.
_TAGS = {None: "", "string": "s", "integer": "i", "uuid": "u", "objectId": "o", "binary": "b"}


def relationships(
    fields: Fields,
    job: JobSpec,
    shape: SourceShape,
    collection: str,
    collection_ids: pa.StringArray,
) -> pa.ListArray:
    """Make the relationships of a batch of records; membership in the collection comes last.

    Args:
        fields: the batch.
        job: whose mapping names the references.
        shape: of the source, which says what references are cast to and where they point.
        collection: the source collection of the batch.
        collection_ids: for each record, the uuid of its collection's header.
    """
    rows_and_structs: list[tuple[npt.NDArray[np.int64], pa.StructArray]] = []
    for rule in job.mapping.relationships:
        rows, _, uuids = resolved_references(fields, job, shape, rule, collection)
        rows_and_structs.append((rows, relationship_structs(rule.type, uuids)))
    if job.mapping.member_of:
        rows = np.arange(fields.rows)
        rows_and_structs.append((rows, relationship_structs("member_of", collection_ids)))
    return gather_lists(rows_and_structs, fields.rows, RELATIONSHIP)


def resolved_references(
    fields: Fields, job: JobSpec, shape: SourceShape, rule: RelationshipRule, collection: str
) -> tuple[npt.NDArray[np.int64], pa.StringArray, pa.StringArray]:
    """Give the references of one rule: rows ``(m,)``, m tagged ids, m uuids of what they point to.

    Where the rule names no collection, the source's own declaration says which one it is.
    """
    tag = shape.id_tag if rule.job is None else _TAGS[rule.ids]
    rows, tagged = read_references(fields, rule.to, tag)
    space = uuid_namespace(rule.job or job.name, _target_collection(rule, shape, collection))
    # many records refer to the same record: its uuid is computed once
    distinct = tagged.dictionary_encode()
    uuids = record_uuids(space, distinct.dictionary).take(distinct.indices)
    if job.mapping.keep_uuid:
        texts = pc.replace_substring_regex(tagged, r"^[a-z]:", "")
        uuids = identity.kept_uuids(identity.Ids(tagged, texts, {}), uuids)
    return rows, tagged, uuids


def _target_collection(rule: RelationshipRule, shape: SourceShape, collection: str) -> str:
    """Give the source collection that a rule points into."""
    if rule.collection is not None or rule.job is not None:
        return rule.collection or ""
    references = shape.references | shape.collection_references.get(collection, {})
    declared = (references.get(dotted(path)) for path in rule_paths(rule.to))
    return next((name for name in declared if name is not None), collection)


def relationship_structs(kind: str, uuids: pa.StringArray) -> pa.StructArray:
    """Make relationships of one type that point to uuids."""
    null = pa.nulls(len(uuids), pa.string())
    children = [pa.repeat(pa.scalar(kind), len(uuids)), uuids]
    children += [null] * (RELATIONSHIP.num_fields - len(children))
    return pa.StructArray.from_arrays(children, fields=list(RELATIONSHIP))
