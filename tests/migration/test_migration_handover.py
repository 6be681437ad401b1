"""The rules of the hand-over, walked at random: never two owners, never a dead end."""

import msgspec
import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from novacron.core.ids import MigrationId, VmId
from novacron.migration import handover
from novacron.migration.errors import JournalError, StaleEpochError
from novacron.migration.handover import Attempt, Claim, Ownership, Role, State

VM = VmId("vm-00000000000000000000")
FIRST = MigrationId("mig-00000000000000000001")


def owner(epoch: int = 1) -> Claim:
    return Claim(VM, Ownership.OWNER, epoch, epoch)


def wanted(epoch: int, migration_id: MigrationId = FIRST) -> Attempt:
    return Attempt(migration_id, VM, Role.DESTINATION, epoch, State.PREPARED)


def moving() -> tuple[Claim, Attempt]:
    claim, attempt = handover.open_attempt(owner(), FIRST)
    return claim, handover.start_moving(claim, attempt, peer_node="b", peer_address="b:1")


def test_every_attempt_burns_a_fresh_epoch():
    claim, first = handover.open_attempt(owner(4), FIRST)
    claim, second = handover.open_attempt(claim, MigrationId("mig-2"))
    assert (first.epoch, second.epoch, claim.epoch, claim.burned) == (5, 6, 4, 6)


def test_a_node_that_is_not_the_owner_opens_nothing():
    claim, attempt = moving()
    handed, _ = handover.commit(claim, attempt)
    with pytest.raises(StaleEpochError):
        handover.open_attempt(handed, MigrationId("mig-2"))


def test_a_commit_said_twice_is_one_commit():
    claim, attempt = moving()
    once = handover.commit(claim, attempt)
    assert handover.commit(*once) == once
    assert once[0].ownership is Ownership.HANDED_OVER


def test_a_commit_after_the_abort_is_refused():
    claim, attempt = moving()
    with pytest.raises(JournalError):
        handover.commit(claim, handover.abort(attempt))


def test_a_late_commit_of_an_older_attempt_matches_nothing():
    claim, attempt = moving()
    claim, _ = handover.open_attempt(claim, MigrationId("mig-2"))
    with pytest.raises(StaleEpochError):
        handover.commit(claim, attempt)


def test_after_the_commit_nothing_is_aborted():
    claim, attempt = moving()
    _, committed = handover.commit(claim, attempt)
    with pytest.raises(JournalError):
        handover.abort(committed)


def test_the_destination_runs_only_what_is_ready_and_at_its_epoch():
    claim, attempt = handover.prepare(None, wanted(7))
    with pytest.raises(JournalError):
        handover.run(claim, attempt, 7)
    attempt = handover.ready(claim, attempt)
    with pytest.raises(StaleEpochError):
        handover.run(claim, attempt, 6)
    running = handover.run(claim, attempt, 7)
    assert running[0].ownership is Ownership.OWNER
    assert handover.run(*running, 7) == running


def test_an_epoch_is_prepared_once():
    claim, _ = handover.prepare(None, wanted(3))
    with pytest.raises(StaleEpochError):
        handover.prepare(claim, wanted(3))
    with pytest.raises(StaleEpochError):
        handover.prepare(owner(1), wanted(9))


def test_what_was_lost_never_runs():
    claim, attempt = handover.prepare(None, wanted(3))
    attempt = handover.lose(handover.ready(claim, attempt))
    with pytest.raises(JournalError):
        handover.run(claim, attempt, 3)


def test_a_reclaimed_vm_has_a_fresh_epoch():
    claim, attempt = handover.commit(*moving())
    claim, attempt = handover.reclaim(claim, attempt)
    assert (claim.ownership, claim.epoch, claim.burned) == (Ownership.OWNER, 3, 3)
    assert handover.reclaim(claim, attempt) == (claim, attempt)
    assert handover.source_answer(attempt) == "aborted"


def test_the_answers_of_a_source():
    claim, attempt = handover.open_attempt(owner(), FIRST)
    assert handover.source_answer(attempt) == "pending"
    attempt = handover.start_moving(claim, attempt, peer_node="b", peer_address="b:1")
    assert handover.source_answer(attempt) == "pending"
    assert handover.source_answer(handover.abort(attempt)) == "aborted"
    _, attempt = handover.commit(claim, attempt)
    assert handover.source_answer(attempt) == "committed"
    assert handover.source_answer(handover.release(handover.settle(attempt))) == "committed"


def committed() -> tuple[Claim, Attempt]:
    return handover.commit(*moving())


def arrived(epoch: int = 2) -> tuple[Claim, Attempt]:
    claim, attempt = handover.prepare(None, wanted(epoch))
    return claim, handover.ready(claim, attempt)


def test_a_source_takes_over_what_it_has_handed_over_at_a_fresh_epoch():
    for claim, attempt in (
        committed(),
        (committed()[0], handover.settle(committed()[1])),
        (committed()[0], handover.release(handover.settle(committed()[1]))),
    ):
        owned, taken = handover.take_over(claim, attempt)
        assert (owned.ownership, owned.epoch, owned.burned) == (Ownership.OWNER, 3, 3)
        assert taken.state is State.TAKEN_OVER
        assert handover.take_over(owned, taken) == (owned, taken)
        assert handover.source_answer(taken) == "aborted"
        assert handover.told(taken).state is State.RECLAIMED


def test_a_destination_takes_over_only_what_is_whole():
    claim, attempt = handover.prepare(None, wanted(2))
    with pytest.raises(JournalError):
        handover.take_over(claim, attempt)
    owned, taken = handover.take_over(*arrived())
    assert (owned.ownership, owned.epoch) == (Ownership.OWNER, 3)
    assert handover.told(taken).state is State.RUNNING


def test_what_a_node_owns_cannot_be_taken_over():
    claim, attempt = moving()
    with pytest.raises(StaleEpochError, match="nothing to take over"):
        handover.take_over(claim, handover.abort(attempt))


def test_the_other_end_stands_down_once_and_owns_nothing():
    running = handover.run(*arrived(), 2)
    fenced, lost = handover.stand_down(*running, 3)
    assert (fenced.ownership, fenced.burned, lost.state) == (Ownership.FENCED, 3, State.LOST)
    assert handover.stand_down(fenced, lost, 3) == (fenced, lost)
    _, settled = handover.stand_down(*moving(), 9)
    assert settled.state is State.SETTLED
    with pytest.raises(StaleEpochError):
        handover.open_attempt(fenced, MigrationId("mig-2"))
    assert handover.prepare(fenced, wanted(4, MigrationId("mig-2")))[0].burned == 4


def test_an_end_that_has_gone_on_says_that_two_copies_ran():
    claim, attempt = handover.run(*arrived(), 2)
    gone_on, _ = handover.open_attempt(claim, MigrationId("mig-2"))
    with pytest.raises(StaleEpochError, match="two copies ran"):
        handover.stand_down(gone_on, attempt, 3)


class TwoNodes(RuleBasedStateMachine):
    """Two nodes hand one VM to each other over a link that loses, repeats and delays whatever it likes.

    A node acts only on its journal; messages are facts that stay deliverable for ever, in any order. QEMU may die. An
    operator may fence a node that does not own the VM, and take it over at the other one: until the fenced node has
    heard that it must stand down, it hears and does nothing else.
    """

    def __init__(self) -> None:
        super().__init__()
        self.claims: dict[str, Claim | None] = {"a": owner(), "b": None}
        self.attempts: dict[tuple[str, MigrationId], Attempt] = {}
        self.said: list[tuple[str, str, MigrationId, int]] = []  # kind, to whom, migration, epoch
        self.count = 0
        self.fenced: set[str] = set()

    def _set(self, node: str, result: tuple[Claim, Attempt] | Attempt) -> None:
        claim, attempt = result if isinstance(result, tuple) else (self.claims[node], result)
        self.claims[node] = claim
        self.attempts[node, attempt.migration_id] = attempt

    def _owner(self) -> str | None:
        owners = [n for n, c in self.claims.items() if c is not None and c.ownership is Ownership.OWNER]
        return owners[0] if owners else None

    @precondition(lambda self: self._owner() is not None)
    @rule()
    def begin(self) -> None:
        node = self._owner()
        assert node is not None
        claim = self.claims[node]
        assert claim is not None
        self.count += 1
        migration = MigrationId(f"mig-{self.count}")
        self._set(node, handover.open_attempt(claim, migration))
        attempt = self.attempts[node, migration]
        other = "b" if node == "a" else "a"
        self.said.append(("prepare", other, migration, attempt.epoch))

    @precondition(lambda self: self.said)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        kind, node, migration, epoch = data.draw(st.sampled_from(self.said))
        other = "b" if node == "a" else "a"
        claim, attempt = self.claims[node], self.attempts.get((node, migration))
        if node in self.fenced and kind != "stand_down":
            return
        try:
            match kind:
                case "stand_down" if attempt is not None:
                    assert claim is not None
                    self._set(node, handover.stand_down(claim, attempt, epoch))
                    self.fenced.discard(node)
                    self._set(other, handover.told(self.attempts[other, migration]))
                case "prepare" if attempt is None:
                    self._set(node, handover.prepare(claim, wanted(epoch, migration)))
                    self.said.append(("prepared", other, migration, epoch))
                case "prepared":
                    assert claim is not None
                    assert attempt is not None
                    self._set(node, handover.start_moving(claim, attempt, peer_node=other, peer_address=other))
                case "ready" | "settled" | "lost" | "commit" | "aborted":
                    self._hear(kind, node, migration, epoch)
        except (StaleEpochError, JournalError):
            pass  # refused: the journal stays as it was

    def _hear(self, kind: str, node: str, migration: MigrationId, epoch: int) -> None:
        other = "b" if node == "a" else "a"
        claim, attempt = self.claims[node], self.attempts[node, migration]
        assert claim is not None
        match kind:
            case "ready":
                self._set(node, handover.commit(claim, attempt))
                self.said.append(("commit", other, migration, epoch))
            case "commit":
                self._set(node, handover.run(claim, attempt, epoch))
                self.said.append(("settled", other, migration, epoch))
            case "settled":
                self._set(node, handover.settle(attempt))
            case "aborted":
                self._set(node, handover.lose(attempt))
                self.said.append(("lost", other, migration, epoch))
            case "lost":
                self._set(node, handover.reclaim(claim, attempt))

    @precondition(lambda self: self.attempts and self._owner() is None and not self.fenced)
    @rule(data=st.data())
    def take_over(self, data: st.DataObject) -> None:
        node = data.draw(st.sampled_from(sorted({node for node, _ in self.attempts})))
        mine = [attempt for (at, _), attempt in self.attempts.items() if at == node]
        latest, claim = max(mine, key=lambda attempt: attempt.epoch), self.claims[node]
        assert claim is not None
        try:
            owned, taken = handover.take_over(claim, latest)
        except (StaleEpochError, JournalError):
            return
        other = "b" if node == "a" else "a"
        self._set(node, (owned, taken))
        self.fenced.add(other)
        self.said.append(("stand_down", other, taken.migration_id, owned.epoch))

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), what=st.sampled_from(["ready", "abort", "die", "ask", "release"]))
    def act(self, data: st.DataObject, what: str) -> None:
        node, migration = data.draw(st.sampled_from(sorted(self.attempts)))
        claim, attempt = self.claims[node], self.attempts[node, migration]
        assert claim is not None
        if node in self.fenced:
            return
        other = "b" if node == "a" else "a"
        try:
            match what:
                case "ready":
                    self._set(node, handover.ready(claim, attempt))
                    self.said.append(("ready", other, migration, attempt.epoch))
                case "abort":
                    self._set(node, handover.abort(attempt))
                case "die":
                    self._set(node, handover.lose(attempt))
                    self.said.append(("lost", other, migration, attempt.epoch))
                case "ask" if attempt.role is Role.SOURCE:
                    answer = handover.source_answer(attempt)
                    kind = {"committed": "commit", "aborted": "aborted"}.get(answer)
                    if kind is not None and (other, migration) in self.attempts:
                        self.said.append((kind, other, migration, attempt.epoch))
                case "release":
                    self._set(node, handover.release(attempt))
        except (StaleEpochError, JournalError):
            pass

    @invariant()
    def at_most_one_owner(self) -> None:
        owners = [c for c in self.claims.values() if c is not None and c.ownership is Ownership.OWNER]
        assert len(owners) <= 1

    @invariant()
    def never_a_dead_end(self) -> None:
        """Without an owner, some committed attempt can still run at its destination, or be reclaimed at its source."""
        if self._owner() is not None:
            return
        pairs = [
            (attempt, self.attempts.get(("b" if node == "a" else "a", migration)))
            for (node, migration), attempt in self.attempts.items()
            if attempt.role is Role.SOURCE and attempt.state is State.COMMITTED
        ]
        assert any(peer is not None and peer.state in {State.READY, State.LOST} for _, peer in pairs)


TwoNodes.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestTwoNodes = TwoNodes.TestCase


def test_a_claim_survives_the_journal():
    claim, attempt = moving()
    assert msgspec.json.decode(msgspec.json.encode(claim), type=Claim) == claim
    assert msgspec.json.decode(msgspec.json.encode(attempt), type=Attempt) == attempt
