"""The plan foretells what a run would do: its quarantine, its references, its missing vectors."""

import json

import numpy as np
import pyarrow as pa
import pytest

from cfray.errors import ConfigError
from cfray.planning.forecast import make_forecast
from cfray.planning.sample import Sample
from cfray.planning.shape import work_out_shape
from cfray.records.record import from_objects
from cfray.sources.base import Collection, Description
from tests.planning.test_shape import DENSE_A, DENSE_B, job_spec, make_page


def forecast_of(records, mapping, *, rows=None, complete=True, collections=None, **more):
    """Forecast a run over records: dicts of columns, JSON objects, or batches by collection."""
    if isinstance(records, dict):
        records = pa.RecordBatch.from_pydict(records)
    elif isinstance(records, list) and isinstance(records[0], dict):
        records = from_objects(records)
    batches = records if isinstance(records, list) else [records]
    sample = Sample(batches, collections or [""] * len(batches), [], complete)
    description = Description(
        None, rows, exact=True, size=0, consistency="none", **more.pop("described", {})
    )
    job = job_spec(**mapping).model_copy(update=more)
    shape = work_out_shape(job, description, batches)
    return make_forecast(job, description, shape, sample)[0]


def limits(max_quarantined):
    return {"limits": job_spec().limits.model_copy(update={"max_quarantined": max_quarantined})}


#: A hundred records, of which the first has no id.
IDS = {"id": [None, *map(str, range(99))]}
PARENT = {"relationships": {"type": "parent", "to": "up"}}


class TestQuarantine:
    @pytest.mark.parametrize(
        ("limit", "rows", "complete", "stops"),
        [
            (0.005, None, True, True),
            (0.01, None, True, False),
            (0.02, None, True, False),
            (0, None, True, True),
            (1, None, True, False),
            (5, 10_000, False, True),
            (500, 10_000, False, False),
            (0.005, 10_000, False, True),
        ],
    )
    def test_a_rate_above_the_limit_is_foretold(self, limit, rows, complete, stops):
        forecast = forecast_of(IDS, {}, rows=rows, complete=complete, **limits(limit))
        assert [warning.split(":")[0] for warning in forecast.warnings] == (
            ["THIS RUN WOULD STOP"] if stops else []
        )
        if stops:
            assert "1 of 100 sampled records (1.0%)" in forecast.warnings[0]
            assert "limits.max_quarantined" in forecast.warnings[0]

    def test_duplicates_count_as_the_run_counts_them(self):
        forecast = forecast_of({"id": ["a", "a", "b"]}, {})
        assert "1 of 3" in forecast.warnings[0]
        forecast = forecast_of({"id": ["a", "a", "b"]}, {"on_duplicate": "error"})
        assert "on_duplicate is error" in forecast.warnings[0]

    def test_equal_ids_of_two_collections_are_no_duplicates(self):
        batches = [from_objects([{"id": 1}]), from_objects([{"id": 1}])]
        forecast = forecast_of(batches, {}, collections=["people", "firms"])
        assert (forecast.duplicates, forecast.warnings) == (0, [])
        assert forecast_of(batches, {}, collections=["people", "people"]).duplicates == 1

    @pytest.mark.parametrize("fixed_schema", [True, False])
    def test_float_ids_that_are_integers_are_named_with_the_way_out(self, fixed_schema):
        records = {"id": [1.0, 2.0]} if fixed_schema else [{"id": 1.0}, {"id": 2.0}]
        forecast = forecast_of(records, {})
        assert any("mapping.id: {key: [id]}" in note for note in forecast.notes)
        assert forecast.warnings
        assert forecast_of(records, {"id": {"key": ["id"]}}).warnings == []


class TestReferences:
    def test_references_that_point_outside_the_sample_are_counted_with_a_caution(self):
        records = {"id": [1, 2, 3], "up": [None, 1, 9]}
        forecast = forecast_of(records, PARENT, complete=False)
        (note,) = [note for note in forecast.notes if "references" in note]
        assert "1 of 2 references of the sample (up)" in note
        assert "'9'" in note
        assert "outside the sample" in note
        assert forecast.warnings == []

    def test_references_that_all_dangle_for_their_type_are_a_warning(self):
        records = {"id": [1, 2], "up": ["one", "two"]}
        (warning,) = forecast_of(records, PARENT, complete=False).warnings
        assert warning.startswith("ALL REFERENCES DANGLE: 2 of 2")
        assert "texts, and the ids are integers" in warning

    def test_references_that_all_dangle_in_a_sample_of_everything_are_a_warning(self):
        records = {"id": ["a", "b"], "up": ["A", "B"]}
        (warning,) = forecast_of(records, PARENT).warnings
        assert "spelled otherwise" in warning
        assert forecast_of(records, PARENT, complete=False).warnings == []

    def test_references_into_another_collection_are_looked_up_there(self):
        batches = [from_objects([{"id": 1, "by": 7}]), from_objects([{"id": 7}])]
        mapping = {"relationships": {"type": "reference", "to": "by", "collection": "people"}}
        forecast = forecast_of(batches, mapping, collections=["books", "people"])
        assert not [note for note in forecast.notes if "references" in note]
        assert forecast.warnings == []

    @pytest.mark.parametrize("collection", ["people", "books"])
    def test_a_rule_that_contradicts_the_source_is_refused(self, collection):
        mapping = {"relationships": {"type": "reference", "to": "by", "collection": collection}}
        with pytest.raises(ConfigError) as refused:
            forecast_of([{"id": 1, "by": 7}], mapping, described={"references": {"by": "firms"}})
        assert "by refers to firms" in refused.value.what
        assert f"collection: {collection}" in refused.value.what

    def test_what_the_source_declares_is_taken_where_the_rule_names_no_collection(self):
        batches = [from_objects([{"id": 1, "by": 7}]), from_objects([{"id": 7}])]
        mapping = {"relationships": {"type": "reference", "to": "by"}}
        forecast = forecast_of(
            batches,
            mapping,
            collections=["books", "firms"],
            described={"references": {"by": "firms", "other": "people"}},
        )
        assert not [note for note in forecast.notes if "references" in note]

    def test_fields_of_one_rule_that_point_to_several_collections_are_refused(self):
        mapping = {"relationships": {"type": "reference", "to": ["by", "of"]}}
        with pytest.raises(ConfigError, match="a rule for each field"):
            forecast_of(
                [{"id": 1, "by": 7, "of": 8}],
                mapping,
                described={"references": {"by": "firms", "of": "people"}},
            )


VECTOR = np.linspace(-1, 1, 8).astype("<f4")
LOOKS = {
    "list": (VECTOR.tolist(), "embedding"),
    "text": (json.dumps(VECTOR.tolist()), "embedding"),
    "numpy": (str(VECTOR), "embedding"),
    "object": ({str(n): x for n, x in enumerate(VECTOR.tolist())}, "embedding"),
    "reply": ({"data": [{"embedding": VECTOR.tolist()}]}, "embedding.data[0].embedding"),
    "base64": (
        "AACAv27btr+3bdu+JUmSviVJkj63bds+btu2PwAAgD8=",
        "{path: embedding, as: base64}",
    ),
    "separated": (" ".join(map(str, VECTOR)), "{path: embedding, as: separated}"),
}


class TestVectors:
    @pytest.mark.parametrize("look", LOOKS)
    @pytest.mark.parametrize("fixed_schema", [True, False])
    def test_a_field_that_looks_like_a_vector_is_named_with_its_rule(self, look, fixed_schema):
        value, rule = LOOKS[look]
        records = (
            {"id": ["a", "b"], "embedding": [value, value]}
            if fixed_schema
            else [{"id": "a", "embedding": value}, {"id": "b", "embedding": value}]
        )
        (warning,) = forecast_of(records, {}).warnings
        assert warning.startswith("NO PRIMARY VECTOR")
        assert warning.endswith(f"mapping.vector: {rule}")
        assert forecast_of(records, {"vector": yaml_rule(rule)}).warnings == []

    @pytest.mark.parametrize(
        ("write", "form"),
        [
            (lambda v: v.astype("<f4").tobytes(), "floats"),
            (lambda v: v.astype("<f8").tobytes(), "doubles"),
        ],
        ids=["floats", "doubles"],
    )
    def test_bytes_that_look_like_vectors_are_named_with_their_form(self, write, form):
        vectors = np.random.default_rng(1).standard_normal((20, 8))
        records = {
            "id": [str(n) for n in range(20)],
            "embedding": pa.array([write(vector) for vector in vectors]),
        }
        (warning,) = forecast_of(records, {}).warnings
        assert warning.endswith(f"mapping.vector: {{path: embedding, as: {form}}}")

    @pytest.mark.parametrize(
        "value", ["a plain text", [1, 2, 3], ["a"] * 9, "0171 234 567", b"\x00\x01" * 9, {"a": 1}]
    )
    def test_other_fields_are_not_called_vectors(self, value):
        assert forecast_of({"id": ["a", "b"], "f": [value, value]}, {}).warnings == []

    def test_unreadable_vectors_are_refused_with_their_reason(self):
        with pytest.raises(ConfigError) as refused:
            forecast_of({"id": ["a"], "v": pa.array([bytes(32)])}, {"vector": "v"})
        assert "32 bytes" in refused.value.what
        assert "as:" in refused.value.remedy

    def test_a_collection_without_the_primary_vector_is_named_with_its_own_vector(self):
        batches = [make_page(a=DENSE_A), make_page(b=DENSE_B)]
        options = {"collections": ["x", "y"]}
        (warning,) = forecast_of(batches, {"vector": "vectors.a"}, **options).warnings
        assert "source collection y" in warning
        assert "mapping.vector: [vectors.a, vectors.b]" in warning
        several = {"vector": ["vectors.a", "vectors.b"]}
        forecast = forecast_of(batches, several, **options)
        assert forecast.warnings == []

    def test_records_that_have_only_another_vector_are_counted(self):
        batch = make_page(unnamed=DENSE_A, b=DENSE_B)
        (warning,) = forecast_of(batch, {}).warnings
        assert "NO PRIMARY VECTOR in 1 of 3 sampled records (vector)" in warning
        assert "mapping.vector: [vector, vectors.b]" in warning
        assert forecast_of(batch, {"vector": ["vector", "vectors.b"]}).warnings == []

    def test_fields_land_where_the_plan_says(self):
        batches = [make_page(a=DENSE_A, b=DENSE_B), make_page(b=DENSE_B)]
        landings = forecast_of(batches, {"vector": "vectors.a"}, collections=["x", "y"]).landings
        assert {landing.field: landing.lands for landing in landings} == {
            "id": "id",
            "n": "custom_metadata",
            "vectors.a": "vector",
            "vectors.b": "x_vector_b",
        }

    def test_empty_vectors_are_counted(self):
        forecast = forecast_of({"id": ["a", "b"], "v": [[1.0], []]}, {"vector": "v"})
        assert any("1 of 2 sampled records have an empty vector" in note for note in forecast.notes)

    @pytest.mark.parametrize(
        ("vectors", "warned"), [([[1.0], [2.0]], False), ([[1.0], None], True), ([[1.0], []], True)]
    )
    def test_zero_vectors_under_l2_are_spoken_of_where_a_vector_is_missing(self, vectors, warned):
        forecast = forecast_of(
            {"id": ["a", "b"], "vector": vectors},
            {},
            described={"collections": (Collection("", 2, 1, "l2"),)},
        )
        assert (forecast.metric, forecast.metric_origin) == ("l2", "source (its only collection)")
        assert any("metric l2" in note for note in forecast.notes) == warned

    @pytest.mark.parametrize(
        ("written", "rounded"), [("[0.1, 0.2]", False), ("[0.1234567890123, 0.5]", True)]
    )
    def test_rounding_of_a_text_is_said(self, written, rounded):
        forecast = forecast_of({"id": ["a"], "v": [written]}, {"vector": "v"})
        assert any("more digits than float32" in note for note in forecast.notes) == rounded

    @pytest.mark.parametrize(
        ("number", "rounded"),
        [(2**24, False), (2**24 + 2, False), (2**24 + 1, True), (-(2**53) - 1, True)],
    )
    def test_rounding_of_integers_is_said(self, number, rounded):
        forecast = forecast_of({"id": ["a"], "v": [[1, number]]}, {"vector": "v"})
        assert (
            any("integers that float32 cannot hold" in note for note in forecast.notes) == rounded
        )


def yaml_rule(rule):
    """Read a rule as a job file holds it."""
    import yaml

    return yaml.safe_load(rule)
