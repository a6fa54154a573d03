"""A tokenizer that is loaded without its model cuts texts exactly where the model's does."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfray.embedders import models, tokenizer
from cfray.errors import ConfigError
from tests.embedders.conftest import MODEL
from tests.testbeds.models import _package, minilm_l3, minilm_l6
from tests.testbeds.server import Unavailable

AWKWARD = {
    "blank": " \n\t\u3000",
    "emoji": "👩‍👩‍👧‍👦 and 🙂🏳️‍🌈, " * 60,
    "combining marks": "Z\u0351\u036b\u0343a\u0315l\u0321g\u0362o\u0300 e\u0301 " * 60,
    "one long grapheme": "a" + "\u0301" * 400,
    "CJK": "漢字かな交じり文、한국어 텍스트와 중국어文本。" * 60,
    "right to left": "שלום עולם مرحبا بالعالم " * 60,
    "control characters": "a\x00b\x07c\x1b[0m \u200b\u2060\ufeff d\r\n" * 60,
    "ligatures that are 18 letters": "\ufdfa ﬁ Ⅷ ㎏ " * 60,
    "special tokens": "[CLS] the [SEP] river [MASK] </s> <pad> " * 60,
    "words": "  " + " ".join(f"stone{number}, river;" for number in range(400)) + " end\n",
    "capitals": "STONES Unbelievableness LIBRARY ÄÖÜ İstanbul ẞ " * 60,
}


def static_model(folder, source):
    """Save a static model of sentence-transformers, whose tokenizer is a bare one."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    bare = Tokenizer.from_file(str(source))
    bare.no_truncation()
    module = StaticEmbedding(bare, embedding_dim=4)
    SentenceTransformer(modules=[module], device="cpu").save(str(folder))
    return folder


def variant(folder, *, without=(), **changes):
    """Copy all-MiniLM-L6-v2, its weights by a link, with some of its files changed or left out."""
    shutil.copytree(minilm_l6(), folder, ignore=shutil.ignore_patterns("*.safetensors", *without))
    (folder / "model.safetensors").symlink_to(minilm_l6() / "model.safetensors")
    for name, change in changes.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return folder


def cased(folder, **changes):
    """Give all-MiniLM-L6-v2 a tokenizer that leaves the case of letters alone."""
    normalizer = json.loads((minilm_l6() / "tokenizer.json").read_text())["normalizer"]
    return variant(
        folder,
        tokenizer={"normalizer": normalizer | {"lowercase": False, "strip_accents": True}},
        tokenizer_config={"do_lower_case": False, "strip_accents": True},
        **changes,
    )


def static_wordpieces(folder):
    return static_model(folder, minilm_l6() / "tokenizer.json")


def static_llama(folder):
    tokenizers = _package("wordllama", "wordllama") / "tokenizers"
    return static_model(folder, tokenizers / "l2_supercat_tokenizer_config.json")


FOLDERS = {
    "MiniLM L6": lambda folder: minilm_l6(),
    "MiniLM L3": lambda folder: minilm_l3(),
    "static, pieces of words": static_wordpieces,
    "static, bytes": static_llama,
    "vocab.txt alone": lambda folder: variant(folder, without=["tokenizer.json"]),
    "cased": cased,
    "lower-cased by the library": lambda folder: cased(
        folder, sentence_bert_config={"do_lower_case": True}
    ),
}


@pytest.fixture(scope="module", params=FOLDERS)
def both(request, tmp_path_factory):
    """Give the tokenizer that is loaded alone, and the loaded model's."""
    from sentence_transformers import SentenceTransformer

    try:
        folder = FOLDERS[request.param](tmp_path_factory.mktemp("models") / "model")
    except Unavailable as error:
        pytest.skip(str(error))
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return tokenizer.load_tokenizer(folder), model.tokenizer


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_texts_are_cut_alike(both, name):
    alone, of_model = both
    text = AWKWARD[name]
    ranges = tokenizer.token_ranges(alone, text)
    assert ranges == tokenizer.token_ranges(of_model, text)
    for size, overlap in ((8, 0), (64, 16)):
        parts = tokenizer.split_text(alone, text, size, overlap)
        assert parts == tokenizer.split_text(of_model, text, size, overlap)
        long_parts = tokenizer.split_long_text(alone, text, size, overlap)
        assert long_parts == (parts if len(ranges) > size else [])
        assert overlap or "".join(parts) == text
        assert all(
            len(tokenizer.token_ranges(alone, part)) <= size or len(part) == 1 for part in parts
        )


@pytest.mark.parametrize(
    ("text", "parts"), [("stone in the river. " * 50_000, 3907), ("x" * 1_000_000, 0)]
)
def test_a_million_characters(text, parts):
    """A word of a million letters is a single unknown token."""
    alone = tokenizer.load_tokenizer(minilm_l6())
    text_parts = tokenizer.split_long_text(alone, text, 64, 0)
    assert len(text_parts) == parts
    assert "".join(text_parts) == (text if parts else "")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_cut_alike(both, text):
    alone, of_model = both
    assert tokenizer.token_ranges(alone, text) == tokenizer.token_ranges(of_model, text)
    assert "".join(tokenizer.split_text(alone, text, 8, 0)) == text


@pytest.mark.parametrize("name", [name for name in AWKWARD if name != "special tokens"])
def test_the_windows_of_a_text_have_its_tokens(monkeypatch, name):
    text = AWKWARD[name]
    alone = tokenizer.load_tokenizer(minilm_l6())
    ids = alone.encode(text, add_special_tokens=False).ids
    whole = tokenizer.split_text(alone, text, 20, 0)
    monkeypatch.setattr(tokenizer, "_WINDOW", 100)
    windows = tokenizer.windows(text)
    assert "".join(windows) == text == "".join(tokenizer.split_text(alone, text, 20, 0))
    assert all(len(window) <= 100 for window in windows)
    if all(window[-1:].isspace() for window in windows[:-1]):
        by_window = [alone.encode(window, add_special_tokens=False).ids for window in windows]
        assert [number for numbers in by_window for number in numbers] == ids
    assert bool(tokenizer.split_long_text(alone, text, 20, 0)) == (len(ids) > 20)
    assert all(
        len(alone.encode(part, add_special_tokens=False)) <= 20 or len(part) < 2
        for part in [*whole, *tokenizer.split_text(alone, text, 20, 0)]
    )


def test_a_lone_surrogate_is_refused_by_both(both):
    for either in both:
        with pytest.raises(TypeError):
            tokenizer.token_ranges(either, "a \ud800 b")


def test_the_case_that_the_library_lowers_makes_other_tokens(tmp_path):
    text = "UNBELIEVABLENESS"
    as_given, lowered = (
        tokenizer.load_tokenizer(cased(tmp_path / name, sentence_bert_config=config))
        for name, config in (("a", {}), ("b", {"do_lower_case": True}))
    )
    assert len(tokenizer.token_ranges(as_given, text)) == 1, "an unknown word"
    assert len(tokenizer.token_ranges(lowered, text)) > 1


def test_a_tokenizer_that_truncates_is_loaded_without_its_limit():
    alone = tokenizer.load_tokenizer(models.find_folder(MODEL))
    stored = json.loads((minilm_l6() / "tokenizer.json").read_text())
    assert stored["truncation"]["max_length"] == 128, "the file says nothing of what is tested"
    assert len(alone.encode("word " * 1000, add_special_tokens=False)) == 1000
    assert alone.padding is None


@pytest.mark.parametrize("limit", [None, 8])
def test_a_static_model_embeds_and_counts_what_it_does_not_see(tmp_path, limit):
    from cfray.embedders.sentence_transformers import SentenceTransformersEmbedder
    from cfray.embedders.spec import Embedding

    folder = static_wordpieces(tmp_path / "static")
    if limit is not None:
        path = next(folder.rglob("tokenizer.json"))
        truncation = {
            "direction": "Right",
            "max_length": limit,
            "strategy": "LongestFirst",
            "stride": 0,
        }
        path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation": truncation}))
    spec = Embedding(policy="regenerate", model=str(folder))
    embedder = SentenceTransformersEmbedder(spec, "fp32")
    texts = ["a river", "stone " * 20]
    assert embedder.count_tokens(texts) == [2, 20]
    assert embedder.identity.max_tokens == (limit or 2**31 - 1)
    assert embedder.encode(texts, [2, 20]).shape == (2, embedder.identity.dimension)


def test_the_hash_is_of_all_files_but_the_weights(tmp_path):
    folders = [tmp_path / name for name in "abcd"]
    for folder in folders:
        (folder / "onnx").mkdir(parents=True)
        (folder / "tokenizer.json").write_text("{}")
        (folder / "model.safetensors").write_text("weights")
    _, other_weights, other_tokenizer, further_file = folders
    (other_weights / "model.safetensors").unlink()
    (other_weights / "onnx" / "model.onnx").write_text("weights")
    (other_weights / "README.md").write_text("no text is cut by it")
    (other_tokenizer / "tokenizer.json").write_text("{} ")
    (further_file / "spiece.model").write_text("")
    hashes = [tokenizer.hash_tokenizer(folder) for folder in folders]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


@pytest.mark.parametrize("content", ["no JSON", "{}", None])
def test_a_tokenizer_that_cannot_be_loaded_is_an_error_that_names_its_folder(tmp_path, content):
    shutil.copy(minilm_l6() / "modules.json", tmp_path)
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigError, match=r"embedding\.model: the tokenizer in .* cannot") as error:
        tokenizer.load_tokenizer(tmp_path)
    assert str(Path(tmp_path)) in error.value.what
