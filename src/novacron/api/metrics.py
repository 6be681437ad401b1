"""``/metrics``: beside the API, where Prometheus looks for it."""

from litestar import Response, get
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from novacron.api.auth import READ
from novacron.api.given import ServedController
from novacron.control.metrics import exposition


@get("/metrics", opt=READ, summary="Metrics for Prometheus", media_type="text/plain")
async def get_metrics(controller: ServedController) -> Response[bytes]:
    """Nodes, VMs, migrations and this process, in Prometheus' text format."""
    text = await controller.database.read(lambda tx: exposition(tx, controller.cluster))
    return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)
