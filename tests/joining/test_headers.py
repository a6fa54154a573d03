"""Each source collection has a header row, even an empty collection.

The header carries the facts that the store reports about its collection.
"""

import pyarrow as pa

from cfray.job.mapping import SourceShape
from cfray.job.spec import JobSpec
from cfray.joining import headers
from cfray.sources.base import Shard
from cfray.target.state import Plan
from tests.contract import oracle
from tests.embedding.small_targets import copy_target


def test_an_empty_source_collection_has_a_header_with_its_facts():
    job = JobSpec.model_validate(
        {"name": "j", "source": {"kind": "qdrant", "url": "http://s"}, "target": {"uri": "t"}}
    )
    shape = SourceShape("qdrant", "http://s", 4, fixed=False, types={}, vectors={}, id_tag="i")
    plan = Plan(
        [Shard("full#0", {})],
        shape,
        "per-shard live",
        0,
        exact=True,
        size=0,
        facts={"full": {"m": "16"}, "empty": {"aliases": "a, b"}},
    )
    rows = headers.header_rows(job, plan, {}, {"records": 0, "read": 0}, 4)
    by_title = {row["title"]: row for row in rows}
    assert set(by_title) == {"j", "full", "empty"}
    assert by_title["empty"]["uuid"] == oracle.header_uuid("j", "empty")
    assert {"key": "source.aliases", "value": "a, b"} in by_title["empty"]["custom_metadata"]
    assert {"key": "source.m", "value": "16"} in by_title["full"]["custom_metadata"]
    assert pa.array(by_title["empty"]["vector"]).to_pylist() == [0.0] * 4


def test_where_the_mapping_names_collections_no_other_header_is_made():
    job_keys = {
        "name": "j",
        "source": {"kind": "qdrant", "url": "http://s"},
        "mapping": {"collection": "kind"},
        "target": {"uri": "t"},
    }
    shape = SourceShape("qdrant", "http://s", 4, fixed=False, types={}, vectors={}, id_tag="i")
    plan = Plan([], shape, "per-shard live", 0, exact=True, size=0, facts={"empty": {}})
    assert [
        row["title"]
        for row in headers.header_rows(
            JobSpec.model_validate(job_keys), plan, {}, {"records": 0, "read": 0}, 4
        )
    ] == ["j"]


def test_headers_in_a_fragment_of_their_own_are_replaced(tmp_path):
    records = [{"id": name, "body": name, "vector": [1.0, 2.0]} for name in "abc"]
    small = copy_target(tmp_path, [records], "keep")
    assert headers.write_headers(small.run())
    small.remove("a")
    assert headers.write_headers(small.run())
    rows = [row for row in small.rows().values() if row["record_type"] != "document"]
    assert {row["title"] for row in rows} == {"n", "c"}
    dataset_header = next(row for row in rows if row["title"] == "n")
    assert {"key": "records", "value": "2"} in dataset_header["custom_metadata"]
    content = {name: content for name, content in small.books.content.items() if content.rows}
    assert content == small.content()
    assert not headers.write_headers(small.run())
