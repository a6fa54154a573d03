"""PostgreSQL in a job: what ``inspect`` drafts of its tables, and what ``plan`` says of the draft."""

import pytest
import yaml

from cfray import api
from cfray.inspection.source import draft
from tests.sources.postgres_bed import KEY, PostgresBed

pytestmark = pytest.mark.server("postgres")


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(PostgresBed)


@pytest.fixture
def library(bed):
    """Make tables as people have them, and return the prefix of their names."""
    run = bed.fresh()
    bed.execute(f'CREATE TABLE "{run}author" (author_id bigint PRIMARY KEY, name text)')
    bed.execute(
        f'CREATE TABLE "{run}docs" (doc_id bigint PRIMARY KEY, title text, body text, '
        f'author_id bigint REFERENCES "{run}author", "{run}editor_id" bigint, '
        "created timestamptz, tags text[], meta jsonb, embedding vector(3))"
    )
    bed.execute(f'CREATE TABLE "{run}editor" (id bigint PRIMARY KEY, name text)')
    bed.execute(f"INSERT INTO \"{run}author\" SELECT i, 'A ' || i FROM generate_series(1, 9) i")
    bed.execute(f"INSERT INTO \"{run}editor\" SELECT i, 'E ' || i FROM generate_series(1, 9) i")
    bed.execute(
        f"INSERT INTO \"{run}docs\" SELECT i, 'Title ' || i, repeat('Text of ' || i || '. ', 20), "
        "1 + i % 9, 1 + i % 7, now(), array['a', 'b'], jsonb_build_object('by', i), "
        "('[' || i || ',1,2]')::vector FROM generate_series(1, 200) i"
    )
    return run


def draft_of(bed, tmp_path, *names, **options):
    section = {"kind": "postgres", "url": bed.url, "collections": [*names], **options}
    section["api_key"] = {"env": KEY}
    source = tmp_path / "source.yaml"
    source.write_text(yaml.safe_dump({"source": section}))
    return draft(str(source), tmp_path / "job.yaml").text


def test_a_draft_takes_keys_vectors_and_foreign_keys_and_offers_what_is_named_like_one(
    bed, library, tmp_path
):
    tables = [f"{library}{name}" for name in ("author", "docs", "editor")]
    text = draft_of(bed, tmp_path, *tables)
    mapping = yaml.safe_load(text)["mapping"]
    assert mapping["id"] == "id"
    assert mapping["vector"] == "vector"
    assert mapping["text_content"] == "body"
    assert mapping["title"] == "title"
    assert mapping["created_at"] == "created"
    assert mapping["relationships"] == [
        {"type": "reference", "to": "author_id", "collection": f"{library}author"}
    ]
    (offered,) = [line for line in text.splitlines() if f"to: {library}editor_id" in line]
    assert offered.lstrip().startswith(f"# - {{type: reference, to: {library}editor_id")
    assert f"collection: {library}editor}}" in offered
    assert "no foreign key is declared" in offered


def test_a_draft_of_a_composite_key_names_its_columns(bed, tmp_path):
    name = bed.fresh()
    bed.execute(f'CREATE TABLE "{name}" (b int, "a x" text, body text, PRIMARY KEY ("a x", b))')
    bed.execute(f"INSERT INTO \"{name}\" SELECT i, 'k', 'text ' || i FROM generate_series(1, 20) i")
    mapping = yaml.safe_load(draft_of(bed, tmp_path, name))["mapping"]
    assert mapping["id"] == {"key": ["a x", "b"]}


def test_a_plan_of_the_draft_counts_the_rows_and_their_references(bed, library, tmp_path):
    (tmp_path / "job.yaml").write_text(
        draft_of(bed, tmp_path, f"{library}author", f"{library}docs")
    )
    preview = api.plan(tmp_path / "job.yaml")
    assert "209" in str(preview)


def test_values_that_arrow_cannot_hold_do_not_stop_a_plan(bed, tmp_path):
    name = bed.fresh()
    bed.execute(
        f'CREATE TABLE "{name}" (id int PRIMARY KEY, body text, created timestamptz, day date, '
        "price numeric(5,1), grid int[], at time)"
    )
    bed.execute(
        f"INSERT INTO \"{name}\" VALUES (1, 'a', 'infinity', '-infinity', 'NaN', '{{{{1}}}}', '24:00'), "
        "(2, 'b', '2024-01-02Z', '2024-01-02', 1.5, '{1}', '01:02')"
    )
    job = yaml.safe_load(draft_of(bed, tmp_path, name))
    job["mapping"] |= {"created_at": "created", "text_content": "body"}
    preview = api.plan(job | {"target": {"uri": str(tmp_path / "out.lance")}})
    assert not preview.forecast.quarantined, str(preview)
    assert any("DATES NOT READ" in warning for warning in preview.forecast.warnings)
