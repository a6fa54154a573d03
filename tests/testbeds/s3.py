"""What the tests need of any S3 store: its environment, a client, an empty bucket."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.testbeds.server import Server

ACCESS_KEY = "cfray-tests"
SECRET_KEY = "cfray-tests-secret"


def environment(port: int) -> dict[str, str]:
    """Give the four variables that make Lance, pyarrow and boto3 use a local store.

    cfray asks its users for the same.
    """
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
    }


@dataclass(frozen=True, slots=True)
class S3:
    """A store that answers the S3 protocol.

    Attributes:
        env: the variables that make every client use it; not shown, a user's own service has real
            keys.
        checks_keys: false where any key is let in.
        fixed_bucket: an existing bucket to use instead of new ones.
        made: buckets made here.
    """

    name: str
    env: Mapping[str, str] = field(repr=False)
    checks_keys: bool = True
    fixed_bucket: str = ""
    made: list[str] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        """Name its URL."""
        return self.env["AWS_ENDPOINT_URL"]

    def client(self) -> Any:
        """Open a boto3 client that does not depend on the environment."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.env["AWS_REGION"],
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=self.env.get("AWS_SESSION_TOKEN"),
            config=Config(
                s3={"addressing_style": "path"},
                connect_timeout=5,
                read_timeout=30,
                retries={"total_max_attempts": 1},
            ),
        )

    def bucket(self) -> str:
        """Make an empty bucket, or name the fixed one."""
        if self.fixed_bucket:
            return self.fixed_bucket
        name = f"cfray-{uuid.uuid4().hex[:12]}"
        region = self.env["AWS_REGION"]
        elsewhere = (
            {}
            if region == "us-east-1"
            else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        )
        self.client().create_bucket(Bucket=name, **elsewhere)
        self.made.append(name)
        return name

    def place(self) -> str:
        """Give the URI of an empty place, without a trailing slash.

        All are in one bucket, for SeaweedFS reserves volumes for each bucket.
        """
        return f"s3://{self.made[0] if self.made else self.bucket()}/{uuid.uuid4().hex[:8]}"

    def keys(self, uri: str) -> list[str]:
        """List every key under a URI, as the store has them."""
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        pages = (
            self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        )
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def remove_buckets(self) -> None:
        """Delete the buckets made here with all they hold."""
        client = self.client()
        for bucket in self.made:
            for key in self.keys(f"s3://{bucket}/"):
                client.delete_object(Bucket=bucket, Key=key)
            client.delete_bucket(Bucket=bucket)


def keeps_an_object(server: Server) -> bool:
    """Write a nonce to a store and read it back: the real request that says a server is ready."""
    store, nonce = S3(server.name, server.env), uuid.uuid4().hex.encode()
    try:
        client, bucket = store.client(), store.bucket()
        client.put_object(Bucket=bucket, Key="nonce", Body=nonce)
        return bool(client.get_object(Bucket=bucket, Key="nonce")["Body"].read() == nonce)
    except (BotoCoreError, ClientError):
        return False
