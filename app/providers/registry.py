"""The configured connections, each with its adapter, limits and models."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from app.clock import Clock, utc_now
from app.connection_settings import ConnectionSettings, credential_variable
from app.providers.base import Access, BadAccess, Provider, Traits
from app.providers.catalog import Catalog, Model, suggest
from app.providers.http_clients import Clients
from app.providers.kling import Kling
from app.providers.openai_compatible import OpenAICompatible
from app.providers.runway import Runway
from app.settings import Settings, SettingsError

#: All adapters, by the name used in the settings.
ADAPTERS: Mapping[str, type[Provider]] = {adapter.name: adapter for adapter in (Kling, OpenAICompatible, Runway)}


@dataclass(frozen=True, slots=True)
class Connection:
    """One upstream account. ``poll_interval`` is seconds; ``models`` None means all models of the provider.

    Connections with the same ``account`` (provider, base URL and credential) see each other's remote jobs.
    """

    name: str
    provider: Provider
    account: tuple[str | None, ...] = field(repr=False)
    max_concurrent: int
    requests_per_minute: int | None
    poll_interval: float
    models: frozenset[str] | None

    def serves(self, model: Model) -> bool:
        return model.facts.provider == self.provider.name and (self.models is None or model.name in self.models)


@dataclass(frozen=True, slots=True)
class Route:
    """A connection and upstream model through which a model can be rendered."""

    connection: str
    upstream_model: str


@dataclass(frozen=True, slots=True)
class Offer:
    """A model and the connections that serve it, in the order in which they are tried."""

    model: Model
    connections: tuple[str, ...]

    @property
    def available(self) -> bool:
        return bool(self.connections) and not self.model.retired


class UnknownConnection(LookupError):
    """No such connection is configured; it may have been removed while it had jobs."""


class Registry:
    """All connections and the catalogue."""

    def __init__(self, catalog: Catalog, connections: Iterable[Connection], *, has_public_url: bool = False) -> None:
        self.catalog = catalog
        self._has_public_url = has_public_url
        self.connections = {connection.name: connection for connection in connections}

    @classmethod
    def open(cls, settings: Settings, clients: Clients, clock: Clock = utc_now) -> "Registry":
        """Open all configured connections. Nothing is sent yet; the caller closes ``clients``.

        Raises:
            SettingsError: lists every invalid setting with its fix.
        """
        catalog = Catalog.load(settings.models, settings.aliases, clock)
        connections = []
        problems = [
            problem for model in catalog if (problem := _provider_problem(f"models.{model.name}", model.facts.provider))
        ]
        for name, configured in settings.connections.items():
            try:
                connection = _open(name, configured, clients)
            except SettingsError as error:
                problems.append(str(error))
                continue
            connections.append(connection)
            problems += _model_problems(connection, catalog)
        if problems:
            raise SettingsError("\n".join(problems))
        return cls(catalog, connections, has_public_url=settings.api.public_url is not None)

    def connection(self, name: str) -> Connection:
        """One connection.

        Raises:
            UnknownConnection
        """
        try:
            return self.connections[name]
        except KeyError:
            raise UnknownConnection(f"connections.{name} is no longer configured but has unfinished jobs") from None

    def provider(self, connection: str) -> Provider:
        return self.connection(connection).provider

    def sharing(self, connection: str) -> tuple[str, ...]:
        """The connections to the same upstream account, including this one."""
        account = self.connection(connection).account
        return tuple(name for name, other in self.connections.items() if other.account == account)

    def max_concurrent(self, connection: str) -> int:
        return self.connection(connection).max_concurrent

    def poll_interval(self, connection: str) -> float:
        """Seconds between two polls of a remote job."""
        return self.connection(connection).poll_interval

    def takes_inputs(self, connection: str) -> bool:
        """Whether there is a way to give inputs to a connection."""
        return self.provider(connection).traits.most_input_bytes(fetchable=self._has_public_url) != 0

    def routes(self, model: str) -> tuple[Route, ...]:
        """The routes for a model in the order of the configuration; empty for an unknown model."""
        known = self.catalog.get(model)
        if known is None:
            return ()
        return tuple(Route(connection.name, known.facts.upstream) for connection in self._serving(known))

    def route(self, model: str, connection: str) -> Route:
        """The route for a model through a connection that serves it."""
        return next(route for route in self.routes(model) if route.connection == connection)

    def connections_of(self, model: str) -> tuple[str, ...]:
        """The connections that serve a model, in the order of the configuration."""
        return tuple(route.connection for route in self.routes(model))

    def models_of(self, connection: str) -> tuple[str, ...]:
        """The models that a connection serves."""
        known = self.connection(connection)
        return tuple(model.name for model in self.catalog if known.serves(model))

    def models(self) -> tuple[Offer, ...]:
        """All models of the catalogue, by name."""
        return tuple(
            Offer(model, tuple(connection.name for connection in self._serving(model))) for model in self.catalog
        )

    def _serving(self, model: Model) -> Iterator[Connection]:
        return (connection for connection in self.connections.values() if connection.serves(model))


def _open(name: str, configured: ConnectionSettings, clients: Clients) -> Connection:
    problem = _provider_problem(f"connections.{name}", configured.provider)
    if problem:
        raise SettingsError(problem)
    credential = configured.api_key.get_secret_value() if configured.api_key else None
    if credential is not None and not (credential.isascii() and credential.isprintable()):
        raise SettingsError(
            f"{credential_variable(name)}: contains a line break or another character that is not printable ASCII"
        )
    access = Access(
        base_url=str(configured.base_url) if configured.base_url else None,
        credential=credential,
        callback_secret=configured.callback_secret.get_secret_value() if configured.callback_secret else None,
        profile=configured.profile,
        timeout=configured.timeout,
        private_results=configured.private_results,
        exclusive_account=configured.exclusive_account,
        create_encoding=configured.create_encoding,
        seconds_type=configured.seconds_type,
        proxy=configured.proxy.get_secret_value() if configured.proxy else None,
    )
    try:
        provider = ADAPTERS[configured.provider].open(access, clients)
    except BadAccess as error:
        fix = f"; set {credential_variable(name)}" if error.key == "api_key" else ""
        raise SettingsError(f"connections.{name}.{error}{fix}") from None
    provider.traits = _with_overrides(provider.traits, configured)
    return Connection(
        name=name,
        provider=provider,
        account=(configured.provider, access.base_url, access.credential),
        max_concurrent=configured.max_concurrent,
        requests_per_minute=configured.requests_per_minute,
        poll_interval=configured.poll_interval or provider.traits.poll_interval.total_seconds(),
        models=None if configured.models is None else frozenset(configured.models),
    )


def _with_overrides(traits: Traits, configured: ConnectionSettings) -> Traits:
    """A provider's traits with the operator's overrides."""
    if configured.visibility_delay is not None:
        traits = replace(traits, visibility_delay=timedelta(seconds=configured.visibility_delay))
    if configured.lookup_proves_absence is not None:
        traits = replace(traits, lookup_proves_absence=configured.lookup_proves_absence)
    return traits


def _provider_problem(key: str, provider: str) -> str | None:
    if provider in ADAPTERS:
        return None
    *others, last = ADAPTERS
    near = suggest(provider, ADAPTERS) or f"; use {', '.join(others)} or {last}"
    return f"{key}.provider: there is no provider {provider}{near}"


def _model_problems(connection: Connection, catalog: Catalog) -> Iterator[str]:
    key = f"connections.{connection.name}.models"
    traits = connection.provider.traits
    for name in sorted(connection.models or ()):
        model = catalog.get(name)
        if model is None:
            yield f"{key}: there is no model {name}{suggest(name, [model.name for model in catalog])}"
        elif model.facts.provider != connection.provider.name:
            yield f"{key}: {name} is a model of {model.facts.provider}, not of {connection.provider.name}"
    for model in filter(connection.serves, catalog):
        for option in sorted(traits.reserved_options.intersection(model.facts.options)):
            yield f"models.{model.name}.options: {option} is set by the gateway; remove it"
        if model.facts.inputs and not traits.input_ways:
            yield f"models.{model.name}.inputs: connections.{connection.name} takes no inputs; remove them"
        if model.facts.audio == "optional" and not traits.switches_audio:
            yield (
                f"models.{model.name}.audio: connections.{connection.name} cannot switch sound on and off; "
                "use none or always"
            )
