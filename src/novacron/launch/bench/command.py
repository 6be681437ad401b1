"""The benchmarks, by name."""

from typing import Final

from novacron.cli.lazy import Lazy, LazyGroup

BENCHMARKS: Final = {
    "migration": Lazy("novacron.launch.bench.migration:command", "A guest that works, against stock QEMU."),
    "pipeline": Lazy("novacron.launch.bench.pipeline:command", "Guest memory through both ends, without a link."),
}
command = LazyGroup("bench", BENCHMARKS, help="Measure against a peer in the same run.")
