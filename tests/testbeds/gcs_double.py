"""A double of Google Cloud Storage's XML API, in front of a server that speaks the JSON API alone.

Lance reads and commits over the XML API; no emulator that is published as a package answers it.
The double turns each of its requests into requests to fake-gcs-server and passes requests of the
JSON API on as they are, so that Lance and Arrow see the same objects.  What it shows is how cfray
behaves towards such answers, and nothing about the service.

It knows objects (PUT, GET with a range, HEAD, DELETE, copies), multipart uploads and lists of
version 2.  The condition ``x-goog-if-generation-match`` is kept by the server behind: uploads go
there as ``uploadType=multipart``, for it ignores the condition of a ``media`` upload.  Parts of an
upload are in this process's memory, and so are gone with it.

It does not imitate credentials, permissions, versions of objects, limits of requests or sizes,
checksums, encryption, retention or latency.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import hashlib
import http.client
import json
import uuid
from typing import Any, ClassVar
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlencode, urlsplit
from xml.etree import ElementTree as ET

from tests.testbeds.double import JsonHandler, options, serve

JSON_API = ("/storage/", "/upload/", "/download/", "/batch/")
#: Headers that belong to one connection, or that are written anew.
OWN_HEADERS = {"host", "connection", "transfer-encoding", "content-length", "date", "server"}
#: Parameters of a list in the XML API, and their names in the JSON API.
LISTED = {
    "prefix": "prefix",
    "delimiter": "delimiter",
    "continuation-token": "pageToken",
    "max-keys": "maxResults",
    "start-after": "startOffset",
}


class Refused(Exception):
    """The server behind refused a request."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Backend:
    """The server behind, by its JSON API."""

    def __init__(self, address: str) -> None:
        self.address = urlsplit(address).netloc

    def send(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request; give status, headers in lower case, and body."""
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            connection.request(method, path, body or None, headers or {})
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, names, answer.read()
        finally:
            connection.close()

    def asked(self, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
        """Send a request that must succeed.

        Raises:
            Refused: it did not.
        """
        status, _, answer = self.send(method, path, body, headers)
        if status >= 300:
            raise Refused(status)
        return answer

    def describe(self, bucket: str, key: str) -> dict[str, Any]:
        """Give what is known of an object."""
        return json.loads(self.asked("GET", f"/storage/v1/b/{bucket}/o/{quote(key, safe='')}"))

    def content(self, bucket: str, key: str) -> bytes:
        """Give the bytes of an object."""
        path = f"/download/storage/v1/b/{bucket}/o/{quote(key, safe='')}?alt=media"
        return self.asked("GET", path)

    def put(self, bucket: str, key: str, body: bytes, condition: str | None) -> str:
        """Write an object, on the condition that it has a generation; give its new generation."""
        query = {"uploadType": "multipart", "name": key}
        if condition is not None:
            query["ifGenerationMatch"] = condition
        boundary = uuid.uuid4().hex
        kinds = ("application/json; charset=UTF-8", "application/octet-stream")
        parts = (json.dumps({"name": key}).encode(), body)
        lines = [
            b"--%s\r\nContent-Type: %s\r\n\r\n%s\r\n" % (boundary.encode(), kind.encode(), part)
            for kind, part in zip(kinds, parts, strict=True)
        ]
        answer = self.asked(
            "POST",
            f"/upload/storage/v1/b/{bucket}/o?{urlencode(query)}",
            b"".join(lines) + f"--{boundary}--\r\n".encode(),
            **{"Content-Type": f"multipart/related; boundary={boundary}"},
        )
        return str(json.loads(answer)["generation"])


class Handler(JsonHandler):
    """Answers the XML API, and passes on the JSON API."""

    backend: Backend
    #: Parts by upload and number.
    uploads: ClassVar[dict[str, dict[int, bytes]]] = {}

    def do_HEAD(self) -> None:  # noqa: N802
        self.handle_any()

    def respond(self, path: list[str], url: SplitResult, body: bytes) -> None:
        if url.path.startswith(JSON_API):
            self.pass_on(body)
            return
        query = {
            name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()
        }
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        try:
            if not key:
                self.list_objects(bucket, query)
            elif "uploads" in query or "uploadId" in query:
                self.upload(bucket, key, query, body)
            elif self.command == "PUT":
                self.put(bucket, key, self.body_of_put(body))
            elif self.command == "DELETE":
                self.backend.asked("DELETE", f"/storage/v1/b/{bucket}/o/{quote(key, safe='')}")
                self.send(204, b"")
            else:
                self.get(bucket, key)
        except Refused as refused:
            code = {404: "NoSuchKey", 412: "PreconditionFailed"}.get(refused.status, "Refused")
            error = ET.Element("Error")
            ET.SubElement(error, "Code").text = code
            self.send_xml(error, status=refused.status)

    def pass_on(self, body: bytes) -> None:
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in OWN_HEADERS
        }
        status, names, answer = self.backend.send(self.command, self.path, body, headers)
        kept = {
            name: value
            for name, value in names.items()
            if name not in OWN_HEADERS and name != "content-type"
        }
        self.send(status, answer, names.get("content-type", "application/json"), **kept)

    def send(
        self, status: int, data: bytes, content_type: str = "application/xml", **headers: str
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_xml(self, document: ET.Element, status: int = 200) -> None:
        self.send(status, ET.tostring(document))

    def body_of_put(self, body: bytes) -> bytes:
        source = self.headers["x-goog-copy-source"]
        if source is None:
            return body
        bucket, _, key = unquote(source).lstrip("/").partition("/")
        return self.backend.content(bucket, key)

    def put(self, bucket: str, key: str, body: bytes) -> None:
        condition = self.headers["x-goog-if-generation-match"]
        generation = self.backend.put(bucket, key, body, condition)
        self.send(200, b"", **{"ETag": f'"{generation}"', "x-goog-generation": generation})

    def get(self, bucket: str, key: str) -> None:
        known = self.backend.describe(bucket, key)
        # whole seconds: the server writes fractions of any length
        updated = dt.datetime.fromisoformat(f"{known['updated'][:19]}+00:00")
        headers = {
            "ETag": f'"{known["generation"]}"',
            "x-goog-generation": str(known["generation"]),
            "Last-Modified": email.utils.format_datetime(updated, usegmt=True),
        }
        size = int(known["size"])
        if self.command == "HEAD":
            self.send(200, b"", **headers, **{"Content-Length": str(size)})
            return
        path = f"/download/storage/v1/b/{bucket}/o/{quote(key, safe='')}?alt=media"
        wanted = {"Range": self.headers["Range"]} if self.headers["Range"] else {}
        status, names, data = self.backend.send("GET", path, b"", wanted)
        if "content-range" in names:
            headers["Content-Range"] = names["content-range"]
        self.send(status, data, "application/octet-stream", **headers)

    def upload(self, bucket: str, key: str, query: dict[str, str], body: bytes) -> None:
        """Take one step of a multipart upload: begin it, bring a part, give it up, or finish it."""
        name = query.get("uploadId") or uuid.uuid4().hex
        if self.command == "PUT":
            self.uploads[name][int(query["partNumber"])] = body
            self.send(200, b"", ETag=f'"{hashlib.md5(body).hexdigest()}"')
        elif self.command == "DELETE":
            self.uploads.pop(name, None)
            self.send(204, b"")
        elif "uploads" in query:
            self.uploads[name] = {}
            begun = ET.Element("InitiateMultipartUploadResult")
            for tag, text in (("Bucket", bucket), ("Key", key), ("UploadId", name)):
                ET.SubElement(begun, tag).text = text
            self.send_xml(begun)
        else:
            self.finish_upload(bucket, key, self.uploads.pop(name), body)

    def finish_upload(self, bucket: str, key: str, parts: dict[int, bytes], body: bytes) -> None:
        """Make an object of the parts that a request lists, in their order."""
        numbers = [
            int(item.text or 0)
            for item in ET.fromstring(body).iter()
            if item.tag.rpartition("}")[2] == "PartNumber"
        ]
        condition = self.headers["x-goog-if-generation-match"]
        data = b"".join(parts[number] for number in numbers)
        generation = self.backend.put(bucket, key, data, condition)
        done = ET.Element("CompleteMultipartUploadResult")
        ET.SubElement(done, "ETag").text = f'"{generation}"'
        self.send(
            200,
            ET.tostring(done),
            **{"ETag": f'"{generation}"', "x-goog-generation": generation},
        )

    def list_objects(self, bucket: str, query: dict[str, str]) -> None:
        told = {LISTED[name]: value for name, value in query.items() if name in LISTED}
        answer = json.loads(
            self.backend.asked("GET", f"/storage/v1/b/{bucket}/o?{urlencode(told)}")
        )
        result = ET.Element("ListBucketResult")
        ET.SubElement(result, "Name").text = bucket
        for item in answer.get("items", []):
            # the JSON API's offset is the first name that is listed, the XML API's the one before
            if item["name"] == query.get("start-after"):
                continue
            entry = ET.SubElement(result, "Contents")
            fields = {
                "Key": item["name"], "Size": item["size"], "ETag": f'"{item["generation"]}"',
                "Generation": item["generation"], "LastModified": item["updated"],
            }  # fmt: skip
            for tag, value in fields.items():
                ET.SubElement(entry, tag).text = str(value)
        for prefix in answer.get("prefixes", []):
            ET.SubElement(ET.SubElement(result, "CommonPrefixes"), "Prefix").text = prefix
        if token := answer.get("nextPageToken"):
            ET.SubElement(result, "IsTruncated").text = "true"
            ET.SubElement(result, "NextContinuationToken").text = token
        self.send_xml(result)


if __name__ == "__main__":
    given = options(__doc__, backend={"required": True})
    Handler.backend = Backend(given.backend)
    serve(Handler, "gcs", given)
