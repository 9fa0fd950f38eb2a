"""`streamline webhooks`: addresses that are told how jobs end, and what they were sent."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import exits
from app.cli.exits import UsageError
from app.cli.job_ids import whole_id
from app.cli.options import JsonOption, print_json

if TYPE_CHECKING:
    from app.client import Streamline

commands = typer.Typer(help="Addresses that are told how jobs end (Standard Webhooks).", no_args_is_help=True)

WebhookArgument = Annotated[str, typer.Argument(metavar="ID", help="As `webhooks list` shows it.")]

_LISTED_BY = {
    "webhook_not_found": "There is no webhook {}; `streamline webhooks list` shows those that are.",
    "delivery_not_found": "There is no such delivery; `streamline webhooks deliveries {}` shows those that are.",
}


@contextmanager
def _asked_about(webhook_id: str) -> "Iterator[Streamline]":
    """The service; of what it does not know, the commands that list it are named, where it names routes."""
    from app.client import ProblemError, Streamline

    with Streamline() as service:
        try:
            yield service
        except ProblemError as error:
            if error.code not in _LISTED_BY:
                raise
            raise UsageError(_LISTED_BY[error.code].format(webhook_id)) from None


@commands.command()
def add(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where messages are sent.")],
    event: Annotated[
        list[str] | None,
        typer.Option(help="job.succeeded, job.failed or job.cancelled; may be repeated [every end of a job]."),
    ] = None,
    visible: Annotated[
        bool, typer.Option("--visible", help="All jobs that the key may know of, not only those that it submits.")
    ] = False,
    job: Annotated[str | None, typer.Option(metavar="ID", help="This one job alone, even if it has ended.")] = None,
    description: Annotated[str | None, typer.Option(help="For the list.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Register an address and print its secret, which is shown this once.

    Example: streamline webhooks add https://ci.example.com/hooks/streamline --event job.failed
    """
    from app.client import Streamline

    if visible and job is not None:
        raise UsageError("--visible and --job contradict each other; leave one out.")
    with Streamline() as service:
        job = None if job is None else whole_id(service, job)
        made = service.add_webhook(
            url, events=event, jobs="visible" if visible else None, job_id=job, description=description
        )
    if as_json:
        print_json(made)
    else:
        typer.echo(f"{made['id']}  {made['url']}", err=True)
        typer.echo(made["secret"])
    return exits.PASSED


@commands.command("list")
def list_(as_json: JsonOption = False) -> int:
    """List the webhooks."""
    from app.client import Streamline

    with Streamline() as service:
        found = service.webhooks()
    if as_json:
        print_json(found)
    for webhook in [] if as_json else found:
        about = f"job {webhook['job_id']}" if webhook["job_id"] else f"{webhook['jobs']} jobs"
        typer.echo(
            f"{webhook['id']}  {_state(webhook):<8}  {about:<12}  {','.join(webhook['events'])}  {webhook['url']}"
        )
    return exits.PASSED


@commands.command()
def remove(webhook_id: WebhookArgument, as_json: JsonOption = False) -> int:
    """Remove a webhook; what still waits for it is not sent."""
    with _asked_about(webhook_id) as service:
        service.remove_webhook(webhook_id)
    print_json({"id": webhook_id, "removed": True}) if as_json else typer.echo("Removed.")
    return exits.PASSED


@commands.command()
def enable(webhook_id: WebhookArgument, as_json: JsonOption = False) -> int:
    """Tell a webhook that was disabled (it had answered 410, or failed for days) what happens from now on."""
    with _asked_about(webhook_id) as service:
        webhook = service.enable_webhook(webhook_id)
    still = f" It is still {_state(webhook)}." if webhook.get("muted") else ""
    print_json(webhook) if as_json else typer.echo(f"Enabled.{still}")
    return exits.PASSED


@commands.command()
def rotate(webhook_id: WebhookArgument, as_json: JsonOption = False) -> int:
    """Give a webhook another secret and print it, this once; for a day the old one signs too."""
    with _asked_about(webhook_id) as service:
        webhook = service.rotate_webhook(webhook_id)
    if as_json:
        print_json(webhook)
    else:
        typer.echo(f"The old secret signs too until {webhook['old_secret_until']}.", err=True)
        typer.echo(webhook["secret"])
    return exits.PASSED


@commands.command()
def deliveries(
    webhook_id: WebhookArgument,
    state: Annotated[str | None, typer.Option(help="Only pending, delivered or failed ones.")] = None,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1, max=100)] = 20,
    as_json: JsonOption = False,
) -> int:
    """Show what a webhook was sent and is to be sent; the newest first."""
    with _asked_about(webhook_id) as service:
        page = service.deliveries(webhook_id, state=state, limit=limit)
    if as_json:
        print_json(page)
    for delivery in [] if as_json else page["items"]:
        typer.echo(_line(delivery))
    return exits.PASSED


@commands.command()
def redeliver(
    webhook_id: WebhookArgument,
    delivery_id: Annotated[str, typer.Argument(metavar="DELIVERY", help="As `webhooks deliveries` shows it.")],
    as_json: JsonOption = False,
) -> int:
    """Send a message again, now, whatever came of it before."""
    with _asked_about(webhook_id) as service:
        delivery = service.redeliver(webhook_id, delivery_id)
    print_json(delivery) if as_json else typer.echo(f"{delivery_id} is sent again.")
    return exits.PASSED


_MUTED = {"keyless": "registered before there were keys", "key_ended": "its key was revoked or has expired"}


def _state(webhook: dict[str, Any]) -> str:
    if why := webhook.get("muted"):  # older services do not tell
        return f"muted ({_MUTED.get(why, why)})"
    if webhook["disabled_at"]:
        return f"disabled ({webhook['disabled_reason']})"
    return f"failing since {webhook['failing_since']}" if webhook["failing_since"] else "enabled"


def _line(delivery: dict[str, Any]) -> str:
    said = delivery["error"] or delivery["status_code"] or ""
    following = f"; next attempt {delivery['next_attempt_at']}" if delivery["next_attempt_at"] else ""
    return (
        f"{delivery['id']}  {delivery['created_at']}  {delivery['state']:<9}  {delivery['event']:<13}  "
        f"{delivery['job_id']}  attempts: {delivery['attempts']}  {said}{following}"
    )
