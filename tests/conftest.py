import os
from collections import Counter
from collections.abc import Iterator

# Threads of a product wait for each other by spinning, which takes minutes where other programs use the cores. It is
# set before torch is imported, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

# How long an example takes is no property of the code on a busy machine. Examples are the same in every run, so that
# nobody's change fails for a fault that was there before; HYPOTHESIS_RANDOM=1 looks for new ones.
settings.register_profile("supple", deadline=None, derandomize="HYPOTHESIS_RANDOM" not in os.environ)
settings.load_profile("supple")


@pytest.fixture(autouse=True, scope="module")
def seed_of_methods() -> Iterator[None]:
    """Methods without a stated seed have 0, so that two can be compared; test_seeds.py tests the real ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("supple.methods.base.common_seed", lambda *_: 0)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    seen = Counter[str]()
    for item in items:
        if part := item.get_closest_marker("one_in"):
            name = item.nodeid.partition("[")[0]
            if seen[name] % part.args[0]:
                item.add_marker("slow")
            seen[name] += 1
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(900))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))
