"""A job as Python code describes it: by keywords, as a dict, or as the path of a job file.

Whatever form it has, it becomes a ``JobSpec`` whose paths are absolute, as the job of a job file
is.  Paths in a job file start at its folder, paths in Python at the working directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from cfray.errors import ConfigError
from cfray.job.file import read_job
from cfray.job.refusal import refuse
from cfray.job.spec import JobSpec, Target
from cfray.job.yaml_file import read_yaml
from cfray.sources.base import Source

#: What a job must have beside its source; a job that is only read makes no use of it.
_NAME, _TARGET = "records", Target(uri="nowhere.lance")


class Job(JobSpec):
    """One migration, with the keys of a job file as keyword arguments.

    ``docs/reference/job-file.md`` has every key.  A section is a dict or its model; a path starts
    at the working directory of the call that runs the job.  Frozen: ``model_copy(update=...)``
    gives a changed job, and what decides its rows gives it another ``fingerprint``.

    Example::

        job = cfray.Job(
            name="articles",
            source={"kind": "parquet", "uri": "exports/articles"},
            mapping={"id": "doc_id", "text_content": "body", "vector": "embedding"},
            target={"uri": "out/articles.lance"},
        )
        report = cfray.migrate(job)

    Raises:
        ConfigError: a key or a value is not one of a job; names the key.
    """

    def __init__(self, **keys: Any) -> None:
        """Check every key."""
        try:
            super().__init__(**keys)
        except ValidationError as error:
            refuse(error)

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read a job file (YAML); its paths start at its folder.

        Example: ``cfray.Job.from_file("jobs/articles.yaml")``.

        Raises:
            ConfigError: the file cannot be read, or says what a job cannot; names line and key.
        """
        return cls._of(read_job(Path(path)))

    @classmethod
    def _of(cls, spec: JobSpec) -> Self:
        """Take a job over with its agreement, which is made of the paths as they were written."""
        job = cls.model_construct(spec.model_fields_set, **dict(spec))
        job._agreed = spec.agreed  # noqa: SLF001  # of this very model
        return job


def job_of(given: str | Path | Mapping[str, Any] | JobSpec) -> JobSpec:
    """Take a job in any form.

    Args:
        given: path of a job file, its keys, or a job.

    Raises:
        ConfigError: it is no job.
    """
    if isinstance(given, JobSpec):
        return given.resolve_paths(Path.cwd())
    if isinstance(given, Mapping):
        return Job(**given).resolve_paths(Path.cwd())
    return Job.from_file(given)


def source_job(given: str | Path | Mapping[str, Any] | Source | JobSpec) -> JobSpec:
    """Take a source, or a job, in any form; give a job that has this source.

    Args:
        given: a source, its keys, or the path of a YAML file with a section ``source``; or a job
            as ``job_of`` takes it.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(given, Source):
        # unchecked: it may be of a class that no job file knows
        job = JobSpec.model_construct(name=_NAME, source=given, target=_TARGET)
        return job.resolve_paths(Path.cwd())
    if isinstance(given, Mapping):
        return job_of(_with_source_alone(given if "source" in given else {"source": given}))
    if isinstance(given, JobSpec):
        return job_of(given)
    return _from_yaml(Path(given))


def _from_yaml(path: Path) -> JobSpec:
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(
            f"{path} is no YAML file that describes a source",
            f"give the source itself, such as {{'kind': 'parquet', 'uri': {str(path)!r}}}; "
            "`cfray inspect` says which kind it is",
        )
    try:
        job = JobSpec.model_validate(_with_source_alone(read_yaml(path)))
    except ValidationError as error:
        refuse(error, path)
    return job.resolve_paths(path.resolve().parent)


def _with_source_alone(keys: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": _NAME, "target": _TARGET, **keys}
