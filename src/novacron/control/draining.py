"""What a node that is being drained still has."""

from novacron.control import moves
from novacron.control.attempts import MOVABLE
from novacron.control.kinds import MIGRATIONS, VMS
from novacron.control.vms import OFF
from novacron.database.database import Transaction
from novacron.protocol.resources import BatchMove, Node

DRAINING, DRAINED = "draining", "drained"


def standing(tx: Transaction, node: Node) -> list[BatchMove]:
    """A move for every VM that runs there, is being made there, or is on its way to it."""
    found = _arriving(tx, node)
    known = {move.vm_id for move in found}
    for vm in VMS.every(tx):
        if vm.node_id != node.id or vm.state in OFF or vm.id in known:
            continue
        move = moves.of_vm(vm, node.name)
        if vm.migration_id is not None:
            move = moves.held(move, f"VM {vm.name} is migrating", f"novacron migration watch {vm.migration_id}")
        elif vm.state not in MOVABLE:
            move = moves.held(move, f"VM {vm.name} is {vm.state}", f"novacron vm show {vm.name}")
        found.append(move)
    return found


def staying(tx: Transaction, node: Node) -> list[BatchMove]:
    """A move that does not take place for every VM there that is off."""
    way_out = f"novacron node undrain {node.name} (then start the VM, and drain again)"
    return [moves.staying(vm, node.name, way_out) for vm in VMS.every(tx) if vm.node_id == node.id and vm.state in OFF]


def _arriving(tx: Transaction, node: Node) -> list[BatchMove]:
    """Those that the node was made ready for before it was drained."""
    return [
        moves.held(
            BatchMove(migration.vm_id, migration.vm_name, node.name, predicted_bytes=0),
            f"VM {migration.vm_name} arrives",
            f"novacron migration watch {migration.id}",
        )
        for migration in MIGRATIONS.every(tx)
        if migration.target_node == node.name and not migration.outcome
    ]
