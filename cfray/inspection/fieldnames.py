"""What exports call their fields: the words that guesses go by, best first.

A name alone decides nothing; ``guesses`` looks at the values as well.  Names are
compared as lower-case words joined by underscores (``Seen.name``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from cfray.inspection.samples import Seen

IDS = (
    "id",
    "uuid",
    "guid",
    "oid",
    "doc_id",
    "document_id",
    "record_id",
    "key",
    "pk",
    "uid",
    "slug",
)
ID_LIKE = re.compile(r"(^|_)(id|ids|uuid|guid|key|slug|isbn|doi|zip|code|phone)$|^id_")
SCOPES = re.compile(
    r"(^|_)(tenant|namespace|collection|category|source|dataset|index|corpus|language|lang|locale|site|domain|project|workspace"
    r"|page|chunk|part|section|seq|number|position|version|revision|file|path|filename)$"
)
REFERS = re.compile(
    r"(^|_)(parents?|child|children|repl(y|ies)|refs?|references?|related|similar|links?|linked|cites?|citations?|prev|previous|next|see_also"
    r"|duplicate_of|siblings?|ancestors?|supersedes)(_|$)"
)
TYPES = (("parent", "parent"), ("child", "child"), ("related|similar|see_also|sibling", "related"))
TEXTS = {
    "text_content": 10,
    "content": 10,
    "body": 10,
    "text": 10,
    "document": 10,
    "page_content": 10,
    "full_text": 10,
    "article": 5,
    "passage": 5,
}
TEXTS |= {
    "chunk": 5,
    "markdown": 5,
    "message": 5,
    "abstract": 2,
    "description": 2,
    "summary": 2,
}  # how much longer another must be to win
TITLES = ("title", "name", "headline", "subject", "heading", "label", "caption")
VECTORS = (
    "vector",
    "embedding",
    "embeddings",
    "dense_vector",
    "text_embedding",
    "text_vector",
    "content_embedding",
    "content_vector",
    "body_embedding",
)
VECTOR_LIKE = re.compile(r"vec|embed|emb(_|$)|dense")
AUTHORS = (
    "author",
    "authors",
    "by",
    "byline",
    "creator",
    "writer",
    "author_name",
    "created_by",
    "posted_by",
)
CONTRIBUTORS = ("contributors", "authors", "creators")
TAGS = ("tags", "tag", "keywords", "labels", "topics", "categories")
STATUS = ("status", "state")
CREATED = (
    "created_at",
    "created",
    "published_at",
    "published",
    "posted_at",
    "date",
    "timestamp",
    "time",
)
CREATED_LIKE = re.compile(r"(^|_)(creat|publi|pub_|post|insert|ingest|issued|written|added)")
UPDATED = ("updated_at", "updated", "modified_at", "modified", "last_modified", "last_updated")
UPDATED_LIKE = re.compile(r"(^|_)(updat|modif|chang|edit|revis)")
COLLECTIONS = ("collection", "category", "namespace")


def rank(field: Seen, wanted: Sequence[str]) -> int:
    """Order fields by how well they are named; each level of nesting counts as three names."""
    full = re.sub(r"[^a-z0-9]+", "_", "_".join(field.path).lower())
    place = min(
        (wanted.index(name) for name in (field.name, full) if name in wanted), default=len(wanted)
    )
    return place + 3 * (len(field.path) - 1)


def by_name(fields: Iterable[Seen], wanted: Sequence[str]) -> list[Seen]:
    """Choose the fields with one of the wanted names, the best named first."""
    return sorted(
        (field for field in fields if field.name in wanted), key=lambda field: rank(field, wanted)
    )
