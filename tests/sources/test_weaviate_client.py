"""Weaviate's REST client: whom it trusts, and what the errors of httpx mean.

A small HTTPS server stands in for Weaviate, because the real server is started without TLS.
"""

import datetime as dt
import ipaddress
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cfray.errors import SourceError, SourceUnavailable
from cfray.sources.base import Context
from cfray.sources.weaviate.errors import classify_error
from cfray.sources.weaviate.source import Weaviate


class _EmptyWeaviate(BaseHTTPRequestHandler):
    """Answers every request as a server without collections answers ``/v1/schema``."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"classes": []}')

    def log_message(self, *args):
        pass


def write_certificate(folder):
    """Write a self-signed certificate for 127.0.0.1; give the files of certificate and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "ca.pem", folder / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_file, key_file


@contextmanager
def https_server(certificate_file, key_file):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file, key_file)
    with HTTPServer(("127.0.0.1", 0), _EmptyWeaviate) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_server_whose_certificate_is_unknown_is_refused_until_ca_file_names_it(tmp_path):
    certificate_file, key_file = write_certificate(tmp_path)
    with https_server(certificate_file, key_file) as url:
        with pytest.raises(SourceError, match="is not trusted") as refused:
            Weaviate(url=url).shards(Context())
        assert not refused.value.transient
        assert "source.ca_file" in refused.value.remedy
        with pytest.raises(SourceError, match="holds no collection"):
            Weaviate(url=url, ca_file=str(certificate_file)).shards(Context())


def status_error(status, headers):
    request = httpx.Request("GET", "http://weaviate/v1/schema")
    response = httpx.Response(status, headers=headers, text="why", request=request)
    return httpx.HTTPStatusError("refused", request=request, response=response)


@pytest.mark.parametrize(
    ("status", "headers", "transient", "remedy"),
    [
        (401, {}, False, "source.api_key"),
        (403, {}, False, "source.api_key"),
        (404, {}, False, "source.url"),
        (422, {}, False, "source.collections"),
        (429, {"Retry-After": "7"}, True, "source.url"),
        (503, {}, True, "source.url"),
    ],
)
def test_a_status_says_whether_the_request_may_be_sent_again(status, headers, transient, remedy):
    error = classify_error(status_error(status, headers), "http://weaviate")
    assert error.transient == transient
    assert f"({status})" in error.what or f"answered {status}: why" in error.what
    assert remedy in error.remedy
    if transient:
        assert error.retry_after == (7 if headers else None)


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("late"),
        httpx.RemoteProtocolError("cut short"),
        ConnectionResetError("reset"),
    ],
)
def test_a_server_that_does_not_answer_is_asked_again(error):
    assert isinstance(classify_error(error, "http://weaviate"), SourceUnavailable)


def test_an_error_of_ours_is_none_of_weaviates():
    assert classify_error(KeyError("class"), "http://weaviate") is None
