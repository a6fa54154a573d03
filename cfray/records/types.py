"""Arrow types that stores share."""

from __future__ import annotations

import pyarrow as pa

SPARSE = pa.struct([("indices", pa.list_(pa.uint32())), ("values", pa.list_(pa.float32()))])
