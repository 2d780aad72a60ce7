"""What is measured of a network, against loops; resets."""

import math

import numpy as np
import pytest
import torch
from small_problem import network, stream, training, whole_run

import supple
from supple.lab.population import class_incremental_metrics as measures
from supple.lab.population.class_incremental import RESETS, reset
from supple.lab.population.class_incremental_metrics import at_start, evaluate
from supple.metrics import dormant_units


def looked_at(net, x):
    """Largest output of each hidden unit over all images and tokens, and the class token of each image."""
    largest, tokens = [[-math.inf] * 16 for _ in range(2)], []
    for image in x:
        token = net.dropout(torch.cat((net.class_token, net.patches(image[None]).flatten(2).mT), dim=1) + net.positions)
        for k, block in enumerate(net.blocks):
            inner = token + block.attention(block.norm1(token))
            outputs = torch.nn.functional.gelu(block.mlp.linear1(block.norm2(inner)))[0].tolist()
            largest[k] = [max(most, *others) for most, *others in zip(largest[k], *outputs, strict=True)]
            token = block(token)
        tokens.append(net.norm(token)[0, 0].tolist())
    return [value for layer in largest for value in layer], np.array(tokens)


@pytest.mark.parametrize("reparameterized", [False, True])
@pytest.mark.parametrize("addition", [0, 1, 2])
def test_the_start_of_an_addition(monkeypatch, reparameterized, addition):
    monkeypatch.setattr(measures, "_CHUNK", 5)
    data, net = stream(), network(reparameterized=reparameterized, dropout=0.1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) / 10)
        net.blocks[0].mlp.linear1.bias[:3] = -1e3
        net.blocks[1].mlp.linear1.weight[5:7] = 0
        net.blocks[1].mlp.linear1.bias[5:7] = torch.tensor([-0.5, 0.5])  # gelu: -0.15, dormant, and 0.35, not
    net.train()
    found = at_start(net, data, addition, 13)
    assert net.training
    net.eval()
    measured = ((False, found.dormant_before, found.rank_before), (True, found.dormant_new, found.rank_new))
    for new, dormant, rank in measured:
        x = data.examples(addition, 13, new=new)
        if not len(x):
            assert (dormant, rank) == (None, None)
            continue
        with torch.no_grad():
            largest, tokens = looked_at(net, x)
        assert dormant == pytest.approx(sum(value <= 0.01 for value in largest) / 32)
        assert dormant >= 4 / 32
        values = np.linalg.svd(tokens, compute_uv=False)
        assert rank == int((values.cumsum() / values.sum() < 0.99).sum()) + 1
    values = [value for parameter in net.parameters() for value in parameter.flatten().tolist()]
    assert found.weight_magnitude == pytest.approx(sum(map(abs, values)) / len(values))
    norms = [net.norm, *(norm for block in net.blocks for norm in (block.norm1, block.norm2))]
    scales = [value + reparameterized for norm in norms for value in norm.weight.tolist()]
    assert found.scale_magnitude == pytest.approx(sum(map(abs, scales)) / len(scales))


def test_dormant_units_put_out_little_on_all_examples():
    features = torch.tensor([[0.0, -5.0, 0.01, 0.02], [0.0, 0.005, 0.01, 0.0]])
    assert dormant_units(features).tolist() == [True, True, True, False]
    assert dormant_units(features, 0.0).tolist() == [True, False, False, False]


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_evaluation(batch_size):
    run = training(dropout=0.5)
    whole_run(run)
    net, part, augmentation = run.network, run.stream.test.of(0, 4), run.stream.augmentation
    loss, accuracy = evaluate(net, lambda x: net(x)[:, :4], part, augmentation, batch_size)
    losses, right = [], 0
    net.eval()
    for image, label in zip(part.images, part.labels.tolist(), strict=True):
        with torch.no_grad():
            outputs = net(augmentation.normalize(image[None]))[0, :4].tolist()
        losses.append(math.log(sum(math.exp(output) for output in outputs)) - outputs[label])
        right += outputs.index(max(outputs)) == label
    assert float(loss) == pytest.approx(sum(losses) / len(part), rel=1e-5)
    assert float(accuracy) == right / len(part)


PARTS = {
    "network": lambda name: True,
    "head": lambda name: name.startswith("output."),
    "layer_norms": lambda name: "norm" in name,
    "attention": lambda name: ".attention." in name,
    "mlp": lambda name: ".mlp." in name,
    "momentum": lambda name: False,
}


@pytest.mark.parametrize("part", RESETS)
def test_a_reset_draws_its_part_again(part):
    run = training(reset=(part,))
    fresh = network()
    for epoch in range(2):
        run.train_epoch(epoch)
    net, optimizer = run.network, run.optimizer
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    again = {}
    for addition in (1, 2, 1):
        reset(net, optimizer, [part], addition)
        again.setdefault(addition, []).append([parameter.detach().clone() for parameter in net.parameters()])
    assert all(map(torch.equal, *again[1]))
    start = {name: parameter.detach() for name, parameter in fresh.named_parameters()}
    for name, parameter in net.named_parameters():
        if not PARTS[part](name):
            assert torch.equal(parameter, before[name]), name
            assert (parameter in optimizer.state) == (part != "momentum")
            continue
        assert parameter not in optimizer.state
        drawn = net.initial_distributions()[name]
        if isinstance(drawn, supple.Constant):
            assert (parameter == drawn.mean).all(), name
        else:
            assert not (parameter == start[name]).any(), name
            assert parameter.abs().max() <= 1.5 * start[name].abs().max(), name
            assert float(parameter.detach().std()) == pytest.approx(float(start[name].std()), rel=0.5), name
    assert {name for name in before if PARTS[part](name)} == set(net.parameters_of(part) if part != "momentum" else ())


def test_training_resets_at_each_addition_but_the_first():
    run, twin = training(reset=("network",)), training()
    assert run.train_epoch(0) == twin.train_epoch(0)
    assert run.train_epoch(1) == twin.train_epoch(1)
    found = run.train_epoch(2)
    values = torch.cat([parameter.detach().flatten() for parameter in network().parameters()])
    assert found.start.weight_magnitude == pytest.approx(float(values.abs().mean()), rel=0.05)
    assert found != twin.train_epoch(2)


def test_several_parts_at_once():
    run = training(reset=("head", "mlp"))
    run.train_epoch(0)
    reset(run.network, run.optimizer, run.reset, 1)
    assert {name for name, p in run.network.named_parameters() if p not in run.optimizer.state} == {
        name for name in dict(run.network.named_parameters()) if name.startswith("output.") or ".mlp." in name
    }
