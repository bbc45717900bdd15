"""Log-probabilities in blocks: the same numbers and gradients as from all logits at once, without holding them."""

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="log-probabilities of a head are torch's")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from backchannel.parts import head_logs as module  # noqa: E402
from backchannel.parts.head_logs import head_logs  # noqa: E402

VOCABULARY, WIDTH, MANY = 37, 6, 11


def _made(dtype=torch.float64, scale=1.0, seed=0):
    rng = torch.Generator().manual_seed(seed)
    hidden = scale * torch.randn(MANY, WIDTH, generator=rng, dtype=torch.float64)
    weight = torch.randn(VOCABULARY, WIDTH, generator=rng, dtype=torch.float64)
    bias = torch.randn(VOCABULARY, generator=rng, dtype=torch.float64)
    tokens = torch.randint(VOCABULARY, (MANY,), generator=rng)
    return [each.to(dtype) for each in (hidden, weight, bias)], tokens


def _plain(hidden, weight, tokens, bias=None, scale=1.0, softcap=None):
    logits = hidden @ weight.T
    logits = logits if bias is None else logits + bias
    logits = scale * logits
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    return torch.log_softmax(logits, 1).gather(1, tokens[:, None])[:, 0]


@pytest.fixture(params=[4, 100], ids=["blocks of 4", "one block"])
def blocks(request, monkeypatch):
    monkeypatch.setitem(module.BLOCK_BYTES, "cpu", request.param * VOCABULARY * 8)
    monkeypatch.setattr(module, "SLICE", 10)


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("learned", ["states", "head", "both"])
def test_known_values_and_gradients_are_those_of_all_logits(blocks, softcap, scale, biased, dtype, close, learned):
    found = []
    for compute in (head_logs, _plain):
        (hidden, weight, bias), tokens = _made(dtype)
        inputs = [hidden, weight, *([bias] if biased else [])]
        wanted = {"states": inputs[:1], "head": inputs[1:], "both": inputs}[learned]
        for each in wanted:
            each.requires_grad_()
        logs = compute(hidden, weight, tokens, bias if biased else None, scale, softcap)
        slopes = torch.linspace(-1, 2, MANY, dtype=dtype)
        found.append((logs, *torch.autograd.grad((slopes * logs).sum(), wanted)))
        assert logs.dtype == dtype
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=close, atol=close)


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("frozen", [False, True])
def test_known_finite_differences(blocks, softcap, frozen):
    (hidden, weight, bias), tokens = _made()
    inputs = [each.requires_grad_(not frozen or each is hidden) for each in (hidden, weight, bias)]
    assert torch.autograd.gradcheck(lambda h, w, b: head_logs(h, w, tokens, b, 0.7, softcap), inputs)


def test_step_one_token_by_hand():
    # Two tokens with logits 1 and 3: log p of the first is -log(1 + e^2), and its slope (1 - p)(W_0 - W_1).
    hidden = torch.tensor([[1.0, 3.0]], dtype=torch.float64, requires_grad=True)
    logs = head_logs(hidden, torch.eye(2, dtype=torch.float64), torch.tensor([0]))
    logs.sum().backward()
    p = 1 / (1 + torch.exp(torch.tensor(2.0, dtype=torch.float64)))
    torch.testing.assert_close(logs.detach(), p.log()[None])
    torch.testing.assert_close(hidden.grad, torch.stack([1 - p, p - 1])[None])


def test_limit_a_head_tied_to_the_embedding_gets_both_gradients(blocks):
    grads = []
    for compute in (head_logs, _plain):
        (_, weight, _), tokens = _made()
        embedding = torch.nn.Embedding.from_pretrained(weight, freeze=False)
        compute(torch.tanh(embedding(tokens.flip(0))), embedding.weight, tokens).sum().backward()
        grads.append(embedding.weight.grad)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("frozen", [False, True])
def test_known_16_bits_in_32_bit_sums(blocks, dtype, frozen):
    # Exact numbers of the same 16-bit inputs; rounding comes only where a gradient is stored in 16 bits.
    results, near = [], torch.finfo(dtype).eps
    for compute, kind in ((head_logs, dtype), (_plain, torch.float64)):
        (hidden, weight, bias), tokens = _made(dtype)
        inputs = [each.to(kind).requires_grad_(not frozen or each is hidden) for each in (hidden, weight, bias)]
        logs = compute(inputs[0], inputs[1], tokens, inputs[2])
        logs.sum().backward()
        results.append((logs.detach(), [each.grad for each in inputs if each.requires_grad]))
    (logs, slopes), (exact, truths) = results
    assert logs.dtype == torch.float32
    torch.testing.assert_close(logs.double(), exact, rtol=1e-5, atol=1e-5)
    for slope, truth in zip(slopes, truths, strict=True):
        assert slope.dtype == dtype
        torch.testing.assert_close(slope.double(), truth, rtol=2 * near, atol=near)


def test_contrast_logits_of_16_bits_lose_what_this_keeps():
    (hidden, weight, _), tokens = _made(torch.bfloat16, scale=8.0)
    exact = _plain(hidden.double(), weight.double(), tokens)
    ours = (head_logs(hidden, weight, tokens).double() - exact).abs().max()
    plain = (_plain(hidden, weight, tokens).double() - exact).abs().max()
    assert ours < 1e-4 < 1e-2 < plain


def test_limit_large_logits_stay_finite():
    (hidden, weight, _), tokens = _made(torch.float32, scale=1e4)
    hidden.requires_grad_()
    logs = head_logs(hidden, weight, tokens)
    logs.sum().backward()
    torch.testing.assert_close(logs.detach(), _plain(hidden.detach(), weight, tokens))
    assert hidden.grad.isfinite().all()


def test_autocast_decides_the_width_of_the_products():
    (hidden, weight, _), tokens = _made(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = head_logs(hidden, weight, tokens)
    torch.testing.assert_close(found, head_logs(hidden.bfloat16(), weight.bfloat16(), tokens))
    assert not torch.equal(found, head_logs(hidden, weight, tokens))


@pytest.mark.parametrize("narrow", [0, 1])
def test_hidden_states_wider_or_narrower_than_the_head(narrow):
    (hidden, weight, _), tokens = _made(torch.float32)
    inputs = [hidden, weight]
    inputs[narrow] = inputs[narrow].bfloat16()
    inputs[0].requires_grad_()
    found = head_logs(inputs[0], inputs[1], tokens)
    found.sum().backward()
    torch.testing.assert_close(found.detach(), _plain(*(each.detach().float() for each in inputs), tokens))
    assert inputs[0].grad.dtype == inputs[0].dtype


def test_no_tokens():
    (hidden, weight, _), tokens = _made()
    hidden = hidden[:0].requires_grad_()
    found = head_logs(hidden, weight, tokens[:0])
    found.sum().backward()
    assert found.shape == (0,)
    assert hidden.grad.shape == (0, WIDTH)


class _Largest(TorchDispatchMode):
    """The bytes of the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(each, torch.Tensor):
                self.bytes = max(self.bytes, each.numel() * each.element_size())
        return out


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_tensor_is_larger_than_a_block(monkeypatch, frozen, dtype):
    many, vocabulary, width, limit = 300, 5000, 8, 1 << 18
    monkeypatch.setitem(module.BLOCK_BYTES, "cpu", limit)
    hidden = torch.randn(many, width, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocabulary, width, dtype=dtype, requires_grad=not frozen)
    with _Largest() as largest:
        head_logs(hidden, weight, torch.randint(vocabulary, (many,))).sum().backward()
    assert limit // 2 < largest.bytes <= limit
    with _Largest() as largest:
        _plain(hidden, weight, torch.randint(vocabulary, (many,))).sum().backward()
    assert largest.bytes == many * vocabulary * dtype.itemsize


PEAK = """
import sys
import torch
from backchannel.parts.head_logs import head_logs

def peak():
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

def whole(hidden, weight, tokens):
    return torch.log_softmax(hidden @ weight.T, 1).gather(1, tokens[:, None])[:, 0]

torch.set_num_threads(1)
compute = {"blocks": head_logs, "whole": whole}[sys.argv[1]]
weight, tokens = torch.randn(262144, 16), torch.arange(256)
hidden = torch.randn(256, 16, requires_grad=True)
head_logs(hidden[:2], weight[:3], tokens[:2]).sum().backward()  # what a first call loads
before = peak()
compute(hidden, weight, tokens).sum().backward()
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_contrast_peak_memory_of_a_large_vocabulary():
    # All logits are 256 MB, and the plain path holds them more than once.
    blocks, whole = (
        float(subprocess.run([sys.executable, "-c", PEAK, kind], check=True, capture_output=True, text=True).stdout)
        for kind in ("blocks", "whole")
    )
    assert blocks < 100
    assert whole > 500
