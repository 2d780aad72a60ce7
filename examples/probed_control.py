"""An agent on a control task that changes: what does it lose, and does a method that is attached to PPO keep it?

PPO of Stable-Baselines3 on gymnasium's CartPole. Every ``--phase`` steps the sensors change: what is observed comes in
another order and with other signs, which the agent is not told. One agent learns as it is, another with SWR attached to
its optimizer, and a fresh one begins in each phase. Their units are watched; after the first and the last phase the
two are probed: how fast would the actor learn decisions drawn at random, compared with fresh ones?

    pip install stable-baselines3
    python examples/probed_control.py --phases 20
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

import supple
from supple.probing import RandomLabels

CARTS = 8


def read_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    example = "example: python examples/probed_control.py --phases 10 --seeds 10"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=example)
    parser.add_argument("--phases", type=int, default=20, help="how often the sensors are others (%(default)s)")
    parser.add_argument("--phase", type=int, default=4096, help="steps of the environment a phase (%(default)s)")
    parser.add_argument("--rollout", type=int, default=512, help="steps from one update to the next (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="how often an update sees its steps (%(default)s)")
    parser.add_argument("--lr", type=float, default=3e-3, help="Adam's step size (%(default)s)")
    parser.add_argument("--frequency", type=int, default=640, help="SWR: steps between two times (%(default)s)")
    parser.add_argument("--factor", type=float, default=1e-3, help="SWR: share of the mean utility (%(default)s)")
    parser.add_argument("--budget", type=int, default=500, help="steps that a probe learns (%(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="tasks, and fresh networks, of a probe (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of agents, sensors and method (%(default)s)")
    return parser.parse_args(argv)


def cart(seed: int, phase: int) -> Monitor:
    """CartPole seen through the sensors of a phase; it remembers its episodes."""
    draw = np.random.default_rng([seed, phase])
    order, signs = draw.permutation(4), draw.choice([-1, 1], 4).astype(np.float32)
    space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    seen = gymnasium.wrappers.TransformObservation(gymnasium.make("CartPole-v1"), lambda o: o[order] * signs, space)
    return Monitor(seen)


def carts(seed: int, phase: int) -> DummyVecEnv:
    """Several of them, which act at once."""
    return DummyVecEnv([lambda: cart(seed, phase)] * CARTS)


def actor(ppo: PPO) -> nn.Module:
    """The part of a policy that decides: from observations [N, 4] to two preferences [N, 2]."""
    return nn.Sequential(ppo.policy.mlp_extractor.policy_net, ppo.policy.action_net)


class Agent:
    """PPO that is watched and can be probed; of the seed of the arguments, and others for agents that begin later."""

    def __init__(self, arguments: argparse.Namespace, later: int = 0) -> None:
        self.arguments = arguments
        self.ppo = self.fresh(arguments.seed + later)
        self.policy, self.optimizer = self.ppo.policy, self.ppo.policy.optimizer
        # What may be observed. Orders and signs change, so it is alike for all sensors.
        self.states = torch.randn(500, 4, generator=torch.Generator().manual_seed(arguments.seed))
        self.watch = supple.watch(
            self.policy, self.states, optimizer=self.optimizer, every=40, measures=["dead", "update_ratio"], prefix=""
        )

    def fresh(self, seed: int) -> PPO:
        """PPO that has not learned anything."""
        return PPO(
            "MlpPolicy",
            carts(self.arguments.seed, 0),
            learning_rate=self.arguments.lr,
            n_steps=self.arguments.rollout // CARTS,
            batch_size=64,
            n_epochs=self.arguments.epochs,
            policy_kwargs={"activation_fn": nn.ReLU, "net_arch": [64, 64]},
            seed=seed,
            device="cpu",
        )

    def live(self, phase: int) -> float:
        """Acts and learns for a phase, and gives the mean return of the episodes that end in its second half."""
        together = carts(self.arguments.seed, phase)
        self.ppo.set_env(together)
        self.ppo.learn(self.arguments.phase)
        each, returns = self.arguments.phase / CARTS, []
        for episodes in together.envs:
            ends = np.cumsum(episodes.get_episode_lengths())
            returns += [r for r, end in zip(episodes.get_episode_rewards(), ends, strict=True) if end >= each / 2]
        return float(np.mean(returns)) if returns else each

    def probe(self) -> supple.Probe:
        """Tries how fast the actor would learn something new."""
        return supple.probe(
            actor(self.ppo),
            lambda seed: actor(self.fresh(self.arguments.seed + 1 + seed)),  # others than it began as
            RandomLabels(self.states, examples=128, steps=self.arguments.budget),
            lambda parameters: torch.optim.Adam(parameters, lr=self.arguments.lr),
            seeds=self.arguments.seeds,
        )


def main(argv: Sequence[str] | None = None) -> None:
    arguments = read_arguments(argv)
    torch.set_num_threads(1)  # products as small as these are faster without sharing them out
    agents = {name: Agent(arguments) for name in ("plain", "SWR")}
    # In a batch of 64 many units are 0 on all examples, which says little about their use. Averages over many batches
    # (decay=0.99) are small only for what has long been of no use.
    method = supple.SWR(
        agents["SWR"].policy,
        agents["SWR"].optimizer,
        frequency=arguments.frequency,
        factor=arguments.factor,
        decay=0.99,
        seed=arguments.seed,
    ).attach()
    verdicts, began = [], time.perf_counter()
    means: dict[str, list[float]] = {name: [] for name in (*agents, "fresh")}
    for phase in range(arguments.phases):
        found = []
        for name, agent in (*agents.items(), ("fresh", Agent(arguments, 1000 + phase))):
            means[name].append(agent.live(phase))
            seen = agent.watch.history[-1]
            found.append(f"{name} {means[name][-1]:.0f} ({seen['dead']:.0%} dead, update {seen['update_ratio']:.1e})")
        print(f"phase {phase + 1}: return {', '.join(found)}; {time.perf_counter() - began:.0f} s", flush=True)
        if phase in (0, arguments.phases - 1):
            for name, agent in agents.items():
                print(f"\n{name}, random decisions after phase {phase + 1}:\n{(probe := agent.probe())}\n")
                verdicts.append(f"{name} after phase {phase + 1}: {probe.verdict}")
    half = arguments.phases // 2
    late = ", ".join(f"{name} {np.mean(values[half:]):.0f}" for name, values in means.items())
    print("\n".join(verdicts))
    print(f"mean return from phase {half + 1} on: {late}")
    print(f"{int(method.reinitialized.total)} weights drawn anew by SWR")


if __name__ == "__main__":
    main()
