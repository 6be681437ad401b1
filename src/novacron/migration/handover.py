"""Who may run a VM: the rules of the hand-over, as pure transitions of a node's journal.

A node keeps one ``Claim`` a VM and one ``Attempt`` a migration, and may run a VM only while its claim says ``owner``.
Every function here takes what the journal says, and gives what it must say next (or the same, when the call was made
before: every one may be repeated), or raises StaleEpochError or JournalError. The caller writes the result durably
*before* it acts on it.

Source:       open ── moving ── committed ── settled ── released        committed is the point of no return
                 └───────┴── aborted   │          ├── recalled ── reclaimed
                                       └── reclaimed                    (the destination said, durably, ``lost``)
Destination:  prepared ── ready ── running ── given_back                (asked by the source, of a guest that has died)
                 └──────────┴── lost                                    (from ready only when told, or QEMU died)

By an operator's word that the other end is fenced, and only by it, either end takes the VM over after ``committed`` or
``ready``; the other end stands down as soon as it hears of it:

Source:       committed │ settled │ released ── taken_over ── reclaimed
Destination:  ready ── taken_over ── running
"""

from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Struct, field

from novacron.core.ids import MigrationId, VmId
from novacron.migration.errors import JournalError, StaleEpochError
from novacron.protocol.migration import GuestCheck


class Ownership(StrEnum):
    """What a node's journal says of a VM."""

    NONE = "none"  # it was never here, or its last attempt to come here ended
    OWNER = "owner"  # this node, and no other, may run it
    HANDED_OVER = "handed_over"  # another node may: never resumes here by itself
    FENCED = "fenced"  # another node took it over on an operator's word: what ran here has ended


class Role(StrEnum):
    """Which end of an attempt this node is."""

    SOURCE = "source"
    DESTINATION = "destination"


class State(StrEnum):
    """Of one attempt."""

    OPEN = "open"
    MOVING = "moving"
    COMMITTED = "committed"
    SETTLED = "settled"  # the destination has said that it runs
    RELEASED = "released"
    RECALLED = "recalled"  # the destination is asked to give back a guest that has died there
    ABORTED = "aborted"
    RECLAIMED = "reclaimed"
    PREPARED = "prepared"
    READY = "ready"
    RUNNING = "running"
    GIVEN_BACK = "given_back"  # it ran here, has died, and never runs again
    LOST = "lost"
    TAKEN_OVER = "taken_over"  # owned here on an operator's word; the other end has not heard of it yet


UNDER_WAY: Final = frozenset({State.OPEN, State.MOVING, State.COMMITTED, State.PREPARED, State.READY})


class Claim(Struct, frozen=True):
    """One VM at one node; ``burned`` is the highest epoch that any attempt has used, as far as this node knows."""

    vm_id: VmId
    ownership: Ownership
    epoch: int
    burned: int


class Attempt(Struct, frozen=True):
    """One migration at one node; ``peer_*`` is the node at the other end."""

    migration_id: MigrationId
    vm_id: VmId
    role: Role
    epoch: int
    state: State
    peer_node: str = ""
    peer_address: str = ""
    instance: str = ""  # of the hypervisor, at a destination
    disks_known: bool = False  # at a destination: its disks lie over those of an earlier stay
    disks_filled: bool = False  # at a destination: its disks hold something already
    donor: str = ""  # at a destination: another VM here that is like this one
    direct: bool = False  # at a destination: its QEMU writes the memory itself, so that its RAM file is no image
    post_copy: bool = False  # a part of the memory follows the guest, once it runs at the destination
    whole: bool = False  # at a destination: all of it has come
    power: str = "running"  # at a destination: what the guest did before it moved
    check: GuestCheck = field(default_factory=GuestCheck)  # at a destination: what counts as having arrived well
    handed_over_at: float = 0.0  # at a source: when it was committed


def open_attempt(claim: Claim, migration_id: MigrationId) -> tuple[Claim, Attempt]:
    """Source: burn a fresh epoch; nothing has moved yet."""
    if claim.ownership is not Ownership.OWNER:
        raise StaleEpochError(f"this node does not own VM {claim.vm_id} (it says {claim.ownership})")
    epoch = claim.burned + 1
    attempt = Attempt(migration_id, claim.vm_id, Role.SOURCE, epoch, State.OPEN)
    return msgspec.structs.replace(claim, burned=epoch), attempt


def start_moving(
    claim: Claim, attempt: Attempt, *, peer_node: str, peer_address: str, post_copy: bool = False
) -> Attempt:
    """Source: the destination is known; bytes may flow."""
    _must_be(attempt, Role.SOURCE, State.OPEN, State.MOVING)
    _must_be_current(claim, attempt)
    peer = {"peer_node": peer_node, "peer_address": peer_address}
    return msgspec.structs.replace(attempt, state=State.MOVING, post_copy=post_copy, **peer)


def commit(claim: Claim, attempt: Attempt, now: float = 0.0) -> tuple[Claim, Attempt]:
    """Source: handed over. The point of no return: write it before the destination hears of it."""
    _must_be(attempt, Role.SOURCE, State.MOVING, State.COMMITTED)
    _must_be_current(claim, attempt)
    if attempt.state is State.COMMITTED:
        return claim, attempt
    if claim.ownership is not Ownership.OWNER:
        raise StaleEpochError(f"VM {claim.vm_id} was given back by this node: it is not its to hand over")
    handed = msgspec.structs.replace(claim, ownership=Ownership.HANDED_OVER, epoch=attempt.epoch)
    return handed, msgspec.structs.replace(attempt, state=State.COMMITTED, handed_over_at=now)


def abort(attempt: Attempt) -> Attempt:
    """Source: given up before the commit; a late message of this attempt matches nothing any more."""
    _must_be(attempt, Role.SOURCE, State.OPEN, State.MOVING, State.ABORTED)
    return msgspec.structs.replace(attempt, state=State.ABORTED)


def settle(attempt: Attempt) -> Attempt:
    """Source: the destination has said that it runs."""
    _must_be(attempt, Role.SOURCE, State.COMMITTED, State.SETTLED)
    return msgspec.structs.replace(attempt, state=State.SETTLED)


def release(attempt: Attempt) -> Attempt:
    """Source: the paused VM is gone; what it left is content cache."""
    _must_be(attempt, Role.SOURCE, State.SETTLED, State.RELEASED)
    return msgspec.structs.replace(attempt, state=State.RELEASED)


def recall(claim: Claim, attempt: Attempt) -> Attempt:
    """Source: the destination is about to be asked to give the VM back; until it has answered, nothing is released."""
    _must_be(attempt, Role.SOURCE, State.SETTLED, State.RECALLED)
    _must_be_handed_over(claim, attempt)
    return msgspec.structs.replace(attempt, state=State.RECALLED)


def leave(attempt: Attempt) -> Attempt:
    """Source: asked to give the VM back, the destination has refused: it lives there."""
    _must_be(attempt, Role.SOURCE, State.RECALLED, State.SETTLED)
    return msgspec.structs.replace(attempt, state=State.SETTLED)


def reclaim(claim: Claim, attempt: Attempt, beyond: int = 0) -> tuple[Claim, Attempt]:
    """Source: the destination has durably said that it lost the VM, or gives it back: owned here again.

    ``beyond`` is the highest epoch that was burned there.
    """
    _must_be(attempt, Role.SOURCE, State.COMMITTED, State.RECALLED, State.RECLAIMED)
    if attempt.state is State.RECLAIMED:
        return claim, attempt
    _must_be_handed_over(claim, attempt)
    epoch = max(claim.burned, beyond) + 1
    owner = msgspec.structs.replace(claim, ownership=Ownership.OWNER, epoch=epoch, burned=epoch)
    return owner, msgspec.structs.replace(attempt, state=State.RECLAIMED)


def prepare(claim: Claim | None, wanted: Attempt) -> tuple[Claim, Attempt]:
    """Destination: an attempt of an epoch never seen may begin; this node does not own the VM."""
    _must_be(wanted, Role.DESTINATION, State.PREPARED)
    if claim is None:
        claim = Claim(wanted.vm_id, Ownership.NONE, 0, 0)
    if claim.ownership is Ownership.OWNER:
        raise StaleEpochError(f"VM {wanted.vm_id} is owned by this node: it cannot come in")
    if wanted.epoch <= claim.burned:
        raise StaleEpochError(f"epoch {wanted.epoch} of VM {wanted.vm_id} was used before (highest: {claim.burned})")
    return msgspec.structs.replace(claim, burned=wanted.epoch), wanted


def ready(claim: Claim, attempt: Attempt) -> Attempt:
    """Destination: all is here and durable; from here it may not give up by itself."""
    _must_be(attempt, Role.DESTINATION, State.PREPARED, State.READY)
    _must_be_current(claim, attempt)
    return msgspec.structs.replace(attempt, state=State.READY)


def run(claim: Claim, attempt: Attempt, epoch: int) -> tuple[Claim, Attempt]:
    """Destination: the source's commit of ``epoch`` has arrived: own it, then say ``cont``."""
    _must_be(attempt, Role.DESTINATION, State.READY, State.RUNNING)
    if epoch != attempt.epoch:
        raise StaleEpochError(f"a commit of epoch {epoch} for an attempt of epoch {attempt.epoch}")
    if attempt.state is State.RUNNING:
        return claim, attempt
    _must_be_current(claim, attempt)
    owner = msgspec.structs.replace(claim, ownership=Ownership.OWNER, epoch=epoch)
    return owner, msgspec.structs.replace(attempt, state=State.RUNNING)


def complete(attempt: Attempt) -> Attempt:
    """Destination: all the memory that followed the guest is here."""
    _must_be(attempt, Role.DESTINATION, State.RUNNING)
    return msgspec.structs.replace(attempt, whole=True)


def is_following(attempt: Attempt) -> bool:
    """At a destination: whether the guest runs, and a part of its memory is still to come."""
    return attempt.state is State.RUNNING and attempt.post_copy and not attempt.whole


def is_under_way(attempt: Attempt) -> bool:
    """Whether its VM can begin no other."""
    return attempt.state in UNDER_WAY or is_following(attempt)


def lose(attempt: Attempt) -> Attempt:
    """Destination: it will never run what it received (its QEMU died, or the source took the VM back)."""
    _must_be(attempt, Role.DESTINATION, State.PREPARED, State.READY, State.LOST)
    return msgspec.structs.replace(attempt, state=State.LOST)


def give_back(claim: Claim, attempt: Attempt) -> tuple[Claim, Attempt]:
    """Destination: the guest that came by this attempt has died, and the source asks for it: never run here again.

    Nothing of it may be alive when this is written.
    """
    _must_be(attempt, Role.DESTINATION, State.RUNNING, State.GIVEN_BACK)
    if attempt.state is State.GIVEN_BACK:
        return claim, attempt
    if claim.ownership is not Ownership.OWNER or claim.epoch != attempt.epoch:
        raise StaleEpochError(f"VM {claim.vm_id} has gone on since migration {attempt.migration_id}")
    gone = msgspec.structs.replace(claim, ownership=Ownership.HANDED_OVER)
    return gone, msgspec.structs.replace(attempt, state=State.GIVEN_BACK)


def take_over(claim: Claim, attempt: Attempt) -> tuple[Claim, Attempt]:
    """Either end: an operator attests that nobody else runs the VM, nor will: owned here, at a fresh epoch."""
    if claim.ownership is Ownership.OWNER:
        if attempt.state in {State.TAKEN_OVER, State.RECLAIMED, State.RUNNING}:
            return claim, attempt
        raise StaleEpochError(f"this node owns VM {claim.vm_id}: there is nothing to take over")
    if attempt.role is Role.SOURCE:
        _must_be(
            attempt,
            Role.SOURCE,
            State.COMMITTED,
            State.SETTLED,
            State.RECALLED,
            State.RELEASED,
            State.TAKEN_OVER,
        )
    else:
        _must_be(attempt, Role.DESTINATION, State.READY, State.TAKEN_OVER)
    epoch = claim.burned + 1
    owner = msgspec.structs.replace(claim, ownership=Ownership.OWNER, epoch=epoch, burned=epoch)
    return owner, msgspec.structs.replace(attempt, state=State.TAKEN_OVER)


def told(attempt: Attempt) -> Attempt:
    """The other end has stood down."""
    end = State.RECLAIMED if attempt.role is Role.SOURCE else State.RUNNING
    _must_be(attempt, attempt.role, State.TAKEN_OVER, end)
    return msgspec.structs.replace(attempt, state=end)


def stand_down(claim: Claim, attempt: Attempt, epoch: int) -> tuple[Claim, Attempt]:
    """The other end has taken the VM over at ``epoch``: this one gives up what it has, for good."""
    if claim.ownership is Ownership.FENCED and claim.epoch >= epoch:
        return claim, attempt
    if claim.burned >= epoch:
        raise StaleEpochError(
            f"VM {claim.vm_id} was taken over at epoch {epoch}, and has gone on here to {claim.burned}: two copies ran"
        )
    end = State.SETTLED if attempt.role is Role.SOURCE else State.LOST
    fenced = msgspec.structs.replace(claim, ownership=Ownership.FENCED, epoch=epoch, burned=epoch)
    return fenced, msgspec.structs.replace(attempt, state=end)


def source_answer(attempt: Attempt) -> str:
    """What the source tells a destination that asks: ``pending``, ``committed`` or ``aborted``."""
    match attempt.state:
        case State.OPEN | State.MOVING:
            return "pending"
        case State.ABORTED | State.RECLAIMED | State.TAKEN_OVER:
            return "aborted"
        case _:
            return "committed"


def _must_be(attempt: Attempt, role: Role, *states: State) -> None:
    if attempt.role is not role or attempt.state not in states:
        raise JournalError(
            f"migration {attempt.migration_id} is {attempt.state} at its {attempt.role}: "
            f"it cannot become {states[-1]} there"
        )


def _must_be_current(claim: Claim, attempt: Attempt) -> None:
    if claim.vm_id != attempt.vm_id or claim.burned != attempt.epoch:
        raise StaleEpochError(
            f"migration {attempt.migration_id} has epoch {attempt.epoch}; the highest of its VM is {claim.burned}"
        )


def _must_be_handed_over(claim: Claim, attempt: Attempt) -> None:
    """By this attempt, and by no later one; attempts to come back may have burned epochs since."""
    if claim.vm_id != attempt.vm_id or claim.ownership is not Ownership.HANDED_OVER or claim.epoch != attempt.epoch:
        raise StaleEpochError(
            f"migration {attempt.migration_id} handed over at epoch {attempt.epoch}; VM {claim.vm_id} is "
            f"{claim.ownership} at epoch {claim.epoch}"
        )
