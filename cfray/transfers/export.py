"""Export a finished dataset: records or frames, in a format that others read.

Fragments go in and receipts come out, on Ray Data; the manifest, with the hash of every file, is
written last.  One version of the dataset is exported, however it changes meanwhile.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from cfray.engine import failpoint
from cfray.engine.lines import LineOptions, TaskLine
from cfray.errors import ConfigError, ProofFailed
from cfray.runtime.filesystems import Folder, strip_credentials
from cfray.runtime.plurals import counted
from cfray.sources.files.frames import MANIFEST
from cfray.target.commit import Target
from cfray.target.documents import dumps
from cfray.target.state import State
from cfray.transfers.exports import lance_dataset, place
from cfray.transfers.exports.manifest import Manifest, PartReceipt
from cfray.transfers.exports.part import FragmentReader, PartExport
from cfray.transfers.exports.place import Claim
from cfray.transfers.exports.prepare import Prepared, parts_of, prepare
from cfray.transfers.exports.settings import ExportSettings
from cfray.transfers.finished import identity_of, job_name, open_finished, pinned
from cfray.transfers.places import check_apart, check_held, held


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export did.

    Attributes:
        address: of the export.
        manifest: of the export.
        was_there: whether an earlier run had finished it.
    """

    address: str
    manifest: Manifest
    was_there: bool

    def as_json(self) -> dict[str, Any]:
        """Give what a program wants to know."""
        manifest = self.manifest
        return {
            "address": self.address,
            "rows": manifest.rows,
            "files": len(manifest.files),
            "bytes": sum(item.file.size for item in manifest.files),
            "version": manifest.version,
            "settings": asdict(manifest.settings),
            "lost": {field["name"]: field["lost"] for field in manifest.fields if "lost" in field},
            "verdict": self.sentence(),
            "exit_code": 0,
        }

    def sentence(self) -> str:
        """Say what was done."""
        manifest = self.manifest
        size = sum(item.file.size for item in manifest.files)
        noun = "record" if manifest.settings.form == "records" else "frame"
        said = (
            f"{counted(manifest.rows, noun)} of version {manifest.version} exported to "
            f"{self.address} as {manifest.settings.format}: {counted(len(manifest.files), 'file')} "
            f"({size:,} bytes), each read again for its hash in {MANIFEST}"
        )
        return f"nothing to do: {said}" if self.was_there else said

    def notes(self) -> list[str]:
        """Say what the format does not carry."""
        return [
            f"{field['name']}: {field['lost']}" for field in self.manifest.fields if "lost" in field
        ]


def export(uri: str, address: str, settings: ExportSettings) -> ExportReport:
    """Export a finished target.  Ray must be running.

    Args:
        uri: of the target.
        address: folder that the export goes to.
        settings: of the export.

    Raises:
        ConfigError: there is no finished target, the settings do not fit it, or something else
            stands at ``address``.
        LeaseHeld: a run is at work on the target, or another export on this address.
        ProofFailed: fewer or more rows were written than there are.
        TargetError: a file cannot be read or written.
    """
    settings.check()
    target, state = open_finished(uri)
    check_apart(address, [uri])
    claim = _claim_of(target, state, settings)
    known = place.read_manifest(address)
    if known is not None:
        _check_same(known, claim, address)
        place.forget(address)
        return ExportReport(address, known, was_there=True)
    begun = place.read_claim(address)
    if begun is not None and begun.is_of(claim):
        claim = begun  # the version that it was begun with, whatever was committed since
    reader = FragmentReader(uri, claim.version, settings)
    place.check_free(address, claim)
    _check_version(target, claim.version, address)
    options = LineOptions(job_name(state), "export")
    prepared = prepare(reader, state, list(claim.parts), options)
    place.take(address, claim)
    with held(address) as holding, pinned(target, claim.version, address):
        place.take(address, claim)  # once more: another run may have taken it at the same moment
        manifest = _write(reader, address, claim, prepared, options)
        check_held(holding, address)
        Folder(address).publish(MANIFEST, dumps(manifest.to_json()))
    place.forget(address)
    return ExportReport(address, manifest, was_there=False)


def _claim_of(target: Target, state: State, settings: ExportSettings) -> Claim:
    """Say which export it is, of the newest version."""
    dataset = target.open()
    written = next(
        version["timestamp"]
        for version in dataset.versions()
        if version["version"] == dataset.version
    )
    return Claim(
        settings=settings,
        dataset=identity_of(state, target.ledger()),
        version=dataset.version,
        written=written.isoformat(),
        parts=tuple(parts_of(dataset)),
    )


def _check_version(target: Target, version: int, address: str) -> None:
    """Find that the version that an interrupted export was of is still there.

    Raises:
        ConfigError: it is not.
    """
    if all(known["version"] != version for known in target.open().versions()):
        raise ConfigError(
            f"version {version} of {target.uri}, of which an interrupted export to {address} is, "
            "was cleaned up",
            f"remove {address} and {address}.cfray, and run the same command again",
        )


def _check_same(manifest: Manifest, claim: Claim, address: str) -> None:
    """Find that a finished export is the one that is asked for.

    Raises:
        ConfigError: it is another.
    """
    there = (manifest.settings, manifest.dataset, manifest.version, manifest.written)
    if there != (claim.settings, claim.dataset, claim.version, claim.written):
        raise ConfigError(
            f"another export is at {address} already (of version {manifest.version} of "
            f"{manifest.source}); nothing was changed",
            "give another address",
        )


def _write(
    reader: FragmentReader, address: str, claim: Claim, prepared: Prepared, options: LineOptions
) -> Manifest:
    """Write the parts that are not there yet.

    Raises:
        ProofFailed: fewer or more rows were written than there are.
    """
    settings, dataset = claim.settings, reader.open()
    if settings.format == "lance":
        lance_dataset.create(address, prepared.maker, reader)
    work = PartExport(
        reader=reader,
        maker=prepared.maker,
        is_fixed=prepared.is_fixed,
        text_field=prepared.text_field,
        destination=address,
        receipts=place.receipts_folder(address),
    )
    done = {receipt.number: receipt for receipt in place.read_receipts(address)}
    missing = [part for part in claim.parts if part.number not in done]
    for receipt in TaskLine(options, work=work).run(missing):
        done[receipt.number] = receipt
        failpoint.reach("part exported")
    receipts = [done[part.number] for part in claim.parts]
    _check_names(address, receipts)
    written = sum(receipt.rows for receipt in receipts)
    if written != prepared.rows:
        raise ProofFailed(
            f"{written:,} of {counted(prepared.rows, 'row')} were written to {address}",
            f"remove {address} and {address}.cfray, and run the same command again",
        )
    if settings.format == "lance":
        lance_dataset.commit(address, receipts)
    manifest = Manifest(
        settings=settings,
        source=strip_credentials(reader.uri),
        dataset=claim.dataset,
        version=claim.version,
        written=claim.written,
        name=options.job,
        rows=written,
        dimension=dataset.schema.field("vector").type.list_size,
        fields=prepared.described(receipts),
        types=prepared.types,
        files=[file for receipt in receipts for file in receipt.files],
    )
    place.remove_left_over(address, manifest)
    return manifest


def _check_names(address: str, receipts: list[PartReceipt]) -> None:
    """Find that no document took the file of another.

    Raises:
        ProofFailed: one did: of one collection, two documents have one id.
    """
    names = Counter(item.file.path for receipt in receipts for item in receipt.files)
    name, count = next(iter(names.most_common(1)), ("", 0))
    if count > 1:
        raise ProofFailed(
            f"{counted(count, 'document')} would have the name {name}: they have one id in one "
            "collection, and came from several of the source's",
            f"remove {address} and {address}.cfray, and choose another format, or --where with the "
            "collection_id of one of them",
        )
