"""Changing control: double deep Q-learning on a pole whose cart and sensors change, and the agent is not told.

Every so many steps the force, the pole's length and mass and gravity are drawn anew, and the observations come in
another order and with other signs. The return of a phase is the mean of the episodes in its second half. Needs
gymnasium. The problem is ours; its agent has a replay buffer and a target network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from supple.lab.population.problem import Curve, Metric

Make = Callable[[nn.Module, torch.optim.Optimizer], Any]
"""Makes the method of an agent's network."""


def make(steps: int = 3000) -> Curve:
    """The problem, with so many steps of the environment a phase; a task is a phase."""

    def learn(seed: int, make: Any) -> Iterator[float]:
        agent, phase = Agent(make, seed=seed, **make.optimizer), 0
        while True:
            yield agent.live(Cart(seed, phase), steps)
            agent.method.boundary()
            phase += 1

    return Curve(learn, Metric("return", None))


class Cart:
    """CartPole in one phase: another cart, seen through other sensors."""

    def __init__(self, seed: int, phase: int) -> None:
        draw = np.random.default_rng([seed, phase])
        self.env = gymnasium.make("CartPole-v1")
        cart: Any = self.env.unwrapped
        cart.force_mag = draw.uniform(5, 20)
        cart.length = draw.uniform(0.25, 1.0)
        cart.masspole = draw.uniform(0.05, 0.3)
        cart.gravity = draw.uniform(6, 15)
        cart.total_mass, cart.polemass_length = cart.masscart + cart.masspole, cart.masspole * cart.length
        self.order, self.signs = draw.permutation(4), draw.choice([-1, 1], 4).astype(np.float32)
        self.seed: int | None = int(draw.integers(2**31))

    def reset(self) -> Tensor:
        """Starts an episode, and gives what is seen first."""
        observation, _ = self.env.reset(seed=self.seed)
        self.seed = None  # later episodes go on with the same generator
        return self._sensed(observation)

    def step(self, action: int) -> tuple[Tensor, float, bool, bool]:
        """What is seen after an action, the reward, whether the pole fell, and whether time is up."""
        observation, reward, failed, ended, _ = self.env.step(action)
        return self._sensed(observation), float(reward), failed, ended

    def _sensed(self, observation: Any) -> Tensor:
        return torch.from_numpy(observation[self.order] * self.signs)


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
        """Acts and learns for a phase, and gives the mean return of the episodes of its second half."""
        observation, total, returns = cart.reset(), 0.0, []
        for step in range(steps):
            action = self.act(observation, exploration=max(0.05, 1 - 4 * step / steps))
            following, reward, failed, ended = cart.step(action)
            self.keep(observation, following, action, reward, failed)
            observation, total = following, total + reward
            if failed or ended or step == steps - 1:
                if step >= steps // 2:
                    returns.append(total)
                observation, total = cart.reset(), 0.0
            if self.seen >= 200:
                for _ in range(self.updates):
                    self.learn()
        return sum(returns) / len(returns)
