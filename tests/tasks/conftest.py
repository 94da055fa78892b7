from __future__ import annotations

import importlib.util

import pytest


@pytest.fixture
def one_torch_thread():
    """Keep torch to one thread: on busy cores its threads wait for each other, 15 times as long."""
    if importlib.util.find_spec("torch") is None:
        yield
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
