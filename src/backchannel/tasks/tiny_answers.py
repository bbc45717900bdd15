"""A tiny language model that answers prompts, and a gold reward that is known: aligning a model in seconds.

A prompt is a mark and `ASKED` different topics out of `TOPICS`. An answer is at most `LENGTH` tokens, an end included:
key words (`WORDS` of them belong to each topic), filler and rude words. The gold reward of an answer is

    covered topics - 0.5 off-topic key words - 0.25 repeated tokens - rude words - 0.05 filler,

at most `ASKED`: there is a best length, and saying more of the same is worse, which a reward that was learned from
few comparisons, or from annotators who like length, need not know. A mark is one of `MARKS` tokens that mean nothing
until something is trained on them (a goal to reach, an instruction to an annotator); `PLAIN` is the first.

`writer` is the crowd that writes demonstrations: on the topic half of the time. The reference is a transformer trained
on them by next-token prediction, from scratch. All draws come from a generator that is handed in.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from backchannel.parts.torch_fit import fit
from backchannel.tasks.tiny_transformer import Block

END, MARKS, TOPICS, WORDS, FILLER, RUDE = 0, 8, 6, 2, 4, 2
PLAIN = 1  # the first mark
TOPIC = PLAIN + MARKS  # the first topic
WORD = TOPIC + TOPICS  # the first key word: WORDS to a topic, in the order of topics
FILL = WORD + TOPICS * WORDS
BAD = FILL + FILLER
VOCABULARY = BAD + RUDE
ASKED, LENGTH = 3, 12


class Answers(NamedTuple):
    """Prompts and their answers."""

    prompts: Tensor  # int64[n, 1 + ASKED]
    tokens: Tensor  # int64[n, LENGTH]: END after the end

    @property
    def length(self) -> Tensor:
        """Tokens of each answer, its end included where it has one: int64[n]."""
        return ((self.tokens != END).sum(1) + 1).clamp_max(LENGTH)

    @property
    def mask(self) -> Tensor:
        """Which tokens are the answer's, its end included: bool[n, LENGTH]."""
        return torch.arange(LENGTH) < self.length[:, None]

    def rows(self, chosen: Tensor | slice) -> Answers:
        """Some of them."""
        return Answers(self.prompts[chosen], self.tokens[chosen])

    def marked(self, mark: int) -> Answers:
        """The same answers to prompts with another mark."""
        return Answers(marked(self.prompts, mark), self.tokens)


class AnswerLM(nn.Module):
    """Next-token logits over a prompt and its answer."""

    def __init__(self, width: int = 48, heads: int = 2, layers: int = 2):
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, width), nn.Embedding(1 + ASKED + LENGTH, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCABULARY)

    def hidden(self, seen: Tensor) -> Tensor:
        """int64[n, t] -> [n, t, width]."""
        out: Tensor = self.norm(self.blocks(self.tokens(seen) + self.places.weight[: seen.shape[1]]))
        return out

    def logits(self, answers: Answers) -> Tensor:
        """Of each token of the answers: [n, LENGTH, VOCABULARY]."""
        seen = torch.cat([answers.prompts, answers.tokens[:, :-1]], 1)
        out: Tensor = self.head(self.hidden(seen)[:, ASKED:])
        return out

    def log_probabilities(self, answers: Answers) -> Tensor:
        """log pi of each token, 0 after the end: [n, LENGTH]."""
        chosen = torch.log_softmax(self.logits(answers), -1).gather(2, answers.tokens[:, :, None])[:, :, 0]
        return torch.where(answers.mask, chosen, torch.zeros_like(chosen))

    def log_probability(self, answers: Answers) -> Tensor:
        """log pi of whole answers: [n]."""
        return self.log_probabilities(answers).sum(1)

    @torch.no_grad()
    def sample(self, prompts: Tensor, rng: torch.Generator, temperature: float = 1.0) -> Answers:
        """One answer to each prompt."""
        return sample([(self, prompts, 1 / temperature)], rng)


@torch.no_grad()
def sample(mixture: list[tuple[AnswerLM, Tensor, float]], rng: torch.Generator) -> Answers:
    """Answers from a geometric mixture, token by token: logits of several models, each with prompts and a weight.

    One model with the weight 1 is that model; a weight above 1 is a temperature below 1.
    """
    prompts = mixture[0][1]
    tokens = torch.empty(len(prompts), 0, dtype=torch.int64)
    going = torch.ones(len(prompts), dtype=torch.bool)
    for _ in range(LENGTH):
        logits = sum(
            weight * model.head(model.hidden(torch.cat([given, tokens], 1))[:, -1]) for model, given, weight in mixture
        )
        drawn = torch.softmax(torch.as_tensor(logits), -1).multinomial(1, generator=rng)[:, 0]
        drawn = torch.where(going, drawn, torch.full_like(drawn, END))
        going = going & (drawn != END)
        tokens = torch.cat([tokens, drawn[:, None]], 1)
    return Answers(prompts, tokens)


def random_prompts(n: int, rng: torch.Generator) -> Tensor:
    """Plain prompts with different topics, in ascending order: int64[n, 1 + ASKED]."""
    topics = torch.rand(n, TOPICS, generator=rng).argsort(1)[:, :ASKED].sort(1)[0] + TOPIC
    return torch.cat([torch.full((n, 1), PLAIN), topics], 1)


def marked(prompts: Tensor, mark: int) -> Tensor:
    """The same prompts with mark number `mark` of MARKS; 0 is plain."""
    if not 0 <= mark < MARKS:
        raise ValueError(f"mark must lie in 0..{MARKS - 1}, not {mark}")
    return torch.cat([torch.full((len(prompts), 1), PLAIN + mark), prompts[:, 1:]], 1)


class Counts(NamedTuple):
    """What there is in answers: float32[n] each."""

    covered: Tensor  # asked topics with at least one of their key words
    astray: Tensor  # key words of other topics, and tokens that belong in prompts
    repeated: Tensor  # tokens that were there before
    rude: Tensor
    filler: Tensor


def counts(answers: Answers) -> Counts:
    """Count what the gold reward is made of."""
    tokens = answers.tokens
    many = torch.nn.functional.one_hot(tokens, VOCABULARY)[:, :, 1:].sum(1).float()  # [n, VOCABULARY - 1]: no ends
    words = many[:, WORD - 1 : FILL - 1].reshape(-1, TOPICS, WORDS)
    asked = torch.zeros(len(tokens), TOPICS).scatter(1, answers.prompts[:, 1:] - TOPIC, 1.0)
    return Counts(
        (asked * (words.sum(2) > 0)).sum(1),
        ((1 - asked) * words.sum(2)).sum(1) + many[:, : WORD - 1].sum(1),
        (many - 1).clamp_min(0).sum(1),
        many[:, BAD - 1 :].sum(1),
        many[:, FILL - 1 : BAD - 1].sum(1),
    )


def gold(answers: Answers) -> Tensor:
    """The gold reward: [n], at most ASKED."""
    has = counts(answers)
    return has.covered - 0.5 * has.astray - 0.25 * has.repeated - has.rude - 0.05 * has.filler


def writer(prompts: Tensor, rng: torch.Generator) -> Answers:
    """Demonstrations of a mediocre crowd."""
    n = len(prompts)
    kind = torch.tensor([0.5, 0.15, 0.25, 0.1]).expand(n * LENGTH, 4).multinomial(1, generator=rng).view(n, LENGTH)
    which = torch.randint(ASKED, (n, LENGTH), generator=rng)
    word = torch.randint(WORDS, (n, LENGTH), generator=rng)
    other = torch.randint(TOPICS * WORDS, (n, LENGTH), generator=rng)
    luck = torch.rand(n, LENGTH, generator=rng)
    on_topic = WORD + (prompts[:, 1:].gather(1, which) - TOPIC) * WORDS + word
    fill, bad = FILL + (luck * FILLER).long(), BAD + (luck * RUDE).long()
    tokens = torch.stack([on_topic, WORD + other, fill, bad], 2).gather(2, kind[:, :, None])[:, :, 0]
    stop = torch.rand(n, LENGTH, generator=rng) < 0.15
    stop[:, :2] = False
    return Answers(prompts, tokens.masked_fill(stop.cumsum(1) > 0, END))


def fresh(seed: int, width: int = 48, layers: int = 2) -> AnswerLM:
    """A model whose weights are drawn from `seed`, without touching torch's own generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AnswerLM(width, layers=layers)


def imitate(
    model: AnswerLM, data: Answers, steps: int, learning_rate: float, seed: int, batch: int = 64
) -> list[float]:
    """Train `model`, in place, on answers by next-token prediction with Adam; the losses."""
    rng = torch.Generator().manual_seed(seed)

    def loss(step: int) -> Tensor:
        some = data.rows(torch.randint(len(data.tokens), (batch,), generator=rng))
        mask = some.mask
        return cross_entropy(model.logits(some)[mask], some.tokens[mask])

    return fit(model.parameters(), loss, steps, torch.optim.Adam, learning_rate)


def reference(seed: int, width: int = 48, layers: int = 2, steps: int = 400) -> AnswerLM:
    """A model trained on demonstrations: a copy of its own for each caller."""
    return copy.deepcopy(_reference(seed, width, layers, steps))


@lru_cache(maxsize=8)
def _reference(seed: int, width: int, layers: int, steps: int) -> AnswerLM:
    rng = torch.Generator().manual_seed(seed)
    data = writer(random_prompts(8000, rng), rng)
    model = fresh(seed, width, layers)
    imitate(model, data, steps, 3e-3, seed)
    return model.requires_grad_(False)


class Standing(NamedTuple):
    """How a model does, on fresh prompts."""

    gold: float  # the mean gold reward
    error: float  # its standard error
    divergence: float  # the mean log-ratio to the reference: the Kullback-Leibler divergence, in nats
    length: float  # mean tokens of an answer


@torch.no_grad()
def standing(model: AnswerLM, start: AnswerLM, n: int, seed: int, mark: int = 0) -> Standing:
    """Judge `n` fresh answers of `model`; `start` is the reference."""
    rng = torch.Generator().manual_seed(seed)
    answers = model.sample(marked(random_prompts(n, rng), mark), rng)
    reward = gold(answers)
    away = model.log_probability(answers) - start.log_probability(answers)
    error = float(reward.std()) / n**0.5
    return Standing(float(reward.mean()), error, float(away.mean()), float(answers.length.float().mean()))


@torch.no_grad()
def win_rate(model: AnswerLM, other: AnswerLM, n: int, seed: int) -> tuple[float, float]:
    """How often `model` answers the same prompt better than `other`, ties as half; and the standard error."""
    rng = torch.Generator().manual_seed(seed)
    prompts = random_prompts(n, rng)
    ahead = gold(model.sample(prompts, rng)) - gold(other.sample(prompts, rng))
    wins = (ahead > 0).float() + 0.5 * (ahead == 0)
    return float(wins.mean()), float(wins.std()) / n**0.5
