"""The REST API as one application."""

from collections.abc import Sequence
from typing import Final

from litestar import Litestar, Router
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.types import ControllerRouterHandler

from novacron.api import (
    backups,
    batches,
    checkpoints,
    clusters,
    console,
    events,
    images,
    maintenance,
    metrics,
    migrations,
    plans,
    problems,
    repositories,
    sign_in,
    vms,
)
from novacron.api.answers import API
from novacron.api.auth import READ, guard
from novacron.control.controller import Controller
from novacron.core.version import VERSION

DOCUMENT = "/openapi"
LARGEST_BODY = 1 << 20  # bytes; images are streamed and have no such bound


ROUTES: Final[tuple[ControllerRouterHandler, ...]] = (
    clusters.get_cluster,
    clusters.list_nodes,
    clusters.get_node,
    clusters.invite_node,
    maintenance.drain_node,
    maintenance.undrain_node,
    maintenance.remove_node,
    clusters.list_peers,
    clusters.get_peer,
    clusters.invite_peer,
    clusters.join_peer,
    clusters.save_state,
    images.list_images,
    images.get_image,
    images.add_image,
    images.delete_image,
    vms.list_vms,
    vms.get_vm,
    vms.create_vm,
    vms.start_vm,
    vms.pause_vm,
    vms.resume_vm,
    vms.stop_vm,
    vms.resize_vm,
    vms.take_over_vm,
    vms.delete_vm,
    console.vm_console,
    checkpoints.list_checkpoints,
    checkpoints.get_checkpoint,
    checkpoints.create_checkpoint,
    checkpoints.cancel_checkpoint,
    checkpoints.restore_checkpoint,
    checkpoints.delete_checkpoint,
    backups.list_backups,
    backups.get_backup,
    backups.run_backup,
    backups.cancel_backup,
    backups.delete_backup,
    repositories.list_repositories,
    repositories.get_repository,
    repositories.get_stats,
    repositories.create_repository,
    repositories.check_repository,
    repositories.prune_repository,
    repositories.cancel_repository,
    repositories.delete_repository,
    migrations.list_migrations,
    migrations.get_migration,
    migrations.get_series,
    migrations.start_migration,
    migrations.cancel_migration,
    migrations.roll_back_migration,
    plans.list_plans,
    plans.get_plan,
    plans.make_plan,
    batches.list_batches,
    batches.get_batch,
    batches.start_batch,
    batches.cancel_batch,
    migrations.list_all_jobs,
    migrations.get_one_job,
    events.watch_events,
)


def create_app(controller: Controller | None, *, pages: Sequence[ControllerRouterHandler] = ()) -> Litestar:
    """The application; ``controller`` is None only to write down the OpenAPI document."""
    router = Router(
        API,
        route_handlers=ROUTES,
    )
    app = Litestar(
        [router, metrics.get_metrics, sign_in.sign_in, sign_in.healthy, *pages],
        dependencies={"controller": Provide(lambda: controller, sync_to_thread=False)},
        guards=[guard],
        exception_handlers=problems.HANDLERS,
        openapi_config=OpenAPIConfig(
            "NovaCron",
            VERSION,
            openapi_router=Router(DOCUMENT, route_handlers=[], opt=READ),
            render_plugins=[JsonRenderPlugin(path="/v1.json")],
        ),
        request_max_body_size=LARGEST_BODY,
        logging_config=None,
    )
    app.state.controller = controller
    return app
