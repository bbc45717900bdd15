"""PPO's loss by hand, token by token in NumPy, for the tests of methods that clip as it does."""

import numpy as np


def ppo_by_hand(batch, epsilon, value_weight):
    """Of each answer the loss, the share of clipped tokens and the mean squared error of the critic, summed over heads.

    `batch` is of rollouts whose values and returns are [n, tokens], or [n, tokens, heads].
    """
    policy, sampled, _, mask, advantage, value, returns = (np.asarray(x) for x in batch)
    squares = ((value - returns) ** 2).reshape(*mask.shape, -1)
    losses, shares, errors = [], [], []
    for i in range(len(mask)):
        terms, past, error = [], [], []
        for t in np.nonzero(mask[i])[0]:
            rho, a = np.exp(policy[i, t] - sampled[i, t]), advantage[i, t]
            terms.append(-min(rho * a, np.clip(rho, 1 - epsilon, 1 + epsilon) * a))
            past.append((rho < 1 - epsilon and a < 0) or (rho > 1 + epsilon and a > 0))
            error.append(sum(squares[i, t]))
        losses.append(np.mean(terms) + value_weight * np.mean(error))
        shares.append(np.mean(past))
        errors.append(np.mean(error))
    return losses, shares, errors
