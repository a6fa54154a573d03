"""Embed adds the columns, origins, chunks and faults of a batch.

Its model is a few lines of arithmetic here, so that no test waits for a real one.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from cfray.conversion import chunks, embed
from cfray.conversion.convert import Conversion
from cfray.conversion.embed import ORIGIN, Embed
from cfray.embedders.base import Embedder, Identity
from cfray.embedders.recipe import Recipe
from cfray.embedders.texts import TextEmbedder
from cfray.job.spec import JobSpec
from cfray.planning.shape import work_out_shape
from cfray.sources.base import Description

DIMENSION, MAX_TOKENS = 6, 8
IDENTITY = Identity("letters", "0" * 64, "torch", "fp32", "", "", MAX_TOKENS, DIMENSION)


class LetterCounter(Embedder):
    """An embedder that counts letters; a word is a token."""

    identity = IDENTITY

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]

    def encode(self, texts, tokens):
        rows = np.array(
            [
                [" ".join(text.split()[:MAX_TOKENS]).count(letter) + 0.1 for letter in "aeiost"]
                for text in texts
            ],
            np.float32,
        )
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    encode_queries = encode

    def split_text(self, text, tokens, overlap):
        words = text.split()
        return [
            " ".join(words[start : start + tokens])
            for start in range(0, max(1, len(words) - overlap), tokens - overlap)
        ]


class LocalPool:
    """A pool of embedders without actors."""

    def __init__(self, spec):
        self.texts = TextEmbedder(LetterCounter(), spec)

    def embed(self, column):
        return self.texts.embed(column)


def embed_records(records, **embedding):
    spec = JobSpec.model_validate(
        {
            "name": "n",
            "source": {"kind": "parquet", "uri": "x"},
            "mapping": {"text_content": "body"},
            "target": {"uri": "t"},
            "embedding": {"policy": "regenerate", "model": "m", **embedding},
        }
    )
    batch = pa.RecordBatch.from_pydict(records)
    shape = work_out_shape(
        spec, Description(batch.schema, None, exact=False, size=0, consistency="none"), [batch]
    )
    recipe = Recipe(
        spec.embedding.policy,
        spec.embedding.reduce.dimension if spec.embedding.reduce else DIMENSION,
        IDENTITY,
        reduction="truncate" if spec.embedding.reduce else "",
    )
    shape = replace(shape, dimension=recipe.dimension, source_dimension=shape.dimension)
    embed_batch = Embed(spec, shape, recipe, LocalPool(spec.embedding))
    converted = embed_batch(Conversion(spec, shape).convert(batch, ""), "")
    converted.frames.validate(full=True)
    assert converted.frames.schema.equals(embed.target_schema(spec, shape, recipe))
    return converted


def test_vectors_origins_and_the_texts_that_have_none():
    embedded = embed_records({"id": ["a", "b", "c"], "body": ["tea at six", None, " "]})
    rows = embedded.frames.to_pylist()
    assert np.linalg.norm(rows[0]["vector"]) == pytest.approx(1, abs=1e-6)
    assert rows[1]["vector"] == rows[2]["vector"] == [0.0] * DIMENSION
    assert [row[ORIGIN] for row in rows] == [f"regenerated model={IDENTITY.key[:16]}", None, None]
    assert embedded.counts["missing_vectors"] == 2
    assert embedded.counts["vectors_regenerated"] == 1
    assert embed.count_origins(embedded.frames.column(ORIGIN)) == Counter(
        {"vectors_regenerated": 1}
    )


def test_a_missing_vector_is_null_or_a_fault_where_the_job_says_so():
    records = {"id": ["a", "b"], "body": ["tea", None]}
    assert (
        embed_records(records, missing_vector="null").frames.column("vector").to_pylist()[1] is None
    )
    embedded = embed_records(records, missing_vector="quarantine")
    assert embedded.frames.num_rows == 1
    assert [(fault.row, fault.stage) for fault in embedded.faults] == [(1, "embed")]


def test_a_fault_names_the_row_of_the_batch():
    records = {"id": [None, "b", "c"], "body": ["no id", "w " * 20, "fine"]}
    embedded = embed_records(records, on_long_text="error")
    assert [(fault.row, fault.stage) for fault in embedded.faults] == [(0, "convert"), (1, "embed")]
    assert embedded.rows.tolist() == [2]
    assert embedded.frames.column("text_content").to_pylist() == ["fine"]


def test_chunks_stand_behind_their_documents_and_leave_with_them():
    long_text = " ".join(f"word{number}" for number in range(12))
    embedded = embed_records(
        {"id": ["a", "b", "c"], "body": ["short", long_text, None]},
        chunk={"tokens": 8, "overlap": 0},
        missing_vector="quarantine",
    )
    rows = embedded.frames.to_pylist()
    assert [row["x_chunk_of"] for row in rows] == [None, None, rows[1]["uuid"], rows[1]["uuid"]]
    assert " ".join(row["text_content"] for row in rows[2:]) == long_text
    assert [row["position"] for row in rows[2:]] == [0, 1]
    assert chunks.document_rows(embedded.frames) == [0, 1]
    assert embedded.counts["derived_frames"] == 2
    assert len({row["uuid"] for row in rows}) == 4


def test_further_columns_and_fewer_numbers():
    columns = {"name": {"of": "title"}, "half": {"of": "vector", "dtype": "float16"}}
    embedded = embed_records(
        {"id": ["a"], "body": ["tea at six"]},
        reduce={"method": "truncate", "dimension": 3},
        columns=columns,
    )
    (row,) = embedded.frames.to_pylist()
    assert len(row["vector"]) == len(row["x_vector_half"]) == 3
    assert np.linalg.norm(row["vector"]) == pytest.approx(1, abs=1e-6)
    assert np.array_equal(
        np.array(row["x_vector_half"], np.float16), np.array(row["vector"], np.float16)
    )
    assert len(row["x_vector_name"]) == DIMENSION, "only the primary vector is reduced"
