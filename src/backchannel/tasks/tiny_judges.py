"""Judges that grow out of the tiny language model of `tasks/tiny_answers.py`.

A `PairJudge` reads two answers to a prompt with the layers of a language model, a copy of its own, and says how likely
the first is the better one. Its head gives each reading a number, and the first place another, so that it may prefer a
place; and it may have dropout, in training and, where somebody asks for it, in judging.

`learn_to_answer_and_judge` makes one model for both: after a prompt that is marked `ASK` and an answer, its next token
says how many points the answer gets. The same layers and the same output answer plain prompts.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from backchannel.parts.torch_fit import fit
from backchannel.tasks.tiny_answers import PLAIN, AnswerLM, Answers, gold, random_prompts, writer
from backchannel.tasks.tiny_tuning import Labelled

POINTS = 6  # 0 to 5
ASK = 1  # the mark of a prompt that asks for points
_FIRST = PLAIN + 2  # the token that says 0 points; the marks after it say 1 to 5


class PairJudge(nn.Module):
    """The log-odds that the first of two answers is better: [n]."""

    def __init__(self, model: AnswerLM, seed: int, dropout: float = 0.0):
        super().__init__()
        self.body = copy.deepcopy(model).requires_grad_(True)
        width = model.head.in_features
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Sequential(
                nn.Dropout(dropout), nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, 1)
            )
        self.place = nn.Parameter(torch.zeros(1))

    def read(self, answers: Answers) -> Tensor:
        """[n, width]: the mean over the answer's hidden states."""
        hidden = self.body.hidden(torch.cat([answers.prompts, answers.tokens], 1))[:, answers.prompts.shape[1] :]
        mask = answers.mask[:, :, None]
        mean: Tensor = (hidden * mask).sum(1) / mask.sum(1)
        return mean

    def compare(self, one: Tensor, other: Tensor) -> Tensor:
        """Log-odds from two readings: [...]."""
        out: Tensor = self.head(one) - self.head(other) + self.place
        return out[..., 0]

    def forward(self, one: Answers, other: Answers) -> Tensor:
        """[n]."""
        return self.compare(self.read(one), self.read(other))

    @torch.no_grad()
    def table(self, drawn: list[Answers]) -> Tensor:
        """The probability that each of k answers beats each, the answer of the row shown first: [n, k, k]."""
        read = torch.stack([self.read(each) for each in drawn], 1)
        shape = *read.shape[:2], read.shape[1], read.shape[2]
        return torch.sigmoid(self.compare(read[:, :, None].expand(shape), read[:, None, :].expand(shape)))


def learn_to_judge(
    model: AnswerLM, data: Labelled, steps: int, learning_rate: float, seed: int, dropout: float = 0.0, batch: int = 64
) -> PairJudge:
    """A judge with the layers of `model`, trained with Adam to say which answer of a pair was chosen.

    The chosen answer is shown first or second by a coin. A judge without dropout needs no luck to judge; one with it is
    left in the mode in which nothing is dropped.
    """
    judge, rng = PairJudge(model, seed, dropout), torch.Generator().manual_seed(seed)
    judge.train()

    def loss(step: int) -> Tensor:
        rows = torch.randint(len(data.chosen.tokens), (batch,), generator=rng)
        first = torch.rand(batch, generator=rng) < 0.5
        chosen, rejected = judge.read(data.chosen.rows(rows)), judge.read(data.rejected.rows(rows))
        pick = first[:, None]
        logits = judge.compare(torch.where(pick, chosen, rejected), torch.where(pick, rejected, chosen))
        return binary_cross_entropy_with_logits(logits, first.to(logits.dtype))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fit(judge.parameters(), loss, steps, torch.optim.Adam, learning_rate)
    return judge.eval().requires_grad_(False)


def true_points(answers: Answers) -> Tensor:
    """What an expert gives: gold rewards of -2 or less are 0 points, of 3 are 5, one more for each: int64[n]."""
    return (gold(answers) + 2).floor().clamp(0, POINTS - 1).long()


def point_logits(model: AnswerLM, answers: Answers) -> Tensor:
    """A language model as a judge: of the token after a prompt that asks for points and an answer, [n, POINTS]."""
    asked = answers.marked(ASK)
    last = model.hidden(torch.cat([asked.prompts, asked.tokens], 1))[:, -1]
    logits: Tensor = model.head(last)[:, _FIRST : _FIRST + POINTS]
    return logits


@torch.no_grad()
def points_of(model: AnswerLM, answers: Answers) -> Tensor:
    """How likely the model gives 0 to 5 points: [n, POINTS]."""
    return torch.softmax(point_logits(model, answers), 1)


def learn_to_answer_and_judge(
    start: AnswerLM, judged: Answers, steps: int, learning_rate: float, seed: int, batch: int = 64
) -> AnswerLM:
    """A copy of `start` that is trained on both tasks at once with Adam: demonstrations, and true points for answers.

    Half of each step is 64 fresh demonstrations by the task's writer, half a batch of `judged`.
    """
    model, rng = copy.deepcopy(start).requires_grad_(True), torch.Generator().manual_seed(seed)
    points = true_points(judged)

    def loss(step: int) -> Tensor:
        shown = writer(random_prompts(64, rng), rng)
        some = torch.randint(len(points), (batch,), generator=rng)
        said = cross_entropy(point_logits(model, judged.rows(some)), points[some])
        return said + cross_entropy(model.logits(shown)[shown.mask], shown.tokens[shown.mask])

    fit(model.parameters(), loss, steps, torch.optim.Adam, learning_rate)
    return model.requires_grad_(False)
