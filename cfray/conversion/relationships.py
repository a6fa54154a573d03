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
from cfray.frames.schema import RELATIONSHIP, gather_lists, record_uuids, uuid_namespace
from cfray.job.spec import JobSpec


def relationships(
    fields: Fields, job: JobSpec, id_tag: str, collection: str, collection_ids: pa.StringArray
) -> pa.ListArray:
    """Make the relationships of a batch of records; membership in the collection comes last.

    Args:
        fields: the batch.
        job: whose mapping names the references.
        id_tag: tag of the ids of this source.
        collection: the source collection of the batch.
        collection_ids: for each record, the uuid of its collection's header.
    """
    rows_and_structs: list[tuple[npt.NDArray[np.int64], pa.StructArray]] = []
    for rule in job.mapping.relationships:
        rows, tagged = identity.read_references(fields, rule.to, id_tag)
        space = uuid_namespace(job.name, collection if rule.collection is None else rule.collection)
        # many records refer to the same record: its uuid is computed once
        distinct = tagged.dictionary_encode()
        uuids = record_uuids(space, distinct.dictionary).take(distinct.indices)
        if job.mapping.keep_uuid:
            texts = pc.replace_substring_regex(tagged, r"^[a-z]:", "")
            uuids = identity.kept_uuids(identity.Ids(tagged, texts, {}), uuids)
        rows_and_structs.append((rows, relationship_structs(rule.type, uuids)))
    if job.mapping.member_of:
        rows = np.arange(fields.rows)
        rows_and_structs.append((rows, relationship_structs("member_of", collection_ids)))
    return gather_lists(rows_and_structs, fields.rows, RELATIONSHIP)


def relationship_structs(kind: str, uuids: pa.StringArray) -> pa.StructArray:
    """Make relationships of one type that point to uuids."""
    null = pa.nulls(len(uuids), pa.string())
    children = [pa.repeat(pa.scalar(kind), len(uuids)), uuids]
    children += [null] * (RELATIONSHIP.num_fields - len(children))
    return pa.StructArray.from_arrays(children, fields=list(RELATIONSHIP))
