"""Tests of the scripts that set up a checkout, behind a proxy with a private certificate authority."""

import asyncio
import base64
import hashlib
import io
import os
import ssl
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.http_server import serving

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[1]
WHEEL = "tiny-1.0-py3-none-any.whl"


def wheel() -> bytes:
    """A package with one empty module."""
    files = {
        "tiny.py": b"",
        "tiny-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for name, data in files.items()
    )
    files["tiny-1.0.dist-info/RECORD"] = f"{record}tiny-1.0.dist-info/RECORD,,\n".encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def signed(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """A certificate of 127.0.0.1, or of an authority where it signs itself."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=name == issuer, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def certificates(directory: Path) -> tuple[Path, Path, Path]:
    """A company's own authority, and a server's certificate and key."""
    authority, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    files = directory / "company.pem", directory / "server.pem", directory / "server.key"
    pem = serialization.Encoding.PEM
    files[0].write_bytes(signed("company", authority, "company", authority).public_bytes(pem))
    files[1].write_bytes(signed("server", server, "company", authority).public_bytes(pem))
    files[2].write_bytes(server.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return files


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[tuple[str, Path]]:
    """The URL of a package index over TLS, and the certificate to be trusted."""
    own, public, private = certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(public, private)

    async def listing(_: web.Request) -> web.Response:
        return web.Response(text=f'<a href="/{WHEEL}">{WHEEL}</a>', content_type="text/html")

    async def file(_: web.Request) -> web.Response:
        return web.Response(body=wheel())

    app = web.Application()
    app.router.add_get("/simple/tiny/", listing)
    app.router.add_get(f"/{WHEEL}", file)
    async with serving(app, ssl_context=context) as url:
        yield f"{url}/simple", own


@pytest.mark.parametrize("variable", ["PIP_CERT", "REQUESTS_CA_BUNDLE", "PIP_CONFIG_FILE", None])
async def test_uv_trusts_the_certificates_that_pip_trusts(
    tmp_path: Path, index: tuple[str, Path], variable: str | None
) -> None:
    url, own = index
    pip_conf = tmp_path / "pip.conf"
    pip_conf.write_text(f"[global]\ncert = {own}\n")
    plain = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    if variable is not None:
        plain[variable] = str(pip_conf if variable == "PIP_CONFIG_FILE" else own)
    process = await asyncio.create_subprocess_exec(
        *(ROOT / "scripts" / "uv", "pip", "install", "--no-cache", "--no-config", "--index-url", url),
        *("--target", tmp_path / "installed", "tiny"),
        cwd=tmp_path,
        env=plain,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert (tmp_path / "installed" / "tiny.py").exists() is (variable is not None), output.decode()
    assert (process.returncode == 0) is (variable is not None)
