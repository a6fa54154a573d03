"""An operator reads a library's error text without positions in the library's source code."""

import lance
import pytest

from cfray.runtime.error_text import describe_error

RUST = "/home/builder/lance/rust/lance"


@pytest.mark.parametrize(
    ("text", "description"),
    [
        (
            (
                f"Not found: x/_versions, {RUST}-table/src/io/commit.rs:653:26, "
                f"{RUST}/src/dataset/builder.rs:921:29"
            ),
            "Not found: x/_versions",
        ),
        (
            f"fields did not match, unexpected=[b], location: {RUST}/schema.rs:213:17",
            "fields did not match, unexpected=[b]",
        ),
        (
            "LanceError(IO): no such object, /rustc/48a229ceaefd/library/core/function.rs:250:5",
            "LanceError(IO): no such object",
        ),
        ("disk error, rust/lance-io/src/local.rs:12", "disk error"),
        (
            f'conflict, location: Location {{ file: "{RUST}/a.rs", line: 1, column: 2 }}',
            "conflict",
        ),
        (
            (
                "Expected to read 32 bytes\n../../src/arrow/ipc/reader.cc:740  ReadMessage(file)\n"
                "/arrow/cpp/src/arrow/ipc/message.cc:12  _s"
            ),
            "Expected to read 32 bytes",
        ),
        (
            "Couldn't deserialize thrift: no type\nDeserializing page header failed.\n",
            "Couldn't deserialize thrift: no type Deserializing page header failed.",
        ),
        ("cannot read /data/main.rs: it is gone", "cannot read /data/main.rs: it is gone"),
        (
            "[Errno 13] Permission denied: '/a/b.parquet'",
            "[Errno 13] Permission denied: '/a/b.parquet'",
        ),
        ("at 12:30:45 the server was away", "at 12:30:45 the server was away"),
    ],
)
def test_positions_in_a_librarys_source_code_are_left_out(text, description):
    assert describe_error(OSError(text)) == description
    assert describe_error(text) == description


def test_an_error_without_a_text_is_named_by_its_type():
    assert describe_error(TimeoutError()) == "TimeoutError"
    assert describe_error(OSError("rust/lance-io/src/local.rs:12:3")) == "OSError"


def test_the_installed_lance_is_understood(tmp_path):
    with pytest.raises(ValueError, match=r"\.rs:\d+") as error:
        lance.dataset(str(tmp_path / "nowhere.lance"))
    assert ".rs" not in describe_error(error.value)
    assert "nowhere.lance" in describe_error(error.value)


def test_of_an_error_of_azures_only_the_code_is_repeated():
    """The text of the service may repeat what was to be signed."""
    text = (
        "GetProperties failed for 'http://127.0.0.1/corpora/plan.json'. Cannot initialise an "
        "ObjectInputFile without knowing the file size. Azure Error: [AuthorizationFailure] 403 "
        "Server failed to authenticate.\nThe MAC signature found in the HTTP request 'abc' is not"
    )
    assert describe_error(OSError(text)) == "Azure answers AuthorizationFailure"
