"""The first pass over a log: what it is, and whether it can be believed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from backchannel.decide.features import Encoder, fit_encoder
from backchannel.ledger.log import Batch, Log

ROUNDING = 0.01  # a mean weight this near to 1 may come from propensities written with few digits


class Scan:
    """Facts gathered in one pass: sums, so that a log of any length needs no memory."""

    def __init__(self, log: Log, reward_range: tuple[float, float] | None = None):
        self.log = log
        self.rows = self.with_feedback = self.without_propensity = 0
        self.total = self.squares = self.weights = self.weight_squares = 0.0
        self.low, self.high = np.inf, -np.inf
        self.first, self.last = np.inf, -np.inf
        self.counts = np.zeros(len(log.actions))
        self.offered = np.zeros(len(log.actions))
        self.by_position: dict[int, np.ndarray] = {}
        self.least_propensity = np.inf
        self.uniform_sum = (
            0.0  # of 1 / (options x propensity): the mean weight of the uniform policy, 1 if all is right
        )
        self.uniform_squares = 0.0
        self.encoder: Encoder = fit_encoder(log, self._watched(log))
        if self.rows == 0:
            raise ValueError(f"{log.name} holds no decisions")
        if self.with_feedback == 0:
            raise ValueError(f"{log.name} holds {self.rows} decisions but no feedback: nothing can be learned from it")
        if reward_range is not None:
            low, high = reward_range
            if not low <= self.low <= self.high <= high:
                raise ValueError(
                    f"rewards of {log.name} lie in [{self.low:g}, {self.high:g}], "
                    f"outside the range given, [{low:g}, {high:g}]"
                )
            self.low, self.high = low, high
        elif self.low >= 0 and self.high <= 1:
            self.low, self.high = 0.0, 1.0

    def _watched(self, log: Log) -> Iterator[Batch]:
        for batch in log.batches():
            self._add(batch)
            yield batch

    def _add(self, batch: Batch) -> None:
        told = np.isfinite(batch.reward)
        rewards = batch.reward[told]
        self.rows += batch.reward.size
        self.with_feedback += rewards.size
        self.total += float(rewards.sum())
        self.squares += float((rewards**2).sum())
        if rewards.size:
            self.low, self.high = min(self.low, float(rewards.min())), max(self.high, float(rewards.max()))
        self.first = min(self.first, float(batch.time.min()))
        self.last = max(self.last, float(batch.time.max()))
        actions = len(self.counts)
        self.counts += np.bincount(batch.action, minlength=actions)
        for position in np.unique(batch.position).tolist():
            here = np.bincount(batch.action[batch.position == position], minlength=actions)
            self.by_position[position] = self.by_position.get(position, np.zeros(actions)) + here
        known = np.isfinite(batch.propensity)
        self.without_propensity += int((~known).sum())
        if known.any():
            p = batch.propensity[known]
            options = np.diff(batch.offered)[known] if batch.offered is not None else np.full(p.size, actions)
            self.least_propensity = min(self.least_propensity, float(p.min()))
            weight = 1 / (options * p)
            self.uniform_sum += float(weight.sum())
            self.uniform_squares += float((weight**2).sum())

    @property
    def propensities(self) -> str:
        """ "logged", or "estimated" where any is missing."""
        return "logged" if self.without_propensity == 0 else "estimated"

    def propensity(self, batch: Batch) -> np.ndarray:
        """float64[n]: the log's, or where it has none the share of the choice among the rows with its position."""
        if self.without_propensity == 0:
            return batch.propensity
        shares = np.empty(batch.action.size)
        for position, counts in self.by_position.items():
            here = batch.position == position
            shares[here] = counts[batch.action[here]] / counts.sum()
        return np.where(np.isfinite(batch.propensity), batch.propensity, shares)

    def warnings(self) -> list[str]:
        """What the user must know before believing anything."""
        found = []
        if self.without_propensity:
            found.append(
                f"{self.without_propensity:,} of {self.rows:,} rows have no propensity. The share of each option in "
                "the log stands in: right only if the log's policy did not look at the context. Log propensities."
            )
        known = self.rows - self.without_propensity
        if known > 1:
            mean = self.uniform_sum / known
            deviation = np.sqrt(max(self.uniform_squares / known - mean**2, 0.0))
            error = deviation / np.sqrt(known)
            effective = self.uniform_sum**2 / self.uniform_squares
            # Rows of one session are not independent and weights are skewed: six standard errors, and only where the
            # mean can be known at all.
            if effective > 100 and abs(mean - 1) > 6 * error + ROUNDING:
                found.append(
                    f"The propensities cannot be right: 1 / (options x propensity) must be 1 on average, and is "
                    f"{mean:.3g} +- {error:.1g}. Every estimate below that divides by them is off."
                )
        if self.with_feedback < self.rows:
            found.append(
                f"{self.rows - self.with_feedback:,} of {self.rows:,} decisions have no feedback; they are left out, "
                "which is right only if it is missing at random."
            )
        return found
