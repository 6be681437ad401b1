"""The rules of the hand-over, walked at random: never two owners, never a dead end."""

import msgspec
import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

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


def ran_and_died() -> tuple[tuple[Claim, Attempt], tuple[Claim, Attempt]]:
    """A source that has settled, and a destination where the guest ran."""
    claim, attempt = committed()
    return (claim, handover.settle(attempt)), handover.run(*arrived(), 2)


def test_what_died_after_it_ran_is_given_back_and_goes_on_at_a_fresh_epoch():
    (claim, settled), running = ran_and_died()
    recalled = handover.recall(claim, settled)
    assert handover.source_answer(recalled) == "committed"
    gone, given_back = handover.give_back(*running)
    assert (gone.ownership, given_back.state) == (Ownership.HANDED_OVER, State.GIVEN_BACK)
    assert handover.give_back(gone, given_back) == (gone, given_back)
    owned, reclaimed = handover.reclaim(claim, recalled, beyond=7)
    assert (owned.ownership, owned.epoch, reclaimed.state) == (Ownership.OWNER, 8, State.RECLAIMED)
    with pytest.raises(JournalError):
        handover.run(gone, given_back, 2)
    with pytest.raises(JournalError):
        handover.take_over(gone, given_back)


def test_what_is_recalled_is_not_released_before_there_is_an_answer():
    (claim, settled), _ = ran_and_died()
    with pytest.raises(JournalError):
        handover.reclaim(claim, settled)
    recalled = handover.recall(claim, settled)
    with pytest.raises(JournalError):
        handover.release(recalled)
    assert handover.release(handover.leave(recalled)).state is State.RELEASED
    with pytest.raises(JournalError):
        handover.recall(claim, handover.release(settled))
    assert handover.take_over(claim, recalled)[1].state is State.TAKEN_OVER


def test_nothing_is_given_back_that_has_gone_on():
    _, running = ran_and_died()
    claim, away = handover.open_attempt(running[0], MigrationId("mig-2"))
    away = handover.start_moving(claim, away, peer_node="a", peer_address="a:1")
    handed, _ = handover.commit(claim, away)
    with pytest.raises(StaleEpochError):
        handover.give_back(handed, running[1])
    gone, _ = handover.give_back(claim, running[1])  # its QEMU died while it moved: that attempt hands nothing over
    with pytest.raises(StaleEpochError):
        handover.commit(gone, away)


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


WAITS_FOR = {  # source: what its destination may say for the VM to run on
    State.COMMITTED: {State.READY, State.LOST, State.GIVEN_BACK},
    State.RECALLED: {State.GIVEN_BACK},
}


class TwoNodes(RuleBasedStateMachine):
    """Two nodes hand one VM to each other over a link that loses, repeats and delays whatever it likes.

    A node acts only on its journal; messages are facts that stay deliverable for ever, in any order. QEMU may die,
    also where the guest runs: then a person may boot it again there, or its source may ask for it. An
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
        self.died: set[tuple[str, MigrationId]] = set()  # guests that ran where they came to
        self.booted: set[tuple[str, MigrationId]] = set()  # and were started again there

    @initialize(ran=st.booleans(), died=st.booleans())
    def start(self, ran: bool, died: bool) -> None:  # noqa: FBT001 - drawn
        """With what every VM begins as, or after a first move, most of whose messages may still come again."""
        if not ran:
            return
        self.begin()
        migration = MigrationId("mig-1")
        self._hear_all(("prepare", "b"), ("prepared", "a"))
        self._set("b", handover.ready(*self._at("b", migration)))
        self.said.append(("ready", "a", migration, 2))
        self._hear_all(("ready", "a"), ("commit", "b"), ("settled", "a"))
        if died:
            self.died.add(("b", migration))

    def _hear_all(self, *messages: tuple[str, str]) -> None:
        for kind, node in messages:
            self._hear_one(next(said for said in self.said if said[:2] == (kind, node)))

    def _at(self, node: str, migration: MigrationId) -> tuple[Claim, Attempt]:
        claim = self.claims[node]
        assert claim is not None
        return claim, self.attempts[node, migration]

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
        self._hear_one(data.draw(st.sampled_from(sorted(set(self.said)))))

    def _hear_one(self, message: tuple[str, str, MigrationId, int]) -> None:
        kind, node, migration, epoch = message
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
                case "ready" | "settled" | "lost" | "left" | "commit" | "aborted" | "give back":
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
                self._set(node, handover.reclaim(claim, attempt, epoch))
            case "left":
                self._set(node, handover.leave(attempt))
            case "give back" if attempt.state is State.GIVEN_BACK or (node, migration) in self.died - self.booted:
                if attempt.state is State.RUNNING and claim.epoch != attempt.epoch:
                    self.said.append(("left", other, migration, epoch))
                    return
                self._set(node, handover.give_back(claim, attempt))
                burned = self.claims[node]
                assert burned is not None
                self.said.append(("lost", other, migration, burned.burned))
            case "give back":
                self.said.append(("left", other, migration, epoch))

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
    @rule(data=st.data(), what=st.sampled_from(["ready", "abort", "die", "boot", "recall", "ask", "release"]))
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
                case "die" if attempt.state is not State.RUNNING:
                    self._set(node, handover.lose(attempt))
                    self.said.append(("lost", other, migration, attempt.epoch))
                case "ask" if attempt.role is Role.SOURCE:
                    answer = handover.source_answer(attempt)
                    kind = {"committed": "commit", "aborted": "aborted"}.get(answer)
                    if kind is not None and (other, migration) in self.attempts:
                        self.said.append((kind, other, migration, attempt.epoch))
                case "release":
                    self._set(node, handover.release(attempt))
                case "die" | "boot" | "recall":
                    self._after_it_ran(what, node, migration)
        except (StaleEpochError, JournalError):
            pass

    def _after_it_ran(self, what: str, node: str, migration: MigrationId) -> None:
        claim, attempt, other = self.claims[node], self.attempts[node, migration], "b" if node == "a" else "a"
        assert claim is not None
        here = claim.ownership is Ownership.OWNER and claim.epoch == attempt.epoch
        if what == "die" and attempt.state is State.RUNNING and here:
            self.died.add((node, migration))
        elif what == "boot" and here:
            self.booted |= {(node, migration)} & self.died
        elif what == "recall" and (other, migration) in self.died - self.booted:  # its node has said so
            self._set(node, handover.recall(claim, attempt))
            self.said.append(("give back", other, migration, attempt.epoch))

    @invariant()
    def at_most_one_owner(self) -> None:
        owners = [c for c in self.claims.values() if c is not None and c.ownership is Ownership.OWNER]
        assert len(owners) <= 1

    @invariant()
    def never_a_dead_end(self) -> None:
        """Without an owner, some attempt can still run at its destination, or be reclaimed at its source."""
        if self._owner() is not None:
            return
        pairs = [
            (attempt, self.attempts.get(("b" if node == "a" else "a", migration)))
            for (node, migration), attempt in self.attempts.items()
            if attempt.role is Role.SOURCE and attempt.state in WAITS_FOR
        ]
        assert any(peer is not None and peer.state in WAITS_FOR[attempt.state] for attempt, peer in pairs)


TwoNodes.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestTwoNodes = TwoNodes.TestCase


def test_a_claim_survives_the_journal():
    claim, attempt = moving()
    assert msgspec.json.decode(msgspec.json.encode(claim), type=Claim) == claim
    assert msgspec.json.decode(msgspec.json.encode(attempt), type=Attempt) == attempt
