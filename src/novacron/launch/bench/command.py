"""The benchmarks, by name."""

from typing import Final

from novacron.cli.lazy import Lazy, LazyGroup

BENCHMARKS: Final = {
    "migration": Lazy("novacron.launch.bench.migration:command", "A guest that works, against stock QEMU."),
    "pipeline": Lazy("novacron.launch.bench.pipeline:command", "Guest memory through both ends, without a link."),
    "shares": Lazy("novacron.launch.bench.shares:command", "Guests that move at once: how they share the link."),
    "repository": Lazy(
        "novacron.launch.bench.repository:command", "A disk into a repository and back, by each chunker."
    ),
    "prediction": Lazy("novacron.launch.bench.prediction:command", "What plans say, beside what migrations come to."),
    "chaos": Lazy("novacron.launch.chaos.command:command", "A guest that works, while what moves it is struck."),
}
command = LazyGroup("bench", BENCHMARKS, help="Measure, and try what is promised.")
