"""``novacron`` that can be made to stand still: a node stops, whole, where a migration reaches a named point.

Points are phases of the source's meter (``copy``) and states that a journal has just written (``destination-ready``).
Where a unix socket of that name listens in ``$NC_HALT``, the process connects to it and goes on at its end.
"""

import os
import socket
import sys
from pathlib import Path

from novacron.agent.journal import Journal
from novacron.launch.main import main
from novacron.migration.meter import Meter


def stand_still(point: str) -> None:
    """Synchronously: nothing of this process moves meanwhile."""
    with socket.socket(socket.AF_UNIX) as waiting:
        try:
            waiting.connect(str(Path(os.environ["NC_HALT"]) / point))
        except OSError:
            return  # nobody waits for this point
        waiting.recv(1)


def instrument() -> None:
    """Put the points in."""
    change = Journal.change

    async def changed(self, decide) -> None:
        written = []

        def watched():
            claim, attempt, facts = decide()
            written.append(attempt)
            return claim, attempt, facts

        await change(self, watched)
        if attempt := written[0]:
            stand_still(f"{attempt.role}-{attempt.state}")

    def assign(self, name, value) -> None:
        object.__setattr__(self, name, value)
        if name == "phase":
            stand_still(value)

    Journal.change = changed
    Meter.__setattr__ = assign


if __name__ == "__main__":
    instrument()
    sys.argv[0] = "novacron"
    main()
