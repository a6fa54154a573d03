"""A plan that can read no record of the source says why, and what to correct."""

import pytest

from cfray.errors import ConfigError
from cfray.job.file import read_job
from cfray.planning.plan import preview


@pytest.mark.parametrize("location", ["one.csv", "*.csv"])
def test_rows_that_are_no_records_are_named_and_no_empty_list_of_fields(tmp_path, location):
    (tmp_path / "one.csv").write_text("first line\nsecond line\n")
    (tmp_path / "job.yaml").write_text(
        f"name: a\nsource: {{kind: jsonl, uri: '{location}'}}\ntarget: {{uri: out}}\n"
    )
    with pytest.raises(ConfigError) as refused:
        preview(read_job(tmp_path / "job.yaml"))
    assert "none of the 2 sampled rows can be read" in refused.value.what
    assert "one.csv:byte 0: line: not JSON" in refused.value.what
    assert "there are" not in refused.value.what
    assert "source.kind" in refused.value.remedy
