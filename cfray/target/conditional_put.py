"""Does this S3 store honour conditional PUT under a race?

A Lance commit is one ``PUT`` of the next manifest with ``If-None-Match: *``.  A store that ignores
the condition tells two writers at once that they won, and the rows of one are gone without an
error.  So it is tried before the first commit, with threads released together: a store that checks
first and writes later passes any trial in sequence. One winner in a few rounds is evidence, not
proof.  Source: Amazon S3 User Guide, "Conditional writes".
"""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cfray.errors import CfrayError, ConfigError, TargetUnavailable
from cfray.runtime.filesystems import s3_endpoint, s3_region, without_credentials

ROUNDS = 3  # the first opens the connections, the others race on open ones
RACERS = 8
TIMEOUT = 60  # seconds for one answer; SeaweedFS 4.48 takes some 3 s under this race
KEYS = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary ones) and AWS_REGION"


def check_conditional_put(uri: str) -> None:
    """Refuse an S3 store that would lose commits; any other kind of target is left alone.

    Writes a few objects of some bytes beside the target, under ``<target>.cfray/probe/``, and
    deletes them.

    Raises:
        ConfigError: the store is not safe, there is no such bucket, or the credentials are missing
            or refused.
        TargetUnavailable: the store did not answer.
    """
    if not uri.startswith("s3://"):
        return
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    where = without_credentials(uri).rstrip("/")
    bucket, _, key = where.removeprefix("s3://").partition("/")
    style = {"addressing_style": "path"}  # as Lance addresses a bucket
    once = {"total_max_attempts": 1}  # a PUT that won unheard would be refused when sent again
    config = Config(
        s3=style,
        retries=once,
        connect_timeout=10,
        read_timeout=TIMEOUT,
        max_pool_connections=RACERS,
    )
    try:
        client = boto3.session.Session().client(
            "s3", endpoint_url=s3_endpoint() or None, region_name=s3_region() or None, config=config
        )
        flaw = _flaw(_Objects(client, bucket, f"{key}.cfray/probe/{uuid.uuid4().hex}/"))
    except (BotoCoreError, ClientError, ValueError) as error:
        raise _trouble(error, where) from error
    if flaw:
        raise ConfigError(
            f"{where} is on a store that does not honour conditional PUT: {flaw}; it would lose commits without an error",
            "use a store with atomic conditional writes (Amazon S3, MinIO, SeaweedFS), or a local target",
        )


@dataclass(frozen=True, slots=True)
class _Objects:
    client: Any  # boto3 has no types of its own
    bucket: str
    prefix: str

    def put(self, name: str, body: bytes, **condition: str) -> str:
        return str(
            self.client.put_object(
                Bucket=self.bucket, Key=self.prefix + name, Body=body, **condition
            )["ETag"]
        )

    def put_if(self, name: str, body: bytes, **condition: str) -> int:
        """Answer the HTTP status: done, refused.

        (409 is a conflict still under way) or not understood; other errors pass.
        """
        try:
            self.put(name, body, **condition)
        except self.client.exceptions.ClientError as error:
            status = int(error.response["ResponseMetadata"]["HTTPStatusCode"])
            if status in (400, 409, 412, 501):
                return status
            raise
        return 200

    def race(self, name: str) -> str:
        gate = threading.Barrier(RACERS, timeout=TIMEOUT)

        def put(racer: int) -> int:
            gate.wait()
            return self.put_if(name, b"racer %d" % racer, IfNoneMatch="*")

        with ThreadPoolExecutor(RACERS) as pool:
            statuses = list(pool.map(put, range(RACERS)))
        if statuses.count(200) != 1:
            return f"{statuses.count(200)} of {RACERS} racing PUTs with If-None-Match succeeded, not exactly one (answers {sorted(set(statuses))})"
        kept = self.client.get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"].read()
        return (
            ""
            if kept == b"racer %d" % statuses.index(200)
            else "a PUT with If-None-Match that was refused changed the object all the same"
        )


def _flaw(objects: _Objects) -> str:
    races = [f"race-{number}" for number in range(ROUNDS)]
    outdated = objects.put(
        "match", b"old"
    )  # without a condition: wrong credentials and buckets show here
    try:
        objects.put("match", b"new")
        if (status := objects.put_if("match", b"late", IfMatch=outdated)) != 412:
            return (
                f"a PUT with an outdated If-Match was answered with {status}, not refused with 412"
            )
        return next(filter(None, map(objects.race, races)), "")
    finally:
        for name in ("match", *races):
            objects.client.delete_object(Bucket=objects.bucket, Key=objects.prefix + name)


def _trouble(error: Exception, where: str) -> CfrayError:
    """Tell a store that is away from one that refuses us.

    The store's own words are left out, they may repeat a key.
    """
    from botocore import exceptions as boto

    answer = error.response if isinstance(error, boto.ClientError) else {}
    status, code = (
        answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0),
        answer.get("Error", {}).get("Code", ""),
    )
    if (
        isinstance(error, boto.ConnectionError | boto.HTTPClientError)
        or status in (408, 429)
        or status >= 500
    ):
        remedy = "check AWS_ENDPOINT_URL and the network, then run the same command again"
        return TargetUnavailable(f"the store of {where} does not answer: {code or error}", remedy)
    if status == 404:
        return ConfigError(
            f"there is no bucket for {where}: {code}",
            "create the bucket, correct target.uri, or set AWS_ENDPOINT_URL to its store",
        )
    if status:
        return ConfigError(
            f"the store of {where} refused a test object: {status} {code}",
            f"set {KEYS} to a key that may write and delete there",
        )
    return ConfigError(
        f"cannot address the store of {where}: {error}",
        f"set {KEYS}, and AWS_ENDPOINT_URL for a store that is not Amazon's",
    )
