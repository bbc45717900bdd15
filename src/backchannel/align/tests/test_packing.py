"""The layout of a batch: rows by hand, and what a configuration says of its model's attention."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="layouts are torch's tensors")

from backchannel.align import packing  # noqa: E402
from backchannel.align.packing import Group, longest, obstacle, pack, pad, window  # noqa: E402

PROMPTS, ANSWERS = [[10, 11, 12], [13]], [[[20, 21, 22], [23], [24, 25]], [[26, 27]]]


def test_step_a_packed_row_by_hand():
    batch = pack(PROMPTS, ANSWERS)
    assert batch.tokens.tolist() == [[10, 11, 12, 20, 21, 24, 13, 26]]  # the last token of no answer is read
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 3, 0, 1]]
    assert batch.segments.groups == (Group(0, 3, (2, 0, 1)), Group(6, 1, (1,)))
    assert batch.targets.tolist() == [20, 21, 22, 23, 24, 25, 26, 27]
    assert batch.reads.tolist() == [2, 3, 4, 2, 2, 5, 6, 7]  # the prompt's last token predicts three first tokens
    assert batch.lengths.tolist() == [3, 1, 2, 2]
    assert longest(PROMPTS, ANSWERS) == 5


def test_step_padded_rows_by_hand():
    batch = pad(PROMPTS, ANSWERS)
    assert batch.tokens.tolist() == [[10, 11, 12, 20, 21], [10, 11, 12, 0, 0], [10, 11, 12, 24, 0], [13, 26, 0, 0, 0]]
    assert batch.targets.tolist() == [20, 21, 22, 23, 24, 25, 26, 27]
    assert batch.reads.tolist() == [2, 3, 4, 7, 12, 13, 15, 16]
    assert batch.lengths.tolist() == [3, 1, 2, 2]


def test_step_the_mask_of_every_block_is_a_corner_of_one(monkeypatch):
    monkeypatch.setattr(packing, "QUERIES", 3)
    mask = pack([[1, 2]], [[[3], [4, 5, 6, 7, 8]]]).segments.mask  # 2 + 4 keys
    assert mask.int().tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]


def test_windows():
    assert window(SimpleNamespace()) is None
    assert window(SimpleNamespace(sliding_window=16)) == 16
    assert window(SimpleNamespace(sliding_window=16, use_sliding_window=False)) is None
    assert window(SimpleNamespace(sliding_window=16, layer_types=["full_attention"] * 2)) is None
    assert window(SimpleNamespace(sliding_window=16, layer_types=["full_attention", "sliding_attention"])) == 16
    assert window(SimpleNamespace(sliding_window=16, attention_chunk_size=8, window_size=[4, 4])) == 8


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"is_encoder_decoder": True}, "decoder"),
        ({"attn_logit_softcapping": 50.0}, "capped"),
        ({"alibi": True}, "distance"),
        ({"attn_temperature_tuning": True}, "place"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
    ],
)
def test_obstacles(settings, said):
    assert said in obstacle(SimpleNamespace(**settings))
    assert obstacle(SimpleNamespace(layer_types=["full_attention", "sliding_attention"], alibi=False)) is None


def test_attention_that_looks_ahead_is_refused():
    segments = pack(PROMPTS, ANSWERS).segments
    query = torch.randn(1, 2, 8, 4)
    with pytest.raises(packing.UnpackableError, match="ahead"):
        packing.segment_attention(
            torch.nn.Module(), query, query, query, None, answer_segments=segments, is_causal=False
        )
