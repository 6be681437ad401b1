"""How migrations shall go about their work, from the settings."""

from novacron.core.settings import MigrateSettings
from novacron.protocol.migration import MigrationPolicy
from novacron.protocol.time_window import TimeWindow


def policy_of(
    wanted: MigrateSettings,
    *,
    priority: int = 0,
    bandwidth: float | None = None,
    move_disks: bool = True,
    probe: str = "",
    window: TimeWindow | None = None,
) -> MigrationPolicy:
    """What the API takes. ``bandwidth``: bytes a second as an int, a share of the link as a float."""
    share = isinstance(bandwidth, float)
    return MigrationPolicy(
        strategy=wanted.strategy,
        when_busy=wanted.when_busy,
        busy_after_ms=wanted.busy_after_ms,
        busy_then=wanted.busy_then,
        max_downtime_ms=wanted.max_downtime_ms,
        bandwidth_bytes_s=None if share or bandwidth is None else int(bandwidth),
        bandwidth_share=bandwidth if share else None,
        priority=priority,
        streams=wanted.streams,
        compression_level=wanted.compression_level,
        verify=wanted.verify,
        probe=probe,
        verify_within_ms=wanted.verify_within_ms,
        on_unverified=wanted.on_unverified,
        verify_window_ms=wanted.verify_window_ms,
        move_disks=move_disks,
        stall_after_ms=wanted.stall_after_ms,
        retry_for_ms=wanted.retry_for_ms,
        window=window,
    )
