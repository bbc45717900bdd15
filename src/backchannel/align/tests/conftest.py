"""Tensors in these tests are small: one thread is faster than several."""

import importlib.util

if importlib.util.find_spec("torch") is not None:
    import torch

    torch.set_num_threads(1)
