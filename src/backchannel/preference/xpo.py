"""XPO: online DPO with one more term, the likelihood of what the reference says, so that it tries what is rarely said.

Online DPO compares answers that the policy draws, and stays ignorant of all others. Where the reference hardly ever
says the best answer, nobody compares it, and nothing in the loss asks for it. Exploratory preference optimisation asks
for it: among policies that explain the comparisons about as well, take one that expects much more than the reference
has. Such a policy is one that finds the reference's answers unlikely.

Equations (Xie et al. 2024, sections 2 and 3; the numbers are ours). The best policy for rewards r at the price beta has
beta log pi / ref = r - J*(r), with J*(r) what it gets: its reward less beta times its divergence. So, on average over
answers y~ of the reference,

    J*(r) - E_ref r(y~)  =  -beta E_ref log pi(y~) / ref(y~)                                                     (1)

is how much better than the reference the policy expects to do, and optimism lowers log pi(y~). With y of the policy and
y~ of the reference, compared by somebody, and h the margin of y over y~, pairs i that were labelled y or y~ give

    h    = beta (log pi(y) / ref(y) - log pi(y~) / ref(y~))                                                      (2)
    loss = sum_i (-log sigmoid(h_i) if y_i is better, else -log sigmoid(-h_i))  +  alpha sum_i log pi(y~_i)      (3)

The second sum is all that is new, and counts whichever answer was better: where y~ lost it says what the first sum
says, where y~ won it holds against it. So the loss must know which answer is the reference's. VPO's optimistic term is
(1) as well, for any calibration policy and with an answer of its own; its alpha is ours over beta.

Steps: an answer of the policy and one of the reference to each prompt; have them compared; a step down (3); anew.

Deviations: (3) is over the pairs of a round, as rounds are run here, where the paper keeps all pairs. Ties are left
out, with their y~. Another policy than the reference may draw y~ in the paper; not here.

To the objective a pair is y before y~, whichever won; `strength`, the probability that y is the better one, is 1 or 0.

    >>> import torch
    >>> recipe = xpo(alpha=0.01, beta=0.1)
    >>> found = recipe.select(torch.tensor([[1.0, 0.0], [2.0, 2.0], [0.0, 3.0]]), torch.Generator())
    >>> found.row.tolist(), found.better.tolist(), found.strength.tolist()  # the second is a tie; y~ won the third
    ([0, 2], [0, 0], [1.0, 0.0])
    >>> from backchannel.parts.objectives import Pairs
    >>> logs = torch.tensor([[-4.0, -4.0], [-9.0, -9.0], [-5.0, -5.0], [-7.0, -7.0]])  # h is 0.3; log pi(y~) is -9
    >>> recipe.objective(Pairs(*logs, strength=found.strength))[0]
    tensor([0.4644, 0.7644])

References: xie2025exploratory, cen2025value, rafailov2023direct.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, known, margin, positive
from backchannel.parts.recipes import Compared, Recipe, scored

CARD = Card(
    name="XPO",
    summary="Online DPO that unlearns what the reference says, to try what it rarely says: optimism in one term.",
    paper="xie2025exploratory",
    topics=("preference optimisation", "own answers", "optimism"),
    feedback=("comparison",),
    protocol="recipe",
    engine="torch",
    neighbour="oaif",
    example={"alpha": 1e-5, "beta": 0.1},
    extras=("torch",),
)


def xpo(alpha: float, beta: float = 0.1) -> Recipe:
    """Exploratory preference optimisation.

    Args:
        alpha: how much optimism counts, at least 0; 0 is DPO on pairs of the policy and the reference. The paper's
            language models had 1e-5 and less.
        beta: the price of leaving the reference, positive.
    """
    positive(beta=beta)
    if not 0 <= alpha < float("inf"):
        raise ValueError(f"alpha must be at least 0, not {alpha}")

    def select(scores: Tensor, rng: Generator) -> Compared:
        row = (scored(scores, 2)[:, 0] != scores[:, 1]).nonzero()[:, 0]
        won = (scores[row, 0] > scores[row, 1]).to(scores.dtype)
        return Compared(row, torch.zeros_like(row), torch.ones_like(row), strength=won)

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        h, won = margin(pairs, beta), known(pairs, "strength")  # (2)
        fit = -won * logsigmoid(h) - (1 - won) * logsigmoid(-h)
        return fit + alpha * pairs.policy_rejected, Info(h.detach())  # (3): what stands second is y~

    return Recipe(2, select, Objective(objective, Pairs), mixtures=((1.0, 0.0), (0.0, 1.0)))
