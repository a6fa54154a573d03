"""A network with a hidden layer that corrects an affine map, trained for retrieval.

The network starts as the affine map itself, for its last layer is zero.  After every round
it is asked to find neighbours among held-out pairs, and the best round is used, the
untrained one included.  Without that such a network can collapse: on one pair of models
(all-MiniLM-L6-v2 to multilingual-e5-small, 1,000 pairs) 0.04 of the new model's hits
remained.  This is the only module of maps that loads torch.

It trains with a single thread: two threads on two busy cores took five times the processor
time of one (11,843 rows of 384 numbers: 53 s against 9 s).  Sums that threads share out
also differ with the number of threads, so a single thread gives the same map on every
machine with the same processor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cfray.records.vectors import Floats
from cfray.remap.maps import Map
from cfray.remap.pairs import Pairs

if TYPE_CHECKING:
    import torch

#: Share of the rows that is held out to choose the round.
HELD_OUT_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Training:
    """How to train a network.

    The defaults are those of the measurements that this package's comments quote (five pairs of
    models, 1,000 to 20,000 of Debian's package descriptions); other settings were hardly tried.

    Attributes:
        seed: of first weights, order and dropout.
        hidden: numbers of the hidden layer.
        epochs: rounds over all rows.
        dropout: share of hidden numbers that a step leaves out.
        rate: highest learning rate of the single cycle.
        decay: weight decay.
        batch: rows of a step, each a wrong answer for the others.
        temperature: divides dot products before the cross entropy.
        queries: weight of the loss that each query finds its document among mapped documents; 0:
            queries are not learned from.
    """

    seed: int = 0
    hidden: int = 768
    epochs: int = 10
    dropout: float = 0.1
    rate: float = 1e-3
    decay: float = 0.1
    batch: int = 512
    temperature: float = 0.05
    queries: float = 0.0


@dataclass(frozen=True, slots=True)
class _Documents:
    """Tensors of documents.

    Attributes:
        inputs: of the network.
        based: result of the affine map.
        new: the new model's vectors.
        queries: query vectors, zero where a document has none; None where there are no queries.
    """

    inputs: torch.Tensor
    based: torch.Tensor
    new: torch.Tensor
    queries: torch.Tensor | None

    def take(self, rows: torch.Tensor) -> _Documents:
        return _Documents(
            self.inputs[rows],
            self.based[rows],
            self.new[rows],
            None if self.queries is None else self.queries[rows],
        )


def train_network(pairs: Pairs, base: Map, training: Training) -> Map:
    """Train a correction of an affine map.

    Args:
        pairs: to fit on, at length 1; queries among them choose the round even if they are not
            learned from.
        base: an affine map.
        training: how to train.

    Returns:
        A map of kind ``mlp``; where no round was better than ``base``, a map that equals it.
    """
    import torch

    mean = pairs.old.mean(axis=0, dtype=np.float64).astype(np.float32)
    # The numbers of a unit vector are about 1 / sqrt(s); layers expect numbers of about 1.
    scale = np.float32(np.sqrt(pairs.old.shape[1]))
    documents = _documents(pairs, base, mean, scale)
    with torch.random.fork_rng(devices=[]), _single_thread():
        torch.manual_seed(training.seed)
        order = torch.randperm(len(pairs))
        held_count = max(1, round(HELD_OUT_SHARE * len(pairs)))
        network = _network(pairs.old.shape[1], pairs.new.shape[1], training)
        weights = _best_weights(
            network,
            documents.take(order[held_count:]),
            documents.take(order[:held_count]),
            training,
        )
    return Map("mlp", base.arrays | _map_arrays(weights, mean, scale))


def _map_arrays(
    weights: dict[str, torch.Tensor], mean: Floats, scale: np.float32
) -> dict[str, Floats]:
    """Fold mean and scale into the first layer: a map is applied to vectors as they are."""
    first, first_offset, last, last_offset = (
        weights[name].numpy() for name in ("0.weight", "0.bias", "3.weight", "3.bias")
    )
    hidden = np.ascontiguousarray(first.T) * scale
    return {
        "hidden": hidden,
        "hidden_offset": first_offset - mean @ hidden,
        "outer": np.ascontiguousarray(last.T),
        "outer_offset": last_offset.copy(),
    }


def _documents(pairs: Pairs, base: Map, mean: Floats, scale: np.float32) -> _Documents:
    import torch

    based = pairs.old @ base.arrays["matrix"] + base.arrays["offset"]
    inputs, based_tensor, new = (
        torch.from_numpy(np.ascontiguousarray(array, np.float32))
        for array in ((pairs.old - mean) * scale, based, pairs.new)
    )
    queries = None
    if pairs.queries is not None:
        queries = torch.from_numpy(np.ascontiguousarray(pairs.queries, np.float32))
    return _Documents(inputs, based_tensor, new, queries)


@contextmanager
def _single_thread() -> Iterator[None]:
    import torch

    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)


def _network(source: int, target: int, training: Training) -> torch.nn.Sequential:
    from torch import nn

    last = nn.Linear(training.hidden, target)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(source, training.hidden),
        nn.GELU(approximate="tanh"),
        nn.Dropout(training.dropout),
        last,
    )


def _best_weights(
    network: torch.nn.Sequential, documents: _Documents, held: _Documents, training: Training
) -> dict[str, torch.Tensor]:
    """Train, and give the weights of the round with the best score among the held-out documents.

    Of equally good rounds the earliest is used.
    """
    best_weights, best_score = _copy_weights(network), _score(network, held)
    for _ in _rounds(network, documents, training):
        score = _score(network, held)
        if score > best_score:
            best_weights, best_score = _copy_weights(network), score
    return best_weights


def _copy_weights(network: torch.nn.Sequential) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _rounds(
    network: torch.nn.Sequential, documents: _Documents, training: Training
) -> Iterator[None]:
    """Train round by round; the caller looks at the network after each."""
    import torch

    count = len(documents.new)
    steps = training.epochs * -(-count // training.batch)
    optimiser = torch.optim.AdamW(network.parameters(), training.rate, weight_decay=training.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, training.rate, total_steps=steps + 1)
    for _ in range(training.epochs):
        network.train()
        order = torch.randperm(count)
        for start in range(0, count, training.batch):
            optimiser.zero_grad()
            batch = documents.take(order[start : start + training.batch])
            _loss(network, batch, training).backward()
            optimiser.step()
            schedule.step()
        yield


def _map_documents(network: torch.nn.Sequential, documents: _Documents) -> torch.Tensor:
    import torch

    return torch.nn.functional.normalize(documents.based + network(documents.inputs), dim=1)


def _loss(network: torch.nn.Sequential, documents: _Documents, training: Training) -> torch.Tensor:
    """Compute symmetric InfoNCE (van den Oord et al., arXiv 1807.03748) plus cosine distance.

    Where queries are learned from, add the cross entropy of each query finding its document among
    the mapped ones.
    """
    import torch
    from torch.nn.functional import cross_entropy

    mapped = _map_documents(network, documents)
    scores = mapped @ documents.new.T / training.temperature
    right_answers = torch.arange(len(scores))
    contrast = cross_entropy(scores, right_answers) + cross_entropy(scores.T, right_answers)
    distance = (1 - (mapped * documents.new).sum(dim=1)).mean()
    loss = contrast / 2 + distance
    if documents.queries is not None and training.queries:
        has_query = documents.queries.any(dim=1)
        if has_query.any():
            query_scores = documents.queries[has_query] @ mapped.T / training.temperature
            query_loss = cross_entropy(query_scores, right_answers[has_query])
            loss = loss + training.queries * query_loss
    return loss


def _score(network: torch.nn.Sequential, held: _Documents) -> float:
    """Give the mean of 1 / rank of the new model's nearest document among mapped documents.

    This is the gate's question, less coarse than its ten nearest.  Equal scores rank last: a
    collapsed map makes all of them equal.
    """
    import torch

    network.eval()
    with torch.no_grad():
        mapped = _map_documents(network, held)
        numbers = torch.arange(len(mapped))
        if held.queries is None:
            count = len(numbers)
            truth, scores = held.new @ held.new.T, held.new @ mapped.T
            # Below every cosine: a document is not its own neighbour.
            truth[numbers, numbers] = scores[numbers, numbers] = -2.0
        else:
            queries = held.queries[held.queries.any(dim=1)]
            count = len(queries)
            truth, scores = queries @ held.new.T, queries @ mapped.T
        nearest = scores.gather(1, truth.argmax(dim=1, keepdim=True))
        ranks = (scores >= nearest).sum(dim=1)
        return float((1 / ranks).mean()) if count else 0.0
