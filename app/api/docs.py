"""``/docs``: Swagger UI out of an installed package, so that the page works where no CDN can be reached.

Every URL in the page is relative: it works behind any host name and path prefix.
"""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import FileResponse

from app.errors import NotFound

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


def install(app: FastAPI) -> None:
    """Add the page, its files, and the way to it from ``/``."""
    for path, respond in (("/", _lead), ("/docs", _page), ("/docs/{name}", _asset)):
        app.add_api_route(path, respond, methods=["GET", "HEAD"], include_in_schema=False)


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
