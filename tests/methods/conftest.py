"""The networks of these tests are so small that a second thread would only wait."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def compile_anew():
    """What was compiled in one test is not taken for another."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()
