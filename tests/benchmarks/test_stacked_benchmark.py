"""The benchmark of stacked modules runs, and compares networks of the sizes that it names."""

import pytest
import stacked


def test_networks_have_the_sizes_that_are_named():
    sizes = {name: sum(p.numel() for p in make(0).parameters()) for name, (make, _) in stacked.NETWORKS.items()}
    assert sizes == {"lenet": 61_706, "gpt": 110_336}


@pytest.mark.slow
def test_it_measures_both_contenders(capsys):
    found = stacked.main(["--quick", "--network", "gpt", "--replicas", "2"])
    measured = found["networks"]["gpt"]
    assert len(measured["ratio"]["values"]) == 2
    assert min(measured["stacked"]["low"], measured["alone"]["low"]) > 0
    assert "gpt" in capsys.readouterr().out
