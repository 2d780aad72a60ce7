"""A value network that controls a changing pole: does it go on learning, and what do SWR and CBP change?

Double deep Q-learning with a replay buffer and a target network on gymnasium's CartPole. Every ``--phase`` steps the
cart changes: its force, the pole's length and mass and gravity are drawn anew, and the observations come in another
order and with other signs. The agent is not told. The return of a phase is that of the episodes in its second half. At
the end a fresh agent learns the last phase alone.

    pip install "supple[lab]" gymnasium
    python examples/changing_control.py --phases 5
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import torch

import supple
from supple.lab.studies.changing_control import Agent, Cart, Make


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
    options = {"seed": seed, "lr": arguments.lr, "buffer": arguments.buffer, "updates": arguments.updates}
    agents = {name: Agent(make, **options) for name, make in makes.items()}
    started = time.perf_counter()
    for phase in range(arguments.phases):
        if phase == arguments.phases - 1:
            agents["fresh"] = Agent(makes["plain"], **options)
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
