"""A text that changes with every write to a range of a table's rows, without a look into them.

A row that is written has another version: the transaction that wrote it (``xmin``) and its place
(``ctid``) are kept by the server in each row, whatever an application does.  The rows of a range
are the same rows if they are as many and their versions sum to the same; the numbers of
transactions begin anew only with a server that was started anew, and so does the watermark.

Source: https://www.postgresql.org/docs/current/ddl-system-columns.html
"""

from __future__ import annotations

from cfray.sources.base import Shard
from cfray.sources.postgres.catalog import TABLE
from cfray.sources.postgres.client import Connection
from cfray.sources.postgres.names import quote_text
from cfray.sources.postgres.tables import Table

#: What a row's text depends on beside the row.  A column that was dropped and added gives the rows
#: another value without writing them; a label of an enum, a column of a type of rows, or an
#: extension may have the same value written otherwise.  What is counted are columns of which nobody
#: could see it: values that are computed when they are read, and names of the catalog.
_SURROUNDINGS = """
WITH RECURSIVE leaf AS (SELECT * FROM pg_catalog.pg_class WHERE oid = {leaf}::regclass),
fields AS (
  SELECT * FROM pg_catalog.pg_attribute WHERE attnum > 0 AND NOT attisdropped
),
used AS (
  SELECT f.atttypid AS type FROM fields f JOIN leaf ON f.attrelid = leaf.oid
  UNION
  SELECT inner_type.oid
  FROM used JOIN pg_catalog.pg_type t ON t.oid = used.type
  CROSS JOIN LATERAL (
    SELECT t.typbasetype AS oid WHERE t.typbasetype <> 0
    UNION ALL SELECT t.typelem WHERE t.typelem <> 0
    UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r
      WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
    UNION ALL SELECT f.atttypid FROM fields f WHERE t.typrelid <> 0 AND f.attrelid = t.typrelid
  ) AS inner_type
)
SELECT leaf.relkind, (SELECT amname FROM pg_catalog.pg_am WHERE oid = leaf.relam),
  pg_is_in_recovery(),
  (SELECT count(*) FROM fields f WHERE f.attrelid = leaf.oid AND f.attgenerated = 'v')
  + (SELECT count(*) FROM used JOIN pg_catalog.pg_type t ON t.oid = used.type
    WHERE t.typnamespace = 'pg_catalog'::regnamespace
      AND (t.typname LIKE 'reg%' OR t.typname = 'aclitem')),
  leaf.oid, pg_catalog.pg_relation_filenode(leaf.oid), pg_postmaster_start_time(),
  current_setting('lc_monetary'),
  (SELECT hashtextextended(string_agg(concat_ws(' ', f.attnum, f.attname, f.atttypid, f.atttypmod,
      f.attmissingval), ',' ORDER BY f.attnum), 0)
    FROM fields f WHERE f.attrelid = leaf.oid),
  (SELECT hashtextextended(string_agg(concat_ws(' ', t.oid, t.typname, f.attnum, f.attname,
      f.atttypid, f.attmissingval, e.oid, e.enumlabel), ',' ORDER BY t.oid, f.attnum, e.oid), 0)
    FROM used JOIN pg_catalog.pg_type t ON t.oid = used.type
    LEFT JOIN fields f ON t.typrelid <> 0 AND f.attrelid = t.typrelid
    LEFT JOIN pg_catalog.pg_enum e ON e.enumtypid = t.oid),
  (SELECT hashtextextended(string_agg(concat_ws(' ', x.extname, x.extversion), ','
      ORDER BY x.extname), 0)
    FROM pg_catalog.pg_extension x)
FROM leaf
"""
_VERSIONS = """
SELECT count(*), coalesce(sum(hashtextextended(concat_ws(' ', t.ctid, t.xmin), 0)), 0)
FROM {source} AS t{where}
"""


def watermark_of(connection: Connection, table: Table, shard: Shard) -> str | None:
    """Sum the versions of a shard's rows; None where the relation's rows have no versions.

    That is a view, a foreign table, a query; a table of another kind of storage, or with a value
    that is computed when it is read, or that is a name of the catalog; a standby, which a restart
    may lead to another past.

    Args:
        connection: under the session's snapshot.
        table: of the shard.
        shard: a range of keys.
    """
    source = str(shard.where["from"])
    if table.relation.oid is None or "low" not in shard.where:
        return None
    leaf = quote_text(source.removeprefix("ONLY "))
    kind, access, *more = connection.ask(_SURROUNDINGS.format(leaf=leaf))[0]
    in_recovery, computed, *facts = more
    if (kind, access, in_recovery, computed) != (TABLE, "heap", "f", "0"):
        return None
    condition = table.condition_of(shard)
    where = f" WHERE {condition}" if condition else ""
    count, versions = connection.ask(_VERSIONS.format(source=source, where=where))[0]
    return f"{count} rows; " + " ".join(map(str, [*facts, versions]))
