"""The problems of the field: what their papers say of them, and that each of their studies trains."""

from __future__ import annotations

import math
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

from supple.lab import Problem, compare
from supple.lab.commands import app
from supple.lab.data import mnist10k
from supple.lab.report.measures import measure
from supple.lab.streams import SeedStream
from supple.lab.studies import (
    bit_flipping,
    continual_imagenet,
    five_plus_one,
    label_permutation,
    permuted_text,
    random_labels,
    warm_start,
)
from supple.lab.study import shipped
from supple.lab.study.problems import open_problem
from supple.lab.study.spec import OwnStudy, read

OF_THE_FIELD = [name for name in shipped.names() if isinstance(read(shipped.find(name)[0]), OwnStudy)]


def test_each_problem_has_its_published_size_and_a_small_one() -> None:
    sizes = {folder: {one.rpartition("/")[2] for one in OF_THE_FIELD if one.startswith(folder)} for folder in
             {one.rpartition("/")[0] for one in OF_THE_FIELD if not one.startswith("leaderboard/")}}  # fmt: skip
    assert sizes
    assert all(found >= {"full", "small"} for found in sizes.values())


def write_cifar100(folder: Path, pixels: np.ndarray) -> None:
    """Writes images [images, 3072] of class 0, 1 and so on to 99, and again, as CIFAR-100 has them."""
    labels = np.arange(len(pixels)) % 100
    records = np.concatenate([labels[:, None] // 5, labels[:, None], pixels], axis=1).astype(np.uint8)
    (folder / "train.bin").write_bytes(records.tobytes())


def data_for(name: str, folder: Path) -> Path | None:
    """A folder with noise in the place of data that are not within the package, in their format."""
    noise = np.random.default_rng(0)
    if name == "five_plus_one/small":
        write_cifar100(folder, noise.integers(0, 256, (3200, 3072), dtype=np.uint8))
    elif name == "continual_imagenet/small":
        for number in range(20):
            np.save(folder / f"{number}.npy", noise.integers(0, 256, (600, 3, 32, 32), dtype=np.uint8))
    else:
        return None
    return folder


@pytest.mark.parametrize(
    "name", [name for name in OF_THE_FIELD if name.endswith("/small") or name.startswith("leaderboard/")]
)
def test_a_small_one_passes_all_checks_before_training(name: str, tmp_path: Path) -> None:
    for needed in ("gymnasium", "stable_baselines3") if name.startswith("changing_control") else ():
        pytest.importorskip(needed)
    study = read(shipped.find(name)[0])
    folder = data_for(name, tmp_path)
    problem = open_problem(study, folder, verify=folder is None)
    problem.check(study.run.tasks, study.columns, study.run.seeds[:2])


def test_random_labels_are_new_and_uniform_for_the_same_images() -> None:
    stream = random_labels.make().stream(3)  # type: ignore[operator]
    (first, labels), (second, others) = (stream[task]._tensors for task in (0, 1))
    assert torch.equal(first, second)
    assert first.shape == (1200, 784)
    assert len(stream[0]) == 400 * 75
    # In about a tenth of the images the label is the same by chance: 120, with a standard deviation of 10.4.
    assert abs(int((labels == others).sum()) - 120) < 42
    counts = torch.bincount(labels, minlength=10)
    assert len(counts) == 10
    assert (counts - 120).abs().max() < 42
    assert not torch.equal(random_labels.make().stream(4)[0]._tensors[0], first)  # type: ignore[operator]


def test_permuted_labels_are_the_true_ones_at_other_places() -> None:
    source = mnist10k()
    known = {
        pixels.numpy().tobytes(): label for pixels, label in zip(source.images, source.labels.tolist(), strict=True)
    }
    stream = label_permutation.make(batch_size=10).stream(0)  # type: ignore[operator]
    places = []
    for task in (0, 1):
        assert len(stream[task]) == 250
        pixels, labels = (torch.cat(parts) for parts in zip(*stream[task], strict=True))
        assert len(labels) == 2500
        seen = (255 * pixels).round().to(torch.uint8)
        found = {(known[one.numpy().tobytes()], label) for one, label in zip(seen, labels.tolist(), strict=True)}
        # Each class has one place, and each place one class.
        assert len(found) == len({true for true, _ in found}) == len({label for _, label in found}) == 10
        places.append(found)
    assert places[0] != places[1]


def test_plasticity_is_the_share_of_a_samples_loss_that_a_step_takes_away() -> None:
    # Probabilities of the right class 0.2 and then 0.5; 0.5 and then 0.2, which is no plasticity.
    before = torch.tensor([[0.2, 0.8], [0.5, 0.5]]).log()
    after = torch.tensor([[0.5, 0.5], [0.2, 0.8]]).log()
    expected = (1 - math.log(0.5) / math.log(0.2)) / 2
    assert label_permutation.plasticity(before, after, torch.tensor([0, 0])).item() == pytest.approx(expected)


def test_plasticity_is_measured_across_the_step_of_each_batch(tmp_path: Path) -> None:
    problem = label_permutation.make(samples=6, batch_size=2)
    results = compare(problem, ["base"], tasks=1, seeds=1, out=tmp_path, examples=0)
    torch.manual_seed(0)
    network = problem.network(0)
    optimizer = problem.optimizer(network.parameters())
    found = []
    for x, y in SeedStream(problem.stream, 0).task(0):
        first = F.cross_entropy(network(x), y, reduction="none")
        optimizer.zero_grad()
        first.mean().backward()
        optimizer.step()
        then = F.cross_entropy(network(x), y, reduction="none")
        found.append((1 - then / first).clamp(0, 1).mean().item())
    assert results.tasks["metric"].item() == pytest.approx(sum(found) / 3, rel=1e-4)
    assert results.outcome.name == "plasticity"


def test_one_slow_bit_flips_between_two_tasks_and_the_others_are_new_each_time() -> None:
    stream = bit_flipping.make(examples=200).stream(5)  # type: ignore[operator]
    before = stream.inputs(0)
    flipped = set()
    for task in range(1, 40):
        inputs = stream.inputs(task)
        assert (inputs[:, :15] == inputs[0, :15]).all()
        changed = (inputs[0, :15] != before[0, :15]).nonzero().flatten().tolist()
        assert len(changed) == 1
        flipped.update(changed)
        assert ((inputs[:, 15:20].mean(dim=0) - 0.5).abs() < 0.2).all()
        assert (inputs[:, 20] == 1).all()
        before = inputs
    assert len(flipped) > 10
    assert set(stream.inputs(0).unique().tolist()) == {0, 1}


def test_the_target_is_the_papers_network_written_out() -> None:
    stream = bit_flipping.make(examples=50).stream(1)  # type: ignore[operator]
    inputs = stream.inputs(0)
    targets = stream.target(inputs)
    weights, outgoing = stream._weights.tolist(), stream._outgoing.tolist()
    assert (len(weights), len(weights[0])) == (100, 21)
    assert {one for row in weights for one in row} == set(outgoing) == {-1.0, 1.0}
    for x, target in zip(inputs.tolist(), targets.tolist(), strict=True):
        total = 0.0
        for row, out in zip(weights, outgoing, strict=True):
            threshold = 21 * 0.7 - sum(one == -1 for one in row)
            total += out * (sum(w * bit for w, bit in zip(row, x, strict=True)) > threshold)
        assert target == [total]


def test_warm_start_adds_images_and_tests_on_others() -> None:
    problem = warm_start.make(step=0.3, passes=2, batch_size=50)
    stream = problem.stream(2)  # type: ignore[operator]
    assert len(stream) == 4
    counts = [len(stream[task].batches._tensors[1]) for task in range(4)]
    assert counts == [900, 3600, 6300, 9000]
    assert len(stream[0].batches) == 2 * 18
    earlier, later = (stream[task].batches._tensors[0] for task in (0, 1))
    assert torch.equal(later[:900], earlier)
    tested = torch.cat([x for x, _ in stream[0].test])
    assert len(tested) == 1000
    seen = {tuple(one) for one in stream[3].batches._tensors[0][:, 300:500].tolist()}
    assert sum(tuple(one) in seen for one in tested[:, 300:500].tolist()) < 10
    with pytest.raises(IndexError):
        stream[4]


@pytest.mark.parametrize(("first", "step", "sizes"), [(0.1, 0.4, [900, 4500, 8100, 9000]), (1.0, 0.5, [9000])])
def test_warm_start_ends_with_all_images(first: float, step: float, sizes: list[int]) -> None:
    stream = warm_start.make(first=first, step=step).stream(0)  # type: ignore[operator]
    assert [len(stream[task].batches._tensors[1]) for task in range(len(stream))] == sizes


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (label_permutation.make, {"metric": "plasticty"}, "metric is 'plasticty'; it has to be one of plasticity, acc"),
        (warm_start.make, {"step": 0}, "step 0 .*step above 0"),
        (warm_start.make, {"images": 9001}, "images at most the 9000"),
        (random_labels.make, {"images": 10001}, "images is 10001; it has to be from 1 to 10000"),
        (continual_imagenet.make, {"data_dir": ".", "classes": 1}, "classes is 1; it has to be 2 or more"),
        (permuted_text.make, {"characters": 64}, "characters is 64; it has to be above 64, the context"),
        (lambda: random_labels.make().optimizer([], name="sgd"), {}, "name is 'sgd'; .* such as SGD or Adam"),
    ],
)
def test_sizes_and_names_that_a_problem_cannot_have(make, settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_permuted_text_is_the_library_with_characters_at_other_places() -> None:
    text = permuted_text.library(3000)
    written = "".join(permuted_text.CHARACTERS[number] for number in text.tolist())
    assert "import" in written
    stream = permuted_text.make(characters=3000, steps=4, batch_size=5, context=20).stream(1)  # type: ignore[operator]
    tables = []
    for task in (0, 1):
        batches = stream[task]
        assert len(batches) == 4
        inputs, targets = next(iter(batches))
        assert inputs.shape == targets.shape == (5, 20)
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        # Somewhere in the text there is a window which a change of places turns into the first of the batch.
        windows = text.unfold(0, 20, 1)

        def fits(window: torch.Tensor, line: torch.Tensor = inputs[0]) -> bool:
            pairs = set(zip(window.tolist(), line.tolist(), strict=True))
            return len(pairs) == len({old for old, _ in pairs}) == len({new for _, new in pairs})

        where = next(window for window in windows if fits(window))
        tables.append(dict(zip(where.tolist(), inputs[0].tolist(), strict=True)))
    assert tables[0] != tables[1]


def test_the_small_gpt_sees_only_what_came_before() -> None:
    network = permuted_text.make(characters=500, context=12).network(0)
    tokens = torch.randint(90, (2, 12))
    changed = tokens.clone()
    changed[:, 7:] = 3
    before, after = network(tokens), network(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_continual_imagenet_reads_pairs_of_classes_from_their_files(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 9, 3, 32, 32), dtype=np.uint8)
    for number, some in enumerate(images):
        np.save(tmp_path / f"{number}.npy", some)
    sizes = {"classes": 6, "images": 8, "steps": 5, "batch_size": 4}
    problem = continual_imagenet.make(tmp_path, **sizes)
    stream = problem.stream(3)  # type: ignore[operator]
    pairs = [stream.classes(task) for task in range(6)]
    # All classes come once, and then in another order.
    assert sorted(chain(*pairs[:3])) == sorted(chain(*pairs[3:])) == list(range(6))
    assert pairs[:3] != pairs[3:]
    x, y = (torch.cat(parts) for parts in zip(*stream[1], strict=True))
    assert len(stream[1]) == 5
    assert len(y) == 20
    for one, label in zip(x, y.tolist(), strict=True):
        known = torch.from_numpy(images[pairs[1][label]][:8]) / 255
        assert (known == one).flatten(1).all(dim=1).any()
    # The first pass has each image once.
    assert len({one.numpy().tobytes() for one in x[:16]}) == 16
    results = compare(problem, ["base", "cbp"], tasks=2, seeds=1, out=tmp_path / "out", examples=4)
    assert results.outcome.name == "accuracy"
    assert (results.tasks["dead"] < 1).all()
    with pytest.raises(ValueError, match="give a folder with --data-dir"):
        continual_imagenet.make()
    with pytest.raises(ValueError, match=r"there is no .*6.npy; the problem has 7 classes"):
        continual_imagenet.make(tmp_path, classes=7)
    np.save(tmp_path / "0.npy", images[0][:7])
    with pytest.raises(ValueError, match=r"0.npy has shape \(7, 3, 32, 32\); it has to be \[8 or more"):
        continual_imagenet.read(tmp_path / "0.npy", 8)


def test_five_classes_and_one_take_turns(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (200, 3072), dtype=np.uint8)
    write_cifar100(tmp_path, pixels)
    problem = five_plus_one.make(steps=4, batch_size=2, data_dir=tmp_path, verify=False)
    stream = problem.stream(0)  # type: ignore[operator]
    classes = [[part.tolist() for part in both] for both in stream.classes]
    assert [(len(hard), len(easy)) for hard, easy in classes] == [(5, 1)] * 16
    assert len(set(chain(*chain(*classes)))) == 96
    for task in (0, 1):
        for batches, some in zip((stream[task].batches, stream[task].later), classes[task], strict=True):
            x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
            assert x.shape == (8, 3, 32, 32)
            assert set(y.tolist()) <= set(some)
            for one, label in zip((255 * x).round(), y.tolist(), strict=True):
                assert any(np.array_equal(one.numpy().reshape(-1), pixels[row]) for row in (label, label + 100))
    compare(problem, ["base"], tasks=2, seeds=2, out=tmp_path / "out", examples=4)


class Reading(nn.Module):
    """Answers with the class that is written in the first pixel, and goes on doing so when its step size is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -self.sharpness * (255 * x[:, 0, 0, :1] - torch.arange(100)).abs()


def test_who_never_changes_has_the_accuracy_of_hard_tasks_from_the_first_to_the_last(tmp_path: Path) -> None:
    """Three of five images of each hard class tell their class, two another one; of an easy class all tell it."""
    labels, image = torch.arange(500) % 100, torch.arange(500) // 100

    def stream(seed: int) -> five_plus_one.HardAndEasy:
        def of(images: torch.Tensor) -> five_plus_one.HardAndEasy:
            return five_plus_one.HardAndEasy(images, labels, seed, (5, 1), steps=5, batch_size=5)

        easy = torch.cat([later for _, later in of(torch.zeros(500, 3, 32, 32)).classes])
        told = torch.where(torch.isin(labels, easy) | (image < 3), labels, (labels + 1) % 100)
        return of(told.byte()[:, None, None, None].expand(-1, 3, 32, 32))

    problem = Problem(
        network=lambda seed: Reading(),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0),
        stream=stream,
        loss=F.cross_entropy,
    )
    runs = measure(compare(problem, ["base"], tasks=15, seeds=3, out=tmp_path, examples=0)).runs
    for outcome in ("early", "late", "area"):
        assert runs[outcome].to_list() == pytest.approx([0.6] * 3, abs=1e-6)
    assert runs["change"].to_list() == pytest.approx([0] * 3, abs=1e-6)


def test_the_sizes_of_kumar_et_al(tmp_path: Path) -> None:
    """Their table 1 and appendix A.1.3 (arXiv 2308.11958)."""
    write_cifar100(tmp_path, np.zeros((3200, 3072), dtype=np.uint8))
    for number in range(1000):
        (tmp_path / f"{number}.npy").touch()
    tasks = {name: read(shipped.find(f"{name}/full")[0]).run.tasks for name in ("five_plus_one", "continual_imagenet")}
    assert tasks == {"five_plus_one": 15, "continual_imagenet": 500}
    problem = five_plus_one.make(data_dir=tmp_path, verify=False)
    both = problem.stream(0)[0]  # type: ignore[operator]
    assert [(len(some), len(next(iter(some))[1])) for some in (both.batches, both.later)] == [(780, 32)] * 2
    pairs = continual_imagenet.make(tmp_path)
    stream = pairs.stream(0)  # type: ignore[operator]
    assert (len(stream[0]), stream._batch_size, stream._images) == (120, 100, 600)
    assert len(set(chain(*map(stream.classes, range(500))))) == 1000
    for made, outputs in ((problem, 100), (pairs, 2)):
        widths = [p.shape[0] for name, p in made.network(0).named_parameters() if name.endswith("bias")]
        assert widths == [16, 16, 100, 100, outputs]


def test_the_plan_of_a_problem_that_needs_data(tmp_path: Path) -> None:
    write_cifar100(tmp_path, np.zeros((3200, 3072), dtype=np.uint8))
    options = ["--tasks", "2", "--seeds", "1", "--methods", "base", "--data-dir", str(tmp_path), "--no-verify"]
    result = CliRunner().invoke(app, ["plan", "five_plus_one/full", *options])
    assert result.exit_code == 0, result.output
    assert "2 runs of 3,120 steps" in result.output


def test_control_changes_for_an_agent_that_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("gymnasium")
    from supple.lab.studies import changing_control

    methods = {"base": {}, "swr": {"frequency": 20, "factor": 0.1}}
    results = compare(changing_control.make(steps=260), methods, tasks=2, seeds=[3], out=tmp_path)
    agent = changing_control.Agent(lambda model, optimizer: None, seed=3)
    expected = [agent.live(changing_control.Cart(3, phase), 260) for phase in range(2)]
    assert results.tasks.filter(run=0)["metric"].to_list() == pytest.approx(expected, rel=1e-6)
    assert results.tasks.filter(run=1)["reinitialized"].sum() > 0
    carts = [changing_control.Cart(3, phase).env.unwrapped for phase in range(2)]
    assert carts[0].length != carts[1].length  # type: ignore[attr-defined]


class Falls:
    """A cart whose pole falls after so many steps, or stands for the 500 of an episode."""

    def __init__(self, after: int) -> None:
        self.after, self.steps = after, 0

    def reset(self) -> tuple[np.ndarray, dict[str, object]]:
        self.steps = 0
        return np.zeros(4, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, object]]:
        self.steps += 1
        return np.zeros(4, np.float32), 1.0, self.steps == self.after, self.steps == 500, {}


@pytest.mark.parametrize(("after", "steps", "expected"), [(501, 1300, 500), (450, 1000, 450), (501, 400, 400)])
def test_episodes_that_a_phase_cuts_off_have_no_return(after: int, steps: int, expected: float) -> None:
    """But where none ends in its second half, all the time since the last end counts."""
    pytest.importorskip("gymnasium")
    from supple.lab.studies import changing_control

    agent = changing_control.Agent(lambda model, optimizer: None, seed=0, updates=0)
    assert agent.live(Falls(after), steps) == expected  # type: ignore[arg-type]


def test_ppo_learns_on_carts_that_change(tmp_path: Path) -> None:
    """Plain training gives what Stable-Baselines3 gives on the same carts."""
    pytest.importorskip("gymnasium")
    sb3 = pytest.importorskip("stable_baselines3")
    from supple.lab.studies import changing_control

    methods = {"base": {}, "swr": {"frequency": 20, "factor": 0.1}, "cbp": {"replacement_rate": 0.01, "maturity": 5}}
    problem = changing_control.make(steps=512, algorithm="ppo")
    results = compare(problem, methods, tasks=2, seeds=[3], out=tmp_path)
    kind = {"policy_kwargs": {"activation_fn": torch.nn.ReLU}}
    plain = sb3.PPO("MlpPolicy", changing_control.Cart(3, 0), n_steps=256, seed=3, device="cpu", **kind)
    expected = []
    for phase in range(2):
        cart = sb3.common.monitor.Monitor(changing_control.Cart(3, phase))
        plain.set_env(cart)
        plain.learn(512)
        episodes = zip(cart.get_episode_rewards(), np.cumsum(cart.get_episode_lengths()), strict=True)
        expected.append(np.mean([reward for reward, end in episodes if end >= 256]))
    assert results.tasks.filter(run=0)["metric"].to_list() == pytest.approx(expected, rel=1e-6)
    for run in (1, 2):
        assert results.tasks.filter(run=run)["reinitialized"].sum() > 0
    with pytest.raises(ValueError, match="algorithm is 'a2c'"):
        changing_control.make(algorithm="a2c")
