"""The body of ``filmgate doctor``."""

import typer

from app import logs
from app.doctor import report
from app.doctor.examination import examine
from app.doctor.findings import Severity
from app.queue import Lane
from app.resources import Resources, warn_of_strays
from app.settings import Settings


class NoBell:
    """Who changes nothing has nothing to ring for."""

    def ring(self, *lanes: Lane) -> None:
        del lanes


async def doctor(settings: Settings, *, ask_providers: bool, for_programs: bool) -> None:
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
