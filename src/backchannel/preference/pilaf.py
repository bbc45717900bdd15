"""PILAF: compare an answer that leans away from the reference with one that leans back to it, half of the time.

Both answers of a pair are usually drawn from the policy. Then the gradient of the likelihood of comparisons does not
point where the reward that people have in mind, less its price for leaving the reference, grows fastest: pairs of which
the model is sure hardly move it, though it may be as wrong about them as about others. PILAF draws such pairs more
often: half of its pairs are of an answer from a bolder policy and one from a more timid one.

Equations (Feng et al. 2025; the numbers are ours). With the reward that the policy p implies, r = beta log p / ref,

    p+(y) proportional to p(y) exp(r(y))  = p(y)^(1 + beta) ref(y)^(-beta)
    p-(y) proportional to p(y) exp(-r(y)) = p(y)^(1 - beta) ref(y)^beta                          (1)

DPO's expected gradient with respect to r, on pairs (y, y') drawn with probability mu and judged by the rewards r*, is

    -dL = sum mu(y, y') (sigmoid(r*(y) - r*(y')) - sigmoid(r(y) - r(y'))) (e_y - e_y')           (2)

and that of J = E_p r* - beta KL(p, ref) with respect to the policy's logits, up to a factor,

    dJ = sum p(y) p(y') ((r* - r)(y) - (r* - r)(y')) (e_y - e_y')                                (3)

The bracket of (2) is sigmoid'(r(y) - r(y')) times that of (3), to first order in r* - r. As 1 / sigmoid'(x) is
2 + exp(x) + exp(-x), the two agree for mu proportional to

    p(y) p(y') (2 + exp(r(y) - r(y')) + exp(r(y') - r(y)))
        = 2 p(y) p(y') + Z (p+(y) p-(y') + p-(y) p+(y')),   Z = E_p exp(r) E_p exp(-r)           (4)

So in theory a prompt counts as 1 + Z, and its pair is bold against timid with probability Z / (1 + Z). In practice, and
in the recipe, every prompt counts once, and the probability is 1/2.

Steps: two answers to each prompt, to the first, third, ... from p, to the others from p+ and p-, where (1) is taken
token by token; have each pair compared; a step down DPO's loss. `pair_probabilities` and `alignment` are (4), and the
cosine of (2) and (3), for policies over finitely many answers.

Deviations: half of the prompts are of either kind exactly, where the paper draws it. (1) token by token is not (1) of
whole answers: the constants of the tokens after each beginning differ. The agreement is one of first order: where the
implied reward is far from the true one, pairs from the policy alone may be better.

    >>> import torch
    >>> policy = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64).log()
    >>> reference = torch.full_like(policy, 1 / 3).log()
    >>> truth = 1.0 * (policy - reference) + torch.tensor([0.01, -0.02, 0.03])
    >>> float(alignment(policy, reference, truth, 1.0, pair_probabilities(policy, reference, 1.0)).round(decimals=4))
    1.0
    >>> float(alignment(policy, reference, truth, 1.0, own_pairs(policy)).round(decimals=4))
    0.9976

References: feng2025pilaf, rafailov2023direct.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, margin, positive
from backchannel.parts.recipes import Compared, Recipe, best_and_worst

CARD = Card(
    name="PILAF",
    summary="Own pairs of a bolder and a more timid answer, so that learning from comparisons climbs the true reward.",
    paper="feng2025pilaf",
    row=330,
    topics=("preference optimisation", "own answers"),
    feedback=("comparison",),
    protocol="recipe",
    engine="torch",
    neighbour="oaif",
    example={"beta": 0.1},
    strength="strong",
    extras=("torch",),
)


def pilaf(beta: float = 0.1, objective: Objective[Pairs] | None = None) -> Recipe:
    """Direct alignment on pairs of which half are interpolated between the policy and the reference.

    Args:
        beta: the price of leaving the reference, of (1) and of DPO's loss.
        objective: a loss of pairs in DPO's place.
    """
    positive(beta=beta)

    def select(scores: Tensor, rng: Generator) -> Compared:
        return best_and_worst(scores)

    def logistic(pairs: Pairs) -> tuple[Tensor, Info]:
        h = margin(pairs, beta)
        return -logsigmoid(h), Info(h.detach())

    interpolated = ((1 + beta, -beta), (1 - beta, beta))  # (1)
    return Recipe(2, select, objective or Objective(logistic, Pairs), second=interpolated)


def leaning(log_policy: Tensor, log_reference: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """(1) of whole answers, as probabilities [prompts, answers], and Z of (4), [prompts].

    Args:
        log_policy: log p of each answer, [prompts, answers].
        log_reference: log ref of each, [prompts, answers].
        beta: the price of leaving the reference, positive.
    """
    positive(beta=beta)
    reward = beta * (log_policy - log_reference)
    bold, timid = log_policy + reward, log_policy - reward
    return torch.softmax(bold, 1), torch.softmax(timid, 1), (bold.logsumexp(1) + timid.logsumexp(1)).exp()


def own_pairs(log_policy: Tensor) -> Tensor:
    """How likely each prompt and pair is where prompts are even and answers the policy's own: [prompts, k, k]."""
    p = log_policy.exp()
    return p[:, :, None] * p[:, None, :] / len(p)


def pair_probabilities(log_policy: Tensor, log_reference: Tensor, beta: float, theory: bool = True) -> Tensor:
    """How likely PILAF asks for each prompt and pair: [prompts, answers, answers], which sums to 1.

    Args:
        log_policy: log p of each answer, [prompts, answers].
        log_reference: log ref of each, [prompts, answers].
        beta: the price of leaving the reference, positive.
        theory: (4) with its weights; else every prompt evenly and half of the pairs of either kind.
    """
    plus, minus, z = leaning(log_policy, log_reference, beta)
    crossed = plus[:, :, None] * minus[:, None, :]
    crossed = (crossed + crossed.mT) / 2 / len(z)
    if not theory:
        return (own_pairs(log_policy) + crossed) / 2
    both = own_pairs(log_policy) + z[:, None, None] * crossed  # (4)
    return both / both.sum()


def alignment(log_policy: Tensor, log_reference: Tensor, truth: Tensor, beta: float, pairs: Tensor) -> Tensor:
    """The cosine of (2) and (3), over all prompts and answers: 1 if learning from pairs climbs J as fast as can be.

    Args:
        log_policy: log p of each answer, [prompts, answers].
        log_reference: log ref of each, [prompts, answers].
        truth: the rewards r* by which Bradley and Terry's annotator compares, [prompts, answers].
        beta: the price of leaving the reference, positive.
        pairs: mu, how likely each prompt and pair is, [prompts, answers, answers].
    """
    positive(beta=beta)

    def apart(values: Tensor) -> Tensor:
        return values[:, :, None] - values[:, None, :]

    implied = beta * (log_policy - log_reference)
    pull = pairs * (torch.sigmoid(apart(truth)) - torch.sigmoid(apart(implied)))
    down = pull.sum(2) - pull.sum(1)  # (2)
    climb = 2 * (own_pairs(log_policy) * apart(truth - implied)).sum(2)  # (3)
    return (down * climb).sum() / (down.norm() * climb.norm())
