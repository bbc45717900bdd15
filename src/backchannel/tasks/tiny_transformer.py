"""A tiny language model on made-up reviews whose true reward is known: preference learning from scratch in seconds.

A review is `LENGTH` tokens out of 12: a negation, three good words, three bad words and five neutral ones. Its reward
is the number of good words less the number of bad ones, where a negation turns round the word after it, times `SCALE`:
a model must look at the word before. Reviews follow a random Markov chain; the reference is a transformer (2 layers,
width 32, 2 heads) trained on them from scratch. Pairs are drawn from the reference, labelled by Bradley and Terry's
model on the true reward, and flipped.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from backchannel.parts.objectives import Objective, Pairs
from backchannel.parts.torch_fit import fit

VOCABULARY, LENGTH, SCALE = 12, 10, 0.5
NEGATION = 0
POLARITY = torch.tensor([0.0, 1, 1, 1, -1, -1, -1, 0, 0, 0, 0, 0])  # of each token


class Labelled(NamedTuple):
    """Pairs of reviews, as labelled: int64[n, LENGTH] each."""

    chosen: Tensor
    rejected: Tensor


class Block(nn.Module):
    """Causal attention, then a two-layer perceptron, each added to its input after normalisation."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.think = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """[n, length, width] -> [n, length, width]."""
        n, length, width = x.shape
        query, key, value = (
            part.view(n, length, self.heads, -1).transpose(1, 2) for part in self.attend(self.before(x)).split(width, 2)
        )
        seen = scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).reshape(n, length, width)
        x = x + self.join(seen)
        out: Tensor = x + self.think(self.after(x))
        return out


class TinyTransformer(nn.Module):
    """Next-token logits after a start symbol and each token but the last."""

    def __init__(self, width: int = 32, heads: int = 2, layers: int = 2):
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY + 1, width), nn.Embedding(LENGTH, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, VOCABULARY))

    def forward(self, reviews: Tensor) -> Tensor:
        """int64[n, t] -> logits [n, t + 1, VOCABULARY], up to LENGTH places."""
        start = torch.full((len(reviews), 1), VOCABULARY)
        seen = torch.cat([start, reviews], 1)[:, :LENGTH]
        logits: Tensor = self.head(self.blocks(self.tokens(seen) + self.places.weight[: seen.shape[1]]))
        return logits

    def log_probability(self, reviews: Tensor) -> Tensor:
        """log pi of whole reviews: [n]."""
        return torch.log_softmax(self(reviews), -1).gather(2, reviews[:, :, None])[:, :, 0].sum(1)

    @torch.no_grad()
    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """`n` reviews drawn from the model: int64[n, LENGTH]."""
        reviews = torch.empty(n, 0, dtype=torch.int64)
        for _ in range(LENGTH):
            following = torch.softmax(self(reviews)[:, -1], -1).multinomial(1, generator=rng)
            reviews = torch.cat([reviews, following], 1)
        return reviews


def true_reward(reviews: Tensor) -> Tensor:
    """The reward of each review: [n]."""
    signs = 1 - 2 * (reviews[:, :-1] == NEGATION).float()
    polarity = POLARITY[reviews]
    return SCALE * (polarity[:, 0] + (signs * polarity[:, 1:]).sum(1))


def reference_model(seed: int, steps: int = 300) -> TinyTransformer:
    """A model trained on reviews from a random Markov chain by next-token prediction."""
    rng = torch.Generator().manual_seed(seed)
    chain = torch.softmax(torch.randn(VOCABULARY, VOCABULARY, generator=rng), 1)
    reviews = torch.randint(VOCABULARY, (4000, 1), generator=rng)
    for _ in range(LENGTH - 1):
        reviews = torch.cat([reviews, chain[reviews[:, -1]].multinomial(1, generator=rng)], 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TinyTransformer()

    def loss(step: int) -> Tensor:
        batch = reviews[torch.randint(len(reviews), (64,), generator=rng)]
        return cross_entropy(model(batch).flatten(0, 1), batch.flatten())

    fit(model.parameters(), loss, steps, torch.optim.Adam, 3e-3)
    return model


def draw_pairs(reference: TinyTransformer, n: int, flip_rate: float, seed: int) -> Labelled:
    """`n` pairs of the reference's reviews, labelled and flipped."""
    rng = torch.Generator().manual_seed(seed)
    one, other = reference.sample(n, rng), reference.sample(n, rng)
    clean = torch.rand(n, generator=rng) < torch.sigmoid(true_reward(one) - true_reward(other))
    first = (clean != (torch.rand(n, generator=rng) < flip_rate))[:, None]
    return Labelled(torch.where(first, one, other), torch.where(first, other, one))


def train(
    reference: TinyTransformer,
    pairs: Labelled,
    objective: Objective[Pairs],
    steps: int,
    learning_rate: float,
    seed: int,
    batch: int = 128,
) -> TinyTransformer:
    """The reference, tuned on batches of `pairs` with Adam."""
    model, rng = copy.deepcopy(reference), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        known = [reference.log_probability(reviews) for reviews in pairs]

    def loss(step: int) -> Tensor:
        i = torch.randint(len(pairs.chosen), (batch,), generator=rng)
        now = model.log_probability(torch.cat([pairs.chosen[i], pairs.rejected[i]])).split(batch)
        return objective(Pairs(now[0], now[1], known[0][i], known[1][i]))[0].mean()

    fit(model.parameters(), loss, steps, torch.optim.Adam, learning_rate)
    return model


@torch.no_grad()
def reward_and_divergence(model: TinyTransformer, reference: TinyTransformer, n: int, seed: int) -> tuple[float, float]:
    """The mean reward of `n` fresh reviews, and their mean log-ratio to the reference: the divergence."""
    reviews = model.sample(n, torch.Generator().manual_seed(seed))
    divergence = (model.log_probability(reviews) - reference.log_probability(reviews)).mean()
    return float(true_reward(reviews).mean()), float(divergence)
