"""Looks into the migrated corpus with pylance alone: full text, nearest neighbours, the graph.

python search.py DATASET [QUERY ...]      the query is "a small dog" unless you give one
"""

import argparse
import sys
import textwrap
from typing import Any

import lance
from lance.query import MatchQuery

# the header rows of the dataset and its collections are no search results
DOCUMENTS = "record_type = 'document'"


def show(mark: str, row: dict[str, Any]) -> None:
    print(f"  {mark:>6}  {row['title']}")
    print(textwrap.indent(textwrap.fill(row["text_content"] or "", 90), " " * 10))


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Full text, nearest neighbours and the parent of the best hit."
    )
    parser.add_argument("dataset", help="the Lance dataset that the migration wrote")
    parser.add_argument("query", nargs="*", default=["a", "small", "dog"])
    arguments = parser.parse_args()
    query = " ".join(arguments.query)
    ds = lance.dataset(arguments.dataset)

    print(f'1. Full text: "{query}"')
    hits = ds.to_table(
        full_text_query=MatchQuery(query, "text_content"),
        columns=["title", "text_content", "uuid", "_score"],
        filter=DOCUMENTS,
        prefilter=True,
        limit=5,
    ).to_pylist()
    if not hits:
        print("  nothing: try other words")
        return 1
    for hit in hits:
        show(f"{hit['_score']:.2f}", hit)

    by_uuid = f"uuid = '{hits[0]['uuid']}'"
    best = ds.to_table(
        columns=["title", "uuid", "vector", "relationships"], filter=by_uuid
    ).to_pylist()[0]
    print(f'\n2. Nearest to "{best["title"]}" by its stored vector (cosine distance)')
    near = ds.to_table(
        nearest={"column": "vector", "q": best["vector"], "k": 6, "metric": "cosine"},
        columns=["title", "text_content", "uuid", "_distance"],
        filter=DOCUMENTS,
        prefilter=True,
    ).to_pylist()
    for row in [row for row in near if row["uuid"] != best["uuid"]][:5]:
        show(f"{row['_distance']:.3f}", row)

    print(f'\n3. The parent of "{best["title"]}" through its relationships')
    parents = [link["id"] for link in best["relationships"] or [] if link["type"] == "parent"]
    for parent in parents:
        for row in ds.to_table(
            columns=["title", "text_content"], filter=f"uuid = '{parent}'"
        ).to_pylist():
            show("^", row)
    if not parents:
        print("  none: it is a root")
    return 0


if __name__ == "__main__":
    sys.exit(main())
