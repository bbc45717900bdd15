"""One online gradient step on a hashed linear model that needs no scaling of features and no tuned step size.

Three ideas for large sparse problems, which well-kept online learners combine. *Adaptive* (Duchi, Hazan and Singer
2011): every weight's step shrinks with the gradients that it has seen. *Normalised* (Ross, Mineiro and Langford 2013,
NAG): with s_i the largest |x_i| seen, the model does not change when a feature is measured in other units. *Implicit*
(Kulis and Bartlett 2010): the step is taken with the gradient where it ends, so that no step size overshoots.

The table has four numbers for each weight, side by side in memory: w, G = sum of squared gradients, s, and the rate
1 / (s sqrt(G)) that the last example gave it. For an example x with loss function l(margin):

    observe:  s_i = max(s_i, |x_i|), w_i times old s_i / new s_i;  t += 1;  N += sum_i (x_i / s_i)^2;  margin = <w, x>
    prepare:  G_i += (l'(margin) x_i)^2;  reach = eta sqrt(t / N) sum_i rate_i x_i^2
    (the caller solves margin' = margin - reach l'(margin') for margin', a line of algebra for its own loss)
    move:     w_i -= eta sqrt(t / N) rate_i x_i l'(margin')

An index that occurs twice in an option is two features that share a weight: its predictions are exact, and its steps
are those of the two features one after the other.
"""

from __future__ import annotations

import math

import numpy as np

from backchannel.engine import compiled
from backchannel.parts.sparse import Sparse

WEIGHT, SQUARES, SCALE, RATE = 0, 1, 2, 3  # the table's columns


def empty_table(bits: int) -> np.ndarray:
    """float64[2^bits, 4] of zeros: a model that predicts 0."""
    if not 1 <= bits <= 30:
        raise ValueError(f"bits must lie in 1..30, not {bits}")
    return np.zeros((2**bits, 4))


@compiled
def margin_of(table: np.ndarray, context: Sparse, option: int) -> float:
    """<w, x> of an option."""
    total = 0.0
    for j in range(context.start[option], context.start[option + 1]):
        total += table[context.index[j], WEIGHT] * context.value[j]
    return total


@compiled
def observe(table: np.ndarray, clock: np.ndarray, context: Sparse, option: int) -> float:
    """Take note of the features' scales; `clock` is (t, N). Returns the margin of the example to be learned."""
    margin = 0.0
    for j in range(context.start[option], context.start[option + 1]):
        i, x = context.index[j], abs(context.value[j])
        if x > table[i, SCALE]:
            table[i, WEIGHT] *= table[i, SCALE] / x
            table[i, SCALE] = x
        if x > 0.0:
            clock[1] += (x / table[i, SCALE]) ** 2
    clock[0] += 1.0
    for j in range(context.start[option], context.start[option + 1]):
        margin += table[context.index[j], WEIGHT] * context.value[j]
    return margin


@compiled
def prepare(table: np.ndarray, clock: np.ndarray, context: Sparse, option: int, slope: float, step: float) -> float:
    """Count the gradient `slope` * x in; returns the reach: how far a slope of 1 would move the margin."""
    pace = step * math.sqrt(clock[0] / clock[1])
    reach = 0.0
    for j in range(context.start[option], context.start[option + 1]):
        i, x = context.index[j], context.value[j]
        if x != 0.0:
            table[i, SQUARES] += (slope * x) ** 2
            table[i, RATE] = pace / (table[i, SCALE] * math.sqrt(table[i, SQUARES]))
            reach += table[i, RATE] * x * x
    return reach


@compiled
def move(table: np.ndarray, context: Sparse, option: int, slope: float) -> None:
    """Take the step: every weight goes `slope` * x down at its rate."""
    for j in range(context.start[option], context.start[option + 1]):
        i = context.index[j]
        table[i, WEIGHT] -= table[i, RATE] * context.value[j] * slope


@compiled
def learn_squared(
    table: np.ndarray, clock: np.ndarray, context: Sparse, option: int, target: float, step: float
) -> None:
    """One implicit step on (margin - target)^2 / 2: margin' = (margin + reach target) / (1 + reach)."""
    slope = observe(table, clock, context, option) - target
    if slope != 0.0 and clock[1] > 0.0:
        reach = prepare(table, clock, context, option, slope, step)
        move(table, context, option, slope / (1.0 + reach))


@compiled
def learn_logistic(
    table: np.ndarray, clock: np.ndarray, context: Sparse, option: int, target: float, step: float
) -> None:
    """One implicit step on the cross-entropy of sigma(margin) and a target in [0, 1], solved by Newton's method."""
    margin = observe(table, clock, context, option)
    slope = sigmoid(margin) - target
    if slope != 0.0 and clock[1] > 0.0:
        reach = prepare(table, clock, context, option, slope, step)
        move(table, context, option, sigmoid(_implicit_margin(margin, target, reach)) - target)


@compiled
def sigmoid(margin: float) -> float:
    """1 / (1 + exp(-margin)); 0 and not an error where exp overflows."""
    return 1.0 / (1.0 + np.exp(-margin))


@compiled
def _implicit_margin(margin, target, reach):
    """The root u of u + reach (sigma(u) - target) = margin: the left side grows with slope 1 or more."""
    low, high = margin - reach * (1.0 - target), margin + reach * target
    u = margin
    for _ in range(50):
        p = sigmoid(u)
        excess = u + reach * (p - target) - margin
        if excess > 0.0:
            high = u
        else:
            low = u
        last = u
        u -= excess / (1.0 + reach * p * (1.0 - p))
        if not low <= u <= high:  # Newton left the bracket: halve it
            u = 0.5 * (low + high)
        if abs(u - last) < 1e-10:
            break
    return u
