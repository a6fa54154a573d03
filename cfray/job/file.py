"""Read a job file: the YAML, its validation, and its paths made absolute.

What is wrong with the file is said in one message (``job/refusal.py``), before anything is created.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from cfray.job.refusal import refuse
from cfray.job.spec import JobSpec
from cfray.job.yaml_file import read_yaml


def read_job(path: Path) -> JobSpec:
    """Read and validate a job file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or says something that a job cannot;
            the message names line, key and remedy.
    """
    data = read_yaml(path)
    try:
        job = JobSpec.model_validate(data)
    except ValidationError as error:
        refuse(error, path)
    return job.resolve_paths(path.resolve().parent)
