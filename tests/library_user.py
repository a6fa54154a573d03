"""Use cfray as a library, as somebody who only writes ``import cfray``.

    python tests/library_user.py

Runs in a folder with ``articles.parquet``, with paths that start there.  Two jobs are migrated,
verified and searched in one process: the first on a Ray that is started for each call, the second
on the Ray that reading the source as a Dataset has left running.  Prints what came out as JSON.
"""

import json
import sys

import cfray

heavy = {"ray", "lance", "torch", "pyarrow"} & sys.modules.keys()
seen = {"loaded by the import": sorted(heavy), "jobs": []}
for name in ("articles", "papers"):
    if seen["jobs"]:
        dataset = cfray.read({"kind": "parquet", "uri": "articles.parquet"})
        seen["read"] = [dataset.count(), len(dataset.take_all())]
        cfray.close(dataset)
    job = cfray.Job(
        name=name,
        source={"kind": "parquet", "uri": "articles.parquet"},
        mapping={"id": "id", "text_content": "body", "title": "title", "vector": "embedding"},
        target={"uri": f"out/{name}.lance"},
    )
    preview = cfray.plan(job)
    report = cfray.migrate(job)
    verified = cfray.verify(job)
    answer = cfray.query(job.target.uri, "ledger", k=3)
    seen["jobs"].append(
        {
            "fingerprint": job.fingerprint,
            "planned": preview.as_json()["records"],
            "migrated": [report.exit_code, report.counts["read"], report.target],
            "verified": verified.exit_code,
            "hits": len(answer.hits),
        }
    )
try:
    cfray.verify({**job.model_dump(), "target": {"uri": "elsewhere.lance"}})
except cfray.ConfigError as error:
    seen["refused"] = error.what
print(json.dumps(seen))
