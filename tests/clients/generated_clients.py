"""Clients by public generators, as `docs/clients.md` makes them: generated, compiled, and driven on a running gateway.

``make clients`` runs it, and makes the environment it needs.
"""

import asyncio
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.gateway import Gateway

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "openapi" / "gateway.json"
PAGE = ROOT / "docs" / "clients.md"
PROGRAMS = Path(__file__).with_name("programs")
TOOLS = ROOT / ".clients"
#: Below the tools: TypeScript looks for its packages in the folders above a program.
GENERATED = TOOLS / "generated"
ENVIRONMENT: Mapping[str, str] = {
    **os.environ,
    "PATH": f"{TOOLS / 'bin'}:{TOOLS / 'node_modules' / '.bin'}:{os.environ['PATH']}",
    "GOFLAGS": "-mod=mod",
    "GOPROXY": "off",  # no package of another project is needed
    "GOTOOLCHAIN": "local",
    "GOTELEMETRY": "off",
    "REDOCLY_TELEMETRY": "off",
    "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true",
}
PYTHON_CLIENT = (
    "openapi-python-client generate --path {document} --config {openapi}/python-client.yaml --meta none "
    "--output-path filmgate_client --fail-on-warning"
)
GENERATOR = "openapi-generator-cli generate -i {document}"
TYPESCRIPT: Mapping[str, str] = {
    "package.json": '{"type": "module"}',
    "tsconfig.json": json.dumps(
        {"compilerOptions": {"strict": True, "target": "es2022", "module": "nodenext", "outDir": "build"}}
    ),
}


@dataclass(frozen=True)
class Client:
    """How a client is generated and compiled, and the program that uses it: commands in its folder."""

    generate: tuple[str, ...]
    program: str
    run: str
    files: Mapping[str, str] = field(default_factory=dict)


CLIENTS = {
    "openapi-python-client": Client(
        generate=(PYTHON_CLIENT,),
        program="openapi_python_client.py",
        run="python openapi_python_client.py",
    ),
    "openapi-generator-python": Client(
        generate=(f"{GENERATOR} -g python -o . --package-name filmgate_client",),
        program="openapi_generator_python.py",
        run="python openapi_generator_python.py",
    ),
    "openapi-generator-go": Client(
        generate=(
            f"{GENERATOR} -g go -o filmgate -c {{openapi}}/go-client.yaml",
            "go build -o program .",
        ),
        program="main.go",
        run="./program",
        files={"go.mod": "module example\n\ngo 1.23\n"},
    ),
    "openapi-ts": Client(
        generate=("openapi-ts --input {document} --silent", "tsc"),
        program="openapi_ts.ts",
        run="node build/openapi_ts.js",
        # In a project it reads the tsconfig.json beside node_modules: with `nodenext` it writes such imports by itself.
        files={
            **TYPESCRIPT,
            "openapi-ts.config.js": 'export default { output: { path: "filmgate", module: { extension: ".js" } } };',
        },
    ),
    "openapi-fetch": Client(
        generate=("openapi-typescript {document} --output filmgate.ts", "tsc"),
        program="openapi_fetch.ts",
        run="node build/openapi_fetch.js",
        files=TYPESCRIPT,
    ),
}


async def run(command: str, directory: Path, environment: Mapping[str, str] = ENVIRONMENT) -> str:
    """The standard output of a command that succeeds."""
    words = command.format(document=DOCUMENT, openapi=DOCUMENT.parent).split()
    process = await asyncio.create_subprocess_exec(
        *words, cwd=directory, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, f"{command}\n{out.decode()}\n{err.decode()}"
    return out.decode()


def folder(name: str) -> Path:
    made = GENERATED / name
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    return made


@pytest.mark.parametrize("name", CLIENTS)
async def test_a_generated_client_does_everything_that_a_client_does(name: str, gateway: Gateway) -> None:
    client, directory = CLIENTS[name], folder(name)
    shutil.copy(PROGRAMS / client.program, directory)
    for file, content in client.files.items():
        (directory / file).write_text(content)
    for command in client.generate:
        await run(command, directory)
    key = gateway.client.headers["authorization"].removeprefix("Bearer ")
    out = await run(client.run, directory, {**ENVIRONMENT, "FILMGATE_URL": gateway.url, "FILMGATE_API_KEY": key})
    seen = json.loads(out)
    assert seen.pop("downloaded") == seen.pop("size") > 1000
    events = seen.pop("events")
    assert (events[0], events[-1]) == ("job.queued", "job.succeeded")
    assert seen == {
        "replayed": True,
        "status": "succeeded",
        "canceled": "canceled",
        "listed": True,
        "problems": {"401": "unauthenticated", "404": "not_found", "422": "unknown_model"},
        "url": True,
    }


def samples() -> dict[str, tuple[str, dict[str, str]]]:
    """Of each generator in `docs/clients.md`: its commands, and the files that it needs by their names."""
    found = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        commands = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        files = re.findall(r"^```\w+\n(?:#|//) (\S+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        found[title] = ("".join(commands), dict(files))
    return found


SAMPLES = samples()
#: What stands in the samples.
PLACEHOLDERS = {"url": "http://127.0.0.1:8080", "prompt": "a purple elephant", "model": "sandbox/video"}


@pytest.mark.parametrize("title", [title for title, (_, files) in SAMPLES.items() if files])
async def test_a_sample_saves_the_video_or_says_why_there_is_none(title: str, gateway: Gateway) -> None:
    commands, files = SAMPLES[title]
    installed = re.sub("^(pip|npm) install .*$", "", commands, flags=re.MULTILINE).replace("npx ", "")
    generate, *compile_and_run = re.split("^(tsc|python|go run)", installed, maxsplit=1, flags=re.MULTILINE)
    key = gateway.client.headers["authorization"].removeprefix("Bearer ")
    directory = folder(re.sub(r"\W+", "-", f"sample {title}"))
    (directory / "openapi.json").write_text((await gateway.client.get("/openapi.json")).text)
    (directory / "package.json").write_text("{}")

    async def ordered(script: str, **replaced: str) -> tuple[int | None, str]:
        """The exit code and output of commands, after these were replaced in the program."""
        for name, content in files.items():
            code = content
            for what, value in {"url": gateway.url, **replaced}.items():
                code = code.replace(PLACEHOLDERS[what], value)
            (directory / name).write_text(code)
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euc", script),
            cwd=directory,
            env={**ENVIRONMENT, "FILMGATE_API_KEY": key},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        return process.returncode, out.decode()

    run_again = "".join(compile_and_run)
    code, out = await ordered(generate + run_again, prompt="a kite")
    assert code == 0, out
    job = (await gateway.client.get("/v1/jobs")).json()["data"][0]
    assert hashlib.sha256((directory / "video.mp4").read_bytes()).hexdigest() == job["assets"]["video"]["sha256"]
    (directory / "video.mp4").unlink()
    code, out = await ordered(run_again, prompt="a kite [fail:moderation]")
    failed = (await gateway.client.get("/v1/jobs")).json()["data"][0]
    assert code != 0
    assert f"{failed['id']} failed" in out
    assert failed["error"]["message"] in out
    code, out = await ordered(run_again, model="no/such")
    assert code != 0
    assert "unknown_model" in out
    assert not (directory / "video.mp4").exists()


async def test_a_java_client_is_generated() -> None:
    directory = folder("openapi-generator-java")
    await run(f"{GENERATOR} -g java -o .", directory)
    assert list(directory.rglob("JobsApi.java"))


async def test_two_linters_find_nothing(tmp_path: Path) -> None:
    (tmp_path / "redocly.yaml").write_text("extends: [recommended]\n")
    (tmp_path / "spectral.yaml").write_text('extends: ["spectral:oas"]\n')
    report = await run("redocly lint --max-problems 100 --format json --config redocly.yaml {document}", tmp_path)
    assert json.loads(report)["totals"] == {"errors": 0, "warnings": 0, "ignored": 0}
    await run("spectral lint --fail-severity hint --ruleset spectral.yaml {document}", tmp_path)
