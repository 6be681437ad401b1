"""Errors of the peers' runs."""

from novacron.core.errors import NovaCronError


class StockFailedError(NovaCronError):
    """Stock QEMU could not move the guest."""

    code = "stock_failed"
