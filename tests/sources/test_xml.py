"""XML files: the contract, what becomes of elements and attributes, and what is refused."""

import json
from xml.sax.saxutils import escape

import pytest
import yaml
from pydantic import ValidationError

from cfray.errors import SourceError
from cfray.formats.lines import record_limit
from cfray.inspection.source import draft
from cfray.records.record import Reject
from cfray.sources.base import Context
from cfray.sources.files.xml import XmlFile
from tests.contract import oracle
from tests.sources.contract import FileContract
from tests.sources.corpus import CONTEXT, plain_rows, rows


def write_value(name, value):
    """Write a field: a list as repeated elements, None as xsi:nil."""
    if isinstance(value, list):
        return "".join(write_value(name, item) for item in value)
    if value is None:
        return f'<{name} xsi:nil="true"/>'
    if isinstance(value, dict):
        return f"<{name}>{''.join(write_value(*pair) for pair in value.items())}</{name}>"
    return f"<{name}>{escape(str(value))}</{name}>"


def text_of(value):
    """Return what XML keeps of a value: texts, and a list of one item is that item."""
    if isinstance(value, list):
        items = [text_of(item) for item in value]
        return items[0] if len(items) == 1 else items
    if isinstance(value, dict):
        return {key: text_of(item) for key, item in value.items()}
    return value if value is None else str(value)


class TestXml(FileContract):
    suffix = ".xml"
    cannot_split = "the end of an element is known only from the file's start"
    cannot_count = "nothing in the file says how many records it has"

    def write(self, path, some_rows):
        records = "".join(write_value("row", row) for row in some_rows)
        path.write_text(f'<?xml version="1.0"?>\n<rows xmlns:xsi="x">\n{records}\n</rows>', "utf-8")

    def source_at(self, uri, **options):
        return XmlFile(uri=str(uri), **options)

    @staticmethod
    def expected(row):
        def variant(value):
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                return "list<string>", oracle.metadata_text(value)
            kinds = {str: "string", dict: "struct", list: "list", type(None): "null"}
            return kinds[type(value)], oracle.metadata_text(value)

        return {key: variant(text_of(value)) for key, value in row.items() if value != []}


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a document: its rows as JSON values, and its rejects."""

    def read_document(document, context=CONTEXT, **options):
        path = tmp_path / "document.xml"
        path.write_bytes(document if isinstance(document, bytes) else document.encode())
        source = XmlFile(uri=str(path), **options)
        parts = [part for shard in source.shards(context) for part in source.read(shard, context)]
        rejects = [part for part in parts if isinstance(part, Reject)]
        found = [
            {
                key: text if kind == "string" else json.loads(text)
                for key, (kind, text) in row.items()
            }
            for part in parts
            if not isinstance(part, Reject)
            for row in plain_rows(part)
        ]
        return found, rejects

    return read_document


class TestElements:
    def test_attributes_children_and_text_are_told_apart(self, read):
        document = '<a><b id="1"><c>x</c><c>y</c><d k="v">z</d><e k="v"/><f/><dc:g>p</dc:g></b>text<b>only</b></a>'
        assert read(document)[0] == [
            {
                "@id": "1",
                "c": ["x", "y"],
                "d": {"@k": "v", "$text": "z"},
                "e": {"@k": "v"},
                "f": "",
                "dc:g": "p",
            },
            {"$text": "only"},
        ]

    def test_text_among_children_keeps_its_place(self, read):
        [row] = read("<a><b><p>one <em>two</em> three<br/></p></b></a>")[0]
        assert row["p"] == {"$mixed": ["one ", {"em": "two"}, " three", {"br": ""}]}

    def test_a_content_field_is_the_whole_text(self, read):
        document = (
            "<a><b><p>one <em>two <i>three</i></em> &amp; four</p><q><p>x<i>y</i></p></q></b></a>"
        )
        [row] = read(document, content=["p", "q/p"])[0]
        assert row == {"p": "one two three & four", "q": {"p": "xy"}}

    def test_null_empty_and_the_word_null_are_three_things(self, read):
        [row] = read('<a><b><n xsi:nil="true"/><e/><w>null</w><s> </s></b></a>')[0]
        assert row == {"n": None, "e": "", "w": "null", "s": " "}

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1", "windows-1252"])
    def test_the_declared_encoding_is_obeyed(self, read, encoding):
        document = f'<?xml version="1.0" encoding="{encoding}"?><a><b><c>naïve é</c></b></a>'
        assert read(document.encode(encoding))[0] == [{"c": "naïve é"}]

    def test_comments_and_sections_of_characters(self, read):
        [row] = read("<a><b><c>x<!-- no --><![CDATA[<y>&]]>z</c><?pi no?></b></a>")[0]
        assert row == {"c": "x<y>&z"}


class TestPaths:
    document = (
        "<rss><channel><title>t</title><item><x>1</x></item><item><x>2</x></item></channel></rss>"
    )

    @pytest.mark.parametrize(
        ("record", "xs"),
        [
            ("rss/channel/item", ["1", "2"]),
            ("/rss/channel/item", ["1", "2"]),
            ("rss/*/item", ["1", "2"]),
            ("//item", ["1", "2"]),
            ("rss/channel/nothing", []),
        ],
    )
    def test_records_are_found_by_their_path(self, read, record, xs):
        assert [row["x"] for row in read(self.document, record=record)[0]] == xs

    def test_a_path_that_leads_nowhere_is_refused(self, read):
        with pytest.raises(SourceError, match="feed/channel") as error:
            read(self.document, record="feed/channel/item")
        assert "source.record" in error.value.remedy

    def test_records_within_records_are_part_of_them(self, read):
        [row] = read("<a><i><x>1</x><i><x>2</x></i></i></a>", record="//i")[0]
        assert row == {"x": "1", "i": {"x": "2"}}

    @pytest.mark.parametrize("record", ["", "a//b", "//a/b", "a[1]", "a/@b"])
    def test_what_is_no_path_is_refused(self, record):
        with pytest.raises(ValidationError):
            XmlFile(uri="x.xml", record=record)


class TestRefused:
    @pytest.mark.parametrize(
        "head",
        [
            '<!DOCTYPE a [<!ENTITY x "y">]>',
            '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
            '<!DOCTYPE a [<!ENTITY % x "y">]>',
            '<!DOCTYPE a [<!ENTITY l "l"><!ENTITY m "&l;&l;&l;"><!ENTITY n "&m;&m;&m;">]>',
        ],
    )
    def test_a_document_that_declares_entities(self, read, head):
        with pytest.raises(SourceError, match="declares the entity"):
            read(f"{head}<a><b><c>text</c></b></a>")

    def test_a_reference_to_an_entity_of_another_file(self, read):
        """Without the refusal the parser leaves it out, and the text around it joins."""
        with pytest.raises(SourceError, match="nbsp"):
            read('<!DOCTYPE a SYSTEM "a.dtd"><a><b><c>x&nbsp;y</c></b></a>')

    def test_a_document_type_alone_is_no_matter(self, read):
        assert read('<!DOCTYPE a SYSTEM "a.dtd"><a><b><c>x</c></b></a>')[0] == [{"c": "x"}]

    @pytest.mark.parametrize(
        "document",
        [
            "<a><b></a>",
            "<a><b/></a><a/>",
            "<a><b>&nbsp;</b></a>",
            "text",
            "<a",
            '<?xml version="1.0" encoding="martian"?><a/>',
        ],
    )
    def test_what_is_not_well_formed(self, read, document):
        with pytest.raises(SourceError, match=r"document\.xml") as error:
            read(document)
        assert not error.value.transient

    def test_a_record_over_the_limit_is_a_reject_in_its_place(self, read):
        big = "x" * (record_limit(100) + 10)
        document = f"<a><b><c>1</c></b><b><c>{big}</c><c>{big}</c></b><b><c>3</c></b></a>"
        found, [reject] = read(document, Context(max_record=100))
        assert [row["c"] for row in found] == ["1", "3"]
        assert "max_document" in reject.reason
        assert reject.position == f"document.xml:byte {document.index('<b>', 5)}"

    def test_a_record_that_is_too_deep_is_a_reject(self, read):
        deep = "<d>" * 5_000 + "</d>" * 5_000
        found, [reject] = read(f"<a><b>{deep}</b><b><c>1</c></b></a>")
        assert found == [{"c": "1"}]
        assert "200" in reject.reason


def test_a_folder_of_documents_is_read(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.xml").write_text(f"<a><b><n>{number}</n></b></a>")
    assert [row["n"][1] for row in rows(XmlFile(uri=str(tmp_path)))] == ["0", "1", "2"]


def test_inspect_drafts_the_fields_of_the_records(tmp_path):
    articles = "".join(
        f'<article id="a{n}"><title>Title {n}</title><body>Text of article {n} with some words'
        f"</body><tag>a</tag><tag>b</tag></article>"
        for n in range(20)
    )
    (tmp_path / "articles.xml").write_text(f"<feed>{articles}</feed>")
    drafted = yaml.safe_load(draft(str(tmp_path / "articles.xml"), None).text)
    assert drafted["source"]["kind"] == "xml"
    assert drafted["mapping"]["id"] == "@id"
    assert drafted["mapping"]["text_content"] == "body"
    assert drafted["mapping"]["title"] == "title"
