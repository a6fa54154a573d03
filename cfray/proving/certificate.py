"""A certificate: what was verified, in a digest that stands in the dataset itself.

Anybody can check later whether a dataset, wherever it was copied to, holds the rows that were
verified: the digest is made of the rows as they are read, not of what the ledger says.  It
is no signature: who can write to the dataset can issue another one.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from cfray.proving.read_target import FOREIGN, TargetContent
from cfray.proving.verify import TargetFindings
from cfray.report.facts import Report
from cfray.report.names import AGAINST_SOURCE, CERTIFICATE
from cfray.report.run import Run
from cfray.runtime.clock import utc_now
from cfray.target.commit import SchemaChange, commit
from cfray.target.ledger import Ledger

#: Key of the dataset's schema metadata.
CERTIFICATE_KEY = "cfray.certificate"
#: Digits of a digest that a sentence shows.
_SHOWN = 16


def check_certificate(run: Run, found: TargetFindings) -> None:
    """Compare the rows that were read with the certificate of the dataset, where it has one."""
    text = (run.target.open().schema.metadata or {}).get(CERTIFICATE_KEY.encode())
    if text is None:
        detail = "none was issued; cfray verify --certificate issues one"
        run.report.check(CERTIFICATE, "not_run", detail)
        return
    try:
        certificate = json.loads(text)
        is_whole = certificate["digest"] == _digest_of(certificate)
    except (ValueError, TypeError, KeyError):
        is_whole = False
    if not is_whole:
        run.report.check(CERTIFICATE, "fail", "it was altered: its digest is not of its content")
        return
    run.report.certificate = certificate
    ledger = run.target.ledger()
    named = f"{certificate['digest'][:_SHOWN]} of {certificate['issued']}"
    if certificate["ledger"] != ledger.digest:
        detail = f"rows were committed since {named} was issued"
        run.report.check(CERTIFICATE, "not_run", detail)
    elif certificate["rows"] != digest_of_rows(found.content, ledger):
        run.report.check(CERTIFICATE, "fail", f"the rows are not those of {named}")
    else:
        run.report.check(
            CERTIFICATE,
            "pass",
            f"the rows are those of {named}: {certificate['verdict']}; against the source: "
            f"{certificate['against_source']}",
        )


def issue(run: Run, found: TargetFindings) -> None:
    """Write a certificate of what this command verified into the dataset and the report.

    To be called when the report has its verdict, with the lease held.
    """
    report, ledger = run.report, run.target.ledger()
    statuses = {check.name: check.status for check in report.checks}
    body: dict[str, Any] = {
        "issued": utc_now(),
        "target": report.target,
        "verdict": report.verdict,
        "exit_code": report.exit_code,
        "against_source": statuses[AGAINST_SOURCE],
        "checks": {name: status for name, status in statuses.items() if name != CERTIFICATE},
        "consistency": report.consistency,
        "counts": report.counts,
        "fingerprints": list(ledger.fingerprints),
        "ledger": ledger.digest,
        "rows": digest_of_rows(found.content, ledger),
        "versions": report.versions,
    }
    report.certificate = {**body, "digest": _digest_of(body)}
    metadata = {CERTIFICATE_KEY: json.dumps(report.certificate, ensure_ascii=False)}
    commit(run.target, lambda current: current, schema_change=SchemaChange(metadata=metadata))
    report.dataset_version = run.target.open().version
    report.notes.append(
        f"certificate {report.certificate['digest']}: the key {CERTIFICATE_KEY} of the dataset's "
        "metadata holds it, and every later verify compares the rows with it"
    )


def digest_of_rows(content: TargetContent, ledger: Ledger) -> str:
    """Give the SHA-256 of the rows as they were read: their number and sums by entry."""
    rows = {
        str(name): [content.rows[name].rows, content.rows[name].sums]
        for name in sorted(content.rows)
        if name == FOREIGN or name in ledger.entries
    }
    return hashlib.sha256(_canonical(rows)).hexdigest()


def _digest_of(certificate: dict[str, Any]) -> str:
    body = {key: value for key, value in certificate.items() if key != "digest"}
    return hashlib.sha256(_canonical(body)).hexdigest()


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def can_be_issued(report: Report) -> bool:
    """Tell whether a verification ended so that a certificate means something."""
    return report.exit_code in (0, 3)
