"""What happens in a run: drawn from the seed and the run's number alone, so that each can be drawn again alone."""

import random
from typing import Final

from msgspec import Struct

NOTHING, LINK = "nothing", "link"
PROCESSES: Final = tuple(f"{side}-{part}" for side in ("source", "target") for part in ("node", "controller", "qemu"))
VICTIMS: Final = (NOTHING, LINK, *PROCESSES)
SPARE, KILL, STOP, CUT = "spare", "kill", "stop", "cut"
LATEST: Final = 1.1  # share of what a migration takes: what it leaves behind is struck, too
SHORTEST_S, LONGEST_S = 0.2, 15.0  # of a cut or a stop: from a hiccup to twice what a channel's heartbeat lives


class Draw(Struct, frozen=True):
    """A victim, what is done to it, when (as a share of what a migration takes), and for how long."""

    number: int
    victim: str
    deed: str
    share: float
    lasts_s: float


def draw(seed: int, number: int) -> Draw:
    """The same for the same seed and number. Short and long cuts are equally likely on a logarithmic scale."""
    dice = random.Random(f"{seed}:{number}")  # noqa: S311 - repeatable is what it must be
    victim, share, length = dice.choice(VICTIMS), dice.uniform(0, LATEST), dice.random()
    deed = {NOTHING: SPARE, LINK: CUT}.get(victim) or dice.choice((KILL, STOP))
    lasts_s = SHORTEST_S * (LONGEST_S / SHORTEST_S) ** length
    return Draw(number, victim, deed, share, lasts_s if deed in {CUT, STOP} else 0.0)
