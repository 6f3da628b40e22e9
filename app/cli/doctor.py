"""Report stuck jobs, unresolved charges and unusable dependencies, with advice. Exits with 1 if there is a problem."""

from typing import Annotated

import typer
from pydantic import SecretStr

from app.cli._settings import read_settings
from app.doctor import report
from app.doctor.checks import examine
from app.doctor.findings import Severity
from app.infra import logs
from app.infra.queue import Lane
from app.resources import Resources, warn_unused_credentials
from app.settings import Settings, SettingsError
from app.terminal import fail, run

#: Stands for a credential that is not set. No adapter opens without one, and without --upstream none is sent.
PLACEHOLDER = SecretStr("not set")


class NoBell:
    """A bell that does nothing: the doctor changes no jobs."""

    def ring(self, *lanes: Lane) -> None:
        del lanes


def doctor(
    upstream: Annotated[
        bool, typer.Option("--upstream", help="Also compare the providers' lists of remote jobs with the ledger.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    try:
        run(_doctor(read_settings(), ask_providers=upstream, as_json=json))
    except SettingsError as error:
        if json:
            typer.echo(report.error_as_json("invalid_settings", str(error)))
        fail(error, 2)


async def _doctor(settings: Settings, *, ask_providers: bool, as_json: bool) -> None:
    """Run the checks and print their findings. Errors of failed checks are logged to standard error.

    Raises:
        typer.Exit: with code 1, when there is a problem; notices do not count.
        SettingsError: the settings name something that does not exist.
    """
    logs.setup(settings.model_copy(update={"log_level": "warning"}), process="doctor")
    warn_unused_credentials(settings)
    opened = settings if ask_providers else _with_credentials(settings)
    async with Resources.open(opened, NoBell(), process="doctor") as resources:
        found = await examine(resources, ask_providers=ask_providers)
    typer.echo(report.as_json(found) if as_json else report.as_text(found))
    if any(finding.severity is Severity.PROBLEM for finding in found.findings):
        raise typer.Exit(1)


def _with_credentials(settings: Settings) -> Settings:
    """The settings with a placeholder for each missing credential: the doctor may run where provider keys are not."""
    connections = {
        name: configured if configured.api_key else configured.model_copy(update={"api_key": PLACEHOLDER})
        for name, configured in settings.connections.items()
    }
    return settings.model_copy(update={"connections": connections})
