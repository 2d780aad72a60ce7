"""A value network that controls a changing pole: does it go on learning, and what do SWR and CBP change?

Double deep Q-learning with a replay buffer and a target network on gymnasium's CartPole. Every ``--phase`` steps the
cart changes: its force, the pole's length and mass and gravity are drawn anew, and the observations come in another
order and with other signs. The agent is not told. The return of a phase is that of the episodes in its second half. At
the end a fresh agent learns the last phase alone.

    pip install gymnasium
    python examples/changing_control.py --phases 5
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

import supple

Make = Callable[[nn.Module, torch.optim.Optimizer], supple.Method | None]


def read_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    example = "example: python examples/changing_control.py --phases 5 --updates 2"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=example)
    parser.add_argument("--phases", type=int, default=5, help="how often the cart is another one (%(default)s)")
    parser.add_argument("--phase", type=int, default=3000, help="steps of the environment a phase (%(default)s)")
    parser.add_argument("--updates", type=int, default=1, help="gradient steps a step of the environment (%(default)s)")
    parser.add_argument("--buffer", type=int, default=1000, help="transitions that are kept (%(default)s)")
    parser.add_argument("--lr", type=float, default=1e-3, help="Adam's step size (%(default)s)")
    parser.add_argument("--frequency", type=int, default=1000, help="SWR: steps between two times (%(default)s)")
    parser.add_argument("--factor", type=float, default=1e-3, help="SWR: share of the mean utility (%(default)s)")
    parser.add_argument("--maturity", type=int, default=1000, help="CBP: steps a new unit is protected (%(default)s)")
    parser.add_argument("--rate", type=float, default=1e-4, help="CBP: share of units replaced a step (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of networks, carts and methods (%(default)s)")
    return parser.parse_args(argv)


class Cart:
    """CartPole in one phase: another cart, seen through other sensors."""

    def __init__(self, seed: int, phase: int) -> None:
        draw = np.random.default_rng([seed, phase])
        self.env = gymnasium.make("CartPole-v1")
        cart = self.env.unwrapped
        cart.force_mag = draw.uniform(5, 20)
        cart.length = draw.uniform(0.25, 1.0)
        cart.masspole = draw.uniform(0.05, 0.3)
        cart.gravity = draw.uniform(6, 15)
        cart.total_mass, cart.polemass_length = cart.masscart + cart.masspole, cart.masspole * cart.length
        self.order, self.signs = draw.permutation(4), draw.choice([-1, 1], 4).astype(np.float32)
        self.seed: int | None = int(draw.integers(2**31))

    def reset(self) -> Tensor:
        observation, _ = self.env.reset(seed=self.seed)
        self.seed = None  # later episodes go on with the same generator
        return self._sensed(observation)

    def step(self, action: int) -> tuple[Tensor, float, bool, bool]:
        observation, reward, failed, ended, _ = self.env.step(action)
        return self._sensed(observation), float(reward), failed, ended

    def _sensed(self, observation: np.ndarray) -> Tensor:
        return torch.from_numpy(observation[self.order] * self.signs)


class Agent:
    """A value network, its target and its replay buffer, and perhaps a method."""

    def __init__(self, make: Make, arguments: argparse.Namespace) -> None:
        torch.manual_seed(arguments.seed)
        self.network = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=arguments.lr)
        # Of what is trained; the target is only copied from it. It acts after every gradient step of the optimizer.
        self.method = make(self.network, self.optimizer)
        self.target = copy.deepcopy(self.network)
        # A transition a row: observation (4), the one that followed (4), action, reward, whether the pole fell.
        self.buffer, self.seen = torch.zeros(arguments.buffer, 11), 0
        self.random = torch.Generator().manual_seed(arguments.seed)
        self.updates, self.steps = arguments.updates, 0
        self.returns: list[float] = []  # one a phase

    def act(self, observation: Tensor, exploration: float) -> int:
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


def main(argv: Sequence[str] | None = None) -> None:
    arguments = read_arguments(argv)
    torch.set_num_threads(1)  # products as small as these are faster without sharing them out
    seed, frequency, maturity = arguments.seed, arguments.frequency, arguments.maturity
    # In a batch of 32 many units are 0 on all examples, which says little about their use. Averages over many batches
    # (decay=0.99) are small only for what has long been of no use.
    makes: dict[str, Make] = {
        "plain": lambda model, optimizer: None,
        "SWR": lambda model, optimizer: supple.SWR(
            model, optimizer, frequency=frequency, factor=arguments.factor, decay=0.99, seed=seed
        ).attach(),
        "CBP": lambda model, optimizer: supple.CBP(
            model, optimizer, maturity=maturity, replacement_rate=arguments.rate, decay=0.99, seed=seed
        ).attach(),
    }
    agents = {name: Agent(make, arguments) for name, make in makes.items()}
    started = time.perf_counter()
    for phase in range(arguments.phases):
        if phase == arguments.phases - 1:
            agents["fresh"] = Agent(makes["plain"], arguments)
        for agent in agents.values():
            agent.returns.append(agent.live(Cart(seed, phase), arguments.phase))
        line = ", ".join(f"{name} {agent.returns[-1]:.0f}" for name, agent in agents.items())
        print(f"phase {phase + 1} of {arguments.phases}: {line}; {time.perf_counter() - started:.0f} s", flush=True)

    print("\nreturn, at most 500\n        all phases  second half  last phase  reinitialized")
    for name, agent in agents.items():
        half = agent.returns[-(len(agent.returns) + 1) // 2 :]
        means = f"{sum(agent.returns) / len(agent.returns):<12.1f}{sum(half) / len(half):<13.1f}"
        count = 0 if agent.method is None else int(agent.method.reinitialized.total)
        print(f"{name:8}{means if name != 'fresh' else '-           -            '}{agent.returns[-1]:<12.1f}{count}")


if __name__ == "__main__":
    main()
