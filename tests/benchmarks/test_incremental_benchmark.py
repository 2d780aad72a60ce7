"""benchmarks/incremental.py runs, and all its contenders compute the same."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from supple.lab.data.augmentation import CIFAR100_MEAN, CIFAR100_STD, Augmentation
from supple.lab.nn import ViT

FOLDER = Path(__file__).parents[2] / "benchmarks"
SMALL = {"outputs": 5, "depth": 2, "heads": 3, "width": 12, "hidden": 20}


@pytest.fixture
def research(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import research

    return research


def run(*options):
    return subprocess.run(
        [sys.executable, FOLDER / "incremental.py", "--quick", "--threads", "1", "--workers", "1", *options],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_it_measures_every_contender():
    result = run("--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["quick"]
    rows = found["contenders"]
    assert list(rows) == ["plain", "plain, supple's network", "supple", "supple, SWR", "supple, bfloat16"]
    for name, row in rows.items():
        rate, evaluated = row["images_a_second"]["median"], row["evaluated_a_second"]["median"]
        assert rate == pytest.approx(90 / row["step_seconds"])
        # 100 epochs with each of 5, 10, ..., 100 classes of 450 images to train, 50 to validate and 100 to test.
        seconds = sum(100 * k * (450 / rate + 150 / evaluated) for k in range(5, 101, 5))
        assert row["study_days"]["median"] == pytest.approx(seconds / 86400)
        assert all(0 <= share < 1 for share in row["shares"].values())
        assert (row["shares"]["method"] > 0) == (name == "supple, SWR")
    assert rows["plain"]["over_plain"]["median"] == 1


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there():
    result = run("--device", "cuda")
    assert result.returncode == 2
    assert "torch finds no CUDA device on this machine; use --device cpu" in result.stderr


def test_both_augmentations_are_the_same(research):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (30, 3, 32, 32), dtype=torch.uint8, generator=generator)
    numbers = torch.rand(30, 4, generator=generator)
    expected = Augmentation(CIFAR100_MEAN, CIFAR100_STD)(images, numbers)
    found = [research.augment(research.to_tensor(image), row) for image, row in zip(images, numbers, strict=True)]
    # Where a pixel lies in the middle between two, rounding decides.
    near = (torch.stack(found) - expected).abs().amax(dim=1) < 1e-4
    assert near.double().mean() > 0.999


def test_both_networks_are_the_same(research):
    ours, theirs = ViT(**SMALL).eval(), research.TorchViT(**SMALL).eval()
    generator = torch.Generator().manual_seed(2)
    names = {"encoder.layers.": "blocks.", "self_attn.in_proj_": "attention.in_projection."}
    names |= {"self_attn.out_proj": "attention.out_projection", ".linear": ".mlp.linear"}
    values = {name: torch.randn(value.shape, generator=generator) / 4 for name, value in ours.state_dict().items()}
    ours.load_state_dict(values)

    def renamed(name):
        for old, new in names.items():
            name = name.replace(old, new)
        return name

    theirs.load_state_dict({name: values[renamed(name)] for name in theirs.state_dict()})
    images = torch.randn(4, 3, 32, 32, generator=generator)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-3, atol=1e-4)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
