"""Report stuck jobs, unresolved charges and unusable dependencies, with advice. Exits with 1 if there is a problem."""

from typing import Annotated

import typer

from app.cli._settings import load_settings, settings_errors
from app.doctor import report
from app.doctor.checks import examine
from app.doctor.findings import Severity
from app.infra import logs
from app.infra.queue import Lane
from app.resources import Resources, warn_unused_credentials
from app.settings import Settings
from app.terminal import run


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
    settings = load_settings()
    with settings_errors():
        run(_doctor(settings, ask_providers=upstream, as_json=json))


async def _doctor(settings: Settings, *, ask_providers: bool, as_json: bool) -> None:
    """Run the checks and print their findings. Errors of failed checks are logged to standard error.

    Raises:
        typer.Exit: with code 1, when there is a problem; notices do not count.
        SettingsError: the settings name something that does not exist.
    """
    logs.setup(settings.model_copy(update={"log_level": "warning"}), process="doctor")
    warn_unused_credentials(settings)
    async with Resources.open(settings, NoBell(), process="doctor") as resources:
        found = await examine(resources, ask_providers=ask_providers)
    typer.echo(report.as_json(found) if as_json else report.as_text(found))
    if any(finding.severity is Severity.PROBLEM for finding in found.findings):
        raise typer.Exit(1)
