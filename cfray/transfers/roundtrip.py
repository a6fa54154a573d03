"""Prove that an export brings a dataset back: export, migrate what was written, compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cfray.errors import ConfigError, ProofFailed
from cfray.job.spec import JobSpec
from cfray.report.facts import Report
from cfray.runtime.filesystems import open_filesystem
from cfray.runtime.plurals import counted
from cfray.target.state import State
from cfray.transfers.content import Content, content_of
from cfray.transfers.export import export
from cfray.transfers.exports.settings import ExportSettings, Format
from cfray.transfers.files import list_sizes
from cfray.transfers.finished import job_name


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """What came of a round trip.

    Attributes:
        format: of the files between.
        before: the documents of the dataset.
        after: of the dataset that was made of its export.
    """

    format: Format
    before: Content
    after: Content

    @property
    def differing(self) -> list[str]:
        """Name what is not the same."""
        return self.before.differing(self.after)

    @property
    def exit_code(self) -> int:
        """Give the exit code: 4 where something differs."""
        return 4 if self.differing else 0

    def sentence(self) -> str:
        """Say what came of it."""
        rows = counted(self.before.rows, "document")
        if self.differing:
            return (
                f"{rows} exported as {self.format} came back otherwise; these differ: "
                f"{', '.join(self.differing)}"
            )
        return (
            f"{rows} exported as {self.format} came back the same: texts, vectors, metadata with "
            "types, relationships, every other column and every byte of raw_data"
        )

    def as_json(self) -> dict[str, Any]:
        """Give what a program wants to know."""
        return {
            "format": self.format,
            "before": self.before.as_json(),
            "after": self.after.as_json(),
            "differing": self.differing,
            "verdict": self.sentence(),
            "exit_code": self.exit_code,
        }


def round_trip(
    uri: str, work: str, file_format: Format, migrate: Callable[[JobSpec], Report]
) -> RoundTrip:
    """Export a finished target, migrate the export, and compare the documents of both.

    Args:
        uri: of the target.
        work: folder for the export and the second dataset; they stay if they differ.
        file_format: of the export.
        migrate: runs a job.

    Raises:
        ConfigError: there is no finished target, or something that no round trip wrote is in the
            folder.
        ProofFailed: the export could not be migrated as a whole.
    """
    exported, again = f"{work}/export", f"{work}/again.lance"
    if foreign := sorted(
        {path.partition("/")[0] for path in list_sizes(work)}
        - {"export", "export.cfray", "again.lance", "again.lance.cfray"}
    ):
        raise ConfigError(f"{work} holds {foreign[0]}", "give a folder of its own: --work URI")
    export(uri, exported, ExportSettings(file_format, "frames"))
    job = JobSpec.model_validate(
        {
            "name": job_name(State(uri)),
            "source": {"kind": "frames", "uri": exported},
            "target": {"uri": again},
            "index": {"vector": {"type": "none"}, "text": [], "scalar": []},
        }
    )
    report = migrate(job)
    if report.exit_code:
        raise ProofFailed(
            f"the export of {uri} could not be migrated as a whole: {report.verdict}",
            f"cfray's report is in {again}.cfray/report.json",
        )
    trip = RoundTrip(file_format, content_of(uri), content_of(again))
    if not trip.differing:
        system, path = open_filesystem(work)
        system.delete_dir(path)
    return trip
