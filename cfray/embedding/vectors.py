"""Give frames the vectors that the job asks for, and say how each vector was made.

Under ``keep`` it is the vector that the frame has; otherwise a model makes it of the text, or a
fitted map makes it of the vector that the frame has.  What comes in are frames of a target, with
their present vectors; what goes out are the columns that will stand in their place.  The model is
handed in: nothing here loads a model, and nothing here has an effect.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion import chunk_frames
from cfray.conversion.steps import copied_schema
from cfray.embedders.batches import TextModel
from cfray.embedders.recipe import Recipe
from cfray.embedders.spec import Embedding
from cfray.embedders.texts import EmbeddedTexts
from cfray.errors import TargetError
from cfray.frames.schema import ORIGIN
from cfray.job.mapping import SourceShape
from cfray.job.spec import JobSpec
from cfray.records.vectors import Floats, has_number, matrix, unit, vector_lists
from cfray.remap.maps import Map
from cfray.remap.projection import Projection
from cfray.target.commit import Target, with_field
from cfray.target.exact_vectors import ExactVectors
from cfray.target.maps import load_map, load_projection
from cfray.target.state import State

Mask = npt.NDArray[np.bool_]

#: The least number that a half (IEEE 754 binary16) rounds to infinity.
_HALF_INFINITY = 65_520


def made_fields(embedding: Embedding, recipe: Recipe) -> list[pa.Field]:
    """List the columns that an embedding makes: ``vector``, its origin, and the further ones."""
    fields = [
        pa.field("vector", pa.list_(pa.float32(), recipe.dimension)),
        pa.field(ORIGIN, pa.string()),
    ]
    for name, column in embedding.columns.items():
        kind = pa.float16() if column.dtype == "float16" else pa.float32()
        width = recipe.dimension
        if column.of != "vector" and recipe.model is not None:
            width = recipe.model.dimension  # only the primary vector is reduced
        fields.append(pa.field(f"x_vector_{name}", pa.list_(kind, width)))
    return fields


def target_schema(job: JobSpec, shape: SourceShape, recipe: Recipe) -> pa.Schema:
    """Give the schema of a target whose vectors are as the recipe says."""
    schema = copied_schema(job, shape)
    for new_field in made_fields(job.embedding, recipe):
        schema = with_field(schema, new_field)
    return schema


def schema_of_target(job: JobSpec, shape: SourceShape, target: Target) -> pa.Schema:
    """Give the schema for rows that join a target: its columns are in the dataset's order.

    The hash of a row depends on the order of its columns.
    """
    return in_order_of(target.open().schema, target_schema(job, shape, target.recipe()))


def in_order_of(dataset_schema: pa.Schema, schema: pa.Schema) -> pa.Schema:
    """Give a schema's fields in the order of the dataset's columns.

    Raises:
        TargetError: the dataset has a column that cfray did not make.
    """
    foreign = [name for name in dataset_schema.names if name not in schema.names]
    if foreign:
        raise TargetError(
            f"the dataset has the column {foreign[0]}, which cfray did not make: no row joins it",
            "drop that column, then run the same command again",
        )
    return pa.schema([schema.field(name) for name in dataset_schema.names])


@dataclass(frozen=True, slots=True)
class NewVectors:
    """The new columns of some frames.

    Attributes:
        columns: name of the target's column -> its values.
        refused: row -> why the frame cannot have the vector that the job asks for; its values are
            zeros and nulls.
        counts: figures for the report.
    """

    columns: dict[str, pa.Array]
    refused: dict[int, str]
    counts: Counter[str]


@dataclass(frozen=True, slots=True)
class _Made:
    """Vectors on their way, one row a frame.

    Attributes:
        values: ``(n, d)`` as the model, the map or the frames give them, not reduced.
        missing: ``(n,)`` true where a frame has no vector.
        origins: ``(n,)`` values of the column ``x_vector_origin``; None without a vector.
        refused: row -> why its text was refused.
        counts: figures for the report.
    """

    values: Floats
    missing: Mask
    origins: npt.NDArray[np.object_]
    refused: dict[int, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class VectorMaker:
    """Makes the vectors of documents and chunks; it travels to workers without its model.

    Attributes:
        embedding: the job's section.
        recipe: how the vectors are made.
        target: address of the target, beside which maps and projections lie.
        model: None where none is needed.
    """

    embedding: Embedding
    recipe: Recipe
    target: str
    model: TextModel | None = None

    @cached_property
    def map(self) -> Map:
        """Load the fitted map."""
        return load_map(self.target, self.recipe.map)

    @cached_property
    def projection(self) -> Projection:
        """Load the projection."""
        return load_projection(self.target, self.recipe.reduction)

    @cached_property
    def exact(self) -> ExactVectors:
        """Load the vectors that the model itself made of the records the map was learned from."""
        return ExactVectors.load(State(self.target), self.recipe.map)

    @property
    def read_columns(self) -> list[str]:
        """Name the columns of the frames that vectors are made of."""
        texts = {column.of for column in self.embedding.columns.values()} - {"vector"}
        return ["uuid", "text_content", *sorted(texts), "vector", ORIGIN]

    def __call__(self, frames: pa.RecordBatch) -> NewVectors:
        """Make the new columns of some documents and chunks.

        Args:
            frames: with ``read_columns`` and, where the target has chunks, ``x_chunk_of``.

        Raises:
            CfrayError: the model as a whole failed; never for a single text.
        """
        made = self._make(frames)
        values = self.reduce(made.values)
        refused = {**self._refuse_missing(made), **self._refuse_zeros(made, values), **made.refused}
        values[list(refused)] = 0
        made.origins[list(refused)] = None
        missing = made.missing.copy()
        missing[list(refused)] = True
        is_null = missing & (self.embedding.missing_vector == "null")
        origins = pa.array(made.origins, pa.string())
        columns = {"vector": vector_lists(values, is_null, pa.float32()), ORIGIN: origins}
        further, further_refused = self._further_columns(frames, values, is_null, made.counts)
        return NewVectors(columns | further, {**further_refused, **refused}, +made.counts)

    def _make(self, frames: pa.RecordBatch) -> _Made:
        if self.recipe.policy == "keep":
            column = frames.column(ORIGIN)
            missing = column.is_null().to_numpy(zero_copy_only=False)
            origins = np.array(column.to_pylist(), object)
            return _Made(matrix(frames.column("vector")).copy(), missing, origins)
        if self.recipe.policy == "remap":
            return self._remap(frames)
        return self._embed(frames.column("text_content"))

    def _embed(self, texts: pa.StringArray) -> _Made:
        """Let the model make a vector of each text."""
        assert self.model is not None
        new = self.model.embed(texts)
        origins = np.full(len(texts), self.recipe.origins["regenerated"], object)
        origins[new.missing] = None
        return _Made(new.vectors, new.missing, origins, new.faults, new.counts)

    def _remap(self, frames: pa.RecordBatch) -> _Made:
        """Map the present vectors.

        The records that the map was learned from get the vectors that the model made of them.  A
        record without a vector, for which a vector of zeros stands, gets one from its text.
        """
        old = matrix(frames.column("vector"))
        values = self.map.apply(old)
        origins = np.full(len(old), self.recipe.origins["remapped"], object)
        has_exact, exact = self.exact.find(frames.column("uuid"))
        values[has_exact], origins[has_exact] = exact, self.recipe.origins["regenerated"]
        missing = ~has_number(old)
        missing[has_exact] = False
        rows = np.flatnonzero(missing)
        if not len(rows):
            return _Made(values, missing, origins)
        from_text = self._embed(frames.column("text_content").take(pa.array(rows)))
        values[rows], origins[rows] = from_text.values, from_text.origins
        missing[rows] = from_text.missing
        refused = {int(rows[row]): reason for row, reason in from_text.refused.items()}
        return _Made(values, missing, origins, refused, from_text.counts)

    def _refuse_missing(self, made: _Made) -> dict[int, str]:
        if self.embedding.missing_vector != "quarantine":
            return {}
        reason = "no vector could be made, and embedding.missing_vector is quarantine"
        return dict.fromkeys(np.flatnonzero(made.missing).tolist(), reason)

    def _refuse_zeros(self, made: _Made, reduced: Floats) -> dict[int, str]:
        """Refuse vectors of which the job's ``reduce`` leaves nothing but zeros."""
        is_nothing = ~made.missing & has_number(made.values) & ~has_number(reduced)
        reason = "all numbers of its vector that embedding.reduce keeps are 0"
        return dict.fromkeys(np.flatnonzero(is_nothing).tolist(), reason)

    def reduce(self, vectors: Floats) -> Floats:
        """Make vectors as narrow as the job asks; vectors of length 1 have length 1 again."""
        spec = self.embedding.reduce
        if spec is None:
            return vectors
        if spec.method == "pca":
            return self.projection.apply(vectors)
        return unit(vectors[:, : spec.dimension], like=vectors)

    def _further_columns(
        self, frames: pa.RecordBatch, values: Floats, is_null: Mask, counts: Counter[str]
    ) -> tuple[dict[str, pa.Array], dict[int, str]]:
        """Make the columns that the job asks for beside the primary vector; chunks have none."""
        further: dict[str, pa.Array] = {}
        refused: dict[int, str] = {}
        is_chunk = np.zeros(frames.num_rows, np.bool_)
        if chunk_frames.FIELD.name in frames.schema.names:
            is_chunk = ~frames.column(chunk_frames.FIELD.name).is_null().to_numpy(False)
        fields = {field.name: field for field in made_fields(self.embedding, self.recipe)}
        new_vectors: dict[str, EmbeddedTexts] = {}
        for key, column in self.embedding.columns.items():
            name = f"x_vector_{key}"
            vectors, lacking = values, is_null | is_chunk
            if column.of != "vector":
                if column.of not in new_vectors:
                    assert self.model is not None
                    texts = pc.if_else(pa.array(is_chunk), None, frames.column(column.of))
                    new = new_vectors[column.of] = self.model.embed(texts.cast(pa.string()))
                    refused |= {row: f"{column.of}: {text}" for row, text in new.faults.items()}
                    counts.update({"column_texts_truncated": new.counts["texts_truncated"]})
                vectors, lacking = new_vectors[column.of].vectors, new_vectors[column.of].missing
            if column.dtype == "float16":
                # halves round to at most 65,504 what is below 65,520, and the rest to infinity
                is_beyond = (np.abs(vectors) >= _HALF_INFINITY).any(axis=1) & ~lacking
                reason = f"{name}: a number of the vector is too large for float16"
                refused |= dict.fromkeys(np.flatnonzero(is_beyond).tolist(), reason)
                vectors = np.where(is_beyond[:, None], np.float32(0), vectors)
            further[name] = vector_lists(vectors, lacking, fields[name].type.value_type)
        return further, refused


def count_origins(column: pa.StringArray) -> Counter[str]:
    """Count frames by how their vector was made, from the column ``x_vector_origin``."""
    counts: Counter[str] = Counter()
    for item in column.value_counts().to_pylist():
        if item["values"] is not None:
            counts[f"vectors_{item['values'].split(' ')[0]}"] += item["counts"]
    return counts
