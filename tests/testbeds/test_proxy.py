"""The proxies change nothing but what a test asks for, and break it as networks do."""

from __future__ import annotations

import gzip
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, IncompleteRead, RemoteDisconnected
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.testbeds.proxy import (
    Dropped,
    Grpc,
    GrpcProxy,
    HttpProxy,
    Slow,
    Status,
    TcpProxy,
    Truncated,
)
from tests.testbeds.server import is_open


class Echo(BaseHTTPRequestHandler):
    """Answers with the request's line, headers and body; zipped for /zip, in chunks for /chunks."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = b"\n".join([self.requestline.encode(), str(self.headers).encode(), body])
        self.send_response(200)
        self.send_header("X-Twice", "one")
        self.send_header("X-Twice", "two")
        if "/zip" in self.path:
            answer = gzip.compress(answer)
            self.send_header("Content-Encoding", "gzip")
        if "/chunks" in self.path:
            self.send_header("Transfer-Encoding", "chunked")
            answer = b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n"
        else:
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer if self.command != "HEAD" else b"")

    do_GET = do_HEAD = do_SEARCH = do_POST  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def echo():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def proxy(echo):
    with HttpProxy(echo) as proxy:
        yield proxy


def ask(proxy, method="GET", path="/", body=None, headers=(), *, connection=None):
    connection = connection or HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=20)
    connection.request(method, path, body, dict(headers))
    answer = connection.getresponse()
    return answer, answer.read()


def test_a_request_and_its_answer_pass_unchanged(proxy):
    answer, body = ask(
        proxy,
        "POST",
        "/a%2Fb?x=%20&y=%C3%BC&x=2",
        b"\x00\xffwhole",
        {"X-Odd": "a  b", "Accept-Encoding": "br"},
    )
    line, rest = body.split(b"\n", 1)
    assert line == b"POST /a%2Fb?x=%20&y=%C3%BC&x=2 HTTP/1.1"
    assert b"X-Odd: a  b\n" in rest
    assert b"Accept-Encoding: br\n" in rest
    assert f"Host: {proxy.endpoint.removeprefix('http://')}\n".encode() in rest
    assert rest.endswith(b"\x00\xffwhole")
    assert answer.headers.get_all("X-Twice") == ["one", "two"]
    assert proxy.seen == [("POST", "/a%2Fb?x=%20&y=%C3%BC&x=2")]


def test_a_zipped_answer_stays_zipped(proxy):
    answer, body = ask(proxy, path="/zip")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body).startswith(b"GET /zip")


def test_chunks_arrive_whole_both_ways(proxy):
    assert ask(proxy, path="/chunks")[1] == b"abcdefg"
    assert ask(proxy, "POST", "/", iter([b"ab", b"cd"]))[1].endswith(b"abcd")


@pytest.mark.parametrize("method", ["HEAD", "SEARCH"])
def test_any_method_passes(proxy, method):
    answer, body = ask(proxy, method)
    assert (answer.status, body[:6]) == (200, b"" if method == "HEAD" else b"SEARCH")
    assert int(answer.headers["Content-Length"]) > 0


def test_a_connection_serves_many_requests(proxy):
    connection = HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=20)
    connection.connect()
    ours = connection.sock.getsockname()
    for _ in range(3):
        ask(proxy, connection=connection)
    assert connection.sock.getsockname() == ours


def test_only_the_named_requests_fail_and_only_so_often(proxy):
    proxy.fail(Status(429, {"Retry-After": "0"}, b"too many"), times=2, matching="POST /scroll")
    codes = [
        ask(proxy, method, path)[0].status
        for method, path in [("GET", "/scroll"), *[("POST", "/scroll?limit=1")] * 3]
    ]
    assert codes == [200, 429, 429, 200]
    proxy.fail(Status(503))
    answer, body = ask(proxy)
    assert (answer.status, answer.headers["Retry-After"], body) == (503, None, b"")
    proxy.fail(Status(500), times=9)
    proxy.heal()
    assert ask(proxy)[0].status == 200
    assert len(proxy.seen) == 6


def test_a_fault_carries_its_headers_and_body(proxy):
    proxy.fail(Status(429, {"Retry-After": "7"}, b'{"error":1}'))
    answer, body = ask(proxy)
    assert (answer.status, answer.headers["Retry-After"], body) == (429, "7", b'{"error":1}')


def test_a_dropped_request_has_no_answer(proxy):
    proxy.fail(Dropped())
    with pytest.raises(RemoteDisconnected):
        ask(proxy)
    assert ask(proxy)[0].status == 200


def test_a_truncated_answer_promises_more_than_it_brings(proxy):
    proxy.fail(Truncated())
    with pytest.raises(IncompleteRead) as error:
        ask(proxy, "POST", "/", b"x" * 1000)
    assert len(error.value.partial) in {error.value.expected, error.value.expected - 1}
    assert ask(proxy)[0].status == 200


def test_a_slow_answer_waits_for_the_test(proxy):
    proxy.fail(Slow(), matching="/slow")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(ask, proxy, path="/slow")
        proxy.until_held()
        assert ask(proxy, path="/quick")[0].status == 200
        assert not slow.done()
        proxy.release()
        assert slow.result(20)[0].status == 200


def test_a_client_that_leaves_a_slow_answer_frees_it(proxy):
    proxy.fail(Slow())
    connection = HTTPConnection(proxy.endpoint.removeprefix("http://"))
    connection.request("GET", "/")
    proxy.until_held()
    connection.close()
    with proxy.changed:
        assert proxy.changed.wait_for(lambda: not proxy.wakers, 20)


def test_a_server_that_is_gone_is_a_closed_connection():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with HttpProxy(f"http://127.0.0.1:{port}") as proxy, pytest.raises(RemoteDisconnected):
        ask(proxy)


def test_a_closed_proxy_leaves_nothing(echo):
    before = threading.active_count()
    with HttpProxy(echo) as proxy:
        connection = HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=20)
        ask(proxy, connection=connection)  # kept alive
        port = proxy.listener.port
    assert not is_open(port)
    assert connection.sock.recv(1) == b""
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name and thread.is_alive():
            thread.join(5)
    assert threading.active_count() <= before + 1  # the echo server's own


def test_a_connection_is_cut_at_the_byte(echo):
    port = int(echo.rpartition(":")[2])
    with TcpProxy("127.0.0.1", port) as proxy:
        assert ask(proxy)[0].status == 200
        proxy.cut_after(20)
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while part := client.recv(100):
                answer += part
        assert answer == b"HTTP/1.1 200 OK\r\nSer"
        assert ask(proxy)[0].status == 200


grpc = pytest.importorskip("grpc")


class EchoService(grpc.GenericRpcHandler):
    """/t/one answers with its message, /t/many with each of its letters, /t/not with an error."""

    def service(self, details):
        def one(message, context):
            context.set_trailing_metadata((("t", "railing"), ("key-bin", b"\x00\xff")))
            return message + dict(context.invocation_metadata()).get("own", "").encode()

        def many(messages, context):
            for message in messages:
                yield from (bytes([byte]) for byte in message)

        def wrong(message, context):
            context.set_trailing_metadata((("t", "railing"),))
            context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: ü")

        return {
            "/t/one": grpc.unary_unary_rpc_method_handler(one),
            "/t/many": grpc.stream_stream_rpc_method_handler(many),
            "/t/not": grpc.unary_unary_rpc_method_handler(wrong),
        }.get(details.method)


@pytest.fixture(scope="module")
def grpc_echo():
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(8), handlers=[EchoService()], options=options)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def remote(grpc_echo):
    with (
        GrpcProxy(grpc_echo) as proxy,
        grpc.insecure_channel(proxy.endpoint, [("grpc.max_receive_message_length", -1)]) as channel,
    ):
        yield proxy, channel


def test_a_call_and_its_answer_pass_unchanged(remote):
    proxy, channel = remote
    answer, call = channel.unary_unary("/t/one").with_call(
        b"\x00" + b"x" * 6_000_000, metadata=[("own", "!")], timeout=20
    )
    assert answer == b"\x00" + b"x" * 6_000_000 + b"!"
    assert {("t", "railing"), ("key-bin", b"\x00\xff")} <= {
        tuple(pair) for pair in call.trailing_metadata()
    }
    assert proxy.seen == [("gRPC", "/t/one")]


def test_streams_pass_both_ways(remote):
    _, channel = remote
    assert list(channel.stream_stream("/t/many")(iter([b"ab", b"c"]), timeout=20)) == [
        b"a",
        b"b",
        b"c",
    ]


@pytest.mark.parametrize(
    ("method", "code", "details"),
    [
        ("/t/not", "NOT_FOUND", "no such thing: ü"),
        ("/t/unknown", "UNIMPLEMENTED", "Method not found!"),
    ],
)
def test_the_servers_own_errors_pass(remote, method, code, details):
    _, channel = remote
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(method)(b"x", timeout=20)
    assert (error.value.code().name, error.value.details()) == (code, details)
    assert (("t", "railing") in map(tuple, error.value.trailing_metadata())) == (
        code == "NOT_FOUND"
    )


def test_a_call_fails_as_told(remote):
    proxy, channel = remote
    proxy.fail(
        Grpc("RESOURCE_EXHAUSTED", "slow down", {"retry-after": "1"}), times=2, matching="/t/one"
    )
    for _ in range(2):
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary("/t/one")(b"x", timeout=20)
        assert (error.value.code(), error.value.details()) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "slow down",
        )
        assert ("retry-after", "1") in map(tuple, error.value.trailing_metadata())
    assert channel.unary_unary("/t/one")(b"x", timeout=20) == b"x"
    proxy.fail(Dropped())
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/t/one")(b"x", timeout=20)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_slow_call_waits_for_the_test_or_the_client(remote):
    proxy, channel = remote
    proxy.fail(Slow(), times=2)
    slow = channel.unary_unary("/t/one").future(b"x", timeout=20)
    proxy.until_held()
    assert not slow.done()
    proxy.release()
    assert slow.result(20) == b"x"
    left = channel.unary_unary("/t/one").future(b"x", timeout=20)
    proxy.until_held()
    left.cancel()
    with proxy.changed:
        assert proxy.changed.wait_for(lambda: not proxy.wakers, 20)
    assert channel.unary_unary("/t/one")(b"x", timeout=20) == b"x"


def test_a_clients_deadline_reaches_the_server(remote):
    proxy, channel = remote
    proxy.fail(Slow())
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/t/one")(b"x", timeout=0.2)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
