"""An error of the storage is classified as transient or terminal.

The texts are those of Arrow, Lance and the operating system, which have no common error type.
"""

import pyarrow as pa
import pytest

from cfray.errors import SourceError, SourceUnavailable, TargetError, TargetUnavailable
from cfray.runtime.storage_errors import classify_read_error, classify_write_error

DENIED = [
    PermissionError(13, "Permission denied"),
    OSError(1, "Operation not permitted"),
    OSError(
        "LanceError(IO): Generic LocalFileSystem error: Permission denied (os error 13), a.rs:1:2"
    ),
    OSError("AWS Error ACCESS_DENIED during HeadObject operation: No response body."),
    ValueError("Generic S3 error: Server returned non-2xx status code: 403 Forbidden: "),
    OSError("AWS Error INVALID_ACCESS_KEY_ID during PutObject operation"),
    OSError("Client error: <Code>SignatureDoesNotMatch</Code>"),
    OSError("AWS Error UNKNOWN: The provided token has expired: ExpiredToken"),
]
NO_ANSWER = [
    OSError(5, "Input/output error"),
    OSError("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7"),
    ValueError("LanceError(IO): Generic S3 error: HTTP error: error sending request, a.rs:1:2"),
    OSError("AWS Error SLOW_DOWN during GetObject operation: Please reduce your request rate."),
]


@pytest.mark.parametrize("error", DENIED, ids=str)
@pytest.mark.parametrize(
    ("location", "remedy"), [("/data/a.csv", "chmod"), ("s3://b/a.csv", "AWS_ACCESS_KEY_ID")]
)
def test_refused_access_to_a_source_is_terminal_and_names_file_and_remedy(error, location, remedy):
    refused = classify_read_error(error, location)
    assert type(refused) is SourceError
    assert f"no permission to read {location}" in refused.what
    assert remedy in refused.remedy
    assert "damaged" not in f"{refused}"
    assert ".rs" not in refused.what


@pytest.mark.parametrize("error", NO_ANSWER, ids=str)
@pytest.mark.parametrize("location", ["/data/a.csv", "s3://b/a.csv"])
def test_a_filesystem_that_did_not_answer_is_transient(error, location):
    assert type(classify_read_error(error, location)) is SourceUnavailable


def test_an_error_of_a_remote_filesystem_that_nobody_knows_is_transient():
    error = OSError("something new")
    assert type(classify_read_error(error, "s3://b/a.csv")) is SourceUnavailable
    assert type(classify_read_error(error, "/data/a.csv")) is SourceError


def test_wrong_bytes_and_a_missing_file_are_terminal():
    assert "damaged" in classify_read_error(ValueError("magic bytes not found"), "s3://b/a").remedy
    assert "gone" in classify_read_error(FileNotFoundError(2, "No such file"), "/data/a").what


@pytest.mark.parametrize(
    "error", [error for error in DENIED if isinstance(error, OSError)], ids=str
)
def test_refused_access_to_the_target_is_terminal(error):
    refused = classify_write_error(error, "could not write /out/a")
    assert type(refused) is TargetError
    assert ".rs" not in refused.what


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(28, "No space left on device"), "free disk space"),
        (OSError("LanceError(IO): No space left on device (os error 28), a.rs:1:2"), "free disk"),
        (OSError(30, "Read-only file system"), "make the target writable"),
        (OSError("AWS Error NO_SUCH_BUCKET during PutObject operation"), "create the bucket"),
        (OSError("Generic S3 error: NoSuchBucket"), "create the bucket"),
    ],
)
def test_a_target_that_cannot_be_written_names_its_remedy(error, remedy):
    refused = classify_write_error(error, "could not write /out/a")
    assert type(refused) is TargetError
    assert remedy in refused.remedy


@pytest.mark.parametrize(
    "error", [error for error in NO_ANSWER if isinstance(error, OSError)], ids=str
)
def test_a_target_that_did_not_answer_is_transient(error):
    assert type(classify_write_error(error, "could not write /out/a")) is TargetUnavailable


def test_a_type_that_arrow_does_not_read_is_no_damage():
    error = pa.ArrowNotImplementedError("Integers with more than 64 bits not implemented")
    refused = classify_read_error(error, "/data/a.parquet")
    assert type(refused) is SourceError
    assert "cast the column" in refused.remedy
    assert "damaged" not in refused.remedy
