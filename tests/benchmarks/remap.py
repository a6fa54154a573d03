"""What the gate promises beside what a full regenerate shows.

Three pairs of real models on Debian's package descriptions.

A map is learnt from a sample and judged by the gate for the size of the rest.
Then the whole rest is mapped and, for the truth, embedded with the new model
as well.  The truth is counted here, not by the gate's code, with synopses of
documents of the rest, none of which the map or the gate saw; with ``--queries
none`` the gate asks with documents, and so does the truth it is held against.

    python -m tests.benchmarks.remap [--documents 45000] [--pairs 20000] [--queries titles|none]
    [--only L3-L6] [--out figures.json]

Vectors are kept in the test cache: the first run embeds, later ones do not.
Rates are of this machine as it was then; a busy one says little.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cfray.remap.learn import Pairs, learn_best_map
from tests.testbeds import models
from tests.testbeds.server import cache_folder

Floats = npt.NDArray[np.float32]

PAIRS = (("L6", "L3"), ("L3", "L6"), ("wordllama", "L6"))
TOKENS = 128  # beyond them a description is cut, for every MiniLM
ASKED = 3000  # synopses of the rest: a standard error of at most 0.009
# 8 and 32 texts a batch were equally fast on a CPU, 128 half as fast (all-MiniLM-L6-v2 in bf16)
BATCH = 32
CHUNK = 500  # queries scored at a time


@dataclass(frozen=True, slots=True)
class Encoded:
    """Vectors of every document and of every synopsis, and how many documents a second it took."""

    documents: Floats = field(repr=False)
    titles: Floats = field(repr=False)
    rate: float


def encoded(name: str, documents: Sequence[tuple[str, str, str]]) -> Encoded:
    """Embed with a model, or take what was embedded before."""
    folder = cache_folder("remap-vectors")
    path = folder / f"{name}-{len(documents)}.npz"
    if not path.exists():
        encode = (
            models.wordllama_vectors
            if name == "wordllama"
            else minilm(models.minilm_l6() if name == "L6" else models.minilm_l3())
        )
        begin = time.perf_counter()
        vectors = encode([text for _, _, text in documents])
        seconds = time.perf_counter() - begin
        part = folder / f"{name}-{len(documents)}.part.npz"
        np.savez(
            part,
            documents=vectors,
            titles=encode([synopsis for _, synopsis, _ in documents]),
            rate=len(documents) / seconds,
        )
        part.replace(path)
    kept = np.load(path)
    return Encoded(kept["documents"], kept["titles"], float(kept["rate"]))


def minilm(folder: Path) -> Any:
    """Give a function that embeds texts with sentence-transformers in bf16.

    Batches sorted by length, at length 1 in float32.
    """
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True).bfloat16()
    model.max_seq_length = TOKENS

    def encode(texts: Sequence[str]) -> Floats:
        vectors = (
            model.encode(
                list(texts), batch_size=BATCH, convert_to_tensor=True, show_progress_bar=False
            )
            .float()
            .numpy()
        )
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return encode


def shares(
    asked: Floats, new: Floats, mapped: Floats, *, aside: bool = False
) -> tuple[float, float, float]:
    """Count in the whole rest: new model's nearest in the mapped top 10.

    Own document in the new model's and in the mapped top 10.

    Args:
        asked: query i is of document i; with ``aside`` it is that document, which then is no
            answer.
        new, mapped: the documents.
        aside: see ``asked``.
    """
    found = []
    for start in range(0, len(asked), CHUNK):
        queries = asked[start : start + CHUNK]
        lines = np.arange(len(queries))
        tops = []
        for documents in (new, mapped):
            scores = queries @ documents.T
            if aside:
                scores[lines, start + lines] = -2  # below every cosine
            tops.append(np.argsort(-scores, axis=1, kind="stable")[:, :10])
        own = (start + lines)[:, None]
        found.append(
            [
                (tops[1] == tops[0][:, :1]).any(axis=1),
                (tops[0] == own).any(axis=1),
                (tops[1] == own).any(axis=1),
            ]
        )
    top1, new_hits, mapped_hits = np.concatenate(found, axis=1).mean(axis=1)
    return float(top1), float(new_hits), float(mapped_hits)


def measure(old: Encoded, new: Encoded, count: int, queries: str) -> dict[str, Any]:
    """Learn from the first ``count`` documents, apply to the rest.

    Hold the verdict against the truth of the same question.
    """
    asked = (new.titles[:count], old.titles[:count], True) if queries == "titles" else ()
    rest = len(old.documents) - count
    begin = time.perf_counter()
    fitted, verdict = learn_best_map(
        Pairs(old.documents[:count], new.documents[:count], *asked), rest
    )
    fitting = time.perf_counter() - begin
    begin = time.perf_counter()
    mapped = fitted.apply(old.documents[count:])
    applying = rest / (time.perf_counter() - begin)
    some = slice(count, count + min(ASKED, rest))
    by_titles, new_hits, mapped_hits = shares(new.titles[some], new.documents[count:], mapped)
    by_documents = shares(new.documents[some], new.documents[count:], mapped, aside=True)[0]
    true = min(1.0, mapped_hits / new_hits) if queries == "titles" else by_documents
    return {
        "verdict": verdict.as_json(),
        "true": true,
        "inside": verdict.lower - 1e-9
        <= true
        <= verdict.upper + 1e-9,  # a share of exactly 1 is read off a line
        "true_nearest_by_titles": by_titles,
        "nearest_inside": queries != "titles"
        or verdict.nearest[1] <= by_titles <= verdict.nearest[2],
        "true_by_documents": by_documents,
        "true_hit@10": {
            "new": new_hits,
            "remapped": mapped_hits,
            "old": shares(old.titles[some], old.documents[count:], old.documents[count:])[1],
        },
        "fit_seconds": fitting,
        "apply_per_second": applying,
        "encode_per_second": new.rate,
        "map_bytes": len(fitted.to_bytes()),
    }


def row(name: str, figures: dict[str, Any]) -> str:
    """Write one line of the table."""
    verdict = figures["verdict"]
    promised = f"{verdict['quality']:.3f} [{verdict['lower']:.3f}, {verdict['upper']:.3f}]"
    ratio = figures["apply_per_second"] / figures["encode_per_second"]
    near = verdict["nearest"]
    return (
        f"{name:16} {verdict['candidate']:18} {promised:23} {figures['true']:.3f}  {'yes' if figures['inside'] else 'NO':7} {figures['fit_seconds']:6.1f} "
        f"{figures['apply_per_second']:10,.0f} {figures['encode_per_second']:8,.0f} {ratio:7,.0f}\n{'':16} nearest in 10: {near[0]:.3f} [{near[1]:.3f}, {near[2]:.3f}], "
        f"true {figures['true_nearest_by_titles']:.3f}, {'inside' if figures['nearest_inside'] else 'OUTSIDE'}; hit@10 of the rest: "
        + ", ".join(f"{who} {share:.3f}" for who, share in figures["true_hit@10"].items())
    )


def main() -> None:
    """Run the pairs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--documents", type=int, default=45_000)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--queries", choices=("titles", "none"), default="titles")
    parser.add_argument("--only", help="one pair, such as L3-L6")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    documents = models.debian_documents(asked.documents)
    if len(documents) <= asked.pairs:
        raise SystemExit(
            f"{len(documents):,} documents leave no rest beside {asked.pairs:,} pairs; give more documents or fewer pairs"
        )
    print(
        f"{len(documents):,} documents, {asked.pairs:,} pairs; quality at the {len(documents) - asked.pairs:,} of the rest; asked with {asked.queries}"
    )
    print(
        f"{'pair':16} {'candidate':18} {'gate [lower, upper]':23} {'true':6} inside? {'fit s':>6} {'apply/s':>10} {'encode/s':>8} {'ratio':>7}"
    )
    found = {}
    for old, new in PAIRS:
        name = f"{old}-{new}"
        if asked.only in (None, name):
            found[name] = measure(
                encoded(old, documents), encoded(new, documents), asked.pairs, asked.queries
            )
            print(row(name, found[name]), flush=True)
    if asked.out:
        asked.out.write_text(
            json.dumps(
                {
                    "documents": len(documents),
                    "pairs": asked.pairs,
                    "queries": asked.queries,
                    "found": found,
                },
                indent=2,
            )
        )


if __name__ == "__main__":
    main()
