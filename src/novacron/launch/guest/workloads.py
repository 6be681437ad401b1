"""What the demo guest does, by name: arguments of its workload (workload.c says what each one is)."""

from collections.abc import Mapping
from typing import Final

WORKLOADS: Final[Mapping[str, Mapping[str, int]]] = {
    # Booted, and hardly anything to do.
    "idle": {"hot": 1024, "cold": 1024, "rate": 20, "records": 1},
    # Memory of a program that changes in place, all over 48 MiB, and a log that is appended to and synced.
    "heap": {"hot": 12_288, "cold": 40_960, "rate": 10_000, "records": 20},
    # SQLite: forty transactions a second, each synced, on a table of 94 MiB that lies in the page cache.
    "database": {"hot": 2048, "cold": 2048, "rate": 500, "records": 10, "transactions": 40},
    # The heap, all over 96 MiB, a fifth of which gets four fifths of the writes.
    "skewed": {"hot": 24_576, "cold": 28_672, "rate": 10_000, "records": 20, "skew": 3},
    # The worst case: whole pages of noise, anywhere in 48 MiB, 8 MB a second of them.
    "random": {"hot": 12_288, "cold": 40_960, "rate": 2000, "records": 20, "whole": 1},
    # 150 MiB of the disk's files lie in memory a second time.
    "page-cache": {"hot": 2048, "cold": 2048, "rate": 500, "records": 20, "read": 1},
}
HEAP: Final = "heap"
DATABASE: Final = "database"


def kernel_arguments(workload: str, seed: int) -> str:
    """The kernel's command line for a guest with this workload."""
    settings = {"seed": seed, **WORKLOADS[workload]}
    return " ".join(["console=ttyS0 quiet panic=-1", *(f"novacron.{name}={n}" for name, n in settings.items())])
