"""Collections and objects as Weaviate's REST interface takes them, old kinds included.

The vendor's client makes no collection with an unnamed vector, and adds no vector to one.
"""

import itertools
import json
import uuid

import numpy as np

UNNAMED = "unnamed"
#: Name of a vector -> its width; the vectors of ``tokens`` are several for each object.
WIDTHS = {UNNAMED: 3, "default": 3, "second": 5, "third": 2, "tokens": 4, "colbert": 2}
MULTI = {"tokens", "colbert"}


def create(bed, *, references=None, vectors=None, tenants=(), **options):
    """Create a collection with a property ``n``; references are name -> target collections."""
    name = bed.fresh()
    properties = [{"name": "n", "dataType": ["int"]}]
    properties += [
        {"name": reference, "dataType": targets}
        for reference, targets in (references or {}).items()
    ]
    definition = {
        "class": name,
        "properties": properties,
        "multiTenancyConfig": {"enabled": bool(tenants)},
        **({"vectorConfig": vectors} if vectors is not None else {"vectorizer": "none"}),
        **options,
    }
    bed.send_request("/schema", definition, "POST")
    if tenants:
        bed.send_request(
            f"/schema/{name}/tenants", [{"name": tenant} for tenant in tenants], "POST"
        )
    return name


def put(bed, collection, n, *, tenant=None, **content):
    """Put an object, and return its id."""
    object_id = str(uuid.UUID(int=n + 1 << 100))
    body = {"class": collection, "id": object_id, "properties": {"n": n}, **content}
    bed.send_request("/objects", body | ({"tenant": tenant} if tenant else {}), "POST")
    return object_id


def refer(bed, collection, source_id, name, beacon, *, tenant=None):
    path = f"/objects/{collection}/{source_id}/references/{name}"
    path += f"?tenant={tenant}" if tenant else ""
    bed.send_request(path, {"beacon": beacon}, "POST")


def vector_index(name):
    config = {"distance": "l2-squared"} if name not in MULTI else {"multivector": {"enabled": True}}
    return {"vectorizer": {"none": {}}, "vectorIndexType": "hnsw", "vectorIndexConfig": config}


def add_vectors(bed, collection, indexes):
    """Add named vectors to a collection, as its owner does years later."""
    current = json.loads(bed.send_request(f"/schema/{collection}"))
    bed.send_request(f"/schema/{collection}", current | {"vectorConfig": indexes}, "PUT")


def create_grown(bed, names, *, tenants=()):
    """Create a collection as it was created in its time, and add vectors to it later."""
    indexes = {name: vector_index(name) for name in names if name != UNNAMED}
    if UNNAMED not in names:
        return create(bed, vectors=indexes, tenants=tenants)
    collection = create(bed, tenants=tenants, vectorIndexConfig={"distance": "dot"})
    if indexes:
        add_vectors(bed, collection, indexes)
    return collection


def vector_of(name, n):
    """Give the vectors of object ``n`` in an index: all differ, and each is a float32."""
    numbers = np.random.default_rng([n, *name.encode()]).standard_normal(
        (1 + n % 3, WIDTHS[name]), np.float32
    )
    return numbers.tolist() if name in MULTI else numbers[0].tolist()


def subsets(names):
    """Give every choice of the vectors that an object may have, the empty one included."""
    return [
        chosen for size in range(len(names) + 1) for chosen in itertools.combinations(names, size)
    ]


def put_every_subset(bed, collection, names, *, tenant=None, repeated=2):
    """Put objects with every choice of vectors; return number -> its vectors."""
    choices = subsets(names) * repeated
    for n, chosen in enumerate(choices):
        content = {"vectors": {name: vector_of(name, n) for name in chosen if name != UNNAMED}}
        if UNNAMED in chosen:
            content["vector"] = vector_of(UNNAMED, n)
        put(bed, collection, n, tenant=tenant, **content)
    return dict(enumerate(choices))
