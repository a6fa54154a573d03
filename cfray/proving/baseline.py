"""The baseline: what a source was and what its search answered, recorded while it was up.

With it, searches in the target can be compared with the source's after the source is gone.  It
lies in the folder beside the target and may be recorded before there is a target.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from cfray.copying.driver import context_of
from cfray.embedders.spec import Embedding
from cfray.errors import ConfigError
from cfray.job.spec import JobSpec
from cfray.planning.plan import take_survey
from cfray.planning.sample import read_sample
from cfray.planning.shape import work_out_shape
from cfray.proving.source_search import (
    FILTER_COLUMNS,
    Search,
    SourceAnswers,
    ask_source,
    digest_of_questions,
    quantiles,
)
from cfray.proving.word_search import WordSearch, ask_words
from cfray.report.run import Run
from cfray.runtime.clock import utc_now
from cfray.runtime.plurals import counted
from cfray.sources.base import Collection
from cfray.sources.session import SourceSession
from cfray.target.documents import dumps, parse_document
from cfray.target.state import State

#: File in the folder beside the target.
FILE = "baseline.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class SourceCollection:
    """A source collection, as the store described it.

    Attributes:
        name: of the source collection.
        rows: counted; None where they were not.
        metric: distance of its vector; None where the store says none.
        facts: what else the store says of it (index parameters, aliases).
    """

    name: str
    rows: int | None
    metric: str | None
    facts: dict[str, str]

    @classmethod
    def of(cls, collection: Collection) -> SourceCollection:
        """Take what a baseline keeps of a description."""
        return cls(collection.name, collection.rows, collection.metric, dict(collection.facts))


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a source was at a time.

    Attributes:
        taken: UTC, to the second.
        source: its address, without credentials.
        k: nearest records that a search asked for.
        collections: as the store described them; none where the searches were asked by a
            verification that had no baseline.
        searches: questions and answers; none where the store has no search of its own.
        no_searches: why there are none; empty where there are.
        no_filters: why no search has a filter; empty where some have one.
        word_searches: questions in words and answers; none where the source is not asked so, and in
            baselines of earlier versions.
        no_words: why there are none; empty where there are.
        terms: what a job must have in common with the one that asked: ``baseline_terms``.
    """

    taken: str
    source: str
    k: int
    collections: list[SourceCollection]
    searches: list[Search]
    no_searches: str = ""
    no_filters: str = ""
    word_searches: list[WordSearch] = field(default_factory=list)
    no_words: str = ""
    terms: dict[str, str] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Give what a program wants to know at once; the file has the rest."""
        seconds = [search.seconds for search in self.searches]
        return {
            "taken": self.taken,
            "source": self.source,
            "k": self.k,
            "collections": [asdict(collection) for collection in self.collections],
            "searches": len(self.searches),
            "seconds": quantiles(seconds) if seconds else {},
            "no_searches": self.no_searches,
            "no_filters": self.no_filters,
            "word_searches": len(self.word_searches),
            "no_words": self.no_words,
        }

    def sentence(self) -> str:
        """Say what was recorded."""
        names = counted(len(self.collections), "source collection")
        rows = [collection.rows for collection in self.collections]
        known = [count for count in rows if count is not None]
        records = f" with {counted(sum(known), 'record')}" if len(known) == len(rows) else ""
        if not self.searches:
            return f"recorded {names}{records}; no searches: {self.no_searches}"
        seconds = quantiles([search.seconds for search in self.searches])
        return (
            f"recorded {names}{records}, and {counted(len(self.searches), 'search', 'searches')} "
            f"for the {self.k} nearest: {1000 * seconds['p50']:.1f} ms at p50, "
            f"{1000 * seconds['p99']:.1f} ms at p99, each with a connection of its own; "
            f"cfray verify --parity compares the target with them"
        )

    def save(self, state: State) -> None:
        """Write the baseline beside a target, in place of an older one."""
        body = {"format": _FORMAT, **asdict(self)}
        state.folder.publish(FILE, dumps(body, sort_keys=False))

    @classmethod
    def load(cls, state: State) -> Baseline | None:
        """Read the baseline beside a target; None where there is none.

        Raises:
            TargetError: the file is damaged.
        """
        data = state.folder.read(FILE)
        if data is None:
            return None
        remedy = "remove it; cfray baseline records another one while the source is up"
        return parse_document(data, f"{state.folder.uri}/{FILE}", _parse, remedy=remedy)


def _parse(data: bytes) -> Baseline:
    body: dict[str, Any] = json.loads(data)
    if body.pop("format") != _FORMAT:
        raise ValueError("of another format")
    # pydantic's error is a ValueError
    baseline = TypeAdapter(Baseline).validate_python(body)
    named = {column for search in baseline.searches for column in search.where}
    widths = {len(search.vector) for search in baseline.searches}
    numbers = np.array([number for search in baseline.searches for number in search.vector])
    is_asked = bool(baseline.searches) != bool(baseline.no_searches)
    if named - set(FILTER_COLUMNS) or len(widths) > 1 or baseline.k < 1 or not is_asked:
        raise ValueError("no baseline of cfray's")
    if not (np.abs(numbers) <= np.finfo(np.float32).max).all():
        raise ValueError("vectors that are none")
    return baseline


def baseline_terms(job: JobSpec) -> dict[str, str]:
    """Give what decides which questions a source is asked, and how its answers are read."""
    parity = job.parity
    return {
        "job name": job.name,
        "source": job.source.address,
        "parity.k": str(parity.k),
        "parity.searches": str(parity.searches),
        "parity.queries": digest_of_questions(parity.queries) if parity.queries else "none",
    }


def record_baseline(job: JobSpec) -> Baseline:
    """Look at a source and ask it what the section ``parity`` says; no target is needed.

    Raises:
        ConfigError: the source is files, which answer no search; or the questions are wrong.
        SourceError: the source cannot be read, or did not answer.
    """
    if not job.source.is_remote:
        raise ConfigError(
            f"source kind {job.source.kind} is read from files, which answer no search",
            "record a baseline of the store that the files were exported from",
        )
    terms = baseline_terms(job)
    job = job.with_embedding(Embedding())  # the source's own vectors are searched
    with (
        tempfile.TemporaryDirectory(prefix="cfray-baseline-") as scratch,
        SourceSession(job.source) as session,
    ):
        survey = take_survey(job, scratch, session)
        shape = work_out_shape(job, survey.description, survey.sample.batches)
        answers, no_searches = SourceAnswers([], ""), ""
        word_searches, no_words = ask_words(job, shape, survey.sample)
        if job.source.can_search:
            answers = ask_source(job, shape, survey.sample)
        else:
            no_searches = f"source kind {job.source.kind} has no vector search of its own"
    collections = [SourceCollection.of(item) for item in survey.description.collections]
    return Baseline(
        taken=utc_now(),
        source=job.source.address,
        k=job.parity.k,
        collections=collections,
        searches=answers.searches,
        no_searches=no_searches,
        no_filters=answers.no_filters,
        word_searches=word_searches,
        no_words=no_words,
        terms=terms,
    )


def ask_now(run: Run) -> Baseline:
    """Ask the source of a target now, where no baseline was recorded.

    Raises:
        ConfigError: the questions are wrong.
        SourceError: the source has no search, is gone, or did not answer.
    """
    job = run.job
    with run.source_session as session:
        sample = read_sample(job, run.plan.shards, context_of(run, session))
        answers = ask_source(job, run.plan.shape, sample)
        word_searches, no_words = ask_words(job, run.plan.shape, sample)
    return Baseline(
        taken=utc_now(),
        source=job.source.address,
        k=job.parity.k,
        collections=[],
        searches=answers.searches,
        no_filters=answers.no_filters,
        word_searches=word_searches,
        no_words=no_words,
    )
