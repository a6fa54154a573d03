"""An embedder asks a server for vectors, over real sockets.

The server is a double that speaks both APIs and breaks the requests that a test names.
"""

import json
import pickle
import re
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfray.embedders.answers import EndpointNotFound
from cfray.embedders.endpoint import Budgets, EndpointEmbedder
from cfray.embedders.spec import Endpoint
from cfray.errors import ConfigError, EmbeddingError, EmbeddingUnavailable
from cfray.runtime import retry
from cfray.runtime.credentials import Secret
from tests.testbeds.embedding_server import EmbeddingServer, embedded, tokens
from tests.testbeds.faults import Status
from tests.testbeds.proxy import Dropped, HttpProxy, Truncated
from tests.testbeds.server import free_ports

TEXTS = ["the first", "zweiter Text, läßt sich nicht lumpen", "第三", "4", "fünf ist auch einer"]
KEY = "CFRAY_TEST_EMBEDDING_KEY"


class RecordingThrottle:
    def __init__(self):
        self.takes, self.pauses = [], []

    def take(self, requests=1):
        self.takes.append(requests)

    def hold_off(self, seconds):
        self.pauses.append(seconds)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr("cfray.runtime.retry.FIRST_PAUSE", 0.0)
    monkeypatch.setattr("cfray.runtime.retry.JITTER", 0.0)


@pytest.fixture
def server():
    with EmbeddingServer() as server:
        yield server


@pytest.fixture(params=["openai", "tei"])
def api(request):
    return request.param


def open_embedder(
    server, api, *, dimension=16, budgets=None, prompt=None, query_prompt=None, **options
):
    spec = (
        {"url": server.url, "model": "m", **options}
        if api == "openai"
        else {"url": server.root, **options}
    )
    arguments = {
        "prompt": prompt,
        "query_prompt": query_prompt,
        "budgets": budgets or Budgets(),
        "dimension": dimension,
    }
    return EndpointEmbedder(Endpoint.model_validate({"api": api, **spec}), **arguments)


def encode(embedder, texts):
    return embedder.encode(texts, embedder.count_tokens(texts))


def expected_vectors(texts, dimension=16):
    return np.stack([embedded(text, dimension) for text in texts])


def error_of(embedder):
    with pytest.raises(EmbeddingError) as refused:
        encode(embedder, TEXTS)
    unpickled = pickle.loads(pickle.dumps(refused.value))
    assert (type(unpickled), str(unpickled), unpickled.transient) == (
        type(refused.value),
        str(refused.value),
        refused.value.transient,
    )
    return refused.value


def test_vectors_come_in_the_order_of_the_texts_in_batches(server, api):
    vectors = encode(open_embedder(server, api, batch=2), TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected_vectors(TEXTS), atol=1e-7)
    assert server.sent() == [TEXTS[:2], TEXTS[2:4], TEXTS[4:]]
    assert server.widest == 1


def test_a_request_holds_what_servers_take(server, api, monkeypatch):
    embedder = open_embedder(server, api, max_tokens=2_000)
    monkeypatch.setattr("cfray.embedders.endpoint._REQUEST_BYTES", 10_000)
    texts = ["a" * 4_000, "b" * 4_000, "c" * 4_000, "d" * 10_001, "e"]
    embedder.encode(texts, [1] * 5)
    sent = [[text[0] for text in batch] for batch in server.sent()]
    # For the API openai the text of d is cut to 8,000 bytes.
    assert sent == (
        [["a", "b"], ["c"], ["d"], ["e"]] if api == "tei" else [["a", "b"], ["c"], ["d", "e"]]
    )


def test_no_texts_are_no_request(server, api):
    embedder = open_embedder(server, api)
    assert encode(embedder, []).shape == (0, 16)
    assert embedder.encode_queries([]).shape == (0, 16)
    assert not server.requests


def test_what_is_sent_is_what_each_api_documents(server):
    encode(open_embedder(server, "openai", dimension=8, dimensions=8), ["x"])
    encode(open_embedder(server, "tei"), ["x"])
    assert server.bodies == [
        {"model": "m", "input": ["x"], "encoding_format": "float", "dimensions": 8},
        {"inputs": ["x"]},
        {"inputs": ["x"], "truncate": True, "normalize": True},
    ]


def test_documents_and_queries_stand_behind_their_prompts(server, api):
    embedder = open_embedder(server, api, prompt="passage: ", query_prompt="query: ")
    np.testing.assert_allclose(encode(embedder, ["x"]), expected_vectors(["passage: x"]), atol=1e-7)
    np.testing.assert_allclose(
        embedder.encode_queries(["x"]), expected_vectors(["query: x"]), atol=1e-7
    )
    assert (embedder.identity.prompt, embedder.identity.query_prompt) == ("passage: ", "query: ")


def test_the_width_is_learnt_from_one_short_text(server, api):
    embedder = open_embedder(server, api, dimension=None)
    assert embedder.identity.dimension == 16
    assert len(server.sent()) == 1
    assert open_embedder(server, api, dimension=None, dimensions=8).identity.dimension == 8


def test_a_server_that_does_not_know_dimensions_is_refused_at_once(server, api):
    server.fail("too wide")
    with pytest.raises(EmbeddingError, match=r"vectors of \[9\] numbers where 8 was expected"):
        open_embedder(server, api, dimension=None, dimensions=8)


def test_the_identity_is_what_decides_a_vector(server, api):
    embedder, same_embedder = (
        open_embedder(server, api),
        open_embedder(server, api, batch=3, timeout=7, requests_per_minute=5),
    )
    assert embedder.identity == same_embedder.identity
    assert (embedder.identity.engine, embedder.identity.dtype, embedder.identity.max_tokens) == (
        api,
        "server",
        8191,
    )
    assert len(embedder.identity.sha256) == 64
    assert embedder.identity.name == ("m" if api == "openai" else server.root)
    other_identities = [
        open_embedder(server, api, **change).identity
        for change in ({"model": "n"}, {"prompt": "p"}, {"dimensions": 8}, {"max_tokens": 9})
    ]
    assert len({embedder.identity.key, *(identity.key for identity in other_identities)}) == 5


def test_tei_counts_tokens_and_the_openai_api_lets_them_be_estimated(server):
    tei, openai = (
        open_embedder(server, "tei", batch=2, prompt="to: "),
        open_embedder(server, "openai", prompt="to: "),
    )
    assert tei.count_tokens(TEXTS) == [len(tokens(f"to: {text}")) for text in TEXTS]
    assert openai.count_tokens(["abcd", "läßt"]) == [2, 3]
    assert (tei.tokens_exact, openai.tokens_exact) == (True, False)


def test_special_tokens_are_counted_though_tei_refuses_an_empty_text(server):
    assert open_embedder(server, "tei").count_tokens(["", "one"]) == [2, 3]


def test_tokens_are_estimated_where_tei_does_not_serve_them():
    with EmbeddingServer(tokenizes=False) as server:
        embedder = open_embedder(server, "tei")
        assert embedder.count_tokens(["abcde"]) == embedder.count_tokens(["vwxyz"]) == [2]
        assert not embedder.tokens_exact
        assert len(server.requests) == 1


def test_a_wrong_number_of_token_lists_is_no_answer(server):
    server.fail("too few")
    with pytest.raises(EmbeddingError, match="no list of tokens for each of 5 texts"):
        open_embedder(server, "tei").count_tokens(TEXTS)


def test_a_long_text_is_cut_here_for_the_openai_api_and_there_by_tei():
    text = "wörter und mehr " * 400
    with EmbeddingServer(max_tokens=64) as server:
        openai, tei = (
            open_embedder(server, "openai", max_tokens=64),
            open_embedder(server, "tei", max_tokens=64),
        )
        assert np.isfinite(encode(openai, [text])).all()
        assert np.isfinite(encode(tei, [text])).all()
        (cut_text,), (full_text,) = server.sent("v1")[0], server.sent("/embed")[-1]
        assert text.startswith(cut_text)
        assert 252 < len(cut_text.encode()) <= 256
        assert full_text == text
        refused = error_of(
            open_embedder(server, "openai", max_tokens=64, prompt="1 2 3 4 5 6 7 8 9 " * 10)
        )
    assert "maximum context length" in refused.what
    assert "max_tokens" in refused.remedy


def test_each_request_takes_its_turn_and_its_tokens(server):
    budgets = Budgets(RecordingThrottle(), RecordingThrottle())
    embedder = open_embedder(server, "tei", batch=2, max_tokens=5, budgets=budgets)
    embedder.encode(["a", "b", "c"], [2, 3, 400])
    assert (budgets.requests.takes, budgets.tokens.takes) == ([1, 1], [5, 5])
    embedder.count_tokens(["a"])
    assert (budgets.requests.takes, budgets.tokens.takes) == ([1, 1, 1], [5, 5])


@pytest.mark.parametrize("status", [429, 503])
def test_a_pause_the_server_asks_for_holds_for_all(server, api, status):
    budgets = Budgets(RecordingThrottle(), RecordingThrottle())
    server.fail(Status(status, {"Retry-After": "0.02"}, b"slow down"))
    np.testing.assert_allclose(
        open_embedder(server, api, budgets=budgets).encode(TEXTS, [1] * 5),
        expected_vectors(TEXTS),
        atol=1e-7,
    )
    assert budgets.requests.pauses == [0.02]
    assert (budgets.requests.takes, budgets.tokens.takes) == ([1, 1], [5, 5])


def test_a_pause_may_be_a_date_and_a_long_one_ends_the_run(server, api):
    budgets = Budgets(RecordingThrottle(), RecordingThrottle())
    pause_end = datetime.now(UTC) + timedelta(hours=1)
    server.fail(
        Status(429, {"Retry-After": format_datetime(pause_end, usegmt=True)}, b"maintenance")
    )
    with pytest.raises(EmbeddingUnavailable) as unavailable:
        open_embedder(server, api, budgets=budgets).encode(TEXTS, [1] * 5)
    assert 3_500 < unavailable.value.retry_after <= 3_600
    assert budgets.requests.pauses == [unavailable.value.retry_after]
    assert (
        pickle.loads(pickle.dumps(unavailable.value)).retry_after == unavailable.value.retry_after
    )


@pytest.mark.parametrize("header", ["", "soon", "inf", "nan", "Mon, 99 Foo 2026 00:00:00 GMT"])
def test_a_pause_that_cannot_be_read_is_ignored(server, api, header):
    budgets = Budgets(RecordingThrottle(), RecordingThrottle())
    server.fail(Status(429, {"Retry-After": header}))
    assert len(open_embedder(server, api, budgets=budgets).encode(TEXTS, [1] * 5)) == 5
    assert not budgets.requests.pauses


def test_a_server_with_a_quota_is_read_to_the_end(server, api):
    server.quota = 2
    texts = [f"text {number}" for number in range(12)]
    np.testing.assert_allclose(
        open_embedder(server, api, batch=2).encode(texts, [2] * 12),
        expected_vectors(texts),
        atol=1e-7,
    )


@pytest.mark.parametrize(
    "fault", [*(Status(code) for code in (408, 425, 429, 500, 502, 503)), "half"], ids=str
)
def test_a_transient_error_is_tried_again_and_ends_the_run_at_last(server, api, fault):
    server.fail(fault, on=(1, 2))
    embedder = open_embedder(server, api)
    np.testing.assert_allclose(embedder.encode(TEXTS, [1] * 5), expected_vectors(TEXTS), atol=1e-7)
    assert len(server.sent()) == 3
    server.fail(fault, on=range(1, 20))
    with pytest.raises(EmbeddingUnavailable) as unavailable:
        embedder.encode(TEXTS, [1] * 5)
    assert len(server.sent()) == 3 + retry.ATTEMPTS
    assert server.root in unavailable.value.what


@pytest.mark.parametrize("fault", [Dropped(), Truncated()], ids=str)
def test_a_connection_that_breaks_is_opened_again(server, api, fault):
    with HttpProxy(server.root) as proxy:
        proxied_url = proxy.endpoint + ("/v1" if api == "openai" else "")
        embedder = open_embedder(server, api, url=proxied_url)
        proxy.fail(fault, times=2)
        np.testing.assert_allclose(
            embedder.encode(TEXTS, [1] * 5), expected_vectors(TEXTS), atol=1e-7
        )


def test_an_answer_that_does_not_come_in_time_is_asked_for_again(server, api):
    embedder = open_embedder(server, api, timeout=0.2)
    server.fail("slow")
    assert len(embedder.encode(TEXTS, [1] * 5)) == 5
    server.release()


def test_a_server_that_is_down_is_named_with_what_to_do(api):
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(EmbeddingUnavailable) as unavailable:
        EndpointEmbedder(
            Endpoint(url=url, api=api, model="m"),
            prompt=None,
            query_prompt=None,
            budgets=Budgets(),
        )
    assert url in unavailable.value.what
    assert "start the server" in unavailable.value.remedy


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("too few", "gave 4 vectors for 5 texts"),
        ("too wide", r"gave vectors of \[17\] numbers where 16 was expected"),
        ("uneven", r"gave vectors of \[16, 17\] numbers"),
        ("unlike", "JSON that is no answer of the API"),
        (Status(200, {}, b"[]"), "no answer of the API openai|gave 0 vectors"),
        (Status(200, {}, b"null"), "no answer of the API"),
        (Status(200, {}, b'{"data": [{"index": 0, "embedding": "AAAA"}]}'), "no answer of the API"),
        (
            Status(424, {}, b'{"error": "Inference failed", "error_type": "backend"}'),
            "answered 424: Inference failed",
        ),
        ("huge", "no answer of the API"),
        (Status(402, {}, b"pay"), "answered 402: pay"),
        (
            Status(
                429,
                {},
                b'{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}',
            ),
            "exceeded your quota",
        ),
        (Status(307, {"Location": "/other"}), "answered 307"),
    ],
    ids=str,
)
def test_an_answer_that_is_wrong_is_never_believed_and_never_asked_for_again(
    server, api, fault, what
):
    embedder = open_embedder(server, api)
    tokens = embedder.count_tokens(TEXTS)
    requests_before = len(server.requests)
    server.fail(fault)
    with pytest.raises(EmbeddingError, match=what) as refused:
        embedder.encode(TEXTS, tokens)
    assert not refused.value.transient
    assert len(server.requests) == requests_before + 1
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)


REFUSALS = [
    (Status(400, {}, b'{"error": {"message": "too odd"}}'), "answered 400: too odd"),
    (Status(413, {}, b"payload too large"), "answered 413: payload too large"),
    (Status(422, {}, b'{"detail": [{"msg": "no"}]}'), "answered 422: .*no"),
]


@pytest.mark.parametrize(("fault", "what"), REFUSALS, ids=str)
def test_a_document_that_the_server_refuses_fails_alone_in_the_servers_words(
    server, api, fault, what
):
    embedder = open_embedder(server, api)
    server.refuse(lambda text: text == TEXTS[2], fault)
    vectors = encode(embedder, TEXTS)
    assert np.isnan(vectors[2]).all()
    others = [0, 1, 3, 4]
    assert np.array_equal(vectors[others], expected_vectors(TEXTS)[others])
    assert re.search(what, embedder.fault_of(TEXTS[2]))
    assert "NaN" in embedder.fault_of(TEXTS[1])


@pytest.mark.parametrize(("fault", "what"), REFUSALS, ids=str)
def test_a_server_that_refuses_every_text_ends_the_run(server, api, fault, what):
    embedder = open_embedder(server, api)
    server.refuse(lambda text: True, fault)
    with pytest.raises(EmbeddingError, match=what) as refused:
        encode(embedder, TEXTS)
    assert not refused.value.transient


def test_an_answer_nested_too_deep_is_no_answer(server, api):
    server.fail(Status(200, {}, b"[" * 100_000), on=range(1, 20))
    with pytest.raises(EmbeddingUnavailable, match="no complete JSON"):
        open_embedder(server, api).encode(TEXTS, [1] * 5)


def test_a_single_document_without_finite_numbers_fails_alone(server, api):
    embedder = open_embedder(server, api)
    tokens = embedder.count_tokens(TEXTS)
    server.fail("nan")
    assert np.isfinite(embedder.encode(TEXTS, tokens)).all(axis=1).sum() == len(TEXTS) - 1


def test_a_query_or_every_document_without_finite_numbers_is_the_servers_fault(server):
    embedder = open_embedder(server, "tei")
    server.fail("nan")
    with pytest.raises(EmbeddingError, match="NaN or infinite numbers in 1 of 5 vectors"):
        embedder.encode_queries(TEXTS)
    server.fail(
        Status(200, {}, json.dumps([[None] * embedder.identity.dimension] * len(TEXTS)).encode())
    )
    with pytest.raises(EmbeddingError, match="NaN or infinite numbers in 5 of 5 vectors"):
        embedder.encode(TEXTS, [1] * len(TEXTS))


def test_vectors_of_the_same_number_are_refused(server):
    server.fail("same index")
    assert (
        r"numbered the vectors of 5 texts [0, 0, 0, 0, 0]"
        in error_of(open_embedder(server, "openai")).what
    )


def test_a_number_beyond_float32_is_no_vector(server):
    server.fail(Status(200, {}, b"[[1e39]]"))
    with pytest.raises(EmbeddingError, match="infinite"):
        open_embedder(server, "tei", dimension=1).encode_queries(["x"])


def test_a_wrong_address_or_model_is_named(server, api):
    embedder = open_embedder(server, api, url=f"{server.root}/nowhere")
    refused = error_of(embedder)
    assert isinstance(refused, EndpointNotFound)
    assert f"{server.root}/nowhere answered 404: no /nowhere" in refused.what
    assert "url" in refused.remedy
    malformed = error_of(open_embedder(server, api, url="htp:/x"))
    assert not malformed.transient
    assert "url" in malformed.remedy


def test_a_server_may_say_little_and_what_it_says_is_cut(server, api):
    server.fail(Status(424, {}, b"x" * 5_000))
    with pytest.raises(EmbeddingError) as refused:
        open_embedder(server, api).encode(TEXTS, [1] * 5)
    assert refused.value.what.endswith("answered 424: " + "x" * 300)


class TestKeys:
    def test_a_key_is_sent_and_shown_nowhere(self, api, monkeypatch, tmp_path):
        monkeypatch.setenv(KEY, "hush-hush\n")
        (tmp_path / "key").write_text("hush-too\n")
        with EmbeddingServer(key="hush-hush") as server:
            embedder = open_embedder(server, api, api_key=Secret(env=KEY))
            assert len(encode(embedder, TEXTS)) == 5
            assert server.headers["Authorization"] == "Bearer hush-hush"
            wrong_embedder = open_embedder(server, api, api_key=Secret(file=str(tmp_path / "key")))
            refused = error_of(wrong_embedder)
            server.fail(Status(424, {}, b"x" * 295 + b" hush-hush"))
            with pytest.raises(EmbeddingError) as cut_error:
                embedder.encode(TEXTS, [1] * 5)
        assert str(tmp_path / "key") in refused.remedy
        assert "Bearer ***" in refused.what
        for shown in (embedder, wrong_embedder, refused, cut_error.value):
            assert "hush" not in f"{shown!r} {shown}"
            assert b"hush" not in pickle.dumps(shown)

    def test_no_key_and_a_key_that_is_refused_name_where_it_belongs(self, server, api, monkeypatch):
        server.key = "right"
        assert "embedding.endpoint.api_key" in error_of(open_embedder(server, api)).remedy
        monkeypatch.setenv(KEY, "wrong")
        assert KEY in error_of(open_embedder(server, api, api_key=Secret(env=KEY))).remedy
        assert len(server.requests) == 2

    def test_a_key_that_fits_no_header_is_not_quoted(self, server, api, monkeypatch):
        monkeypatch.setenv(KEY, "hush\nhush")
        refused = error_of(open_embedder(server, api, api_key=Secret(env=KEY)))
        assert KEY in refused.what
        assert "hush" not in str(refused)

    def test_a_key_that_is_missing_is_named(self, server, api, monkeypatch):
        monkeypatch.delenv(KEY, raising=False)
        missing = error_of(open_embedder(server, api, api_key=Secret(env=KEY)))
        assert "embedding.endpoint.api_key" in missing.what
        assert KEY in missing.what
        assert not missing.transient


def test_an_embedder_travels_and_opens_its_connections_where_it_is_used(server, api):
    embedder = open_embedder(server, api)
    encode(embedder, TEXTS)
    np.testing.assert_array_equal(
        encode(pickle.loads(pickle.dumps(embedder)), TEXTS), encode(embedder, TEXTS)
    )


def test_httpx_is_named_with_its_extra(server, api, monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ConfigError) as refused:
        encode(open_embedder(server, api), TEXTS)
    assert "cfray[endpoint]" in refused.value.remedy


def test_certificates_that_cannot_be_read_are_named(server, api, tmp_path):
    (tmp_path / "ca.pem").write_text("none")
    for path in (tmp_path / "ca.pem", tmp_path / "absent.pem"):
        assert str(path) in error_of(open_embedder(server, api, ca_file=str(path))).what


def test_a_lone_surrogate_spoils_no_batch(server, api):
    vectors = encode(open_embedder(server, api), ["a\ud800b", "x"])
    np.testing.assert_allclose(vectors, expected_vectors(["a\ufffdb", "x"]), atol=1e-7)


ESTIMATING = EndpointEmbedder(
    Endpoint(url="http://127.0.0.1:1", model="m"),
    prompt=None,
    query_prompt=None,
    budgets=Budgets(),
    dimension=1,
)


@given(
    st.text(st.characters(codec=None), max_size=200)
    | st.text(st.sampled_from(" \nab第\ud800🐈"), max_size=400),
    st.integers(1, 20),
    st.data(),
)
def test_the_parts_are_the_text_and_fit(text, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    text_parts = ESTIMATING.split_text(text, size, overlap)
    raw = text.encode("utf-8", "surrogatepass")
    start = end = 0
    for number, text_part in enumerate(text_parts):
        encoded = text_part.encode("utf-8", "surrogatepass")
        assert len(encoded) <= 4 * size
        if number:
            earliest, previous_start = end - 4 * overlap, start
            start = next(
                position
                for position in range(earliest, end + 1)
                if raw[position : position + len(encoded)] == encoded and position - earliest < 4
            )
            assert start > previous_start
        end = start + len(encoded)
        assert raw[start:end] == encoded
    assert end == len(raw)


def test_parts_end_behind_a_word():
    assert ESTIMATING.split_text("one two three four five", 2, 0) == [
        "one two ",
        "three ",
        "four ",
        "five",
    ]
    assert ESTIMATING.split_text("one two three four five", 3, 1) == [
        "one two ",
        "two three ",
        "ree four ",
        "our five",
    ]
    assert ESTIMATING.split_text("", 2, 0) == [""]
    with pytest.raises(ValueError, match="overlap"):
        ESTIMATING.split_text("x", 2, 2)
