"""Errors of hypervisors.

HypervisorError
├── QemuMissingError        QEMU, or a part of it, is not installed
├── NoRoomError             not enough memory or disk, with how much is missing
├── MachineTypeError        this host cannot run that machine
├── BridgeError             a network card has no way into the host's network
├── BadImageError           an image is not what it says, or leans on another file
├── VmStateError            the VM is not in a state in which this can be done
├── VmExistsError / VmUnknownError
├── UnsupportedError        this hypervisor cannot do it at all
├── QmpError                QEMU refused a command; its class and words are kept
└── QemuDiedError           the process ended; its last words are kept (retryable)
    NbdError                the block export answered with an error
"""

from novacron.core.errors import ConflictError, InternalError, InvalidInputError, NotFoundError, NovaCronError


class HypervisorError(NovaCronError):
    """The hypervisor could not do it."""

    code = "hypervisor"


class QemuMissingError(HypervisorError):
    """QEMU, or a part of it, is not installed."""

    code = "qemu_missing"

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} is not installed on this host",
            next_command="apt-get install qemu-system-x86 qemu-utils, then novacron doctor",
        )


class NoRoomError(HypervisorError, ConflictError):
    """Not enough memory or disk."""

    code = "no_room"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class MachineTypeError(HypervisorError, ConflictError):
    """This host cannot run that machine."""

    code = "machine_type_unknown"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class BridgeError(HypervisorError, ConflictError):
    """A network card has no way into the host's network."""

    code = "bridge"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class BadImageError(HypervisorError, InvalidInputError):
    """An image is not what it says, or leans on another file."""

    code = "bad_image"
    exit_code = InvalidInputError.exit_code
    http_status = InvalidInputError.http_status


class VmStateError(HypervisorError, ConflictError):
    """The VM is not in a state in which this can be done."""

    code = "vm_state"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class VmExistsError(HypervisorError, ConflictError):
    """There is a VM of this id."""

    code = "vm_exists"
    exit_code = ConflictError.exit_code
    http_status = ConflictError.http_status


class VmUnknownError(HypervisorError, NotFoundError):
    """There is no VM of this id."""

    code = "vm_unknown"
    exit_code = NotFoundError.exit_code
    http_status = NotFoundError.http_status


class UnsupportedError(HypervisorError, InvalidInputError):
    """This hypervisor cannot do it at all."""

    code = "unsupported"
    exit_code = InvalidInputError.exit_code
    http_status = InvalidInputError.http_status


class QmpError(HypervisorError):
    """QEMU refused a command."""

    code = "qmp"

    def __init__(self, command: str, error_class: str, description: str) -> None:
        super().__init__(f"QEMU refused {command}: {description}")
        self.command = command
        self.error_class = error_class
        self.description = description


class QemuDiedError(HypervisorError):
    """The QEMU process ended, or its monitor went away."""

    code = "qemu_died"
    retryable = True


class NbdError(HypervisorError, InternalError):
    """A block export answered with an error, or with what the protocol does not allow."""

    code = "nbd"
