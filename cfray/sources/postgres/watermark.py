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

#: What a row's text depends on beside the row: a column that was dropped and added gives the rows
#: another value without writing them, and an enum, a composite type or an extension may write the
#: same value otherwise.
_SURROUNDINGS = """
SELECT c.relkind, pg_is_in_recovery(),
  (SELECT count(*) FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      AND (a.attgenerated = 'v' OR a.atttypid::regtype::text LIKE 'reg%')),
  c.oid, pg_catalog.pg_relation_filenode(c.oid), pg_postmaster_start_time(),
  current_setting('lc_monetary'),
  (SELECT md5(string_agg(concat_ws(' ', a.attnum, a.attname, a.atttypid, a.atttypmod,
      a.attmissingval), ',' ORDER BY a.attnum))
    FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0),
  (SELECT md5(string_agg(concat_ws(' ', e.enumtypid, e.oid, e.enumlabel), ',' ORDER BY e.oid))
    FROM pg_catalog.pg_enum e),
  (SELECT md5(string_agg(concat_ws(' ', a.attrelid, a.attnum, a.attname, a.atttypid), ','
      ORDER BY a.attrelid, a.attnum))
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class o ON o.oid = a.attrelid
    WHERE o.relkind = 'c' AND a.attnum > 0),
  (SELECT md5(string_agg(concat_ws(' ', x.extname, x.extversion), ',' ORDER BY x.extname))
    FROM pg_catalog.pg_extension x)
FROM pg_catalog.pg_class c WHERE c.oid = {leaf}::regclass
"""
_VERSIONS = """
SELECT count(*), coalesce(sum(hashtextextended(concat_ws(' ', t.ctid, t.xmin), 0)), 0)
FROM {source} AS t{where}
"""


def watermark_of(connection: Connection, table: Table, shard: Shard) -> str | None:
    """Sum the versions of a shard's rows; None where the relation's rows have no versions.

    That is a view, a foreign table, a query; a column whose value is computed when it is read, or
    is a name of the catalog; a standby, which a restart may lead to another past.

    Args:
        connection: under the session's snapshot.
        table: of the shard.
        shard: a range of keys.
    """
    source = str(shard.where["from"])
    if table.relation.oid is None or "low" not in shard.where:
        return None
    leaf = quote_text(source.removeprefix("ONLY "))
    kind, in_recovery, computed, *facts = connection.ask(_SURROUNDINGS.format(leaf=leaf))[0]
    if kind != TABLE or in_recovery == "t" or computed != "0":
        return None
    condition = table.condition_of(shard)
    where = f" WHERE {condition}" if condition else ""
    count, versions = connection.ask(_VERSIONS.format(source=source, where=where))[0]
    return f"{count} rows; " + " ".join(map(str, [*facts, versions]))
