"""The name of a job that moves a store.

The name is part of every uuid that the job makes, so it comes from the data.
"""

from __future__ import annotations

from cfray.inspection.samples import Sample

#: Collections whose names make the name of a job.
_NAMED_COLLECTIONS = 3


def name_of_store(sample: Sample) -> str:
    """Name a job after the source collections that it moves, as they are called at the store."""
    names = [collection.name for collection in sample.description.collections]
    names = names or sorted({name for name in sample.collections if name})
    if not names:
        return str(sample.source.kind)
    if len(names) <= _NAMED_COLLECTIONS:
        return "-".join(names)
    return f"{names[0]}-and-{len(names) - 1}-more"
