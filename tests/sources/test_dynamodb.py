"""DynamoDB, live: the contract and the traps of a parallel scan, on the emulator dynalite.

What dynalite cannot do is asked of moto: unknown keys, a time to live, another page cut.
"""

import json
from contextlib import closing, contextmanager
from urllib.request import Request, urlopen

import boto3
import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from cfray.errors import SourceError, SourceUnavailable
from cfray.inspection.source import draft
from cfray.runtime.credentials import Secret
from cfray.sources.base import Context
from cfray.sources.dynamodb.source import DynamoDB
from tests.sources.corpus import CONTEXT, CORPUS, items, plain_rows, row_counts, rows
from tests.sources.dynamodb_bed import KEY, DynamoDBBed, wire
from tests.sources.store_contract import StoreContract
from tests.testbeds import moto
from tests.testbeds.lineup import taking_part
from tests.testbeds.proxy import HttpProxy, Status

pytestmark = pytest.mark.server("dynamodb")
THROTTLED = {
    "__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
    "message": "The level of configured provisioned throughput for the table was exceeded.",
}
#: Pages of a few items: the budget of a second is what a page may take.
SMALL_PAGES = {"read_capacity": 1.0}


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(DynamoDBBed)


@pytest.fixture(scope="module")
def locked_bed(tmp_path_factory):
    """Give moto when it checks keys: it lets in the requests that make a user, and no others."""
    with taking_part("moto", moto.start(tmp_path_factory.mktemp("locked"))) as server:
        _post(f"{server.endpoint}/moto-api/reset-auth", b"3")
        iam = boto3.client(
            "iam",
            endpoint_url=server.endpoint,
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",
        )
        iam.create_user(UserName="reader")
        statement = {"Effect": "Allow", "Action": "dynamodb:*", "Resource": "*"}
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        iam.put_user_policy(UserName="reader", PolicyName="all", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName="reader")["AccessKey"]
        yield DynamoDBBed(server.endpoint, f"{key['AccessKeyId']}:{key['SecretAccessKey']}")


@pytest.fixture(scope="module")
def moto_bed(locked_bed):
    return locked_bed


def _post(url, body):
    headers = {"Content-Type": "text/plain"}
    with urlopen(Request(url, body, headers, method="POST"), timeout=30) as answer:
        assert answer.status == 200


class TestDynamoDB(StoreContract):
    client = "boto3"
    cannot_count = "DynamoDB counts items only by a scan, which is the read itself"
    cannot_search = "DynamoDB has no vector search"


class Recorder:
    """A budget that never waits, and remembers what was taken of it."""

    def __init__(self):
        self.taken, self.pauses = [], []

    def take(self, requests=1):
        self.taken.append(requests)

    def hold_off(self, seconds):
        self.pauses.append(seconds)


class NthAnswer(HttpProxy):
    """A proxy that gives another answer than the server's to the n-th request."""

    def __init__(self, upstream, answers):
        super().__init__(upstream)
        self.answers = answers

    def arrived(self, method, path):
        super().arrived(method, path)
        return self.answers.get(len(self.seen))


@contextmanager
def answering(bed, answers):
    """Start a proxy with other answers; give it."""
    proxy = NthAnswer(bed.url, answers)
    proxy.open()
    with closing(proxy):
        yield proxy


def numbered(count, key="hot"):
    return [{"pk": wire(key), "sk": wire(n), "text": wire(f"text {n} " * 20)} for n in range(count)]


def read_texts(source, shards=None, context=CONTEXT):
    return sorted(row["text"][1] for row in rows(source, shards, context))


class TestSegments:
    def test_one_hot_key_and_more_segments_than_items_are_exact(self, bed):
        name = bed.create(bed.fresh(), {"pk": "S", "sk": "N"})
        written = numbered(30)
        bed.put(name, written)
        source = bed.source(name, segments=35)
        shards = source.shards(CONTEXT)
        counts = [len(rows(source, [shard])) for shard in shards]
        assert len(shards) == 35
        assert sorted(counts) == [0] * 34 + [30]
        assert read_texts(source) == sorted(item["text"]["S"] for item in written)

    @pytest.mark.parametrize("segments", [1, 2, 3, 7, 40])
    def test_any_number_of_segments_gives_every_item_once(self, bed, segments):
        name = bed.seed(CORPUS)
        source = bed.source(name, segments=segments)
        assert len(source.shards(CONTEXT)) == segments
        assert row_counts(rows(source)) == row_counts(map(bed.expected, CORPUS))

    def test_a_resumed_run_scans_the_segments_of_its_plan(self, bed):
        name = bed.seed(CORPUS)
        planned = bed.source(name, segments=3).shards(CONTEXT)
        resumed = bed.source(name, segments=5)
        assert row_counts(rows(resumed, planned)) == row_counts(map(bed.expected, CORPUS))

    def test_another_number_of_segments_is_another_job(self):
        assert "segments" not in DynamoDB.unfingerprinted
        assert {"read_capacity", "count_items", "profile"} <= DynamoDB.unfingerprinted

    def test_a_table_that_was_made_again_is_refused(self, bed):
        name = bed.seed(CORPUS[:3])
        source = bed.source(name)
        shards = source.shards(CONTEXT)
        bed.drop(name)
        bed.seed(CORPUS[:2], name)
        with pytest.raises(SourceError, match="made again") as error:
            rows(source, shards)
        assert not error.value.transient

    def test_items_that_stay_are_read_once_while_others_come_and_go(self, bed):
        name = bed.create(bed.fresh(), {"pk": "S", "sk": "N"})
        bed.put(name, numbered(200, "stays"))
        bed.put(name, numbered(20, "goes"))
        source = bed.source(name, segments=2, **SMALL_PAGES)
        client, read = bed.client(), []
        for number, (_, batch) in enumerate(items(source)):
            read += [
                row["text"][1] for row in plain_rows(batch) if row["pk"] == ("string", "stays")
            ]
            if number < 20:
                key = {"pk": wire("goes"), "sk": wire(number)}
                client.delete_item(TableName=name, Key=key)
                client.put_item(TableName=name, Item={**key, "pk": wire(f"new {number}")})
        assert sorted(read) == sorted(item["text"]["S"] for item in numbered(200))


class TestPages:
    def test_an_empty_page_is_not_the_end(self, bed):
        name = bed.create(bed.fresh(), {"pk": "S", "sk": "N"})
        written = numbered(250)
        bed.put(name, written)
        source = bed.source(name, segments=1, **SMALL_PAGES)
        shards = source.shards(CONTEXT)
        first = bed.client().scan(TableName=name, Limit=100, ConsistentRead=True)
        page = {"Items": [], "Count": 0, "LastEvaluatedKey": first["LastEvaluatedKey"]}
        empty = Status(200, {}, json.dumps(page).encode())
        # requests: the table, the first page, then three empty ones
        with answering(bed, {3: empty, 4: empty, 5: empty}) as proxy:
            through = source.model_copy(update={"url": proxy.endpoint})
            assert read_texts(through, shards) == sorted(item["text"]["S"] for item in written)
            assert len(proxy.seen) > 6

    def test_a_scan_that_stands_still_is_refused(self, bed):
        name = bed.create(bed.fresh(), {"pk": "S", "sk": "N"})
        bed.put(name, numbered(3))
        source = bed.source(name, segments=1)
        shards = source.shards(CONTEXT)
        key = {"pk": wire("hot"), "sk": wire(1)}
        page = {"Items": numbered(1), "Count": 1, "LastEvaluatedKey": key}
        same = Status(200, {}, json.dumps(page).encode())
        with answering(bed, {2: same, 3: same}) as proxy:
            through = source.model_copy(update={"url": proxy.endpoint})
            with pytest.raises(SourceError, match="same key"):
                rows(through, shards)

    def test_an_answer_with_another_checksum_is_asked_for_again(self, bed, monkeypatch):
        monkeypatch.setattr("cfray.runtime.retry.FIRST_PAUSE", 0.001)
        name = bed.seed(CORPUS[:3])
        source = bed.source(name, segments=1)
        shards = source.shards(CONTEXT)
        wrong = Status(200, {"x-amz-crc32": "1"}, b'{"Items":[],"Count":0}')
        with answering(bed, {2: wrong}) as proxy:
            through = source.model_copy(update={"url": proxy.endpoint})
            assert len(rows(through, shards)) == 3

    @pytest.mark.parametrize("kind", ["S", "N", "B"])
    def test_pages_go_on_behind_any_type_of_key(self, bed, kind):
        name = bed.create(bed.fresh(), {"pk": kind})
        keys = {
            "S": [f"é {n}" for n in range(120)],
            "N": [n * 10**30 + n for n in range(120)],
            "B": [bytes([n, 255, 0]) for n in range(120)],
        }
        bed.put(name, [{"pk": wire(key), "n": wire(n)} for n, key in enumerate(keys[kind])])
        source = bed.source(name, segments=2, **SMALL_PAGES)
        assert sorted(int(row["n"][1]) for row in rows(source)) == list(range(120))


class TestBudget:
    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch):
        monkeypatch.setattr("cfray.runtime.retry.FIRST_PAUSE", 0.001)
        monkeypatch.setattr("cfray.runtime.retry.JITTER", 0.0)

    def test_a_throttled_page_is_asked_for_again(self, bed):
        proxy, source = bed.proxied(bed.seed(CORPUS))
        with closing(proxy):
            shards = source.shards(CONTEXT)
            proxy.fail(Status(400, {}, json.dumps(THROTTLED).encode()), times=3, matching="POST /")
            assert row_counts(rows(source, shards)) == row_counts(map(bed.expected, CORPUS))
            assert not proxy.waiting

    def test_a_pause_that_the_store_asks_for_holds_all_workers_off(self, bed):
        proxy, source = bed.proxied(bed.seed(CORPUS[:3]))
        budget = Recorder()
        with closing(proxy):
            shards = source.shards(CONTEXT)
            asks = {"Retry-After": "0.01"}
            proxy.fail(Status(400, asks, json.dumps(THROTTLED).encode()), matching="POST /")
            rows(source, shards, Context(scratch=CONTEXT.scratch, throttle=budget))
        assert budget.pauses == [0.01]

    def test_throttling_without_end_is_a_transient_error(self, bed):
        proxy, source = bed.proxied(bed.seed(CORPUS[:3]))
        with closing(proxy):
            shards = source.shards(CONTEXT)
            proxy.fail(Status(400, {}, json.dumps(THROTTLED).encode()), 1_000, "POST /")
            with pytest.raises(SourceUnavailable, match="ProvisionedThroughputExceeded") as error:
                rows(source, shards)
        assert "read_capacity" in error.value.remedy

    def test_a_refusal_is_not_asked_for_again(self, bed):
        proxy, source = bed.proxied(bed.seed(CORPUS[:3]))
        with closing(proxy):
            shards = source.shards(CONTEXT)
            before = len(proxy.seen)
            refusal = {"__type": "x#AccessDeniedException", "Message": "not authorized"}
            proxy.fail(Status(400, {}, json.dumps(refusal).encode()), 1_000, "POST /")
            with pytest.raises(SourceError, match="not authorized") as error:
                rows(source, shards)
            assert len(proxy.seen) == before + 1
        assert "dynamodb:Scan" in error.value.remedy

    @pytest.mark.parametrize("consistent", [True, False])
    def test_the_capacity_that_pages_consume_is_taken_from_the_budget(self, bed, consistent):
        name = bed.create(bed.fresh(), {"pk": "S", "sk": "N"})
        bed.put(name, numbered(300))
        source = bed.source(name, segments=2, read_capacity=5.0, consistent_read=consistent)
        assert source.request_rate == 5.0
        budget = Recorder()
        shards = source.shards(CONTEXT)
        assert len(rows(source, shards, Context(throttle=budget))) == 300
        consumed = sum(
            page["ConsumedCapacity"]["CapacityUnits"]
            for page in bed.client()
            .get_paginator("scan")
            .paginate(TableName=name, ConsistentRead=consistent, ReturnConsumedCapacity="TOTAL")
        )
        assert sum(budget.taken) >= consumed
        # a page takes about a second's budget, never the megabyte that DynamoDB would read
        assert max(budget.taken) < 20

    def test_a_run_has_one_budget(self, bed):
        with pytest.raises(ValidationError, match="one budget"):
            bed.source("any", read_capacity=5, requests_per_second=5)

    def test_counting_again_can_be_left_out(self, bed):
        assert bed.source(bed.seed(CORPUS[:2]), count_items=False).count(CONTEXT) is None


class TestWhatATableSays:
    def test_keys_indexes_and_expiry_are_recorded(self, moto_bed):
        index = {
            "IndexName": "by author",
            "KeySchema": [{"AttributeName": "author", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["title"]},
        }
        name = moto_bed.create(
            moto_bed.fresh(),
            {"pk": "S", "sk": "N"},
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "N"},
                {"AttributeName": "author", "AttributeType": "S"},
            ],
            GlobalSecondaryIndexes=[index],
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
        )
        moto_bed.client().update_time_to_live(
            TableName=name,
            TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires"},
        )
        source = moto_bed.source(name)
        description = source.describe(CONTEXT, source.shards(CONTEXT))
        facts = description.collections[0].facts
        assert json.loads(facts["key schema"]) == [
            {"AttributeName": "pk", "AttributeType": "S", "KeyType": "HASH"},
            {"AttributeName": "sk", "AttributeType": "N", "KeyType": "RANGE"},
        ]
        assert json.loads(facts["global secondary indexes"]) == [
            {
                "name": "by author",
                "key": [{"AttributeName": "author", "AttributeType": "S", "KeyType": "HASH"}],
                "projection": "INCLUDE",
                "attributes": ["title"],
            }
        ]
        assert facts["time to live attribute"] == "expires"
        assert facts["stream"] == "NEW_IMAGE"
        assert facts["billing mode"] == "PAY_PER_REQUEST"
        assert any("expires has passed" in note for note in description.notes)

    def test_a_scan_is_never_called_a_snapshot(self, bed):
        source = bed.source(bed.seed(CORPUS[:3]))
        description = source.describe(CONTEXT, source.shards(CONTEXT))
        assert description.consistency == "per-shard live"
        with source.session() as session:
            assert session.consistency is None
        assert any("export to S3" in note for note in description.notes)

    def test_a_wrong_key_schema_is_refused(self, bed):
        with pytest.raises(SourceError, match="has the key") as error:
            bed.source(bed.seed(CORPUS[:1]), key=["pk", "sk"]).shards(CONTEXT)
        assert "source.key" in error.value.remedy


class TestCredentials:
    def test_a_key_of_another_form_is_refused(self, bed, monkeypatch):
        monkeypatch.setenv("CFRAY_TEST_ODD_KEY", "only-a-secret")
        source = bed.source("any", api_key=Secret(env="CFRAY_TEST_ODD_KEY"))
        with pytest.raises(SourceError, match="ACCESS_KEY_ID") as error:
            source.shards(CONTEXT)
        assert "only-a-secret" not in str(error.value)

    def test_a_credential_that_may_not_list_tables_reads_those_that_are_named(self, bed):
        name = bed.seed(CORPUS[:2])
        body = json.dumps({"__type": "x#AccessDeniedException", "Message": "no"}).encode()
        refusal = {1: Status(400, {}, body)}
        with answering(bed, refusal) as proxy:
            assert len(bed.source(name, url=proxy.endpoint).shards(CONTEXT)) == 1
        with answering(bed, refusal) as proxy:
            with pytest.raises(SourceError) as error:
                bed.source(url=proxy.endpoint).shards(CONTEXT)
            assert "dynamodb:ListTables" in error.value.remedy

    def test_without_a_key_the_client_finds_one_itself(self, bed, no_aws, monkeypatch):
        name = bed.seed(CORPUS[:2])
        identity, secret = bed.key.split(":")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", identity)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        assert len(rows(bed.source(name, api_key=None))) == 2

    def test_the_region_makes_the_address(self):
        source = DynamoDB(region="eu-west-1")
        assert source.url == "https://dynamodb.eu-west-1.amazonaws.com"
        assert DynamoDB(url=source.url).signing_region == "eu-west-1"
        china = DynamoDB(region="cn-north-1")
        assert china.url == "https://dynamodb.cn-north-1.amazonaws.com.cn"
        assert china.signing_region == "cn-north-1"


@pytest.mark.parametrize("packed", [False, True])
def test_inspect_finds_vectors_that_nobody_declared(bed, tmp_path, packed):
    name = bed.create(bed.fresh(), {"pk": "S", "sk": "N"})
    vectors = np.random.default_rng(3).standard_normal((30, 32)).astype("<f4")
    written = numbered(30)
    for item, vector in zip(written, vectors, strict=True):
        numbers = [{"N": str(number)} for number in vector]
        item["embedding"] = {"B": vector.tobytes()} if packed else {"L": numbers}
    bed.put(name, written)
    section = {"kind": "dynamodb", "url": bed.url, "collections": [name], "api_key": {"env": KEY}}
    bed.source(name)
    (tmp_path / "source.yaml").write_text(yaml.safe_dump({"source": section}))
    mapping = yaml.safe_load(draft(str(tmp_path / "source.yaml"), None).text)["mapping"]
    assert mapping["id"] == "id"
    assert mapping["text_content"] == "text"
    assert mapping["vector"] == ({"path": "embedding", "as": "floats"} if packed else "embedding")


def test_both_emulators_give_the_same_rows(bed, moto_bed):
    awkward = bed.awkward(60, 16)
    expected = row_counts(map(bed.expected, awkward))
    for emulator in (bed, moto_bed):
        source = emulator.source(emulator.seed(awkward), segments=4, **SMALL_PAGES)
        assert row_counts(rows(source)) == expected
        assert source.count(CONTEXT) == 60
