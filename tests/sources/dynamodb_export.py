"""Write exports of DynamoDB tables to S3, as the service documents their files.

No emulator has the service's export, so the files are made here.  Source of the layout: Amazon
DynamoDB Developer Guide, "DynamoDB table export output format" (manifests, their checksums, data
files in DynamoDB JSON and in Amazon Ion).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

Row = dict[str, Any]
ARN = "arn:aws:dynamodb:eu-west-1:123456789012:table/"


def write_export(
    folder: Path,
    table: str,
    items: Sequence[Row],
    *,
    files: int = 4,
    output_format: str = "DYNAMODB_JSON",
    is_full: bool = True,
    **summary: Any,
) -> Path:
    """Write an export, and return its folder.

    Args:
        folder: the folder ``AWSDynamoDB/<export id>``; is created.
        table: name.
        items: as boto3's client gives them: bytes are bytes.  Of an incremental export the lines:
            ``Keys``, and ``NewImage`` and ``OldImage`` where there are any.
        files: data files; the last one is empty, as that of an empty partition is.
        output_format: of the items.
        is_full: whether it is a full export; an incremental one has its files in the folder
            ``AWSDynamoDB/data``, which it shares with others.
        summary: replaces keys of the summary.
    """
    export_id = folder.name
    data = folder / "data" if is_full else folder.parent / "data"
    folder.mkdir(parents=True)
    data.mkdir(exist_ok=True)
    (folder / "_started").write_bytes(b"")
    step = max(1, -(-len(items) // max(1, files - 1)))
    suffix, write = (".ion.gz", ion_line) if output_format == "ION" else (".json.gz", json_line)
    of_export = f"{export_id}/" if is_full else ""
    entries = []
    for number in range(files):
        some_items = items[number * step : (number + 1) * step]
        lines = [{"Item": item} if is_full else item for item in some_items]
        content = gzip.compress(b"".join(map(write, lines)), mtime=0)
        digest = hashlib.sha256(f"{export_id} {table} {number}".encode()).hexdigest()
        name = f"{digest[:26]}{suffix}"
        (data / name).write_bytes(content)
        entries.append(
            {
                "itemCount": len(some_items),
                "md5Checksum": md5(content),
                "etag": hashlib.md5(content).hexdigest() + "-1",
                "dataFileS3Key": f"exports/AWSDynamoDB/{of_export}data/{name}",
            }
        )
    text = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries)
    write_manifest(folder, "manifest-files", text)
    body = {
        "version": "2020-06-30",
        "exportArn": f"{ARN}{table}/export/{export_id}",
        "startTime": "2026-11-04T07:28:34.028Z",
        "endTime": "2026-11-04T07:33:43.897Z",
        "tableArn": f"{ARN}{table}",
        "tableId": "12345a12-abcd-123a-ab12-1234abc12345",
        "exportTime": "2026-11-04T07:28:34.028Z",
        "s3Bucket": "exports-of-tables",
        "s3Prefix": "exports",
        "s3SseAlgorithm": "AES256",
        "s3SseKmsKeyId": None,
        "manifestFilesS3Key": f"exports/AWSDynamoDB/{export_id}/manifest-files.json",
        "billedSizeBytes": 0,
        "itemCount": len(items),
        "outputFormat": output_format,
        "exportType": "FULL_EXPORT" if is_full else "INCREMENTAL_EXPORT",
        **summary,
    }
    if not is_full:
        del body["exportTime"]
        body["outputView"] = "NEW_AND_OLD_IMAGES"
    write_manifest(folder, "manifest-summary", json.dumps(body))
    return folder


def write_manifest(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.json").write_text(text)
    (folder / f"{name}.checksum").write_text(md5(text.encode()))


def change_manifest(folder: Path, name: str, change: Any) -> None:
    """Rewrite a manifest and its checksum by a function of its text."""
    write_manifest(folder, name, change((folder / f"{name}.json").read_text()))


def md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content).digest()).decode()


def json_line(line: Row) -> bytes:
    return json.dumps(as_json(line), ensure_ascii=False).encode() + b"\n"


def as_json(value: Any) -> Any:
    """Write bytes as base64, as DynamoDB JSON does."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {key: as_json(member) for key, member in value.items()}
    return [as_json(member) for member in value] if isinstance(value, list) else value


def ion_line(line: Row) -> bytes:
    from amazon.ion import simpleion

    images = {
        image: {name: as_ion(member) for name, member in item.items()}
        for image, item in line.items()
    }
    value = images if "Item" in images else {"Record": images}
    text = simpleion.dumps(value, binary=False)
    return f"{text if text.startswith('$ion_1_0') else f'$ion_1_0 {text}'}\n".encode()


def as_ion(value: Row) -> Any:
    from amazon.ion.core import IonType
    from amazon.ion.simple_types import IonPyList

    [(kind, content)] = value.items()
    if kind in ("SS", "NS", "BS"):
        members = [as_ion({kind[0]: member}) for member in content]
        return IonPyList.from_value(IonType.LIST, members, annotations=(f"$dynamodb_{kind}",))
    if kind == "L":
        return [as_ion(member) for member in content]
    if kind == "M":
        return {name: as_ion(member) for name, member in content.items()}
    if kind == "N":
        return Decimal(content)
    return None if kind == "NULL" else content
