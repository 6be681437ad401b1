"""How migrations shall go about their work, from the settings."""

from novacron.core.settings import MigrateSettings
from novacron.protocol.migration import MigrationPolicy


def policy_of(
    wanted: MigrateSettings, *, bandwidth_bytes_s: int | None = None, move_disks: bool = True, probe: str = ""
) -> MigrationPolicy:
    """What the API takes."""
    return MigrationPolicy(
        strategy=wanted.strategy,
        when_busy=wanted.when_busy,
        busy_after_ms=wanted.busy_after_ms,
        busy_then=wanted.busy_then,
        max_downtime_ms=wanted.max_downtime_ms,
        bandwidth_bytes_s=bandwidth_bytes_s,
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
    )
