"""Errors of the chaos.

ChaosError
├── StuckError       something did not come in its time
├── TwoRunError      two copies of one VM ran at the same time
├── BrokenError      what must hold after a run does not
└── ViolatedError    the verdict on all runs
"""

from novacron.core.errors import NovaCronError, VerificationError


class ChaosError(NovaCronError):
    """The chaos could not go on."""

    code = "chaos"


class StuckError(ChaosError):
    """Something did not come in its time."""

    code = "chaos_stuck"


class TwoRunError(ChaosError):
    """Two copies of one VM ran at the same time."""

    code = "chaos_two_run"


class BrokenError(ChaosError):
    """What must hold after a run does not."""

    code = "chaos_broken"


class ViolatedError(ChaosError, VerificationError):
    """The verdict on all runs: some ended wrong."""

    code = "chaos_violated"
    exit_code = VerificationError.exit_code
