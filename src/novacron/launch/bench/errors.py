"""Errors of the benchmarks.

BenchError
└── GaveUpError   a move took longer than a contender may take
"""

from novacron.core.errors import NovaCronError


class BenchError(NovaCronError):
    """A case of the benchmark did not come about."""

    code = "bench"


class GaveUpError(BenchError):
    """A move took longer than a contender may take."""

    code = "gave_up"
