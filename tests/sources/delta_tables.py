"""Delta tables with features that delta-rs reads and does not write, written by hand."""

import json
import struct
import uuid

import pyarrow.parquet as pq

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
#: First bytes of a deletion vector; cookie of a roaring bitmap without runs (both specifications).
_MAGIC, _COOKIE = 1681511377, 12346


def field(name, kind="string", **metadata):
    """Return a field of a table's schema, as the log writes it."""
    metadata = {f"delta.columnMapping.{key}": value for key, value in metadata.items()}
    return {"name": name, "type": kind, "nullable": True, "metadata": metadata}


def struct_of(*fields):
    return {"type": "struct", "fields": list(fields)}


def deletion_vector(rows):
    """Return an inline deletion vector of these rows."""
    data = struct.pack("<iqI", _MAGIC, 1, 0) + _bitmap(rows)
    return {
        "storageType": "i",
        "pathOrInlineDv": _z85(data),
        "sizeInBytes": len(data),
        "cardinality": len(rows),
    }


def _bitmap(rows):
    containers = {}
    for row in sorted(rows):
        containers.setdefault(row >> 16, []).append(row & 0xFFFF)
    head = struct.pack("<II", _COOKIE, len(containers))
    head += b"".join(struct.pack("<HH", key, len(low) - 1) for key, low in containers.items())
    bodies = [struct.pack(f"<{len(low)}H", *low) for low in containers.values()]
    start = len(head) + 4 * len(bodies)
    offsets = [start + sum(map(len, bodies[:number])) for number in range(len(bodies))]
    return head + struct.pack(f"<{len(offsets)}I", *offsets) + b"".join(bodies)


def _z85(data):
    data += bytes(-len(data) % 4)
    text = ""
    for start in range(0, len(data), 4):
        number = int.from_bytes(data[start : start + 4], "big")
        text += "".join(_Z85[number // 85**power % 85] for power in (4, 3, 2, 1, 0))
    return text


def write_delta(folder, schema, files, *, features=(), configuration=None, partition_columns=()):
    """Write a table of one version.

    ``files`` are (name, rows as an Arrow table, further keys of its add action).
    """
    (folder / "_delta_log").mkdir(parents=True)
    features = list(features)
    actions = [
        {
            "protocol": {
                "minReaderVersion": 3,
                "minWriterVersion": 7,
                "readerFeatures": features,
                "writerFeatures": features,
            }
        },
        {
            "metaData": {
                "id": str(uuid.UUID(int=1)),
                "format": {"provider": "parquet", "options": {}},
                "schemaString": json.dumps(schema),
                "partitionColumns": list(partition_columns),
                "configuration": configuration or {},
                "createdTime": 0,
            }
        },
    ]
    for name, table, further in files:
        pq.write_table(table, folder / name, row_group_size=4)
        action = {
            "path": name,
            "partitionValues": {},
            "size": (folder / name).stat().st_size,
            "modificationTime": 0,
            "dataChange": True,
            "stats": json.dumps({"numRecords": table.num_rows}),
        }
        actions.append({"add": action | further})
    lines = "".join(f"{json.dumps(action)}\n" for action in actions)
    (folder / "_delta_log/00000000000000000000.json").write_text(lines)
