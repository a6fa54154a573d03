"""What exports call their fields: the names that guesses go by, best first.

A name alone decides nothing; the guesses look at the values as well.  Names are compared as
``plain_name`` writes them: lower-case words joined by underscores, without accents.  The tables
hold the words of the languages in which public corpora name their fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from cfray.inspection.field_samples import FieldSample
from cfray.inspection.plain_names import plain_name
from cfray.job.mapping import Path


def _plain(names: str) -> tuple[str, ...]:
    return tuple(map(plain_name, names.split()))


IDS = _plain(
    "custom_id id uuid guid oid doc_id document_id record_id row_id item_id object_id entry_id "
    "page_id article_id passage_id chunk_id point_id vector_id docid documentid pageid articleid "
    "itemid postid entryid recordid objectid key pk uid pid docno doc_no identifier ident "
    "identifiant identificador identificativo identyfikator kennung kennzeichen ausweis "
    "идентификатор 编号 編號 識別子 番号 아이디 식별자"
)
#: Fields that name a record by where it is; ids only where no field of ``IDS`` is one.
ADDRESSES = _plain(
    "slug doi isbn issn arxiv_id pmid url uri permalink canonical_url source_url page_url link "
    "href iri path file_path filepath file_name filename handle accession sku ean code nummer "
    "numero number no nr"
)
ID_LIKE = re.compile(
    r"(^|_)(id|ids|uuid|guid|key|slug|isbn|doi|zip|code|phone|nr|nummer|pk|docno)$|^id_"
)
#: Numbers of rows that pandas and others write beside the data: they begin anew in every file.
ROW_NUMBERS = re.compile(
    r"^(unnamed(_\d+)*|index_level_\d+|level_\d+|index|row(_?(number|num|nr|no|id))?|column_?0*1?|)$"
)
#: The index of a DataFrame that has no name, as pandas writes it to Parquet.
INDEX = re.compile(r"^index_level_\d+$")
#: Fields that make an id unique together with another one.
SCOPES = re.compile(
    r"(^|_)(tenant|namespace|collection|category|source|dataset|index|corpus|language|lang|locale"
    r"|site|domain|project|workspace|page|chunk|part|section|seq|number|position|version|revision"
    r"|file|path|filename|no|num|nr|split|line|offset|paragraph|sprache|idioma|langue|year|shard)$"
)
#: Of these the ones that count inside a document: they stand behind its id.
POSITIONS = re.compile(
    r"(^|_)(page|chunk|part|section|seq|number|position|version|revision|no|num|nr|line|offset"
    r"|paragraph)$"
)
#: Fields that name other records.
REFERS = re.compile(
    r"(^|_)(parents?|child|children|repl(y|ies)|refs?|references?|related|similar|links?|linked"
    r"|cites?|citations?|prev|previous|next|see_also|duplicate_of|siblings?|ancestors?|supersedes"
    r"|padre|pere|eltern|vorganger|nachfolger|ubergeordnet|predecessor|successor)"
    r"(_|$)"
)
#: Words of a referring field's name, and the relationship type that they mean.
TYPES = (
    ("parent|padre|pere|eltern", "parent"),
    ("child", "child"),
    ("related|similar|see_also|sibling", "related"),
)
#: Names of documents, and how many times as long the texts of another field must be to win.
TEXTS = dict.fromkeys(
    _plain(
        "text_content content contents body text document page_content full_text fulltext "
        "raw_text body_text plain_text texto textes texte contenido contenu contenuto conteudo "
        "inhalt corpo corps cuerpo testo tekst tresc inhoud brodtext 正文 内容 "
        "內容 全文 本文 テキスト 文章 文本 текст содержание содержимое тело 내용 본문 텍스트"
    ),
    10,
)
TEXTS |= dict.fromkeys(
    _plain("article passage chunk chunk_text markdown message paragraph transcript review post"), 5
)
TEXTS |= dict.fromkeys(
    _plain(
        "abstract description summary comment answer response caption beschreibung descripcion "
        "descricao resumen resumo resume zusammenfassung kurzfassung описание 摘要 要約 描述 설명"
    ),
    2,
)
TITLES = _plain(
    "title name headline subject heading label caption doc_title document_title page_title "
    "article_title titel titulo titre titolo tytul uberschrift bezeichnung nombre nom nome betreff "
    "asunto rubrik otsikko 标题 標題 题目 タイトル 題名 件名 заголовок название 제목"
)
TITLE_LIKE = re.compile(r"(^|_)(title|titel|titulo|titre|titolo|headline|heading|subject)$")
VECTORS = _plain(
    "vector embedding embeddings vec dense_vector text_embedding text_vector content_embedding "
    "content_vector body_embedding body_vector document_embedding doc_embedding passage_embedding "
    "sentence_embedding vektor embedding_vector values 向量 ベクトル вектор 벡터"
)
VECTOR_LIKE = re.compile(r"vec|embed|emb(_|$)|dense|vektor|ada(_|\d)|openai|" + plain_name("向量"))
#: Words of vectors that stand for a part of the document, for its picture or for a question.
SECONDARY_VECTORS = re.compile(
    r"(^|_)(title|headline|titel|titulo|titre|name|summary|abstract|caption|image|img|photo|thumb"
    r"|query|question|sparse|author|tags?|keyword|keywords|url|old|prev|previous|q)(_|$)"
)
AUTHORS = _plain(
    "author authors by byline creator writer author_name created_by posted_by user_name username "
    "autor autora auteur autore verfasser urheber escritor 作者 著者 автор 저자"
)
CONTRIBUTORS = _plain("contributors authors creators")
TAGS = _plain(
    "tags tag keywords labels topics categories schlagworte schlagworter stichworte stichworter "
    "etiquetas palabras_clave mots_cles etiquettes parole_chiave 标签 關鍵詞 关键词 タグ теги 태그"
)
STATUS = _plain("status state zustand estado statut stato etat 状态 статус 상태")
CREATED = _plain(
    "created_at created published_at published posted_at date timestamp time create_time "
    "creation_date creation_time pub_date publication_date release_date datum erstellt "
    "erstellt_am veroffentlicht angelegt fecha fecha_creacion data data_criacao date_creation "
    "creado publicado cree publie 创建时间 日期 発行日 作成日 дата создано 날짜 작성일"
)
CREATED_LIKE = re.compile(
    r"(^|_)(creat|publi|pub_|post|insert|ingest|issued|written|added|erstell)"
)
UPDATED = _plain(
    "updated_at updated modified_at modified last_modified last_updated update_time edited_at "
    "geandert geandert_am aktualisiert actualizado modifie atualizado 更新时间 更新日 "
    "обновлено 수정일"
)
UPDATED_LIKE = re.compile(r"(^|_)(updat|modif|chang|edit|revis|geander|aktualis|actualiz)")
#: Objects that hold the fields of a record and add nothing to their names.
_ENVELOPES = frozenset(
    _plain(
        "source metadata meta payload properties props fields field data attributes attrs document "
        "doc record item object row node entity response body result info"
    )
)
#: Titles that label anything: a person, a place, a category.
_LABELS = frozenset(_plain("name label caption nombre nom nome bezeichnung 名称"))
COLLECTIONS = _plain("collection category namespace kategorie categoria categorie rubrik")


def levels(path: Path) -> int:
    """Count the names of a path without the envelopes (``_source``, ``metadata``) around it."""
    return len(_inside(path))


def _inside(path: Path) -> Path:
    return (*(name for name in path[:-1] if plain_name(name) not in _ENVELOPES), path[-1])


def _spellings(path: Path) -> tuple[str, str]:
    """Give the last name of a path, and all its names as one: ``author.name`` is author_name."""
    return plain_name(path[-1]), plain_name("_".join(_inside(path)))


def rank(field: FieldSample, names: Sequence[str]) -> int:
    """Order fields by how well they are named; each level of nesting counts as three names."""
    return rank_path(field.path, names)


def rank_path(path: Path, names: Sequence[str]) -> int:
    """Order paths as ``rank`` orders fields."""
    ranks = (names.index(name) for name in _spellings(path) if name in names)
    return min(ranks, default=len(names)) + 3 * (levels(path) - 1)


def by_name(fields: Iterable[FieldSample], names: Sequence[str]) -> list[FieldSample]:
    """Choose the fields that have any of these names, the best named first."""
    named_fields = (
        field for field in fields if any(name in names for name in _spellings(field.path))
    )
    return sorted(named_fields, key=lambda field: rank(field, names))


def may_be_title(path: Path) -> bool:
    """Tell a title's place: ``name`` inside ``author`` is the name of an author."""
    return levels(path) == 1 or plain_name(path[-1]) not in _LABELS
