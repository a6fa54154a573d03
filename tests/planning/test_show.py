"""``cfray plan`` prints its warnings first, and names the metric and where it is from."""

import io

from rich.console import Console

from cfray.job.file import read_job
from cfray.planning.plan import preview
from cfray.planning.show import as_json, show_forecast


def printed_plan(tmp_path, rows, mapping):
    (tmp_path / "docs.csv").write_text(rows)
    (tmp_path / "job.yaml").write_text(
        "name: a\nsource: {kind: csv, uri: docs.csv}\n"
        f"mapping: {mapping}\ntarget: {{uri: out.lance}}\n"
    )
    plan, forecast = preview(read_job(tmp_path / "job.yaml"))
    console = Console(file=io.StringIO(), width=200)
    show_forecast("a", plan, forecast, console)
    return console.file.getvalue().splitlines(), as_json(plan, forecast)


def test_warnings_and_the_metric_are_printed_and_are_keys_of_the_json(tmp_path):
    rows = "id,up\n" + "".join(f"{number},x{number}\n" for number in range(3)) + ",y\n"
    lines, document = printed_plan(tmp_path, rows, "{relationships: [{type: parent, to: up}]}")
    assert "metric of the vector index: cosine, from: default" in lines
    assert (document["metric"], document["metric_origin"]) == ("cosine", "default")
    warnings = [line for line in lines if line.startswith("WARNING  ")]
    assert [line.removeprefix("WARNING  ") for line in warnings] == document["warnings"]
    assert [warning.partition(":")[0] for warning in document["warnings"]] == [
        "THIS RUN WOULD STOP",
        "ALL REFERENCES DANGLE",
    ]


def test_a_plan_without_a_warning_says_that_all_is_well(tmp_path):
    lines, document = printed_plan(tmp_path, "id,title\n1,x\n", "{}")
    assert any(line.startswith("nothing lossy, nothing to quarantine") for line in lines)
    assert document["warnings"] == []
