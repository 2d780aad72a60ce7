"""What holds for every method: settings, errors, hooks, state, and that zero does nothing."""

import copy

import pytest
import torch
from every_method import EVERY, FEW, build
from helpers import backward, perceptron, unchanged, values
from torch import nn

import supple
from supple import Consumer, Feature, Slice, UnitGroup, Units
from supple.lab.nn import MLP, StackedMLP
from supple.methods.units import UnitMethod

every = pytest.mark.parametrize("name", EVERY)
CLASSES = [supple.L2, supple.ShrinkAndPerturb, supple.SWR, supple.CBP, supple.ReDo]
every_class = pytest.mark.parametrize("kind", CLASSES)
UNIT_METHODS = [supple.CBP, supple.ReDo]
SEEDS = [3, 3, 8, 2**40, 0, 11]


def hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@every
def test_the_text_shows_the_settings(name):
    kind, settings, words = EVERY[name]
    text = repr(build(name, perceptron(), replica=0))
    assert text.startswith(f"{kind.__name__}(")
    for key, setting in {**{key: setting[0] for key, setting in settings.items()}, **words}.items():
        assert f"{key}={setting!r}" in text
    method = build(name, StackedMLP(SEEDS, 5, 8, 3, 2))
    assert not settings or f"{next(iter(settings))}=[" in repr(method)
    assert method.state_dict()["method"] == kind.__name__


WRONG = [
    (supple.L2, "l2", -0.1, "at least 0 and at most 1"),
    (supple.L2, "l2", 1.1, "at least 0 and at most 1"),
    (supple.L2, "l2", float("nan"), "at least 0 and at most 1"),
    (supple.ShrinkAndPerturb, "variance", -1e-9, "at least 0"),
    (supple.ShrinkAndPerturb, "variance", float("inf"), "a finite number of at least 0"),
    (supple.SWR, "frequency", 0, "a whole number of at least 1"),
    (supple.SWR, "frequency", 2.5, "a whole number of at least 1"),
    (supple.SWR, "frequency", float("inf"), "a whole number of at least 1"),
    (supple.SWR, "factor", -1e-3, "at least 0"),
    (supple.SWR, "decay", 1.0, "at least 0 and at most 1"),
    (supple.CBP, "maturity", -1, "a whole number of at least 0"),
    (supple.CBP, "maturity", 0.5, "a whole number of at least 0"),
    (supple.CBP, "replacement_rate", 1.01, "at least 0 and at most 1"),
    (supple.CBP, "decay", -0.5, "at least 0"),
    (supple.ReDo, "frequency", 0, "a whole number of at least 1"),
    (supple.ReDo, "threshold", -1, "at least 0"),
]


@pytest.mark.parametrize(("kind", "setting", "value", "allowed"), WRONG)
def test_a_setting_out_of_range_is_named_with_its_range(kind, setting, value, allowed):
    model = perceptron()
    with pytest.raises(ValueError, match=f"^{setting} is ") as error:
        kind(model, **{setting: value})
    assert allowed in str(error.value)
    assert f"{value:g}" in str(error.value)
    with pytest.raises(ValueError, match=f"^{setting} is "):
        kind(StackedMLP([1, 2], 5, 8, 3, 2), **{setting: [1.0 if setting != "decay" else 0.5, value]})
    assert hooks(model) == 0


def test_a_proportional_factor_is_at_most_one():
    with pytest.raises(ValueError, match=r"factor is 1\.5; it has to be a finite number of at least 0 and at most 1"):
        supple.SWR(perceptron(), factor=1.5, pruning="proportional")
    supple.SWR(perceptron(), factor=1.5, pruning="threshold")


WORDS = [
    (supple.SWR, "utility", ["gradient", "magnitude", "random"]),
    (supple.SWR, "pruning", ["threshold", "proportional"]),
    (supple.SWR, "reinit", ["resample", "mean"]),
    (supple.SWR, "optimizer_state", ["keep", "fresh"]),
    *((kind, "utility", ["contribution", "magnitude", "activation", "gradient"]) for kind in UNIT_METHODS),
    *((kind, "features", ["before_norm", "after_norm"]) for kind in UNIT_METHODS),
    (supple.CBP, "counting", ["accumulate", "draw"]),
]


@pytest.mark.parametrize(("kind", "setting", "allowed"), WORDS)
def test_a_wrong_word_lists_the_allowed(kind, setting, allowed):
    with pytest.raises(ValueError, match=f"^{setting} is 'nonsense'; it has to be one of ") as error:
        kind(perceptron(), **{setting: "nonsense"})
    for word in allowed:
        assert repr(word) in str(error.value)


@every_class
def test_settings_and_seeds_of_replicas_do_not_fit_an_ordinary_model(kind):
    setting = {supple.L2: "l2", supple.ShrinkAndPerturb: "variance", supple.SWR: "factor", supple.CBP: "decay"}.get(
        kind, "threshold"
    )
    with pytest.raises(ValueError, match=rf"^{setting} has shape \(2,\).* single"):
        kind(perceptron(), **{setting: [0.1, 0.2]})
    with pytest.raises(ValueError, match=r"^seed has shape \(2,\).* single"):
        kind(perceptron(), seed=[1, 2])
    with pytest.raises(TypeError, match=r"seed is 0\.5; it has to be a whole number"):
        kind(perceptron(), seed=0.5)
    stack = StackedMLP([1, 2, 3], 5, 8, 3, 2)
    with pytest.raises(ValueError, match=rf"^{setting} has shape \(2,\).* 3 numbers, one a replica"):
        kind(stack, **{setting: [0.1, 0.2]})
    with pytest.raises(ValueError, match=r"^seed has shape \(2,\).* 3 whole numbers, one a replica"):
        kind(stack, seed=[1, 2])


@every_class
def test_nothing_to_act_on_is_an_error(kind):
    with pytest.raises(ValueError, match="MLP has no parameter with requires_grad=True"):
        kind(perceptron().requires_grad_(False))


@every
def test_closing_takes_all_hooks_away_and_ends_the_method(name):
    model = perceptron()
    with build(name, model, replica=0) as method:
        assert (hooks(model) > 0) is issubclass(type(method), UnitMethod)
    assert hooks(model) == 0
    method.close()
    backward(model)
    before = values(model)
    with pytest.raises(RuntimeError, match=f"{type(method).__name__} was closed"):
        method.step()
    with pytest.raises(RuntimeError, match=f"{type(method).__name__} was closed"):
        method.load_state_dict(method.state_dict())
    assert unchanged(model, before)


@pytest.mark.parametrize("utility", ["contribution", "activation"])
@pytest.mark.parametrize("kind", UNIT_METHODS)
def test_without_a_forward_pass_in_training_mode(kind, utility):
    settings = {"maturity": 0, "replacement_rate": 0.5} if kind is supple.CBP else {"frequency": 1}
    model = perceptron()
    method = kind(model, utility=utility, **settings)
    with pytest.raises(RuntimeError, match=r"no forward pass of blocks.0.linear in training mode.*model.train\(\)"):
        method.step()
    model.eval()
    backward(model)
    with pytest.raises(RuntimeError, match="no forward pass"):
        method.step()


def test_without_gradients():
    model = perceptron()
    with pytest.raises(RuntimeError, match=r"SWR found no gradient: call step\(\) after backward\(\)"):
        supple.SWR(model, frequency=1).step()
    for method in (
        supple.CBP(model, maturity=0, replacement_rate=0.5, utility="gradient"),
        supple.ReDo(model, frequency=1, utility="gradient"),
    ):
        with pytest.raises(
            RuntimeError, match=r"gradient of blocks.1.linear.weight, which is None.*after backward\(\)"
        ):
            method.step()


@pytest.mark.parametrize("name", ["CBP activation", "CBP of 2024", "CBP absorbing", "ReDo contribution"])
def test_passes_for_evaluation_do_not_count(name):
    results = []
    for evaluates in (False, True):
        model = perceptron()
        method = build(name, model, replica=2 if "ReDo" in name else 5)
        for step in range(25):
            backward(model, step)
            if evaluates:
                with torch.no_grad():
                    model(torch.full((9, 5), 100.0))
                model.eval()
                model(torch.full((9, 5), -100.0))
                model.train()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.01 * p.grad
            method.step()
        assert int(method.reinitialized.total) > 0
        results.append(values(model))
    assert all(torch.equal(value, results[1][key]) for key, value in results[0].items())


@every_class
def test_states_of_others_are_refused(kind):
    model, stack = perceptron(), StackedMLP([1, 2], 5, 8, 3, 2)
    method = kind(model)
    other = (supple.SWR if kind is not supple.SWR else supple.CBP)(model)
    with pytest.raises(ValueError, match=f"state of {type(other).__name__}, not of {kind.__name__}"):
        method.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="state has 2 replicas, the network 1"):
        method.load_state_dict(kind(stack).state_dict())
    if kind not in (supple.L2, supple.ShrinkAndPerturb):
        deeper = kind(MLP(5, 8, 3, 3))
        with pytest.raises(ValueError, match=r"another network: the two differ in .*blocks\.2\.linear\.weight"):
            method.load_state_dict(deeper.state_dict())


@pytest.mark.parametrize("kind", [supple.SWR, supple.CBP])
def test_a_state_with_a_moving_average_does_not_fit_one_without(kind):
    with_average, without = kind(perceptron(), decay=0.5), kind(perceptron())
    for one, other in ((with_average, without), (without, with_average)):
        with pytest.raises(ValueError, match="saved with other settings"):
            one.load_state_dict(other.state_dict())


def group(**changes):
    parts = {
        "name": "0",
        "size": 4,
        "feature": Feature("2", "input", Slice("", dim=-1)),
        "incoming": (Slice("0.weight"),),
        "bias": (Slice("0.bias"),),
        "consumers": (Consumer(Slice("2.weight", dim=1), "2.bias"),),
    }
    return UnitGroup(**{**parts, **changes})


@pytest.mark.parametrize("kind", UNIT_METHODS)
def test_units_that_do_not_fit_the_model(kind):
    def model():
        return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))

    kind(model(), units=[group()])
    with pytest.raises(ValueError, match=r"no parameter or buffer 'fc\.weight', named by 0"):
        kind(model(), units=[group(incoming=(Slice("fc.weight"),))])
    with pytest.raises(ValueError, match=r"units of 0: 0\.weight has 4 entries along dimension 0, but 5 units"):
        kind(model(), units=[group(size=5)])
    bare = model()
    with pytest.raises(ValueError, match="no module 'act', where features of 0 are to be read"):
        kind(bare, units=[group(), group(feature=Feature("act", "input", Slice("", dim=-1)))])
    assert hooks(bare) == 0
    with pytest.raises(ValueError, match="no hidden units to replace"):
        kind(model(), units=Units([]))
    frozen = model()
    frozen[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"no hidden units to replace.*\n  0: 0\.weight frozen"):
        kind(frozen)


@pytest.mark.parametrize("kind", UNIT_METHODS)
def test_layers_with_frozen_weights_are_left_out_and_frozen_biases_stay(kind):
    model = nn.Sequential(
        nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)
    )
    model[0].weight.requires_grad_(False)
    model[4].bias.requires_grad_(False)
    before = values(model)
    method = kind(
        model,
        utility="magnitude",
        **({"maturity": 0, "replacement_rate": 1} if kind is supple.CBP else {"frequency": 1, "threshold": 99}),
    )
    assert [item.name for item in method.units.excluded] == ["0"]
    method.step()
    assert int(method.reinitialized.last) == 8
    assert torch.equal(model[0].weight, before["0.weight"])
    assert torch.equal(model[4].bias, before["4.bias"])
    assert not torch.equal(model[2].weight, before["2.weight"])


@pytest.mark.parametrize("name", FEW)
def test_counts_are_copies_and_have_the_documented_shape(name):
    model, stack = perceptron(), StackedMLP(SEEDS, 5, 8, 3, 2)
    for network_, shape in ((model, ()), (stack, (6,))):
        method = build(name, network_, replica=None if shape else 0)
        counts = method.reinitialized
        for count in counts:
            assert (count.shape, count.dtype) == (shape, torch.int64)
            count += 7
        assert not method.reinitialized.total.any()
        assert not method.reinitialized.last.any()


FAILING = [
    (lambda m: supple.SWR(m, frequency=2, factor=0.5), 0),
    (lambda m: supple.SWR(m, frequency=2, factor=0.5), 1),
    (lambda m: supple.CBP(m, maturity=0, replacement_rate=0.2), 1),
    (lambda m: supple.ReDo(m, frequency=2, threshold=0.9), 1),
]


@pytest.mark.parametrize(("make", "failing"), FAILING)
def test_a_step_that_failed_does_not_count_and_may_be_tried_again(make, failing):
    ends = []
    for fails in (False, True):
        model = perceptron()
        method = make(model)
        for step in range(4):
            if fails and step == failing:
                model.zero_grad()
                for _ in range(2):
                    with pytest.raises(RuntimeError, match=r"found no gradient|no forward pass"):
                        method.step()
                    assert method.steps == step
            backward(model, step)
            method.step()
        assert int(method.reinitialized.total) > 0
        ends.append(values(model) | {"total": method.reinitialized.total})
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())


def test_a_resumed_method_hears_at_once_that_there_are_no_gradients():
    saved = perceptron()
    method = supple.SWR(saved, frequency=100)
    backward(saved)
    method.step()
    again = supple.SWR(perceptron(), frequency=100)
    again.load_state_dict(method.state_dict())
    with pytest.raises(RuntimeError, match="SWR found no gradient"):
        again.step()


def test_a_state_without_what_came_later_is_taken():
    """States know neither the number of skips nor the values at the start, where these are not needed."""
    model = perceptron()
    backward(model)
    for make in (supple.L2, supple.SWR, supple.CBP):
        method = make(model)
        method.step()
        state = {key: value for key, value in method.state_dict().items() if key not in ("skipped", "start")}
        again = make(perceptron())
        again.load_state_dict(state)
        assert (again.steps, int(again.skipped)) == (1, 0)
    method = supple.SWR(model, reinit="initial")
    state = method.state_dict()
    del state["start"]
    with pytest.raises(ValueError, match="it has no start"):
        method.load_state_dict(state)


@pytest.mark.parametrize("kind", [supple.SWR, supple.UPGD, supple.TRAC])
def test_gradients_that_were_set_to_zero_before_are_noticed_at_the_first_step(kind):
    model = perceptron()
    method = kind(model, torch.optim.SGD(model.parameters(), lr=0.1))
    act = method.before_step if method.acts_before_step else method.step
    backward(model)
    model.zero_grad(set_to_none=False)
    with pytest.warns(UserWarning, match=r"only gradients of 0.*before optimizer.zero_grad\(\)") as said:
        act()
    assert said[0].filename == __file__
    act()


KEYS = ["steps", "boundaries", "last", "total", "skipped", "initial", "average", "born", "schedule"]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("wrong", [None, "word", torch.zeros(3, dtype=torch.int64), {"0.weight": None}], ids=str)
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("kind", [supple.SWR, supple.CBP])
def test_a_damaged_state_is_refused_and_changes_nothing(kind, key, wrong):
    settings = {supple.SWR: {"frequency": 2, "factor": 0.5}, supple.CBP: {"maturity": 0, "replacement_rate": 0.3}}[kind]
    methods = []
    for _ in range(2):
        model = perceptron()
        method = kind(model, decay=0.5, **settings)
        for _ in range(3):
            backward(model)
            method.step()
        methods.append(method)
    method, twin = methods
    state = method.state_dict()
    if key not in state:
        pytest.skip("another method's")
    with pytest.raises((ValueError, TypeError)):
        method.load_state_dict({**state, key: wrong})
    found, expected = method.state_dict(), twin.state_dict()
    assert repr(found) == repr(expected)


def test_unknown_arguments_are_named_with_the_nearest():
    with pytest.raises(TypeError, match=r"SWR has no argument 'facter'. Did you mean 'factor'\?"):
        supple.SWR(perceptron(), facter=1)
    with pytest.raises(TypeError, match="CBP has no argument 'include'"):
        supple.CBP(perceptron(), include="0.weight")
    with pytest.raises(TypeError, match="L2 replaces nothing, so optimizer_state means nothing"):
        supple.L2(perceptron(), optimizer_state="fresh")
    with pytest.raises(TypeError, match="chain\\(\\) takes methods"):
        supple.chain([supple.L2(perceptron())])


@pytest.mark.parametrize("name", EVERY)
def test_a_copy_goes_on_alike(name):
    model = perceptron()
    method = build(name, model, replica=0)
    backward(model)
    method.before_step()
    method.step()
    twin = copy.deepcopy(method)
    assert type(twin) is type(method)
    assert repr(twin.state_dict()) == repr(method.state_dict())


def test_state_of_the_optimizer_in_another_memory_layout_is_made_fresh():
    made = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 2))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        method = supple.SWR(model, optimizer, frequency=1, factor=0.05, optimizer_state="fresh")
        model(torch.ones(2, 3, 6, 6)).square().mean().backward()
        optimizer.step()
        for state in optimizer.state.values():
            for key in ("exp_avg", "exp_avg_sq"):
                if state[key].ndim == 4:
                    state[key] = state[key].to(memory_format=layout)
        method.step()
        made.append([*model.parameters(), *(state["exp_avg"] for state in optimizer.state.values())])
    assert all(torch.equal(one, other) for one, other in zip(*made, strict=True))
