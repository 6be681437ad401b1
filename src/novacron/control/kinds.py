"""The kinds of resources that a cluster keeps, and its schema."""

from typing import Final

from novacron.database import resources
from novacron.database.resources import Collection
from novacron.protocol.resources import (
    Backup,
    Batch,
    Checkpoint,
    Cluster,
    Image,
    JoinToken,
    Migration,
    Node,
    PeerCluster,
    Plan,
    Repository,
    Vm,
)
from novacron.workflow import journal

CLUSTERS: Final = Collection("cluster", Cluster, what="cluster")
NODES: Final = Collection("node", Node, what="node", list_command="novacron node list")
IMAGES: Final = Collection("image", Image, what="image", list_command="novacron image list")
VMS: Final = Collection("vm", Vm, what="VM", list_command="novacron vm list")
MIGRATIONS: Final = Collection("migration", Migration, what="migration", list_command="novacron migration list")
PLANS: Final = Collection("plan", Plan, what="plan", list_command="novacron plan list")
BATCHES: Final = Collection("batch", Batch, what="batch", list_command="novacron batch list")
CHECKPOINTS: Final = Collection("checkpoint", Checkpoint, what="checkpoint", list_command="novacron vm checkpoint list")
REPOSITORIES: Final = Collection("repository", Repository, what="repository", list_command="novacron repo list")
BACKUPS: Final = Collection("backup", Backup, what="backup", list_command="novacron backup list")
PEERS: Final = Collection("peer", PeerCluster, what="cluster", list_command="novacron federation list")
TOKENS: Final = Collection("token", JoinToken, what="token")

IDEMPOTENCY: Final = """
CREATE TABLE idempotency (
    key TEXT PRIMARY KEY, request_sha256 TEXT NOT NULL, status INTEGER NOT NULL, headers BLOB NOT NULL,
    body BLOB NOT NULL, at REAL NOT NULL
)
"""
SERIES: Final = """
CREATE TABLE series (
    migration_id TEXT NOT NULL, after_ms INTEGER NOT NULL, at REAL NOT NULL, progress BLOB NOT NULL,
    PRIMARY KEY (migration_id, after_ms)
) WITHOUT ROWID
"""
SECRETS: Final = """
CREATE TABLE secrets (id TEXT PRIMARY KEY, sealed BLOB NOT NULL) WITHOUT ROWID
"""
SCHEMA: Final = (resources.SCHEMA, journal.SCHEMA, IDEMPOTENCY, SERIES, SECRETS)
