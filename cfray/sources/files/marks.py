"""Well-known names that hold no record: what writers and systems leave beside the data.

Only what is listed here is passed over for its name; any other file that begins with ``_`` or ``.``
may be a part of an export.  ``plan`` names what was passed over, and a glob that spells such a name
reads it.
"""

from __future__ import annotations

import re
from collections.abc import Collection

#: Why a name is passed over, as ``plan`` says it.
LEFT_BEHIND = "left there by a writer or a system, no data"
UNFINISHED = "output that its writer did not finish"
TABLE_LOG = "the log of a table"
LANCE = "a Lance dataset: kind: lance reads it, by its own uri"

#: Names of files, in lower case.
_FILES = frozenset(
    {
        # Hadoop, Spark, Hive, Hudi, Databricks
        "_success",
        "_metadata",
        "_common_metadata",
        ".hoodie_partition_metadata",
        # operating systems
        ".ds_store",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        ".directory",
        ".localized",
        # version control, Python packages, downloads
        ".gitattributes",
        ".gitignore",
        ".gitkeep",
        ".keep",
        ".dvcignore",
        "dataset_infos.json",
        # texts about the data
        *(
            f"{stem}{suffix}"
            for stem in ("readme", "license", "licence", "notice", "copying", "changelog")
            for suffix in ("", ".md", ".txt", ".rst")
        ),
    }
)
#: Names with a part that varies.  Databricks: _started_5921, _committed_vacuum5921; Hadoop:
#: .part-0.crc, year=2024_$folder$; macOS: ._part-0; NFS and FUSE, for a file that was deleted while
#: it was open: .nfs0004, .fuse_hidden0004; Emacs: .#part-0; LibreOffice and Excel:
#: .~lock.part-0.csv#, ~$part-0.csv.
_FILE = re.compile(
    r"_(started|committed)_(vacuum)?\d+|.*\.crc|.*_\$folder\$|\._.*|\.nfs[0-9a-f]+"
    r"|\.fuse_hidden[0-9a-f]+|\.#.*|\.~lock\..*#|~\$.*",
    re.DOTALL,
)
_FOLDERS = frozenset(
    {
        ".git",
        ".svn",
        ".hg",
        ".dvc",
        ".ipynb_checkpoints",
        "__pycache__",
        "__macosx",
        ".spotlight-v100",
        ".trashes",
        ".fseventsd",
        ".temporaryitems",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "@eadir",
        ".snapshot",
        "#snapshot",
        "#recycle",
        ".stversions",
        ".rsync-partial",
        ".dropbox.cache",
    }
)
#: Names with a part that varies: the bin of a desktop.
_FOLDER = re.compile(r"\.Trash(-\d+)?")
_UNFINISHED_FOLDER = re.compile(
    r"_temporary|_impala_insert_staging|\.spark-staging-.*|\.hive-staging.*|\.staging_.*"
)
_UNFINISHED_FILE = re.compile(
    r".*\.(incomplete|crdownload|part|partial|download|aria2|icloud|inprogress.*|tmp)", re.DOTALL
)
_TABLE_LOGS = frozenset({"_delta_log", ".hoodie", "_spark_metadata"})
#: What ``datasets`` writes beside its Arrow files (``Dataset.save_to_disk``).
_DATASET_FILES = frozenset({"dataset_info.json", "state.json", "dataset_dict.json"})


def why_no_file(name: str, siblings: Collection[str]) -> str:
    """Say why a file is passed over; empty where it may hold records.

    Args:
        name: of the file, without its folder.
        siblings: names of all files and folders in its folder.
    """
    if name.lower() in _FILES or _FILE.fullmatch(name):
        return LEFT_BEHIND
    if name in _DATASET_FILES and _is_saved_dataset(siblings):
        return LEFT_BEHIND
    return ""


def _is_saved_dataset(siblings: Collection[str]) -> bool:
    """Tell whether ``datasets`` wrote a folder: a Dataset, a DatasetDict, or its cache."""
    return "dataset_dict.json" in siblings or any(name.endswith(".arrow") for name in siblings)


def is_unfinished(name: str) -> bool:
    """Tell whether a file is called like a download or an output that was not finished."""
    return _UNFINISHED_FILE.fullmatch(name) is not None


def why_no_folder(path: str, children: Collection[str]) -> str:
    """Say why a folder is not entered; empty where it may hold files of an export.

    Args:
        path: of the folder below the source's root.
        children: names of the files and folders in it.
    """
    name = path.rpartition("/")[2]
    is_listed = name.lower() in _FOLDERS or _FOLDER.fullmatch(name) is not None
    if is_listed or path.endswith((".cache/huggingface", ".lance.cfray")):
        return LEFT_BEHIND
    if _UNFINISHED_FOLDER.fullmatch(name):
        return UNFINISHED
    if name in _TABLE_LOGS or is_iceberg_metadata(path, children):
        return TABLE_LOG
    return LANCE if is_lance(children) else ""


def is_lance(children: Collection[str]) -> bool:
    """Tell whether a folder with these children is a Lance dataset."""
    return "_versions" in children


#: Iceberg's metadata files: v3.metadata.json, 00002-<uuid>.metadata.json, either with gzip.
_ICEBERG = re.compile(r"(v\d+|\d+-[0-9a-f-]{36})(\.gz)?\.metadata\.json(\.gz)?")


def is_iceberg_metadata(path: str, children: Collection[str]) -> bool:
    """Tell whether a folder is the ``metadata`` folder of an Iceberg table."""
    is_named_so = path.rpartition("/")[2] == "metadata"
    return is_named_so and any(_ICEBERG.fullmatch(name) for name in children)
