"""XML files: the contract, what becomes of elements and attributes, and what is refused."""

import json
from xml.sax.saxutils import escape

import pytest
import yaml
from pydantic import ValidationError

from cfray.errors import ConfigError, SourceError
from cfray.formats import xml
from cfray.formats.lines import record_limit
from cfray.formats.xml_paths import RecordPath
from cfray.inspection.source import draft
from cfray.job.spec import JobSpec
from cfray.planning.plan import preview
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

    @pytest.mark.parametrize(
        "text", ["x<![CDATA[<y>]]>z", "x<!-- no -->&lt;y>z", "x<?pi no?>&lt;y>z"]
    )
    def test_a_text_among_children_is_one_piece_however_it_is_written(self, read, text):
        [row] = read(f"<a><b><p>{text}<em>e</em>{text}</p></b></a>")[0]
        assert row["p"] == {"$mixed": ["x<y>z", {"em": "e"}, "x<y>z"]}

    @pytest.mark.parametrize("block", [1, 7, 8192, 46_889])
    def test_a_text_among_children_is_one_piece_wherever_a_block_ends(self, block):
        """Trap: the parser gives a text in pieces, at the end of a block and of its own buffer."""
        text = "x" * 46_889
        document = f"<a>{f'<b><m>{text}<em>e</em>tail</m></b>' * 3}</a>".encode()
        blocks = [document[start : start + block] for start in range(0, len(document), block)]
        rules = xml.RecordRules(RecordPath.parse(None))
        [batch] = xml.decode(blocks, "a.xml", 10**7, rules=rules, max_record=10**7)
        mixed = [json.loads(row["m"][1]) for row in plain_rows(batch)]
        assert mixed == [{"$mixed": [text, {"em": "e"}, "tail"]}] * 3

    @pytest.mark.parametrize("declared", ["", ' xmlns:xsi="x"', ' xmlns="y"'])
    @pytest.mark.parametrize("nil", ["true", "1", " true "])
    def test_nil_is_null_wherever_its_prefix_is_declared(self, read, declared, nil):
        [row] = read(f'<a><b><n{declared} xsi:nil="{nil}"/><w/></b></a>')[0]
        assert row == {"n": None, "w": ""}

    def test_what_is_not_nil_or_more_than_nil_is_kept(self, read):
        document = '<a><b><n xsi:nil="0"/><m xsi:nil="true" k="v"/><o xsi:nil="1">x</o></b></a>'
        [row] = read(document)[0]
        assert row == {
            "n": {"@xsi:nil": "0"},
            "m": {"@xsi:nil": "true", "@k": "v"},
            "o": {"@xsi:nil": "1", "$text": "x"},
        }

    def test_comments_and_sections_of_characters(self, read):
        [row] = read("<a><b><c>x<!-- no --><![CDATA[<y>&]]>z</c><?pi no?></b></a>")[0]
        assert row == {"c": "x<y>&z"}


class TestEncodings:
    @pytest.mark.parametrize(
        ("declared", "codec"),
        [
            ("shift_jis", "shift_jis"),
            ("Windows-31J", "cp932"),
            ("EUC-JP", "euc_jp"),
            ("ISO-2022-JP", "iso2022_jp"),
            ("GB18030", "gb18030"),
            ("utf8", "utf-8"),
            ("UTF-32", "utf-32"),
        ],
    )
    def test_encodings_that_expat_does_not_know_are_decoded(self, read, declared, codec):
        document = f'<?xml version="1.0" encoding="{declared}"?><a><b><c>漢字 é?</c></b></a>'
        text = "漢字 é?" if codec.startswith(("utf", "gb")) else "漢字 ?"
        document = document.replace("漢字 é?", text)
        assert read(document.encode(codec)) == ([{"c": text}], [])

    @pytest.mark.parametrize(("declared", "text"), [("Big5", "漢字"), ("EUC-KR", "한글")])
    def test_a_character_that_a_block_cuts_is_whole(self, declared, text):
        records = f"<b><c>{text}</c></b>" * 50
        document = f'<?xml version="1.0" encoding="{declared}"?><a>{records}</a>'.encode(declared)
        blocks = [document[start : start + 3] for start in range(0, len(document), 3)]
        rules = xml.RecordRules(RecordPath.parse(None))
        [batch] = xml.decode(blocks, "a.xml", 10**6, rules=rules, max_record=10**6)
        assert [row["c"][1] for row in plain_rows(batch)] == [text] * 50

    @pytest.mark.parametrize("declared", ["shift_jis", "Big5", "EUC-JP", "GB18030"])
    def test_bytes_that_are_not_of_the_encoding_are_an_error_with_their_position(
        self, read, declared
    ):
        good = f'<?xml version="1.0" encoding="{declared}"?><a><b>漢字'.encode(declared)
        with pytest.raises(SourceError, match=rf"document\.xml.* at byte {len(good)}") as error:
            read(good + b"\xff\xff</b></a>")
        assert "encoding" in error.value.remedy

    @pytest.mark.parametrize("declared", ["martian", "hex", "idna"])
    def test_an_encoding_that_nobody_knows_is_named(self, read, declared):
        with pytest.raises(SourceError, match=f"declares the encoding {declared}, which is not"):
            read(f'<?xml version="1.0" encoding="{declared}"?><a><b/></a>')


ASIDE = '<r><i id="1"/><j id="2"/><k><i id="3"/></k>loose <i id="4"/>text<j/></r>'


class TestOutside:
    """What stands outside of the records is named, refused under ``strict``, and never lost."""

    @staticmethod
    def describe(path, **options):
        source = XmlFile(uri=str(path), **options)
        return source.describe(CONTEXT, source.shards(CONTEXT))

    @staticmethod
    def preview(path, **options):
        job = {
            "name": "x",
            "source": {"kind": "xml", "uri": str(path), **options},
            "mapping": {"id": "@id"},
            "target": {"uri": str(path.parent / "x.lance")},
        }
        return preview(JobSpec.model_validate({**job, "strict": True}))

    def test_what_stands_beside_the_records_is_named_with_its_number(self, tmp_path):
        path = tmp_path / "a.xml"
        path.write_text(ASIDE)
        unread = self.describe(path, record="r/i").unread
        assert [sentence.split(",")[0] for sentence in unread] == [
            "RECORDS NOT READ: 2 elements r/j",
            "RECORDS NOT READ: 1 element r/k",
            "RECORDS NOT READ: 1 element r/k/i",
            "RECORDS NOT READ: 2 texts in r",
        ]
        assert "a job with source.record: r/j reads them" in unread[0]
        with pytest.raises(ConfigError, match=r"2 elements r/j.*source\.ignore: \[r/j\]"):
            self.preview(path, record="r/i")

    def test_what_the_job_file_ignores_is_a_note(self, tmp_path):
        path = tmp_path / "a.xml"
        path.write_text(ASIDE)
        plan, forecast = self.preview(path, record="r/i", ignore=["r/j", "r/k", "r/$text"])
        assert forecast.warnings == []
        assert "not read, as source.ignore says: 2 elements r/j" in plan.notes
        assert self.describe(path, record="r/i", ignore=["r/*"]).unread == ()

    def test_to_ignore_what_is_not_there_is_refused(self, tmp_path):
        path = tmp_path / "a.xml"
        path.write_text(ASIDE)
        with pytest.raises(SourceError, match=r"source\.ignore names r/J.*stand r/\$text, r/j"):
            self.describe(path, record="r/i", ignore=["r/J", "r/k"])
        with pytest.raises(ValidationError, match="from the root"):
            XmlFile(uri="a.xml", ignore=["//j"])

    @pytest.mark.parametrize(
        ("record", "document", "counts"),
        [
            (None, "<r>a<i/><!-- b -->c</r>", ["2 texts in r"]),
            (None, "<r>\n<i>a</i>\n<j/></r>", []),
            ("rss/*/item", "<rss><a><item/><b/></a><c><b/></c></rss>", ["1 element rss/a/b", "1 element rss/c/b"]),
            ("//i", "<r><a><b><i><j/></i></b><j/></a><c><d/></c>x</r>", ["1 element r/a/j", "1 element r/c", "1 text in r"]),
            ("r/i", "<r><i><i/><j/>x</i></r>", []),
        ],
    )  # fmt: skip
    def test_it_is_what_no_record_holds(self, tmp_path, record, document, counts):
        path = tmp_path / "a.xml"
        path.write_text(document)
        unread = self.describe(path, record=record).unread
        assert [sentence.split(": ")[1].split(",")[0] for sentence in unread] == counts

    def test_many_paths_are_named_in_few_sentences(self, tmp_path):
        path = tmp_path / "a.xml"
        path.write_text(f"<r><i/>{''.join(f'<j{n}/>' for n in range(1_000))}</r>")
        unread = self.describe(path, record="r/i").unread
        assert len(unread) == 11
        assert "990 elements and texts in 191 more paths, such as r/j10" in unread[-1]

    @pytest.mark.parametrize(
        ("document", "what"),
        [
            ('<r><item id="2"/><item id="3"/></r>', "no record at r/i; it holds 2 elements r/item"),
            ("<r>text</r>", "no record at r/i; it holds 1 text in r"),
            ("<q><i/></q>", "no element r, in which records.*1 element q, 1 element q/i"),
        ],
    )
    def test_a_file_of_other_elements_is_refused_by_name_until_they_are_ignored(
        self, tmp_path, document, what
    ):
        (tmp_path / "a.xml").write_text('<r><i id="1"/></r>')
        (tmp_path / "b.xml").write_text(document)
        with pytest.raises(SourceError, match=rf"b\.xml has {what}") as error:
            XmlFile(uri=str(tmp_path), record="r/i").shards(CONTEXT)
        assert "source.ignore" in error.value.remedy
        ignored = "q" if document.startswith("<q") else "r/*"
        source = XmlFile(uri=str(tmp_path), record="r/i", ignore=[ignored])
        assert [row["@id"][1] for row in rows(source)] == ["1"]
        assert (
            "without any record (1): b.xml"
            in source.describe(CONTEXT, source.shards(CONTEXT)).notes
        )

    def test_a_file_without_any_element_in_its_root_is_a_note(self, tmp_path):
        (tmp_path / "a.xml").write_text('<r><i id="1"/></r>')
        (tmp_path / "b.xml").write_text("<r/>")
        description = self.describe(tmp_path, record="r/i")
        assert description.unread == ()
        assert "without any record (1): b.xml" in description.notes


class TestBehindTheHead:
    """A plan looks at the first 4 MiB of a file; the worker that reads it says what comes later."""

    padding = f"<i><t>{'x' * 1_000_000}</t></i>" * 7

    def test_what_comes_later_is_a_reject_for_each_path(self, read):
        document = f"<r><j/>{self.padding}<j/><k/><k/>text</r>"
        found, rejects = read(document, record="r/i")
        assert len(found) == 7
        assert [reject.reason.split(",")[0] for reject in rejects] == [
            "not read: 2 elements r/k",
            "not read: 1 text in r",
        ]
        assert [reject.position for reject in rejects] == [
            "document.xml:r/k",
            "document.xml:r/$text",
        ]
        assert read(document, record="r/i", ignore=["r/*"])[1] == []

    def test_the_plan_says_that_it_counts_heads(self, tmp_path):
        path = tmp_path / "a.xml"
        path.write_text(f"<r><j/>{self.padding}<j/></r>")
        source = XmlFile(uri=str(path), record="r/i", ignore=["r/k"])
        (sentence,) = source.describe(CONTEXT, source.shards(CONTEXT)).unread
        assert "at least 1 element r/j (the first 4 MiB of each file are counted)" in sentence

    def test_a_long_file_without_records_is_an_error_where_it_is_read(self, tmp_path):
        path = tmp_path / "a.xml"
        path.write_text(f"<r>{self.padding}</r>")
        source = XmlFile(uri=str(path), record="r/item")
        shards = source.shards(CONTEXT)
        assert "at least 5 elements r/i" in source.describe(CONTEXT, shards).unread[0]
        with pytest.raises(SourceError, match="no record at r/item; it holds 7 elements r/i"):
            rows(source, shards)


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
        ],
    )
    def test_records_are_found_by_their_path(self, read, record, xs):
        assert [row["x"] for row in read(self.document, record=record)[0]] == xs

    def test_a_path_that_leads_nowhere_is_refused(self, read):
        with pytest.raises(SourceError, match="feed/channel") as error:
            read(self.document, record="feed/channel/item")
        assert "source.record" in error.value.remedy

    def test_a_root_that_is_the_record_is_read(self, read):
        assert read('<r id="1"><t>a</t></r>', record="r") == ([{"@id": "1", "t": "a"}], [])

    def test_a_root_of_another_name_is_refused(self, read):
        with pytest.raises(SourceError, match="no record at r; it holds 1 element q"):
            read("<q><t>a</t></q>", record="r")

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
