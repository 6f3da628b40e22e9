"""``/docs``: Swagger UI out of an installed package, so that the page works where no CDN can be reached.

Below it are the pages to which the `type` of a problem leads.

Every URL in the page is relative: it works behind any host name and path prefix.
"""

from collections.abc import Callable, Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import FileResponse

from app.errors import NotFound
from app.web.problem_codes import BY_NAME, CODES

#: File in the package, and its media type.
ASSETS: Final[Mapping[str, str]] = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
#: The page has an inline script that starts the bundle, and the bundle's styles embed images.
POLICY: Final = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title} – Filmgate</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto; padding: 0 1rem; color: #222 }}
code {{ background: #f2f2f2; padding: .1rem .3rem; border-radius: .2rem }}
</style>
{body}
</html>
"""
#: What `type` of a problem leads to.
PROBLEM: Final = """<h1>{title}</h1>
<p>Problem <code>{code}</code>, HTTP status {status}.</p>
<h2>What to do</h2>
<p>{advice}</p>
<h2>An example of <code>detail</code></h2>
<p>{example}</p>
<p><a href="../problems">All problems</a></p>
"""


def install(app: FastAPI, *, reference: bool) -> None:
    """Add the pages about problems; with ``reference`` also Swagger UI, its files, and the way to it from ``/``."""
    pages: list[tuple[str, Callable[..., Any]]] = [("/docs/problems", _problems), ("/docs/problems/{code}", _problem)]
    if reference:
        pages += [("/", _lead), ("/docs", _page), ("/docs/{name}", _asset)]
    for path, respond in pages:
        app.add_api_route(path, respond, methods=["GET", "HEAD"], include_in_schema=False)


async def _problems() -> Response:
    lines = (f'<li><a href="problems/{code.code}">{code.code}</a>: {_as_html(code.title)}</li>' for code in CODES)
    return _html("Problems", f"<h1>Problems</h1>\n<ul>{''.join(lines)}</ul>")


async def _problem(code: str) -> Response:
    known = BY_NAME.get(code)
    if known is None:
        raise NotFound("There is no such kind of problem.")
    texts = {name: _as_html(getattr(known, name)) for name in ("title", "example", "advice")}
    return _html(known.code, PROBLEM.format(code=known.code, status=known.status, **texts))


def _html(title: str, body: str) -> Response:
    page = PAGE.format(title=title, body=body)
    return Response(page, media_type="text/html", headers={"Content-Security-Policy": POLICY})


def _as_html(text: str) -> str:
    """Text in which code stands between backticks."""
    parts = enumerate(escape(text).split("`"))
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in parts)


async def _lead() -> Response:
    return Response(status_code=307, headers={"Location": "docs"})


async def _page() -> Response:
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="Filmgate",
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="docs/favicon-32x32.png",
    )
    page.headers["Content-Security-Policy"] = POLICY
    return page


async def _asset(name: str) -> Response:
    if name not in ASSETS:
        raise NotFound("There is no such file.")
    path = Path(str(files("fastapi_swagger.resources") / name))
    return FileResponse(path, media_type=ASSETS[name], headers={"Cache-Control": "public, max-age=86400"})
