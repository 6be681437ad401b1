"""Errors of the lab.

LabError
└── NoNamespacesError   this user or this kernel cannot make them: the lab is a TCP relay then
"""

from novacron.core.errors import NovaCronError


class LabError(NovaCronError):
    """The lab could not be set up."""

    code = "lab"


class NoNamespacesError(LabError):
    """This user or this kernel cannot make network namespaces or TUN devices."""

    code = "no_namespaces"
