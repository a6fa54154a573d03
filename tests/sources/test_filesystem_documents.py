"""Documents whose text a parser makes: HTML, PDF and office files, and what ends the parser."""

import base64
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.sources.base import Context
from cfray.sources.filesystem import extractor as extractor_module
from cfray.sources.filesystem.extractor import Extractor
from cfray.sources.filesystem.source import Filesystem
from tests.sources.corpus import CONTEXT
from tests.sources.filesystem_bed import read, write_docx, write_pdf, write_tree, zip_of

MIB = 1024 * 1024
#: An extractor that does to each document what the document says.
PLANTED = """
import os, time
log = open(os.environ["PLANTED_LOG"], "a")
log.write(f"{os.getpid()}\\n")
log.flush()
print("a library that talks, on stdout")
class ExtractionConfig:
    def __init__(self, **options):
        assert options["use_cache"] is False
class Result:
    metadata = {"title": " T ", "authors": ["A"], "pages": object()}
kept = []
def extract_bytes_sync(data, mime, config):
    data = data.removeprefix(b"%PDF-1.4 ").removeprefix(b"PK\\x03\\x04 ")
    word = data.split()[0].decode()
    if word == "stall":
        time.sleep(10_000)
    if word == "spin":
        while True:
            pass
    if word == "die":
        os.kill(os.getpid(), 9)
    if word == "exit":
        os._exit(3)
    if word == "grow":
        while True:
            kept.append(bytearray(2**24))
    if word == "panic":
        raise BaseException("a panic")
    if word == "worn" and len(open(os.environ["PLANTED_LOG"]).readlines()) == 1:
        os.abort()
    result = Result()
    result.content = "" if word == "empty" else "x" * int(data.split()[1]) if word == "long" else data.decode()
    return result
"""


@pytest.fixture
def tree(tmp_path):
    """Return a function that writes files and returns their source.

    PDF and DOCX files begin as such; only a planted extractor reads them.
    """
    heads = {".pdf": "%PDF-1.4 ", ".docx": "PK\x03\x04 "}

    def write(files, **options):
        contents = {
            path: content
            if isinstance(content, bytes)
            else heads.get(Path(path).suffix, "") + content
            for path, content in files.items()
        }
        return write_tree(tmp_path / "tree", contents, **options)

    return write


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """Put an extractor in the place of the real one; return the file of its processes' ids."""
    package = tmp_path / "planted/kreuzberg"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setenv("PLANTED_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def processes(log):
    return log.read_text().split()


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class TestADocumentThatEndsTheExtractor:
    @pytest.mark.parametrize(
        ("word", "reason"),
        [
            ("die", "signal SIGKILL"),
            ("exit", "exit code 3"),
            ("grow", "source.extract_memory"),
            ("panic", "a panic"),
            ("empty", "no text was found"),
            ("long 200001", "limits.max_document"),
            ("long 3000000", "limits.max_document"),
        ],
    )
    def test_it_is_rejected_with_its_reason_and_the_others_are_read(
        self, tree, planted, word, reason
    ):
        files = {"a.pdf": "before", "b.pdf": word, "c.pdf": "behind", "d.docx": "last"}
        source = tree(files, extract_memory=64 * MIB)
        context = Context(scratch=CONTEXT.scratch, max_record=200_000)
        records, rejects = read(source, context)
        assert {path: record["text"] for path, record in records.items()} == {
            "a.pdf": "before",
            "c.pdf": "behind",
            "d.docx": "last",
        }
        assert list(rejects) == ["b.pdf"]
        assert reason in rejects["b.pdf"]
        assert rejects["b.pdf"].startswith("application/pdf: ")
        assert not any(map(is_running, processes(planted)))

    @pytest.mark.parametrize("word", ["stall", "spin"])
    def test_one_that_never_ends_is_rejected_when_its_time_is_over(self, tree, planted, word):
        source = tree({"a.txt": "before", "b.pdf": word, "c.txt": "behind"}, extract_seconds=0.5)
        records, rejects = read(source)
        assert sorted(records) == ["a.txt", "c.txt"]
        assert rejects == {"b.pdf": "application/pdf: no text after 0.5 s (source.extract_seconds)"}
        assert not any(map(is_running, processes(planted)))

    def test_the_next_document_after_one_that_never_ends_has_a_new_process(self, planted):
        with Extractor(60, 64 * MIB, MIB) as extractor:
            assert extractor.extract(b"good", "application/pdf").text == "good"
            extractor.seconds = 0.5
            assert "no text after" in extractor.extract(b"stall", "application/pdf").problem
            extractor.seconds = 60
            assert extractor.extract(b"good", "application/pdf").text == "good"
        assert len(processes(planted)) == 2

    def test_the_process_is_kept_for_documents_that_do_no_harm(self, tree, planted):
        records, rejects = read(tree({f"{n}.pdf": f"text {n}" for n in range(20)}))
        assert (len(records), rejects) == (20, {})
        assert len(processes(planted)) == 1
        assert records["7.pdf"]["title"] == "T"
        assert records["7.pdf"]["properties"] == {"authors": ["A"]}

    def test_the_process_is_renewed_after_many_documents(self, tree, planted, monkeypatch):
        monkeypatch.setattr(extractor_module, "_MOST_DOCUMENTS", 5)
        records, rejects = read(tree({f"{n}.pdf": f"text {n}" for n in range(20)}))
        assert (len(records), rejects) == (20, {})
        assert len(processes(planted)) == 4

    def test_a_death_that_earlier_documents_may_have_caused_is_tried_again(self, tree, planted):
        records, rejects = read(tree({"a.pdf": "first", "b.pdf": "worn"}))
        assert (sorted(records), rejects) == (["a.pdf", "b.pdf"], {})
        assert len(processes(planted)) == 2

    def test_it_can_be_kept_as_it_is_instead(self, tree, planted):
        source = tree({"a.pdf": "die", "b.pdf": "good"}, without_text="raw")
        records, rejects = read(source)
        assert rejects == {}
        assert "SIGKILL" in records["a.pdf"]["extraction_problem"]
        assert (base64.b64decode(records["a.pdf"]["raw"]), records["a.pdf"]["raw_type"]) == (
            b"%PDF-1.4 die",
            "application/pdf",
        )
        assert "text" not in records["a.pdf"]
        assert "raw" not in records["b.pdf"]

    def test_a_shard_that_is_left_half_read_leaves_no_process(self, tree, planted):
        source = tree({"a.pdf": "good", "b.pdf": "empty"})
        [shard] = source.shards(CONTEXT)
        stream = source.read(shard, CONTEXT)
        assert isinstance(next(stream), Reject)
        [process] = processes(planted)
        assert is_running(process)
        stream.close()
        assert not is_running(process)

    @pytest.mark.parametrize("word", ["good", "stall"])
    def test_a_killed_worker_leaves_no_process_behind(self, planted, word):
        program = (
            "import sys, time\n"
            "from cfray.sources.filesystem.extractor import Extractor\n"
            "with Extractor(0.5 if sys.argv[1] == 'stall' else 60, 2**26, 2**20) as extractor:\n"
            "    if sys.argv[1] == 'stall':\n"
            "        import threading; threading.Timer = lambda *_: threading.Thread()\n"
            "        threading.Thread.cancel = lambda self: None\n"
            "    extractor.extract(sys.argv[1].encode(), 'application/pdf')\n"
            "    time.sleep(10_000)\n"
        )
        worker = subprocess.Popen([sys.executable, "-c", program, word], env=self.environment())
        try:
            deadline = time.monotonic() + 60
            while not (planted.exists() and processes(planted)):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            [process] = processes(planted)
        finally:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        while is_running(process):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    @staticmethod
    def environment():
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


class TestTheExtractorIsOptional:
    def test_without_it_documents_are_refused_when_the_run_is_planned(self, tree, monkeypatch):
        monkeypatch.setitem(sys.modules, "kreuzberg", None)
        monkeypatch.setattr("cfray.sources.filesystem.source.find_spec", lambda name: None)
        source = tree({"a.pdf": "source", "b.md": "text", "c.html": "<p>page"})
        with pytest.raises(SourceError) as refused:
            source.shards(CONTEXT)
        assert "a.pdf" in refused.value.what
        assert "cfray[documents]" in refused.value.remedy
        records, rejects = read(source.model_copy(update={"extract": "none"}))
        assert (sorted(records), rejects) == (["a.pdf", "b.md", "c.html"], {})
        assert records["c.html"]["text"] == "page"
        assert (records["a.pdf"]["raw_type"], "text" in records["a.pdf"]) == (
            "application/pdf",
            False,
        )

    def test_a_worker_without_it_is_an_error_and_no_reject(self, tmp_path, monkeypatch):
        package = tmp_path / "kreuzberg"
        package.mkdir()
        (package / "__init__.py").write_text("raise ImportError('no kreuzberg here')")
        monkeypatch.syspath_prepend(tmp_path)
        with Extractor(60, 64 * MIB, MIB) as extractor, pytest.raises(SourceError) as error:
            extractor.extract(b"x", "application/pdf")
        assert error.value.transient is False
        assert "every node" in error.value.remedy


class TestHtml:
    PAGE = (
        '<!DOCTYPE html><html><head><meta charset="utf-8"><meta name="author" content="Zoë">'
        "<title>The\n title</title><style>p { color: red }</style></head><body><h1>Head</h1>"
        "<p>one <b>two</b>&nbsp;&amp; three<br>four</p><script>alert('no')</script>"
        "<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>"
        "<pre>  kept   as\n    it is</pre><ul><li>x<li>y</ul></body></html>"
    )

    def test_the_text_is_what_a_reader_sees(self, tree):
        record = read(tree({"a.html": self.PAGE}))[0]["a.html"]
        assert record["text"] == (
            "Head\n\none two\N{NO-BREAK SPACE}& three\nfour\n\na\tb\n\nc\n\n  kept   as\n    it is\n\nx\ny"
        )
        assert record["title"] == "The title"
        assert record["properties"] == {"author": "Zoë"}
        assert (record["mime"], record["encoding"]) == ("text/html", "utf-8")

    def test_the_first_heading_is_the_title_where_there_is_none(self, tree):
        record = read(tree({"a.htm": "<h1>A <i>head</i></h1><p>x<h1>B</h1>"}))[0]["a.htm"]
        assert record["title"] == "A head"

    def test_an_element_without_an_end_hides_nothing(self, tree):
        record = read(tree({"a.html": "<p>one<noscript>two<p>three"}))[0]["a.html"]
        assert record["text"].split() == ["onetwo", "three"]

    def test_a_page_without_text_is_rejected_and_an_empty_file_is_not(self, tree):
        records, rejects = read(tree({"a.html": "<body><script>x()</script>", "b.html": ""}))
        assert records["b.html"]["text"] == ""
        assert "no text" in rejects["a.html"]

    def test_the_encoding_that_a_page_names_is_used(self, tree):
        page = '<meta charset="shift_jis"><p>日本語'.encode("shift_jis")
        record = read(tree({"a.html": page}))[0]["a.html"]
        assert (record["text"], record["encoding"]) == ("日本語", "shift_jis")


def write_odt(path, text):
    office = "urn:oasis:names:tc:opendocument:xmlns"
    zip_of(
        path,
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "content.xml": f'<?xml version="1.0"?><office:document-content xmlns:office="{office}:office:1.0" xmlns:text="{office}:text:1.0">'
            f"<office:body><office:text><text:p>{text}</text:p></office:text></office:body></office:document-content>",
        },
    )


def write_epub(path, text):
    zip_of(
        path,
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
            '<rootfiles><rootfile full-path="book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>',
            "book.opf": '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
            '<dc:title>Book</dc:title></metadata><manifest><item id="a" href="a.xhtml" media-type="application/xhtml+xml"/></manifest>'
            '<spine><itemref idref="a"/></spine></package>',
            "a.xhtml": f'<html xmlns="http://www.w3.org/1999/xhtml"><head><title>x</title></head><body><p>{text}</p></body></html>',
        },
    )


def write_rtf(path, text):
    path.write_text(r"{\rtf1\ansi " + text + "}")


def write_eml(path, text):
    path.write_text(f"From: a@example.org\nSubject: S\nContent-Type: text/plain\n\n{text}\n")


WRITERS = {
    "docx": write_docx,
    "odt": write_odt,
    "epub": write_epub,
    "rtf": write_rtf,
    "eml": write_eml,
    "pdf": write_pdf,
}


class TestRealExtractor:
    """Kreuzberg itself, on documents that are written here."""

    @pytest.fixture(scope="class")
    @classmethod
    def results(cls, tmp_path_factory):
        root = tmp_path_factory.mktemp("real")
        for suffix, write in WRITERS.items():
            write(root / f"good.{suffix}", f"the words of this {suffix}")
            (root / f"bad.{suffix}").write_bytes(b"\x00\xffno such format\x00" * 9)
        (root / "good").write_bytes((root / "good.pdf").read_bytes())
        write_pdf(root / "scan.pdf", "")
        return read(Filesystem(uri=str(root)))

    @pytest.mark.parametrize("suffix", WRITERS)
    def test_the_text_of_a_document_is_read(self, results, suffix):
        record = results[0][f"good.{suffix}"]
        assert f"the words of this {suffix}" in record["text"]
        assert "raw" not in record

    def test_a_pdf_without_a_suffix_is_known_by_its_first_bytes(self, results):
        assert results[0]["good"]["mime"] == "application/pdf"
        assert "the words of this pdf" in results[0]["good"]["text"]

    @pytest.mark.parametrize(
        "suffix", [suffix for suffix in WRITERS if suffix not in ("rtf", "eml")]
    )
    def test_a_damaged_document_is_rejected_with_the_reason(self, results, suffix):
        assert results[1][f"bad.{suffix}"]

    def test_a_scan_is_rejected_for_it_has_no_text(self, results):
        assert "no text was found" in results[1]["scan.pdf"]

    def test_a_text_that_is_called_like_a_document_is_a_text(self, tree):
        files = {"cs.msg": b"namespace eval ::tk {}\n", "old.doc": b"plain text", "x.pdf": b"%!PS"}
        records, rejects = read(tree(files))
        assert rejects == {}
        assert {record["mime"] for record in records.values()} == {"text/plain"}
        assert records["cs.msg"]["text"] == "namespace eval ::tk {}\n"

    def test_no_file_is_lost(self, results):
        records, rejects = results
        assert len(records) + len(rejects) == 2 * len(WRITERS) + 2
