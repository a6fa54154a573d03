"""A network with one hidden layer that corrects an affine map, trained for retrieval.

It starts as the affine map itself (its last layer is zero) and after every
round is asked to find neighbours among pairs held out; the best round wins,
the untrained one included.  Without that such a network can collapse: 0.04 of
the new model's retrieval was left on one pair of models (embeddings.md, part 4).
The only module of maps that loads torch.

One thread trains: two on two busy cores took five times the processor time of
one (11,843 rows of 384 numbers: 53 s against 9 s), and sums that threads share
out differ with their number, so one also gives the same map on any machine
with the same processor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cfray.remap.maps import Map
from cfray.remap.pairs import Pairs

if TYPE_CHECKING:
    import torch

#: Share of the rows held out to choose the round.
HELD = 0.1


@dataclass(frozen=True, slots=True)
class Training:
    """How to train (embeddings.md, part 4, and the scripts behind it).

    Attributes:
        seed: of first weights, order and dropout.
        hidden: numbers of the hidden layer.
        epochs: rounds over all rows.
        dropout: share of hidden numbers left out in a step.
        rate: highest learning rate of the one cycle.
        decay: weight decay.
        batch: rows of a step, each the others' wrong answer.
        temperature: what dot products are divided by before the cross entropy.
        queries: weight of the loss that each query finds its document among the mapped ones; 0:
            only documents are learnt from.
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
class _Rows:
    """Tensors of documents: network input, affine result, new vector, query (zero: none)."""

    inputs: torch.Tensor
    based: torch.Tensor
    new: torch.Tensor
    queries: torch.Tensor | None

    def at(self, rows: Any) -> _Rows:
        return _Rows(
            self.inputs[rows],
            self.based[rows],
            self.new[rows],
            None if self.queries is None else self.queries[rows],
        )


def trained(pairs: Pairs, base: Map, training: Training) -> Map:
    """Train a correction of an affine map.

    Args:
        pairs: to fit on, at length 1; queries among them choose the round even if they are not
            learnt from.
        base: an affine map.
        training: how.

    Returns:
        A map of kind ``mlp``; where no round was better, one that equals ``base``.
    """
    import torch

    old, new, queries = pairs.old, pairs.new, pairs.queries
    mean = old.mean(axis=0, dtype=np.float64).astype(np.float32)
    scale = np.float32(
        np.sqrt(old.shape[1])
    )  # numbers of a unit vector are about 1 / sqrt(s); layers expect about 1
    based = old @ base.arrays["matrix"] + base.arrays["offset"]
    arrays = [(old - mean) * scale, based, new] + ([] if queries is None else [queries])
    tensors = [torch.from_numpy(np.ascontiguousarray(array, np.float32)) for array in arrays]
    rows = _Rows(tensors[0], tensors[1], tensors[2], None if queries is None else tensors[3])
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(training.seed)
        order = torch.randperm(len(old))
        held = max(1, round(HELD * len(old)))
        network = _network(old.shape[1], new.shape[1], training)
        weights = _best(network, rows.at(order[held:]), rows.at(order[:held]), training)
    first, first_offset, last, last_offset = (
        weights[name].numpy() for name in ("0.weight", "0.bias", "3.weight", "3.bias")
    )
    hidden = np.ascontiguousarray(first.T) * scale
    own = {
        "hidden": hidden,
        "hidden_offset": first_offset - mean @ hidden,
        "outer": np.ascontiguousarray(last.T),
        "outer_offset": last_offset.copy(),
    }
    return Map("mlp", base.arrays | own)


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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


def _best(
    network: torch.nn.Sequential, rows: _Rows, held: _Rows, training: Training
) -> dict[str, torch.Tensor]:
    """Train, and give the weights of the round that finds most among the rows held out.

    The earliest of equal ones.
    """
    best, found = _copy(network), _found(network, held)
    for _ in _rounds(network, rows, training):
        now = _found(network, held)
        if now > found:
            best, found = _copy(network), now
    return best


def _copy(network: torch.nn.Sequential) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _rounds(network: torch.nn.Sequential, rows: _Rows, training: Training) -> Iterator[None]:
    import torch

    count = len(rows.new)
    steps = training.epochs * -(-count // training.batch)
    optimiser = torch.optim.AdamW(network.parameters(), training.rate, weight_decay=training.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, training.rate, total_steps=steps + 1)
    for _ in range(training.epochs):
        network.train()
        order = torch.randperm(count)
        for start in range(0, count, training.batch):
            optimiser.zero_grad()
            _loss(network, rows.at(order[start : start + training.batch]), training).backward()
            optimiser.step()
            schedule.step()
        yield


def _mapped(network: torch.nn.Sequential, rows: _Rows) -> torch.Tensor:
    import torch

    return torch.nn.functional.normalize(rows.based + network(rows.inputs), dim=1)


def _loss(network: torch.nn.Sequential, rows: _Rows, training: Training) -> torch.Tensor:
    """Symmetric InfoNCE (van den Oord et al., arXiv 1807.03748) and cosine.

    With queries, that each finds its document among the mapped ones.
    """
    import torch
    from torch.nn.functional import cross_entropy

    mapped = _mapped(network, rows)
    scores = mapped @ rows.new.T / training.temperature
    right = torch.arange(len(scores))
    loss = (cross_entropy(scores, right) + cross_entropy(scores.T, right)) / 2 + (
        1 - (mapped * rows.new).sum(dim=1)
    ).mean()
    if rows.queries is not None and training.queries:
        asking = rows.queries.any(dim=1)
        if asking.any():
            loss = loss + training.queries * cross_entropy(
                rows.queries[asking] @ mapped.T / training.temperature, right[asking]
            )
    return loss


def _found(network: torch.nn.Sequential, held: _Rows) -> float:
    """Give the mean of 1 / rank of the new model's nearest document among the mapped ones.

    The gate's question, less coarse than its top 10.

    Equal scores rank last: a collapsed map makes all of them equal.
    """
    import torch

    network.eval()
    with torch.no_grad():
        mapped = _mapped(network, held)
        own = torch.arange(len(mapped))
        if held.queries is None:
            asked, truth, scores = own, held.new @ held.new.T, held.new @ mapped.T
            truth[own, own] = scores[
                own, own
            ] = -2.0  # below every cosine: a document is not its own neighbour
        else:
            asked = own[held.queries.any(dim=1)]
            truth, scores = held.queries[asked] @ held.new.T, held.queries[asked] @ mapped.T
        nearest = scores.gather(1, truth.argmax(dim=1, keepdim=True))
        ranks = (scores >= nearest).sum(dim=1)
        return float((1 / ranks).mean()) if len(asked) else 0.0
