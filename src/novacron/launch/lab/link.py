"""What a link between two sites is like."""

from msgspec import Struct

MS = 1_000_000  # nanoseconds


class Link(Struct, frozen=True):
    """Both directions alike. ``delay_ms`` is one way: a round trip takes twice that, and the queueing."""

    rate_bytes_s: int
    delay_ms: float = 20.0
    jitter_ms: float = 0.0
    loss: float = 0.0  # share of packets
    seed: int = 1

    @property
    def described(self) -> str:
        """Its delay, and what else is wrong with it."""
        jitter = f", {self.jitter_ms:g} ms of jitter" if self.jitter_ms else ""
        loss = f", {self.loss:.2%} of packets lost" if self.loss else ""
        return f"{self.delay_ms:g} ms each way{jitter}{loss}"

    @property
    def queue_bytes(self) -> int:
        """Room of the router's queue: a round trip's worth, at least 100 ms."""
        return max(int(self.rate_bytes_s * max(2 * self.delay_ms, 100.0) / 1000), 30_000)


class Counters(Struct, frozen=True):
    """What has crossed a link in one direction."""

    bytes: int  # of IP packets, or of TCP payload where the link is a TCP relay
    packets: int
    dropped: int
