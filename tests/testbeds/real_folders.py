"""Folders as engines, libraries and people lay them out."""

from __future__ import annotations

import json
from pathlib import Path

import lance
import pyarrow.parquet as pq

from tests.testbeds.real_inputs import (
    Answer,
    Refusal,
    case,
    row,
    rows,
    table,
    text,
    without,
    write_lines,
)

PARQUET = Answer("parquet")


@case(PARQUET, needs=("pandas",))
def hive_partition(folder: Path) -> None:
    """Write two columns into the names of folders."""
    import pandas as pd

    langs = ["de", "en", None]
    records = [row(n) | {"year": 2023 + n % 2, "lang": langs[n % 3]} for n in range(30)]
    pd.DataFrame(records).to_parquet(folder, partition_cols=["year", "lang"], index=False)
    (folder / "_SUCCESS").write_bytes(b"")


@case(Answer("delta"), needs=("deltalake",))
def delta_deleted(folder: Path) -> None:
    """Write a Delta table whose first file holds deleted rows alone."""
    from deltalake import DeltaTable, write_deltalake

    for part in range(2):
        write_deltalake(str(folder), table(rows(20, part * 20)), mode="append")
    DeltaTable(str(folder)).delete("n < 20")


@case({"train_only": Answer("arrow"), "dict": Answer("arrow")}, needs=("datasets",))
def saved_datasets(folder: Path) -> None:
    """Write a Dataset and a DatasetDict with ``save_to_disk``."""
    from datasets import Dataset, DatasetDict

    Dataset.from_list(rows(40)).save_to_disk(str(folder / "train_only"), num_shards=2)
    splits = {"train": Dataset.from_list(rows(20)), "test": Dataset.from_list(rows(10, 20))}
    DatasetDict(splits).save_to_disk(str(folder / "dict"))


@case({"snapshots/cut/data": Refusal(("00002-of-00003", "link")), "snapshots/whole/data": PARQUET})
def linked_cache(folder: Path) -> None:
    """Write links into a folder of blobs, as the cache of a hub has; one download was cut."""
    (folder / "blobs").mkdir()
    for part in range(3):
        pq.write_table(table(rows(10, part * 10)), folder / "blobs" / f"sha{part}")
    for name, parts in (("cut", (0, 1, 9)), ("whole", (0, 1, 2))):
        data = folder / "snapshots" / name / "data"
        data.mkdir(parents=True)
        for number, part in enumerate(parts):
            link = data / f"train-{number:05d}-of-00003.parquet"
            link.symlink_to(Path("../../../blobs") / f"sha{part}")


_ODD = "export [2024] 100%"


@case(
    {
        _ODD: Answer("jsonl"),
        f"{_ODD}/*.jsonl": Answer("jsonl"),
        f"{_ODD}/a?b*c.jsonl": Answer("jsonl"),
    }
)
def odd_names(folder: Path) -> None:
    """Give files and folders names that are globs, URIs or percent escapes by accident."""
    (folder / _ODD).mkdir()
    names = ["a?b*c.jsonl", "50% off #1.jsonl", "größe %20.jsonl", "part[1].jsonl", "s3:x.jsonl"]
    for number, name in enumerate(names):
        write_lines(folder / _ODD / name, rows(5, number * 5))


@case(Answer("jsonl"))
def underscores(folder: Path) -> None:
    """Begin names of files and folders with an underscore."""
    write_lines(folder / "articles.jsonl", rows(10))
    write_lines(folder / "_notes.jsonl", rows(10, 10))
    (folder / "_drafts").mkdir()
    write_lines(folder / "_drafts" / "d.jsonl", rows(10, 20))


@case(
    (
        Answer("jsonl", label="jsonl"),
        Answer("parquet", label="parquet"),
    )
)
def two_kinds(folder: Path) -> None:
    """Write one part of an export as JSON Lines and another as Parquet."""
    write_lines(folder / "a.jsonl", rows(10))
    pq.write_table(table(rows(10, 10)), folder / "b.parquet")


@case(Answer("lance"))
def lancedb_table(folder: Path) -> None:
    """Write the folder of a LanceDB database that has one table."""
    lance.write_dataset(table(rows(20)), folder / "docs.lance")


@case((Answer("lance", label="docs"), Answer("lance", label="notes")))
def lancedb_tables(folder: Path) -> None:
    """Write the folder of a LanceDB database that has two tables."""
    lance.write_dataset(table(rows(20)), folder / "docs.lance")
    lance.write_dataset(table(rows(20)), folder / "notes.lance")


@case(PARQUET)
def bare_names(folder: Path) -> None:
    """Write Parquet files without a suffix."""
    for part in range(2):
        pq.write_table(table(rows(10, part * 10)), folder / f"part-{part}")
    (folder / "_SUCCESS").write_bytes(b"")


@case(Answer("json"))
def arrays_and_lines(folder: Path) -> None:
    """Write an array into one file named .json, and an object a line into another."""
    (folder / "a.json").write_text(json.dumps(rows(10)))
    write_lines(folder / "b.json", rows(10, 10))


@case(PARQUET)
def hub_dataset(folder: Path) -> None:
    """Write what a hub has beside the data: a page about it, and its features in JSON."""
    (folder / "data").mkdir()
    for part in range(2):
        pq.write_table(table(rows(10, part * 10)), folder / "data" / f"train-{part}.parquet")
    (folder / "README.md").write_text("# A dataset\n")
    (folder / "dataset_infos.json").write_text(json.dumps({"default": {"splits": {"train": 20}}}))


@case(Answer("json", id="$file"))
def object_a_file(folder: Path) -> None:
    """Write one document a file, without an id."""
    for number in range(12):
        document = without(row(number), "id")
        (folder / f"doc{number}.json").write_text(json.dumps(document, indent=1))


@case(PARQUET)
def parquet_named_csv(folder: Path) -> None:
    """Write Parquet files with the suffix of another kind."""
    pq.write_table(table(rows(10)), folder / "docs.csv")


@case(Answer("csv", id="$file+page", text="content", title="", vector=""))
def pages_of_books(folder: Path) -> None:
    """Write a file for each book: the number of a page begins anew in each."""
    for book in ("ice", "piers", "boats"):
        lines = ["page,content", *(f"{n},{text(n)} of {book}" for n in range(20))]
        (folder / f"{book}.csv").write_text("\n".join(lines) + "\n")


@case(
    (
        Answer("csv", title="", vector="", label="articles"),
        Answer("csv", text="comment", title="", vector="", label="comments"),
    )
)
def two_tables(folder: Path) -> None:
    """Write two tables into one folder, one of them in two files."""
    for part in range(2):
        lines = ["id,body", *(f"{n},{text(n)}" for n in range(part * 10, part * 10 + 10))]
        (folder / f"articles-{part}.csv").write_text("\n".join(lines) + "\n")
    lines = ["id,article,comment", *(f"c{n},{n % 20},{text(n)}" for n in range(30))]
    (folder / "comments.csv").write_text("\n".join(lines) + "\n")
