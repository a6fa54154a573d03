"""Files that no kind of source reads: what they are, and how to make of them what cfray reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from cfray.errors import ConfigError
from cfray.sources.files.kinds import SUFFIXES, suffix_of

#: Suffixes of texts, mostly for people: each file is a document, and no line of it a record.
TEXT_SUFFIXES = frozenset({".txt", ".text"})
#: Such texts that are never tables.
_PROSE_SUFFIXES = frozenset({".md", ".markdown", ".rst", ".html", ".htm", ".tex"})
_PROSE = (
    "some of them are documents, of which each file is a record",
    (
        "write a YAML file with source: {kind: filesystem, uri: ...}; a table of delimited text "
        "needs source: {kind: csv, uri: ...}"
    ),
)
_DOCUMENTS = frozenset({".pdf", ".docx", ".doc", ".odt", ".pptx", ".epub", ".rtf"})
#: What files of other suffixes are, and the way out.
_OTHERS = {
    (".sqlite", ".sqlite3", ".db", ".db3"): (
        "cfray reads no SQLite database",
        "export each table: sqlite3 -header -csv FILE 'select * from TABLE' > TABLE.csv",
    ),
    (".duckdb",): (
        "cfray reads no DuckDB database",
        "export each table: duckdb FILE -c \"copy TABLE to 'TABLE.parquet'\"",
    ),
    (".xlsx", ".xls", ".xlsm", ".ods"): (
        "cfray reads no spreadsheets",
        "save each sheet as CSV in UTF-8, or with pandas: pd.read_excel(FILE).to_parquet(OUT)",
    ),
    tuple(sorted(_DOCUMENTS)): _PROSE,
    (".npy", ".npz", ".pkl", ".pickle", ".pt", ".safetensors", ".h5", ".hdf5", ".faiss"): (
        "cfray reads no files of arrays or of Python objects",
        "write ids, texts and vectors as Parquet, with pandas: DataFrame(...).to_parquet(OUT)",
    ),
    (".sql", ".dump"): (
        "of database dumps cfray reads only a plain one of pg_dump",
        (
            "make a plain dump of an archive of pg_dump, and inspect it: pg_restore "
            "--file=dump.sql FILE; load any other dump, and export each table as CSV or Parquet"
        ),
    ),
    (".avro", ".orc"): (
        "cfray reads no Avro and no ORC",
        "write Parquet, for example with DuckDB, pyarrow.orc or Spark",
    ),
    (".yaml", ".yml", ".toml"): (
        "cfray reads no data in YAML or TOML",
        "write JSON Lines; a job file is given to inspect by its own path",
    ),
    (".tar", ".tgz", ".7z", ".rar"): (
        "cfray reads no archives",
        "unpack it, and give the folder",
    ),
}
#: Suffixes of files that no kind reads, whatever is in them.
UNREAD_SUFFIXES = _PROSE_SUFFIXES.union(*_OTHERS)
#: Files that a message names.
_LISTED = 5


def is_document(name: str) -> bool:
    """Tell whether a file is a document by its suffix."""
    return suffix_of(name) in TEXT_SUFFIXES | _PROSE_SUFFIXES | _DOCUMENTS


def list_some(names: Iterable[str]) -> str:
    """Write the first names of a list, and say how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - _LISTED:,} more" if len(listed) > _LISTED else ""
    return ", ".join(listed[:_LISTED]) + more


def refuse_unknown(location: str, names: Sequence[str]) -> ConfigError:
    """Say that no kind of source reads these files, and what would."""
    suffix = Counter(map(suffix_of, names)).most_common(1)[0][0]
    listed = list_some(names)
    for suffixes, (what, remedy) in {(*TEXT_SUFFIXES, *_PROSE_SUFFIXES): _PROSE, **_OTHERS}.items():
        if suffix in suffixes:
            return ConfigError(f"no known kind of file at {location}: {listed}; {what}", remedy)
    known = "; ".join(f"{kind}: {', '.join(suffixes)}" for kind, suffixes in SUFFIXES.items())
    return ConfigError(
        f"no known kind of file at {location}: {listed}",
        "name the kind in a YAML file with source: {kind: ..., uri: ...}, if one of these kinds "
        f"reads them; known suffixes are {known} (and .gz, .zst behind them); lance: a dataset's "
        "folder",
    )
