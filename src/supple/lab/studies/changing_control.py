"""Changing control: double deep Q-learning, or PPO, on a pole whose cart and sensors change, and nobody says so.

Every so many steps the force, the pole's length and mass and gravity are drawn anew, and the observations come in
another order and with other signs. The return of a phase is the mean of the episodes in its second half. Needs
gymnasium, and for PPO stable-baselines3. The problem is ours; the agent of Q-learning has a replay buffer and a target
network, PPO is that of Stable-Baselines3.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from supple.lab.population.problem import Curve, Metric

Make = Callable[..., Any]
"""Makes the method of an agent's network."""


def make(steps: int = 3000, algorithm: str = "dqn") -> Curve:
    """The problem, with so many steps of the environment a phase, and "dqn" or "ppo"; a task is a phase.

    PPO learns from 256 steps at a time, and its phases end with the ones that are begun.
    """
    agents = {"dqn": Agent, "ppo": PPOAgent}
    if algorithm not in agents:
        raise ValueError(f"algorithm is {algorithm!r}; it has to be one of {', '.join(agents)}")

    def learn(seed: int, make: Any) -> Iterator[float]:
        agent, phase = agents[algorithm](make, seed=seed, **make.optimizer), 0
        while True:
            yield agent.live(Cart(seed, phase), steps)
            agent.method.boundary()
            phase += 1

    return Curve(learn, Metric("return", None))


class Cart(gymnasium.ObservationWrapper):
    """CartPole in one phase: another cart, seen through other sensors."""

    def __init__(self, seed: int, phase: int) -> None:
        super().__init__(gymnasium.make("CartPole-v1"))
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
        draw = np.random.default_rng([seed, phase])
        cart: Any = self.unwrapped
        cart.force_mag = draw.uniform(5, 20)
        cart.length = draw.uniform(0.25, 1.0)
        cart.masspole = draw.uniform(0.05, 0.3)
        cart.gravity = draw.uniform(6, 15)
        cart.total_mass, cart.polemass_length = cart.masscart + cart.masspole, cart.masspole * cart.length
        self.order, self.signs = draw.permutation(4), draw.choice([-1, 1], 4).astype(np.float32)
        self.seed: int | None = int(draw.integers(2**31))

    def reset(self, **options: Any) -> Any:
        """Starts an episode; the first one of a phase has the seed of the phase, others go on with its generator."""
        seed, self.seed = self.seed, None
        return super().reset(**{**options, "seed": seed})

    def observation(self, observation: Any) -> Any:
        """What the sensors of the phase show."""
        return observation[self.order] * self.signs


class PPOAgent:
    """PPO, and perhaps a method that acts on the actor and the critic."""

    def __init__(self, make: Make, *, seed: int, lr: float = 3e-4) -> None:
        from stable_baselines3 import PPO

        self.ppo = PPO(
            "MlpPolicy", Cart(seed, 0), learning_rate=lr, n_steps=256, seed=seed, device="cpu",
            policy_kwargs={"activation_fn": nn.ReLU},
        )  # fmt: skip
        policy = self.ppo.policy
        self.method = make(policy, policy.optimizer, torch.randn(16, 4, generator=torch.Generator().manual_seed(seed)))

    def live(self, cart: Cart, steps: int) -> float:
        """Acts and learns for a phase, and gives the mean return of the episodes that end in its second half."""
        from stable_baselines3.common.monitor import Monitor

        watched = Monitor(cart)
        self.ppo.set_env(watched)
        self.ppo.learn(steps)
        return _late(np.cumsum(watched.get_episode_lengths()).tolist(), watched.get_episode_rewards(), steps)


class Agent:
    """A value network, its target and its replay buffer, and perhaps a method."""

    def __init__(self, make: Make, *, seed: int, lr: float = 1e-3, buffer: int = 1000, updates: int = 1) -> None:
        torch.manual_seed(seed)
        self.network = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=lr)
        # Of what is trained; the target is only copied from it. It acts after every gradient step of the optimizer.
        self.method = make(self.network, self.optimizer)
        self.target = copy.deepcopy(self.network)
        # A transition a row: observation (4), the one that followed (4), action, reward, whether the pole fell.
        self.buffer, self.seen = torch.zeros(buffer, 11), 0
        self.random = torch.Generator().manual_seed(seed)
        self.updates, self.steps = updates, 0
        self.returns: list[float] = []  # one a phase

    def act(self, observation: Tensor, exploration: float) -> int:
        """The action of the highest value, or with the probability of exploration any."""
        if float(torch.rand((), generator=self.random)) < exploration:
            return int(torch.randint(2, (), generator=self.random))
        with torch.no_grad():  # CBP does not count what is seen without gradients
            return int(self.network(observation).argmax())

    def keep(self, observation: Tensor, following: Tensor, action: int, reward: float, failed: bool) -> None:
        """Puts a transition into the buffer, in the place of the oldest if it is full."""
        row = torch.cat([observation, following, torch.tensor([action, reward, failed])])
        self.buffer[self.seen % len(self.buffer)] = row
        self.seen += 1

    def learn(self) -> None:
        """One gradient step on 32 transitions from the buffer."""
        rows = self.buffer[torch.randint(min(self.seen, len(self.buffer)), (32,), generator=self.random)]
        observation, following, (action, reward, failed) = rows[:, :4], rows[:, 4:8], rows[:, 8:].T
        with torch.no_grad():
            best = self.network(following).argmax(dim=1, keepdim=True)
            goal = reward + 0.98 * (1 - failed) * self.target(following).gather(1, best).squeeze(1)
        value = self.network(observation).gather(1, action.long().unsqueeze(1)).squeeze(1)
        self.optimizer.zero_grad()
        nn.functional.smooth_l1_loss(value, goal).backward()
        self.optimizer.step()
        self.steps += 1
        if self.steps % 200 == 0:
            self.target.load_state_dict(self.network.state_dict())

    def live(self, cart: Cart, steps: int) -> float:
        """Acts and learns for a phase, and gives the mean return of the episodes that end in its second half."""
        observation, total, ends, returns = _start(cart), 0.0, [], []
        for step in range(steps):
            action = self.act(observation, exploration=max(0.05, 1 - 4 * step / steps))
            seen, reward, failed, ended, _ = cart.step(action)
            following = torch.from_numpy(seen)
            self.keep(observation, following, action, float(reward), failed)
            observation, total = following, total + float(reward)
            if failed or ended:
                ends.append(step + 1)
                returns.append(total)
                observation, total = _start(cart), 0.0
            if self.seen >= 200:
                for _ in range(self.updates):
                    self.learn()
        return _late(ends, returns, steps)


def _late(ends: Sequence[int], returns: Sequence[float], steps: int) -> float:
    """The mean return of the episodes that end in the second half of a phase; ``ends`` are steps from its start."""
    late = [one for one, end in zip(returns, ends, strict=True) if end >= steps / 2]
    # Without an end in that time the pole stood for all of it.
    return float(np.mean(late)) if late else float(steps - (ends[-1] if len(ends) else 0))


def _start(cart: Cart) -> Tensor:
    """Starts an episode, and gives what is seen first."""
    return torch.from_numpy(cart.reset()[0])
