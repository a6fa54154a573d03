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
from deltalake import DeltaTable, write_deltalake

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
    write_delta(table)
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


def write_delta(table: pa.Table) -> None:
    """Write the rows as a Delta table, and delete a row that is no synset."""
    shutil.rmtree(HERE / "synsets.delta", ignore_errors=True)
    draft = table.slice(0, 1).to_pylist()[0] | {"synset_id": "draft"}
    location = str(HERE / "synsets.delta")
    write_deltalake(
        location, pa.concat_tables([pa.Table.from_pylist([draft], table.schema), table])
    )
    DeltaTable(location).delete("synset_id = 'draft'")


if __name__ == "__main__":
    main()
