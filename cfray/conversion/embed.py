"""Give each frame the vector its target expects, and say where it came from.

Under ``keep`` it is the source's; a model makes it of the text, or a fitted map
of the old vector.  What comes in is what ``convert`` made, with vectors as wide
as the source's; what goes out has the target's schema.  Models live in the
actors of ``pool.py``; nothing here holds one, and nothing here has an effect.
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
from cfray.embedders.recipe import Recipe
from cfray.embedders.texts import Chunks
from cfray.engine.embedder_pool import EmbedderPool
from cfray.job.mapping import SourceShape
from cfray.job.spec import JobSpec
from cfray.records.vectors import Floats, matrix, unit, vector_lists
from cfray.remap.maps import Map
from cfray.remap.projection import Projection
from cfray.target.exact_vectors import ExactVectors
from cfray.target.maps import load_map, load_projection
from cfray.target.state import State

Mask = npt.NDArray[np.bool_]

#: Where each frame's vector came from: ``kept``, ``regenerated model=...``, ``remapped model=...
#: map=...``; null where there is none.
ORIGIN = "x_vector_origin"


def target_schema(job: JobSpec, layout: SourceShape, recipe: Recipe) -> pa.Schema:
    """Give the target's schema: what ``convert`` makes, with vectors of the target's width.

    The columns that only ``embed`` fills.
    """
    schema = Conversion(job, layout).schema
    schema = schema.set(
        schema.get_field_index("vector"),
        pa.field("vector", pa.list_(pa.float32(), layout.dimension)),
    )
    for name, column in job.embedding.columns.items():
        kind = pa.float16() if column.dtype == "float16" else pa.float32()
        width = (
            layout.dimension
            if column.of == "vector" or recipe.model is None
            else recipe.model.dimension
        )
        schema = schema.append(pa.field(f"x_vector_{name}", pa.list_(kind, width)))
    schema = schema.append(pa.field(ORIGIN, pa.string()))
    return schema.append(chunks.FIELD) if job.embedding.chunk else schema


@dataclass(frozen=True)
class Embed:
    """Everything embed needs to know; travels to workers.

    Attributes:
        job, layout, recipe: what to do.
        pool: the actors that hold the model; None where no model is needed.
    """

    job: JobSpec
    layout: SourceShape
    recipe: Recipe
    pool: EmbedderPool | None = None

    @cached_property
    def schema(self) -> pa.Schema:
        """Give the target's schema."""
        return target_schema(self.job, self.layout, self.recipe)

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
        """Load the vectors of the records the map was learned from.

        They keep what the model itself made of them.
        """
        return ExactVectors.load(State(self.job.target.uri), self.recipe.map)

    def __call__(self, converted: Converted, collection: str) -> Converted:
        """Finish a batch of frames of one source collection.

        A text that the job refuses becomes a Fault.

        Raises:
            CfrayError: the model as a whole failed; never for one text.
        """
        made = self.made(converted)
        counts = converted.counts + made.counts
        faults = {
            row: Fault(int(converted.rows[row]), "embed", reason)
            for row, reason in made.faults.items()
        }
        if self.recipe.policy != "keep" and self.job.embedding.missing_vector == "quarantine":
            reason = "no vector could be made: there is no text, and embedding.missing_vector is quarantine"
            faults |= {
                row: Fault(int(converted.rows[row]), "embed", reason)
                for row in np.flatnonzero(made.missing).tolist()
                if row not in faults
            }
        finished = self.finished(converted.frames, made)
        kept = np.ones(finished.num_rows, np.bool_)
        kept[list(faults)] = False
        if self.recipe.policy != "keep":
            counts["missing_vectors"] += int((made.missing & kept).sum())
        counts["derived_frames"] += 0 if made.chunks is None else int(kept[made.chunks.owner].sum())
        if made.chunks is not None:
            pieces = replace(made.chunks, vectors=self.reduced(made.chunks.vectors))
            finished = chunks.with_chunks(
                finished, pieces, chunks.Ids(converted.tagged, self.job, collection), kept
            )
        elif faults:
            finished = finished.filter(pa.array(kept))
        every = sorted([*converted.faults, *faults.values()], key=lambda fault: fault.row)
        return Converted(
            finished,
            converted.rows[kept],
            every,
            counts,
            made.missing[kept],
            converted.tagged.filter(pa.array(kept)),
        )

    def made(self, converted: Converted) -> NewVectors:
        """Make the vectors by the job's policy."""
        texts = converted.frames.column("text_content")
        if self.recipe.policy == "keep":
            values = matrix(converted.frames.column("vector"))
            return NewVectors(
                values, converted.missing, {}, self._origins(converted.missing, "kept"), Counter()
            )
        assert self.pool is not None
        if self.recipe.policy == "regenerate":
            made = self.pool.embed(texts)
            counts = made.counts + Counter({"vectors_regenerated": int((~made.missing).sum())})
            return NewVectors(
                made.vectors,
                made.missing,
                made.faults,
                self._origins(made.missing, "regenerated"),
                counts,
                made.chunks,
            )
        return self._remapped(converted, texts)

    def _remapped(self, converted: Converted, texts: pa.StringArray) -> NewVectors:
        """Map the old vectors; where the model's own are known they stay.

        A record without an old one gets one from its text.
        """
        assert self.pool is not None
        values = self.map.apply(matrix(converted.frames.column("vector")))
        origin = np.where(converted.missing, "", self.recipe.origins["remapped"]).astype(object)
        known, exact = self.exact.find(converted.frames.column("uuid"))
        values[known], origin[known] = exact, self.recipe.origins["regenerated"]
        missing = converted.missing.copy()
        missing[known] = False
        faults, counts = {}, Counter[str]()
        rows = np.flatnonzero(missing)
        if len(rows):
            made = self.pool.embed(texts.take(pa.array(rows)))
            values[rows], origin[rows] = made.vectors, self.recipe.origins["regenerated"]
            missing[rows], faults = (
                made.missing,
                {int(rows[row]): reason for row, reason in made.faults.items()},
            )
            counts += made.counts
        origin[missing] = None
        origins = pa.array(origin, pa.string())
        return NewVectors(values, missing, faults, origins, counts + origins_of(origins))

    def _origins(self, missing: Mask, how: str) -> pa.StringArray:
        if not missing.any():
            return pa.repeat(pa.scalar(self.recipe.origins[how]), len(missing))
        return pc.if_else(pa.array(missing), None, self.recipe.origins[how])

    def finished(self, batch: pa.RecordBatch, made: NewVectors) -> pa.RecordBatch:
        """Put the columns of the target together."""
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        if self.recipe.policy != "keep" or self.job.embedding.reduce:
            values = self.reduced(made.values)
            hidden = (
                made.missing
                if self.job.embedding.missing_vector == "null"
                else np.zeros(len(made.missing), np.bool_)
            )
            columns["vector"] = vector_lists(values, hidden, pa.float32())
        columns |= self._further(columns)
        columns[ORIGIN] = made.origin
        if self.job.embedding.chunk:
            columns[chunks.FIELD.name] = pa.nulls(batch.num_rows, pa.string())
        return pa.RecordBatch.from_arrays(
            [columns[name] for name in self.schema.names], schema=self.schema
        )

    def reduced(self, values: Floats) -> Floats:
        """Make vectors as narrow as the job asks; vectors of length 1 have it again."""
        spec = self.job.embedding.reduce
        if spec is None:
            return values
        if spec.method == "pca":
            return self.projection.apply(values)
        return unit(values[:, : spec.dimension], like=values)

    def _further(self, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        """Fill the vector columns the job asks for beside the primary one."""
        found = {}
        for name, spec in self.job.embedding.columns.items():
            kind = self.schema.field(f"x_vector_{name}").type.value_type
            if spec.of == "vector":
                values, missing = (
                    matrix(columns["vector"]),
                    columns["vector"].is_null().to_numpy(zero_copy_only=False),
                )
            else:
                assert self.pool is not None
                made = self.pool.embed(columns[spec.of].cast(pa.string()))
                values, missing = made.vectors, made.missing
            found[f"x_vector_{name}"] = vector_lists(values, missing, kind)
        return found


@dataclass(frozen=True, slots=True)
class NewVectors:
    """Vectors of one batch and what is known of them.

    Attributes:
        values: ``(n, d)`` as the model, the map or the source has them, not reduced.
        missing: ``(n,)`` true where there is none.
        faults: row -> why its text was refused.
        origin: for each row the column ``x_vector_origin``.
        counts: what the report tells.
        chunks: of the texts, where the job cuts some.
    """

    values: Floats
    missing: Mask
    faults: dict[int, str]
    origin: pa.StringArray
    counts: Counter[str]
    chunks: Chunks | None = None


def origins_of(column: pa.StringArray) -> Counter[str]:
    """Count frames by how their vector came to be."""
    counts: Counter[str] = Counter()
    for item in column.value_counts().to_pylist():
        if item["values"] is not None:
            counts[f"vectors_{item['values'].split(' ')[0]}"] += item["counts"]
    return counts
