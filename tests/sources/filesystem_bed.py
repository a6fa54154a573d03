"""Trees of documents for tests: written by plain Python, and read as plain values."""

import json
import zipfile

from cfray.records.record import Reject
from cfray.sources.filesystem.source import Filesystem
from tests.sources.corpus import CONTEXT, plain_rows


def write_tree(root, files, **options):
    """Write files, path below the root -> bytes or text, and return their source."""
    for path, content in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Filesystem(uri=str(root), **options)


def read(source, context=CONTEXT, shards=None):
    """Read shards, by default all: path -> record, and path -> reason of a reject."""
    records, rejects = {}, {}
    for shard in source.shards(context) if shards is None else shards:
        for item in source.read(shard, context):
            if isinstance(item, Reject):
                assert item.position not in rejects.keys() | records.keys()
                rejects[item.position] = item.reason
                continue
            for row in plain_rows(item):
                path = row["path"][1]
                assert path not in rejects.keys() | records.keys()
                records[path] = _values(row)
    return records, rejects


def zip_of(path, members):
    """Write a package of office files: the first member is not compressed, as EPUB wants it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for number, (name, content) in enumerate(members.items()):
            kind = zipfile.ZIP_STORED if not number else zipfile.ZIP_DEFLATED
            package.writestr(name, content, compress_type=kind)


def write_docx(path, text):
    word = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    zip_of(
        path,
        {
            "[Content_Types].xml": '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/word/document.xml" ContentType="{word}"/></Types>',
            "_rels/.rels": '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
            '<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>',
            "word/document.xml": '<?xml version="1.0"?><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
            f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:body></w:document>",
        },
    )


def write_pdf(path, text):
    content = f"BT /F1 24 Tf 72 700 Td ({text}) Tj ET" if text else ""
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    data, places = "%PDF-1.4\n", []
    for number, text_of_object in enumerate(objects, 1):
        places.append(len(data))
        data += f"{number} 0 obj\n{text_of_object}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    count = len(objects) + 1
    trailer = f"trailer << /Size {count} /Root 1 0 R >>\nstartxref\n{len(data)}\n%%EOF\n"
    path.write_text(f"{data}xref\n0 {count}\n0000000000 65535 f \n{table}{trailer}")


def described(source, context=CONTEXT):
    """Describe a source."""
    return source.describe(context, source.shards(context))


def _values(row):
    """Give a record with the values of JSON; the type of a value is lost."""
    return {
        key: text if kind == "string" else json.loads(text) for key, (kind, text) in row.items()
    }
