"""What exports call their fields: the names that guesses go by, best first.

A name alone decides nothing; ``guesses`` looks at the values as well.  Names are
compared as lower-case words joined by underscores (``FieldSample.name``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from cfray.inspection.samples import FieldSample

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
#: Fields that make an id unique together with another one.
SCOPES = re.compile(
    r"(^|_)(tenant|namespace|collection|category|source|dataset|index|corpus|language|lang|locale"
    r"|site|domain|project|workspace|page|chunk|part|section|seq|number|position|version|revision"
    r"|file|path|filename)$"
)
#: Fields that name other records.
REFERS = re.compile(
    r"(^|_)(parents?|child|children|repl(y|ies)|refs?|references?|related|similar|links?|linked"
    r"|cites?|citations?|prev|previous|next|see_also|duplicate_of|siblings?|ancestors?|supersedes)"
    r"(_|$)"
)
#: Words of a referring field's name, and the relationship type that they mean.
TYPES = (("parent", "parent"), ("child", "child"), ("related|similar|see_also|sibling", "related"))
#: Names of documents, and how many times as long the texts of another field must be to win.
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
}
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


def rank(field: FieldSample, names: Sequence[str]) -> int:
    """Order fields by how well they are named; each level of nesting counts as three names."""
    full_name = re.sub(r"[^a-z0-9]+", "_", "_".join(field.path).lower())
    ranks = (names.index(name) for name in (field.name, full_name) if name in names)
    return min(ranks, default=len(names)) + 3 * (len(field.path) - 1)


def by_name(fields: Iterable[FieldSample], names: Sequence[str]) -> list[FieldSample]:
    """Choose the fields that have any of these names, the best named first."""
    named_fields = (field for field in fields if field.name in names)
    return sorted(named_fields, key=lambda field: rank(field, names))
