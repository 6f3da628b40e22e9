"""Find what is stuck or was paid for in vain, and say what to do. Exits with 1 when there is a problem."""

from typing import Annotated

import typer

from app.cli._settings import load_settings, settings_errors
from app.doctor import report
from app.doctor.checks import examine
from app.doctor.findings import Severity
from app.infra import logs
from app.infra.queue import Lane
from app.resources import Resources, warn_of_strays
from app.settings import Settings
from app.terminal import run


class NoBell:
    """Who changes nothing has nothing to ring for."""

    def ring(self, *lanes: Lane) -> None:
        del lanes


def doctor(
    upstream: Annotated[bool, typer.Option("--upstream", help="Ask the providers, too, what they hold.")] = False,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    settings = load_settings()
    with settings_errors():
        run(_doctor(settings, ask_providers=upstream, for_programs=json))


async def _doctor(settings: Settings, *, ask_providers: bool, for_programs: bool) -> None:
    """Look, and say what was found. Details of what could not be asked go to the log, on standard error.

    Raises:
        typer.Exit: with 1, when there is a problem; notices are only worth knowing.
        SettingsError: the settings name something that does not exist.
    """
    logs.setup(settings.model_copy(update={"log_level": "warning"}), process="doctor")
    warn_of_strays(settings)
    async with Resources.open(settings, NoBell(), process="doctor") as resources:
        found = await examine(resources, ask_providers=ask_providers)
    typer.echo(report.as_json(found) if for_programs else report.as_text(found))
    if any(finding.severity is Severity.PROBLEM for finding in found.findings):
        raise typer.Exit(1)
