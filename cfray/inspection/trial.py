"""Try a draft: what its plan would say, worked out from the records that the guesses rest on.

The draft's own text is read back and converted by the code that a run uses, so what is tried is
what the user gets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import yaml
from pydantic import ValidationError

from cfray.errors import CfrayError, ConfigError
from cfray.formats.csv_types import parse_type
from cfray.inspection.csv_columns import with_types
from cfray.inspection.samples import Sample
from cfray.job.spec import JobSpec
from cfray.planning.forecast import make_forecast
from cfray.planning.sample import Sample as PlanSample
from cfray.planning.shape import work_out_shape
from cfray.sources.base import Description


@dataclass(frozen=True)
class Trial:
    """What the plan of a draft would say of the sample.

    Attributes:
        sampled: records looked at.
        refusal: why the plan would be refused; None where it would not.
        quarantined: reason -> records, those that cannot be read included.
        duplicates: records whose id an earlier record has, too.
        warnings: that the plan would give.
    """

    sampled: int
    refusal: CfrayError | None = None
    quarantined: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def loss(self) -> float:
        """Give the share of the records that would go to quarantine; 1 for a refused plan."""
        if self.refusal is not None:
            return 1.0
        return (self.quarantined.total() + self.duplicates) / max(1, self.sampled)


def try_draft(text: str, sample: Sample) -> Trial:
    """Try the text of a drafted job file on a sample."""
    data = yaml.safe_load(text)
    types: Mapping[str, str] = data["source"].get("types") or {}
    sampled = sample.rows + len(sample.rejects)
    if data["mapping"].get("id") is None:
        # whoever fills the id in can do so: only what cannot be read is lost
        rejected = Counter(reject.reason for reject in sample.rejects)
        return Trial(sampled, None, rejected, warnings=tuple(sample.copies))
    try:
        job = _job(data, sample, types)
        batches = [with_types(batch, types) for batch in sample.batches]
        description = _with_schema(sample.description, types)
        shape = work_out_shape(job, description, batches)
        rows = PlanSample(batches, sample.collections, sample.rejects, sample.is_complete)
        forecast, _ = make_forecast(job, description, shape, rows)
    except CfrayError as error:
        return Trial(sampled, error)
    return Trial(sampled, None, forecast.quarantined, forecast.duplicates, tuple(forecast.warnings))


def _job(data: dict[str, Any], sample: Sample, types: Mapping[str, str]) -> JobSpec:
    source = sample.source.model_copy(update={"types": dict(types)} if types else {})
    try:
        return JobSpec.model_validate(data | {"source": source})
    except ValidationError as error:
        fault = error.errors()[0]
        raise ConfigError(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}", "fill it in"
        ) from error


def _with_schema(description: Description, types: Mapping[str, str]) -> Description:
    """Declare the types of a description's columns as the draft does."""
    schema = description.schema
    if schema is None or not types:
        return description
    columns = [
        item.with_type(parse_type(types[item.name])) if item.name in types else item
        for item in schema
    ]
    return replace(description, schema=pa.schema(columns, schema.metadata))
