"""Give each frame the vector that its target expects, and say how the vector was made.

Under ``keep`` it is the source's vector; otherwise a model makes it of the text, or a fitted map
makes it of the source's vector.  What comes in are frames as ``Conversion`` makes them, with
vectors as wide as the source's; what goes out has the target's schema.  The model is handed in:
nothing here loads a model, and nothing here has an effect.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion import chunks
from cfray.conversion.convert import Conversion, Converted, Fault
from cfray.embedders.batches import TextModel
from cfray.embedders.recipe import Recipe
from cfray.embedders.texts import Chunks
from cfray.job.mapping import SourceShape
from cfray.job.spec import JobSpec
from cfray.records.vectors import Floats, matrix, unit, vector_lists
from cfray.remap.maps import Map
from cfray.remap.projection import Projection
from cfray.target.exact_vectors import ExactVectors
from cfray.target.maps import load_map, load_projection
from cfray.target.state import State

Mask = npt.NDArray[np.bool_]

#: The column that says how each frame's vector was made: ``kept``, ``regenerated model=...``,
#: ``remapped model=... map=...``; null where a frame has no vector.
ORIGIN = "x_vector_origin"


def target_schema(job: JobSpec, shape: SourceShape, recipe: Recipe) -> pa.Schema:
    """Give the target's schema.

    It is the schema that ``Conversion`` makes, with vectors of the target's width and the columns
    that only ``Embed`` fills.
    """
    schema = Conversion(job, shape).schema
    vector = pa.field("vector", pa.list_(pa.float32(), shape.dimension))
    schema = schema.set(schema.get_field_index("vector"), vector)
    for name, column in job.embedding.columns.items():
        kind = pa.float16() if column.dtype == "float16" else pa.float32()
        width = shape.dimension
        if column.of != "vector" and recipe.model is not None:
            width = recipe.model.dimension
        schema = schema.append(pa.field(f"x_vector_{name}", pa.list_(kind, width)))
    schema = schema.append(pa.field(ORIGIN, pa.string()))
    return schema.append(chunks.FIELD) if job.embedding.chunk else schema


@dataclass(frozen=True, slots=True)
class NewVectors:
    """The vectors of one batch, and what is known of them.

    Attributes:
        values: ``(n, d)`` as the model, the map or the source gives them, not reduced.
        missing: ``(n,)`` true where a frame has no vector.
        faults: row -> why its text was refused.
        origin: for each row the value of the column ``x_vector_origin``.
        counts: figures for the report.
        chunks: of the texts, where the job cuts chunks.
    """

    values: Floats
    missing: Mask
    faults: dict[int, str]
    origin: pa.StringArray
    counts: Counter[str]
    chunks: Chunks | None = None


@dataclass(frozen=True)
class Embed:
    """The step that gives frames their vectors; it travels to workers.

    Attributes:
        job: the job file.
        shape: of the source.
        recipe: how the vectors are made.
        pool: the model; None where none is needed.
    """

    job: JobSpec
    shape: SourceShape
    recipe: Recipe
    pool: TextModel | None = None

    @cached_property
    def schema(self) -> pa.Schema:
        """Give the target's schema."""
        return target_schema(self.job, self.shape, self.recipe)

    @cached_property
    def map(self) -> Map:
        """Load the fitted map."""
        return load_map(self.job.target.uri, self.recipe.map)

    @cached_property
    def projection(self) -> Projection:
        """Load the projection."""
        return load_projection(self.job.target.uri, self.recipe.reduction)

    @cached_property
    def exact(self) -> ExactVectors:
        """Load the vectors that the model itself made of the records the map was learned from."""
        return ExactVectors.load(State(self.job.target.uri), self.recipe.map)

    def __call__(self, converted: Converted, collection: str) -> Converted:
        """Finish a batch of frames of one source collection; a refused text becomes a Fault.

        Raises:
            CfrayError: the model as a whole failed; never for a single text.
        """
        new = self.make_vectors(converted.frames, converted.missing)
        reasons = self._find_faults(new)
        stays = np.ones(converted.frames.num_rows, np.bool_)
        stays[list(reasons)] = False
        counts = converted.counts + new.counts
        if self.recipe.policy != "keep":
            counts["missing_vectors"] += int((new.missing & stays).sum())
        counts["derived_frames"] += 0 if new.chunks is None else int(stays[new.chunks.owner].sum())
        frames = self.finish(converted.frames, new)
        if new.chunks is not None:
            reduced = replace(new.chunks, vectors=self.reduce(new.chunks.vectors))
            ids = chunks.Ids(converted.tagged_ids, self.job, collection)
            frames = chunks.with_chunks(frames, reduced, ids, stays)
        elif reasons:
            frames = frames.filter(pa.array(stays))
        faults = [
            Fault(int(converted.rows[row]), "embed", reason) for row, reason in reasons.items()
        ]
        return Converted(
            frames,
            converted.rows[stays],
            sorted([*converted.faults, *faults], key=lambda fault: fault.row),
            counts,
            new.missing[stays],
            converted.tagged_ids.filter(pa.array(stays)),
        )

    def _find_faults(self, new: NewVectors) -> dict[int, str]:
        """Say why frames cannot have the vector that the job wants: row -> reason."""
        if self.recipe.policy == "keep" or self.job.embedding.missing_vector != "quarantine":
            return new.faults
        reason = (
            "no vector could be made: there is no text, and embedding.missing_vector is quarantine"
        )
        return dict.fromkeys(np.flatnonzero(new.missing).tolist(), reason) | new.faults

    def make_vectors(self, frames: pa.RecordBatch, missing: Mask) -> NewVectors:
        """Make the vectors of frames by the job's policy.

        Args:
            frames: with the vectors of the source.
            missing: ``(n,)`` true where a frame has no vector of the source.
        """
        texts = frames.column("text_content")
        if self.recipe.policy == "keep":
            vectors = matrix(frames.column("vector"))
            return NewVectors(vectors, missing, {}, self._origins(missing, "kept"), Counter())
        assert self.pool is not None
        if self.recipe.policy == "remap":
            return self._remap(self.pool, frames, missing)
        new = self.pool.embed(texts)
        counts = new.counts + Counter({"vectors_regenerated": int((~new.missing).sum())})
        origins = self._origins(new.missing, "regenerated")
        return NewVectors(new.vectors, new.missing, new.faults, origins, counts, new.chunks)

    def _remap(self, pool: TextModel, frames: pa.RecordBatch, missing: Mask) -> NewVectors:
        """Map the vectors of the source.

        The records that the map was learned from keep the vectors that the model made of them.  A
        record without a vector gets a vector from its text.
        """
        vectors = self.map.apply(matrix(frames.column("vector")))
        origins = np.where(missing, "", self.recipe.origins["remapped"]).astype(object)
        has_exact, exact = self.exact.find(frames.column("uuid"))
        vectors[has_exact], origins[has_exact] = exact, self.recipe.origins["regenerated"]
        still_missing = missing.copy()
        still_missing[has_exact] = False
        faults: dict[int, str] = {}
        counts: Counter[str] = Counter()
        rows = np.flatnonzero(still_missing)
        if len(rows):
            new = pool.embed(frames.column("text_content").take(pa.array(rows)))
            vectors[rows], origins[rows] = new.vectors, self.recipe.origins["regenerated"]
            still_missing[rows] = new.missing
            faults = {int(rows[row]): reason for row, reason in new.faults.items()}
            counts += new.counts
        origins[still_missing] = None
        column = pa.array(origins, pa.string())
        return NewVectors(vectors, still_missing, faults, column, counts + count_origins(column))

    def _origins(self, missing: Mask, how: str) -> pa.StringArray:
        origin = self.recipe.origins[how]
        if not missing.any():
            return pa.repeat(pa.scalar(origin), len(missing))
        return pc.if_else(pa.array(missing), None, origin)

    def finish(self, frames: pa.RecordBatch, new: NewVectors) -> pa.RecordBatch:
        """Put the columns of the target together: the frames' and those of the vectors."""
        columns = dict(zip(frames.schema.names, frames.columns, strict=True))
        if self.recipe.policy != "keep" or self.job.embedding.reduce:
            is_null = np.zeros(len(new.missing), np.bool_)
            if self.job.embedding.missing_vector == "null":
                is_null = new.missing
            columns["vector"] = vector_lists(self.reduce(new.values), is_null, pa.float32())
        columns |= self._further_columns(columns)
        columns[ORIGIN] = new.origin
        if self.job.embedding.chunk:
            columns[chunks.FIELD.name] = pa.nulls(frames.num_rows, pa.string())
        return pa.RecordBatch.from_arrays(
            [columns[name] for name in self.schema.names], schema=self.schema
        )

    def reduce(self, vectors: Floats) -> Floats:
        """Make vectors as narrow as the job asks; vectors of length 1 have length 1 again."""
        spec = self.job.embedding.reduce
        if spec is None:
            return vectors
        if spec.method == "pca":
            return self.projection.apply(vectors)
        return unit(vectors[:, : spec.dimension], like=vectors)

    def _further_columns(self, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        """Fill the vector columns that the job asks for beside the primary vector."""
        further = {}
        for key, spec in self.job.embedding.columns.items():
            name = f"x_vector_{key}"
            if spec.of == "vector":
                vectors = matrix(columns["vector"])
                missing = columns["vector"].is_null().to_numpy(zero_copy_only=False)
            else:
                assert self.pool is not None
                new = self.pool.embed(columns[spec.of].cast(pa.string()))
                vectors, missing = new.vectors, new.missing
            kind = self.schema.field(name).type.value_type
            further[name] = vector_lists(vectors, missing, kind)
        return further


def count_origins(column: pa.StringArray) -> Counter[str]:
    """Count frames by how their vector was made, from the column ``x_vector_origin``."""
    counts: Counter[str] = Counter()
    for item in column.value_counts().to_pylist():
        if item["values"] is not None:
            counts[f"vectors_{item['values'].split(' ')[0]}"] += item["counts"]
    return counts
