"""Does this S3 store honour conditional PUT under a race?

A Lance commit is a ``PUT`` of the next manifest with ``If-None-Match: *``.  A store that
ignores the condition tells two writers at once that they won, and the rows of one writer
are gone without an error.  So it is tried before the first commit, with threads released
together: a store that checks first and writes later passes any trial in sequence.  A
single winner in a few rounds is evidence, not proof.

Source: Amazon S3 User Guide, "Conditional writes".
"""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cfray.errors import CfrayError, ConfigError, TargetUnavailable
from cfray.runtime.error_text import describe_error
from cfray.runtime.filesystems import s3_endpoint, s3_region, strip_credentials

#: Races; the first race opens the connections, and the later races run on open connections.
ROUNDS = 3
RACERS = 8
#: Seconds for an answer; SeaweedFS 4.48 takes some 3 s under this race.
TIMEOUT = 60
KEYS = (
    "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary keys) and "
    "AWS_REGION"
)


def check_conditional_put(uri: str) -> None:
    """Refuse an S3 store that would lose commits; any other kind of target passes.

    Writes a few objects of some bytes beside the target, under ``<target>.cfray/probe/``, and
    deletes them.

    Raises:
        ConfigError: the store is not safe, the bucket does not exist, or the credentials are
            missing or refused.
        TargetUnavailable: the store did not answer.
    """
    if not uri.startswith("s3://"):
        return
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    location = strip_credentials(uri).rstrip("/")
    bucket, _, key = location.removeprefix("s3://").partition("/")
    config = Config(
        # Lance addresses a bucket by path, too
        s3={"addressing_style": "path"},
        # a PUT that won, and whose answer was lost, would be refused when it is sent again
        retries={"total_max_attempts": 1},
        connect_timeout=10,
        read_timeout=TIMEOUT,
        max_pool_connections=RACERS,
    )
    try:
        client = boto3.session.Session().client(
            "s3", endpoint_url=s3_endpoint() or None, region_name=s3_region() or None, config=config
        )
        probe = _Probe(client, bucket, f"{key}.cfray/probe/{uuid.uuid4().hex}/")
        flaw = probe.find_flaw()
    except (BotoCoreError, ClientError, ValueError) as error:
        raise _classify_error(error, location) from error
    if flaw:
        raise ConfigError(
            f"{location} is on a store that does not honour conditional PUT: {flaw}; it would lose "
            "commits without an error",
            "use a store with atomic conditional writes (Amazon S3, MinIO, SeaweedFS), or a local "
            "target",
        )


@dataclass(frozen=True, slots=True)
class _Probe:
    """The objects with which a store is tried.

    Attributes:
        client: of boto3, which has no types.
        bucket: of the target.
        prefix: of the objects' keys.
    """

    client: Any
    bucket: str
    prefix: str

    def find_flaw(self) -> str:
        """Try the store; give what it does wrong, or an empty text."""
        races = [f"race-{number}" for number in range(ROUNDS)]
        # without a condition: wrong credentials and buckets show here
        outdated_etag = self._put("match", b"old")
        try:
            self._put("match", b"new")
            status = self._put_if("match", b"late", IfMatch=outdated_etag)
            if status != 412:
                return (
                    f"a PUT with an outdated If-Match was answered with {status}, not refused "
                    "with 412"
                )
            return next(filter(None, map(self._race, races)), "")
        finally:
            for name in ("match", *races):
                self.client.delete_object(Bucket=self.bucket, Key=self.prefix + name)

    def _put(self, name: str, body: bytes, **condition: str) -> str:
        answer = self.client.put_object(
            Bucket=self.bucket, Key=self.prefix + name, Body=body, **condition
        )
        return str(answer["ETag"])

    def _put_if(self, name: str, body: bytes, **condition: str) -> int:
        """Give the HTTP status: 200, or one with which a store refuses a condition.

        409 is a conflict that is still under way, 412 a condition that does not hold, 400 and 501
        a condition that the store does not understand.
        """
        try:
            self._put(name, body, **condition)
        except self.client.exceptions.ClientError as error:
            status = int(error.response["ResponseMetadata"]["HTTPStatusCode"])
            if status in (400, 409, 412, 501):
                return status
            raise
        return 200

    def _race(self, name: str) -> str:
        """Let racers create the same object at once; give what went wrong, or an empty text."""
        gate = threading.Barrier(RACERS, timeout=TIMEOUT)

        def put(racer: int) -> int:
            gate.wait()
            return self._put_if(name, b"racer %d" % racer, IfNoneMatch="*")

        with ThreadPoolExecutor(RACERS) as pool:
            statuses = list(pool.map(put, range(RACERS)))
        winners = statuses.count(200)
        if winners != 1:
            return (
                f"{winners} of {RACERS} racing PUTs with If-None-Match succeeded, not exactly one "
                f"(answers {sorted(set(statuses))})"
            )
        answer = self.client.get_object(Bucket=self.bucket, Key=self.prefix + name)
        if answer["Body"].read() == b"racer %d" % statuses.index(200):
            return ""
        return "a PUT with If-None-Match that was refused changed the object all the same"


def _classify_error(error: Exception, location: str) -> CfrayError:
    """Tell a store that does not answer from a store that refuses us.

    What the store itself says is left out, for it may repeat a key.
    """
    from botocore import exceptions as boto

    answer = error.response if isinstance(error, boto.ClientError) else {}
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = answer.get("Error", {}).get("Code", "")
    is_away = isinstance(error, boto.ConnectionError | boto.HTTPClientError)
    if is_away or status in (408, 429) or status >= 500:
        return TargetUnavailable(
            f"the store of {location} does not answer: {code or error}",
            "check AWS_ENDPOINT_URL and the network, then run the same command again",
        )
    if status == 404:
        return ConfigError(
            f"there is no bucket for {location}: {code}",
            "create the bucket, correct target.uri, or set AWS_ENDPOINT_URL to its store",
        )
    if status:
        return ConfigError(
            f"the store of {location} refused a test object: {status} {code}",
            f"set {KEYS} to a key that may write and delete there",
        )
    return ConfigError(
        f"cannot address the store of {location}: {describe_error(error)}",
        f"set {KEYS}, and AWS_ENDPOINT_URL for a store that is not Amazon's",
    )
