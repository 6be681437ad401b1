"""Channels that leave for one place share the way there by weight: fair queueing in start-time order.

Each has a virtual time, its bytes over its weight, and may be ahead of the slowest by no more than a quantum. Only what
the link holds back counts as slow: one that has nothing to send, or whose receiver does not take more, keeps nobody
waiting, and begins again where the others are. So the shares are right whatever the link gives; nobody estimates it.

After P. Goyal, H. M. Vin, H. Cheng: Start-time Fair Queuing (SIGCOMM 1996), with TCP below as the server of the queues.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from novacron.wire.estimate import Throughput

QUANTUM_BYTES: Final = 256 * 1024  # of a weight of one
LOOK_EVERY_S: Final = 0.005  # while somebody waits: whether those before it still have something to send
RECENT_S: Final = 2.0  # that a share as it is now is taken over
STEPS_TO_DOUBLE: Final = 3  # of priority


def weight_of(priority: int) -> float:
    """Three steps more of priority are twice the share."""
    return float(2 ** (priority / STEPS_TO_DOUBLE))


class Shares:
    """One way, and those who share it."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self._members: list[Share] = []
        self._reached = 0.0  # virtual time of the slowest that had something to send
        self._timer: asyncio.TimerHandle | None = None

    def join(self, weight: float, waits_for_link: Callable[[], bool]) -> "Share":
        """One more; ``waits_for_link`` says whether it has bytes that the link has not taken yet."""
        share = Share(self, weight, waits_for_link)
        self._members.append(share)
        return share

    def leave(self, share: "Share") -> None:
        """One less; harmless when it has gone."""
        if share in self._members:
            self._members.remove(share)
            self.look()

    def catch_up(self, share: "Share") -> None:
        """What was not used is not saved up."""
        self._slowest()
        share.served = max(share.served, self._reached)

    def look(self) -> None:
        """Let go whom no slower one holds back any more; come again while there are others."""
        held = [share for share in self._members if share.turn is not None]
        if held:
            most = self._slowest() + QUANTUM_BYTES
            for share in held:
                if share.served <= most or share.hurries:
                    share.go()
        if self._timer is not None:
            self._timer.cancel()
        waiting = any(share.turn is not None for share in held)
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self.look) if waiting else None

    def _slowest(self) -> float:
        """Virtual time of the slowest that has something to send."""
        for share in sorted(self._members, key=lambda member: member.served):
            if share.turn is not None or share.waits_for_link():
                self._reached = max(self._reached, share.served)
                return share.served
        return self._reached


class Share:
    """What one channel has had of the way. ``hurries``: it no longer waits for its turn, though its bytes count."""

    def __init__(self, shares: Shares, weight: float, waits_for_link: Callable[[], bool]) -> None:
        self.weight = weight
        self.served = 0.0  # bytes over weight
        self.hurries = False
        self.waits_for_link = waits_for_link
        self.turn: asyncio.Future[None] | None = None  # while it is held back
        self._shares = shares
        self._asked = 0
        self._own_bytes = 0
        self._others_bytes = shares.sent_bytes
        self._own, self._all = Throughput(RECENT_S), Throughput(RECENT_S)

    async def take(self, count: int) -> None:
        """Wait until ``count`` bytes may go; a cancellation takes nothing."""
        if not self.waits_for_link():
            self._shares.catch_up(self)
        self._asked = count
        self.turn = turn = asyncio.get_running_loop().create_future()
        try:
            self._shares.look()
            await turn
        finally:
            self.turn = None

    def go(self) -> None:
        """It is its turn."""
        turn, self.turn = self.turn, None
        if turn is not None and not turn.done():
            turn.set_result(None)
            self.served += self._asked / self.weight
            self._own_bytes += self._asked
            self._shares.sent_bytes += self._asked

    def leave(self) -> None:
        """It sends no more."""
        self._shares.leave(self)

    def of_way(self) -> float:
        """Its part of all that has gone this way since it joined; 1 when nobody else has sent anything."""
        sent = self._shares.sent_bytes - self._others_bytes
        return self._own_bytes / sent if sent else 1.0

    def now(self, at: float) -> float:
        """The same of the last seconds; ``at`` is the time, in seconds of a clock that never goes back."""
        self._own.add(at, self._own_bytes)
        self._all.add(at, self._shares.sent_bytes)
        return self._own.bytes_s / self._all.bytes_s if self._all.bytes_s else 1.0
