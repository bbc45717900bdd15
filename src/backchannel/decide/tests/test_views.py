"""What learners see of a row, computed here once more in plain Python: keys, crossings, hashes, and what is offered."""

import hashlib

import numpy as np
import pytest

from backchannel.decide.encoder import Encoder
from backchannel.decide.features import encode, firsts
from backchannel.decide.model import Model, predict
from backchannel.decide.views import keep_offered, rows_seen, sparse_seen, spread_offered
from backchannel.ledger.log import Batch, Options, key_of

BITS = 10
WORD = 2**64 - 1


def number(text):
    """The last eight bytes of MD5, the least significant one first."""
    return sum(byte << 8 * place for place, byte in enumerate(hashlib.md5(text.encode()).digest()[8:]))


def mixed(value):
    """SplitMix64's finaliser."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & WORD
    return value ^ (value >> 31)


def crossed(own, context):
    return mixed(number(own) ^ mixed(number(context)))


def encoder(ragged=False, items=None, own=False):
    return Encoder(
        actions=["a", "b", "c"],
        numeric=["age"],
        mean=[30.0],
        scale=[10.0],
        categorical=["c"],
        columns=[{str(number("c=red")): 2}],
        others=[3],
        dimension=64 if ragged else 4,
        hashed=ragged,
        ragged=ragged,
        own=own,
        items=items,
        bits=BITS,
    )


def batch(action, offered=None, option=None, features=None):
    """Two rows: age 40 and red; an unknown age and no colour."""
    zeros, nan = np.zeros(2, np.int64), np.full(2, np.nan)
    return Batch(
        row=np.array([1, 2]),
        action=np.array(action),
        reward=np.ones(2),
        propensity=np.full(2, 0.5),
        time=np.arange(2.0),
        feedback_time=nan,
        position=zeros,
        numbers=np.array([[40.0], [np.nan]]),
        categories=np.array([[number("c=red")], [0]], np.uint64),
        offered=None if offered is None else np.array(offered),
        option=None if option is None else np.array(option),
        features=features,
    )


CONTEXT = [{"constant": 1.0, "age": 1.0, "c=red": 1.0}, {"constant": 1.0, "age": 0.0}]  # (40 - 30) / 10; the mean


def sparse_by_hand(own, row):
    """(index, value) of an option with the features `own`: each with each of the context's."""
    return [
        (crossed(name, context) % 2**BITS, value * other)
        for name, value in own.items()
        for context, other in CONTEXT[row].items()
    ]


def seen_of(sparse):
    start, index, value = sparse
    pairs = list(zip(index.tolist(), value.tolist(), strict=True))
    return [pairs[start[o] : start[o + 1]] for o in range(len(start) - 1)]


def test_keys_are_the_ones_that_a_policy_file_holds():
    assert key_of("c", "red") == number("c=red")
    assert key_of("age") == number("age")


ITEMS = ([0, 1, 1, 3], [number("price"), number("kind=x"), number("size")], [2.5, 1.0, -3.0])
OF_ITEMS = [{"price": 2.5}, {}, {"kind=x": 1.0, "size": -3.0}]


@pytest.mark.parametrize("row", [0, 1])
def test_sparse_features_are_the_name_and_the_items_crossed_with_the_context(row):
    block = encode(encoder(items=ITEMS), batch([0, 2]))
    expected = [sparse_by_hand({f"action={name}": 1.0, **OF_ITEMS[o]}, row) for o, name in enumerate("abc")]
    assert seen_of(sparse_seen(block, row, -1)) == expected
    assert seen_of(sparse_seen(block, row, 2)) == [[], [], expected[2]]


def test_sparse_features_of_a_row_of_its_own():
    """Every row offers all, and each option brings a feature of its own: crossed beside the name."""
    features = Options(np.arange(7), np.array([number("bid")] * 6, np.uint64), np.arange(6.0) + 1)
    block = encode(encoder(own=True), batch([0, 2], [0, 3, 6], [0, 1, 2, 0, 1, 2], features))
    expected = [sparse_by_hand({f"action={name}": 1.0, "bid": 4.0 + o}, 1) for o, name in enumerate("abc")]
    assert seen_of(sparse_seen(block, 1, -1)) == expected


def test_only_what_is_offered_is_seen():
    block = encode(encoder(items=ITEMS), batch([2, 1], [0, 2, 3], [2, 0, 1]))
    every = [sparse_by_hand({f"action={name}": 1.0, **OF_ITEMS[o]}, 0) for o, name in enumerate("abc")]
    assert seen_of(sparse_seen(block, 0, -1)) == [every[2], every[0]]
    assert seen_of(sparse_seen(block, 0, 2)) == [[], [], every[2]]  # what is learned from keeps its own place
    rows = rows_seen(block, 0, -1)
    np.testing.assert_allclose(rows[[0, 2]], np.array([[1, 1, 1, 0]] * 2) / 2)
    assert np.isnan(rows[1]).all()
    np.testing.assert_allclose(rows_seen(block, 1, 1)[1], np.array([1, 0, 0, 1]) / 2)


RAGGED = Options(np.array([0, 2, 3, 3]), np.array([number("bid"), number("kind=x"), number("bid")], np.uint64),
                 np.array([2.0, 1.0, 0.5]))  # fmt: skip
OF_RAGGED = [{"bid": 2.0, "kind=x": 1.0}, {"bid": 0.5}, {}]


def test_ragged_options_are_hashed_with_their_crossings():
    block = encode(encoder(ragged=True, own=True), batch([0, 2], [0, 2, 3], [1, 0, 2], RAGGED))
    assert block.action.tolist() == [1, 0]  # places among their rows' options
    assert firsts(block).tolist() == [0, 2]
    for o in range(2):
        expected = np.zeros(64)
        hashes = [(mixed(number(name)), value) for name, value in CONTEXT[0].items()]
        for name, value in OF_RAGGED[o].items():
            hashes.append((mixed(number(name)), value))
            hashes += [(mixed(crossed(name, c)), value * v) for c, v in CONTEXT[0].items() if c != "constant"]
        for bits, each in hashes:
            expected[(bits >> 1) % 64] += each if bits % 2 else -each
        np.testing.assert_allclose(rows_seen(block, 0, -1)[o], expected / 8)
        assert seen_of(sparse_seen(block, 0, -1))[o] == sparse_by_hand({"constant": 1.0, **OF_RAGGED[o]}, 0)
    assert seen_of(sparse_seen(block, 1, -1)) == [sparse_by_hand({"constant": 1.0}, 1)]


def test_wide_contexts_are_hashed_with_a_sign():
    wide = encoder()
    wide.hashed, wide.dimension = True, 8
    for row, x in enumerate(encode(wide, batch([0, 0])).x):
        expected = np.zeros(8)
        for name, value in CONTEXT[row].items():
            bits = mixed(number(name))
            expected[(bits >> 1) % 8] += value if bits % 2 else -value
        np.testing.assert_allclose(x, expected / np.sqrt(8))


def test_ragged_options_without_features_are_empty_and_rows_without_options_are_refused():
    block = encode(encoder(ragged=True, own=True), batch([0, 2], [0, 2, 3], [1, 0, 2]))
    assert [len(seen) for seen in seen_of(sparse_seen(block, 0, -1))] == [3, 3]  # the context's
    np.testing.assert_array_equal(*rows_seen(block, 0, -1))
    with pytest.raises(ValueError, match="around 1 do not say which options they offer"):
        encode(encoder(ragged=True, own=True), batch([0, 2]))
    with pytest.raises(ValueError, match="offer a part of the options with features"):
        encode(encoder(own=True), batch([0, 2], [0, 2, 3], [1, 0, 2], RAGGED))


def test_probabilities_stay_within_what_is_offered():
    block = encode(encoder(), batch([2, 1], [0, 2, 3], [2, 0, 1]))
    out = np.array([0.1, 0.7, 0.2])
    keep_offered(block, 0, out)
    np.testing.assert_allclose(out, [1 / 3, 0, 2 / 3], rtol=1e-15)
    out = np.array([0.0, 1.0, 0.0])
    keep_offered(block, 0, out)
    assert out.tolist() == [0.5, 0, 0.5]
    out = np.array([0.25, 0.0, 0.75])
    keep_offered(block, 1, out)
    assert out.tolist() == [0, 1, 0]
    out = np.array([0.9, 0.1, np.nan])
    spread_offered(block, 0, out)
    assert out.tolist() == [0.1, 0, 0.9]


def test_predictions_lie_where_their_options_do():
    """Half 0's model says the row's first entries, half 1's a mean; both cut to the range."""
    linear = Model(np.array([[0.4, 0, 0, 0], [0, 0.8, 0, 0], [9, 0, 0, 0]]), np.zeros(1), np.zeros(1), np.ones(1))
    means = Model(np.array([[0.1], [0.2], [-9.0]]), np.full(1, 0.5), np.zeros(1), np.ones(1))
    linear_and_flat = [linear, means._replace(theta=np.array([[0.1, 0, 0, 0], [0, 0, 0, 0], [-9, 0, 0, 0]]))]
    block = encode(encoder(), batch([0, 2]))
    np.testing.assert_allclose(predict([means, means], np.array([0, 1]), block), [0.6, 0.7, 0] * 2)
    np.testing.assert_allclose(predict(linear_and_flat, np.array([0, 1]), block), [0.2, 0.4, 1, 0.55, 0.5, 0])
    block = encode(encoder(ragged=True, own=True), batch([0, 2], [0, 2, 3], [1, 0, 2], RAGGED))
    theta = np.random.default_rng(0).normal(size=(1, 64))
    shared = Model(theta, np.full(1, 0.25), np.full(1, -99.0), np.full(1, 99.0))
    expected = [0.25 + rows_seen(block, i, -1)[o] @ theta[0] for i, o in ((0, 0), (0, 1), (1, 0))]
    np.testing.assert_allclose(predict([shared, shared], np.array([1, 0]), block), expected)
