"""Plans: how a migration would go, told before it begins, from a look at the VM, the link and the other side."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from novacron.control import attempts, hours
from novacron.control.errors import MigrationRefusedError, PlanStaleError
from novacron.control.kinds import MIGRATIONS, PLANS, VMS
from novacron.control.mirror import OUTGOING
from novacron.control.nodes import Nodes
from novacron.control.peers import Destination, Peers
from novacron.control.plan_reasons import reasons
from novacron.control.sites import Site
from novacron.core.clock import Clock
from novacron.core.ids import ClusterId, PlanId, new_id
from novacron.core.units import MIB
from novacron.database.database import Database, Transaction
from novacron.migration import prediction
from novacron.migration.compression import FIRST
from novacron.migration.prediction import Past, Work
from novacron.protocol.migration import MigrationPolicy
from novacron.protocol.plan import LinkSample, OutlookRequest, ProbeRequest, Survey, SurveyRequest
from novacron.protocol.resources import Migration, Plan, Vm
from novacron.protocol.rest import PlanRequest

GOOD_FOR_S: Final = 600.0
KEPT_FOR_S: Final = 86_400.0  # so that one that is too old can be told from one that never was
LATEST: Final = 5  # migrations that a link's rate is taken from
TELLING_BYTES: Final = 8 * MIB  # from which on a migration's average says something of the link
PAST: Final = 200  # migrations that predictions are judged by


class Plans:
    """What people may ask, and what a migration with the strategy ``auto`` asks."""

    def __init__(
        self, database: Database, nodes: Nodes, peers: Peers, site_of: Callable[[ClusterId], Site], clock: Clock
    ) -> None:
        self._database = database
        self._nodes = nodes
        self._peers = peers
        self._site_of = site_of
        self._clock = clock

    async def make(self, request: PlanRequest) -> Plan:
        """Plan, and touch nothing; raises what a migration would be refused for."""
        to = await self._peers.destination(request.to)
        vm = (await self._database.read(lambda tx: VMS.get(tx, request.vm))).value
        attempts.check_movable(vm)
        hours.check(request.policy.window)
        return await self.plan(vm, to, request.policy)

    async def plan(self, vm: Vm, to: Destination, policy: MigrationPolicy, *, probed: LinkSample | None = None) -> Plan:
        """Look at the VM, at the other side and at the link, unless that was ``probed``; put down what comes of it."""
        if vm.node_id is None:
            raise MigrationRefusedError(f"VM {vm.name} has no node", next_command=f"novacron vm show {vm.name}")
        survey = await self._nodes.call(
            vm.node_id, "migration.survey", SurveyRequest(vm.id, policy.compression_level or FIRST), Survey
        )
        outlook = await self._site_of(to.cluster_id).outlook(
            OutlookRequest(vm.id, vm.spec, survey.source_node, survey.known_state, to.node)
        )
        before = await self._database.read(lambda tx: _moves_to(tx, to.cluster))
        remembered = await self._database.read(lambda tx: _remembered(tx, before))
        link = remembered or probed
        if link is None:
            probe = ProbeRequest(outlook.node, outlook.address, policy.streams, policy.bandwidth_bytes_s)
            link = await self._nodes.call(vm.node_id, "migration.probe", probe, LinkSample)
        work = Work.of(survey, outlook.held, disks=policy.move_disks, direct=outlook.direct)
        strategy = prediction.choose(work, link, policy)
        past = Past([(one.predicted, one.summary) for one in before if one.predicted and one.summary])
        plan = Plan(
            id=PlanId(new_id("plan")),
            vm_id=vm.id,
            vm_name=vm.name,
            spec=vm.spec,
            owner_epoch=vm.owner_epoch,
            state=vm.state,
            node_id=vm.node_id,
            target=to.cluster_id,
            target_cluster=to.cluster,
            target_node=outlook.node_name,
            policy=policy,
            strategy=strategy,
            survey=survey,
            link=link,
            reasons=tuple(reasons(survey, outlook.held, link, policy, strategy, probed=remembered is None)),
            predicted=prediction.predict(work, link, policy, strategy, past),
            made_at=self._clock.now(),
        )
        await self._database.write(lambda tx: _put(tx, plan))
        return plan


def settled(plan: Plan) -> MigrationPolicy:
    """Its policy, with all that a plan decides."""
    share = plan.policy.bandwidth_share
    return msgspec.structs.replace(
        plan.policy,
        strategy=plan.strategy,
        bandwidth_bytes_s=int(prediction.rate(plan.link, plan.policy)) if share else plan.policy.bandwidth_bytes_s,
        bandwidth_share=None,
    )


def check(plan: Plan, vm: Vm, to: Destination, now: float) -> None:
    """Raises PlanStaleError with everything that the world has that the plan has not."""
    changed = [
        said
        for differs, said in (
            (now - plan.made_at > GOOD_FOR_S, f"it is older than {GOOD_FOR_S / 60:.0f} minutes"),
            (vm.id != plan.vm_id, f"it is of VM {plan.vm_name}"),
            (vm.node_id != plan.node_id, f"VM {vm.name} is on another node"),
            (vm.owner_epoch != plan.owner_epoch, f"VM {vm.name} has moved since"),
            (vm.spec != plan.spec, f"VM {vm.name} has another size or configuration"),
            (vm.state != plan.state, f"VM {vm.name} is {vm.state}, not {plan.state}"),
            (to.cluster_id != plan.target, f"it goes to {plan.target_cluster}, not to {to.cluster}"),
            (to.node not in {"", plan.target_node}, f"it goes to node {plan.target_node}, not to {to.node}"),
        )
        if differs
    ]
    if changed:
        raise PlanStaleError(
            f"plan {plan.id} is not what would be done now: {'; '.join(changed)}",
            next_command=f"novacron migrate {vm.name} --to {to.cluster}{to.node and f'/{to.node}'} --plan",
        )


def _put(tx: Transaction, plan: Plan) -> None:
    """Those of yesterday go."""
    for old in list(PLANS.every(tx)):
        if plan.made_at - old.made_at > KEPT_FOR_S:
            PLANS.delete(tx, old.id)
    PLANS.put(tx, plan, named=False)


def _moves_to(tx: Transaction, cluster: str) -> list[Migration]:
    """The newest first."""
    found = [
        move
        for move in MIGRATIONS.every(tx)
        if move.direction == OUTGOING and move.target_cluster == cluster and move.outcome == "succeeded"
    ]
    return sorted(found, key=lambda move: -move.started_at)[:PAST]


def _remembered(tx: Transaction, before: Sequence[Migration]) -> LinkSample | None:
    """The best of the last few that had enough to send, and were not held back; None when there is none.

    Of a link that they shared with others, they say how much of it they had.
    """
    telling = [
        move
        for move in before
        if move.summary is not None
        and move.summary.wire_bytes >= TELLING_BYTES
        and _unbound(attempts.wanted(tx, move.id).policy)
    ][:LATEST]
    if not telling:
        return None
    return LinkSample(
        rate_bytes_s=max(move.summary.bandwidth_bytes_s / move.summary.link_share for move in telling if move.summary),
        rtt_ms=min(move.progress.rtt_ms for move in telling),
    )


def _unbound(policy: MigrationPolicy) -> bool:
    return policy.bandwidth_bytes_s is None and policy.bandwidth_share is None
