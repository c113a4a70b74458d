"""What the choice of a peer costs, over groups of 10 to 10,000 peers.

.venv/bin/python -m benchmarks.choice [--choices N] [METHOD ...]
"""

from __future__ import annotations

import argparse
import gc
import random
import time
from collections.abc import Callable, Iterator

from imagefarm.config.variables import Template
from imagefarm.proxy.peer import Address, Peer
from imagefarm.proxy.peers import Peers
from imagefarm.proxy.policies import (
    ConsistentHash,
    Hash,
    IpHash,
    LeastConn,
    Policy,
    Random,
    RoundRobin,
)
from tests.proxy.nginx_model import Model, ModelPeer

SIZES = (10, 100, 1_000, 10_000)
_NO_TEMPLATE = Template("", (), None)  # keys are made here, not from requests
METHODS: dict[str, Callable[[], Policy]] = {
    "round_robin": RoundRobin,
    "least_conn": LeastConn,
    "random": lambda: Random(random.Random(1).randrange),
    "random_two": lambda: Random(random.Random(1).randrange, two=True),
    "hash": lambda: Hash(_NO_TEMPLATE),
    "consistent": lambda: ConsistentHash(_NO_TEMPLATE),
    "ip_hash": IpHash,
}
WEIGHTS: dict[str, Callable[[int], int]] = {
    "equal": lambda number: 1,
    "1 to 100": lambda number: 1 + number * 7919 % 100,
    "all different": lambda number: 1 + number,
}
STATES = ("all up", "half down", "half failed")
#: A ring has 160 points for each unit of weight: heavy peers only make it large.
EQUAL_ONLY = ("consistent",)


def group(size: int, weight: Callable[[int], int], state: str) -> Peers:
    """Peers, every other one of them out as ``state`` says."""
    every = [Peer(Address(path=f"/{n}"), weight=weight(n), fail_timeout=1e9) for n in range(size)]
    peers = Peers(every)
    for peer in every[::2]:
        if state == "half down":
            peer.set_down()
        elif state == "half failed":
            peer.failed(0.0)
    return peers


def cost(policy: Policy, peers: Peers, choices: int) -> float:
    """Microseconds of CPU for a choice, and telling the peer of its request's begin and end."""
    keys = [b"%06d" % number for number in range(choices)]
    policy.choose(peers, keys[0], 0.0, ())  # makes the ring and the sums
    gc.collect()
    gc.freeze()  # as the daemons do
    begin = time.process_time()
    # Eight requests are always under way.
    busy: list[Peer] = []
    for key in keys:
        peer = policy.choose(peers, key, 0.0, ())
        assert peer is not None
        peer.take(0.0)
        busy.append(peer)
        if len(busy) > 8:
            busy.pop(0).release()
    spent = time.process_time() - begin
    gc.unfreeze()
    return spent / choices * 1e6


def walk(size: int, choices: int) -> float:
    """The same for a choice by a walk over all peers, as plain as the tests' model of nginx."""
    model = Model([ModelPeer(number) for number in range(size)])
    choices = max(1, min(choices, 200_000 // size))
    begin = time.process_time()
    for _ in range(choices):
        number = model.choose(0.0)
        assert number is not None
        model.free(number, 0.0, failed=False)
    return (time.process_time() - begin) / choices * 1e6


def rows(names: list[str], choices: int) -> Iterator[str]:
    """A line for each method, weights and state, after one for the walk that none of them is."""
    yield _row("walk", "equal", "all up", [walk(size, choices) for size in SIZES])
    for name in names:
        for weights, weight in WEIGHTS.items():
            if weights != "equal" and name in EQUAL_ONLY:
                continue
            for state in STATES:
                spent = [cost(METHODS[name](), group(n, weight, state), choices) for n in SIZES]
                yield _row(name, weights, state, spent)


def _row(name: str, weights: str, state: str, spent: list[float]) -> str:
    figures = "".join(f"{figure:>9.1f}" for figure in spent)
    return f"{name:<12} {weights:<14} {state:<12}{figures}{spent[-1] / spent[0]:>9.1f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choice", description=__doc__)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="of: " + ", ".join(METHODS))
    parser.add_argument("--choices", type=int, default=10_000, help="choices for each figure")
    options = parser.parse_args()
    unknown = [name for name in options.methods if name not in METHODS]
    if unknown or options.choices < 1:
        parser.error(f"no such method: {', '.join(unknown)}" if unknown else "at least 1")
    sizes = "".join(f"{size:>9,}" for size in SIZES)
    print(f"{'us a choice':<12} {'weights':<14} {'peers':<12}{sizes}   growth")
    for line in rows(options.methods or list(METHODS), options.choices):
        print(line, flush=True)


if __name__ == "__main__":
    main()
