"""Make the small exports that ``jobs/specs`` point to, one a file kind.

From the quickstart's corpus.

Run once by the maintainers: ``python examples/exports/make_exports.py``.
"""

import csv
import json
import shutil
from pathlib import Path

import lance
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
ROWS = 20


def main() -> None:
    """Write the first rows of the corpus in every format."""
    table = (
        pq.read_table(HERE.parent / "quickstart/wordnet.parquet")
        .slice(0, ROWS)
        .replace_schema_metadata(None)
    )
    pq.write_table(table, HERE / "synsets.parquet")
    with (
        pa.OSFile(str(HERE / "synsets.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    shutil.rmtree(HERE / "synsets.lance", ignore_errors=True)
    lance.write_dataset(table, HERE / "synsets.lance")
    rows = [
        {key: value.isoformat() if key == "updated" else value for key, value in row.items()}
        for row in table.to_pylist()
    ]
    (HERE / "synsets.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    (HERE / "synsets.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    with (HERE / "synsets.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(rows[0])
        writer.writerows(
            [json.dumps(value) if isinstance(value, list) else value for value in row.values()]
            for row in rows
        )


if __name__ == "__main__":
    main()
