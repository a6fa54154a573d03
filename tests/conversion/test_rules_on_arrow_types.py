"""Every rule of a mapping takes a column of any Arrow type, or refuses it by name."""

import pyarrow as pa
import pytest

from cfray.conversion.convert import Conversion
from cfray.errors import CfrayError
from cfray.formats.columns import normal_batch, normal_schema
from cfray.job.spec import JobSpec
from cfray.planning.shape import work_out_shape
from cfray.sources.base import Description
from tests.arrow_arrays import LEAVES, make_array, make_type
from tests.restoring import read_frames

RULES = {
    "id": {"id": "c"},
    "several ids": {"id": ["c", "id"]},
    "composite id": {"id": {"key": ["id", "c"]}},
    "text": {"text_content": "c"},
    "title": {"title": ["c", "id"]},
    "template": {"title": {"template": "{c} of {id}"}},
    "collection": {"collection": "c"},
    "version": {"version": "c"},
    "position": {"position": "c"},
    "tags": {"tags": "c"},
    "contributors": {"contributors": "c"},
    "created_at": {"created_at": ["c", "id"]},
    "raw_data": {"raw_data": "c", "raw_data_type": {"const": "text/plain"}},
    "reference": {"relationships": [{"type": "parent", "to": "c"}]},
    "reference to a key": {"relationships": [{"type": "parent", "to": {"key": ["id", "c"]}}]},
    "vector": {"vector": "c"},
    "further vector": {"vectors": {"x": "c"}},
    "an inner field": {"title": "c.a", "created_at": "c.value", "tags": "c"},
    "an item": {"title": "c[0]", "created_at": "c[0].a"},
}
KINDS = [*LEAVES, *(make_type(seed, 2) for seed in range(60))]


def convert(batch, mapping):
    job = JobSpec.model_validate(
        {
            "name": "rules",
            "source": {"kind": "arrow", "uri": "x"},
            "target": {"uri": "t"},
            "mapping": mapping,
        }
    )
    schema = normal_schema(batch.schema)
    description = Description(schema, None, exact=False, size=0, consistency="none")
    batch = normal_batch(batch)
    return Conversion(job, work_out_shape(job, description, [batch])).convert(batch, "")


def convert_or_refuse(batch, mapping, where):
    """Convert a batch; None where the job is refused with a remedy."""
    try:
        return convert(batch, mapping)
    except CfrayError as refused:
        return None if refused.remedy else pytest.fail(where)
    except Exception as error:
        raise AssertionError(where) from error


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_fails_on_a_type(rule):
    for seed, kind in enumerate(KINDS):
        column = make_array(kind, 12, seed).slice(2, 8)
        batch = pa.record_batch([pa.array([f"r{n}" for n in range(8)]), column], ["id", "c"])
        converted = convert_or_refuse(batch, RULES[rule], f"{rule}: {kind} (seed {seed})")
        if converted is None:
            continue
        converted.frames.validate(full=True)
        assert len(read_frames(converted.frames)) + len(converted.faults) == len(column)
