"""``novacron metrics``."""

from collections.abc import Iterator

import click
from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

from novacron.cli.errors import ApiAnswerError
from novacron.cli.session import Session, in_session


class Sample(Struct, frozen=True):
    """One value of one metric."""

    name: str
    labels: dict[str, str]
    value: float


@click.command("metrics")
@in_session
def command(session: Session) -> None:
    """Print the cluster's metrics as Prometheus reads them."""
    text = session.client.metrics()
    try:
        samples = list(_samples(text))
    except ValueError as error:
        raise ApiAnswerError(f"the answer is no metrics: {error}", next_command="novacron doctor") from error
    session.output.said(samples, text.rstrip())


def _samples(text: str) -> Iterator[Sample]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield Sample(sample.name, sample.labels, sample.value)
