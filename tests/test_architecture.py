"""House rules that a linter does not know."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.events.types import EventType
from app.failpoints import Failpoint
from app.jobs.states import ALLOWED

ROOT = Path(__file__).parents[1]
APP = ROOT / "app"
LONGEST_FILE = 350


def sources() -> Iterator[tuple[Path, str]]:
    for file in sorted(APP.rglob("*.py")):
        yield file.relative_to(ROOT), file.read_text()


def test_files_fit_in_the_head() -> None:
    assert not [f"{file}: {text.count(chr(10))}" for file, text in sources() if text.count("\n") > LONGEST_FILE]


def test_nothing_is_called_utils() -> None:
    names = {"utils", "core", "common", "helpers", "misc"}
    assert not [str(file) for file, _ in sources() if names & {*file.parts, file.stem}]


def test_nothing_is_left_for_later() -> None:
    # In pieces, so that this file is none of its own findings.
    words = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    assert not [str(file) for file, text in sources() if words.search(text)]


def test_no_code_asks_which_provider_it_has() -> None:
    asked = re.compile(r"provider(\.name)?\s*(==|!=|\bin\b)\s*[\[({\"']")
    assert not [str(file) for file, text in sources() if asked.search(text)]


#: Every way to write a row of `jobs`: by SQLAlchemy's functions, by the table's methods, and in SQL text.
WRITES_JOBS = re.compile(
    r"\b(?:update|insert)\(\s*jobs\s*\)|\bjobs\.(?:update|insert)\(|\b(?:UPDATE|INSERT\s+INTO|MERGE\s+INTO)\s+(?:ONLY\s+)?jobs\b",
    re.IGNORECASE,
)


def test_only_the_repository_writes_jobs() -> None:
    """`jobs.state` is written in one place: the conditional UPDATE of the repository."""
    assert [str(file) for file, text in sources() if WRITES_JOBS.search(text)] == ["app/jobs/db/repository.py"]


@pytest.mark.parametrize(
    "write",
    [
        "update(jobs)",
        "insert( jobs )",
        "jobs.update().values(state='failed')",
        'text("UPDATE jobs SET state = 1")',
        "update  only jobs set state = 'failed'",
        "INSERT INTO\n    jobs (id)",
        "WITH x AS (update jobs SET version = 2) SELECT 1",
    ],
)
def test_every_way_to_write_jobs_is_recognised(write: str) -> None:
    assert WRITES_JOBS.search(write)


def test_no_decision_about_a_job_goes_by_a_clock_of_ours() -> None:
    """A worker whose clock is ten minutes off takes nothing over early: leases and deadlines are the database's."""
    clocks = re.compile(r"utc_now|datetime\.now|time\.time\(")
    estimates = {"app/jobs/api/forecast.py", "app/jobs/db/render_times.py"}
    assert {str(file) for file, text in sources() if file.parts[1] == "jobs" and clocks.search(text)} == estimates


def test_every_module_says_what_it_is_for() -> None:
    silent = [str(file) for file, text in sources() if text.strip() and not text.startswith(('"""', "#!"))]
    assert not silent


def test_the_locks_name_no_host() -> None:
    locks = sorted((ROOT / "requirements").iterdir())
    assert locks
    assert not [lock.name for lock in locks if "://" in lock.read_text() or "--index" in lock.read_text()]


# Words ---------------------------------------------------------------------------------------------------------------

#: Words that the project does not use, and what to write instead: docs/architecture.md, "Glossary".
GONE = re.compile(
    r"(?<![a-z])(?:somebody|nobody|whoever|anybody|everybody|so many|for ever|in hand|in vain|signs? of life"
    r"|what is over|films?|overtaken|checkpoints?|doorbell|verdicts?|purchas(?:e|es|ed|ing)|bought|buys?|buying"
    r"|answer(?:s|ed|ing)?|looks? into|looked into|f(?:ind|ound|inding) out|watched on|twins?|strays?|bookkeep\w*"
    r"|workshop|attic)(?![a-z])",
    re.IGNORECASE,
)
#: Where such a word is another thing's name: stored or wire names, Postgres' checkpoints, text of version 0.1.
NAMES = re.compile(
    r"filmgate:doorbell|film_late|assets\.film|'film'|\"film\"|`film`|sandbox/film|film\.mp4|filmgate|cancel_answered|ANSWERED"
    r"|\.answered|\"verdict\"|`?checkpoint_timeout|after each checkpoint|\"nobody\"|``nobody``"
)
WRITTEN = ("README.md", "docs", "filmgate.example.toml", "app", "openapi")
#: The glossary and the upgrade notes name the words that are gone; the plans are recorded.
QUOTING = {"docs/architecture.md", "docs/contributing.md", "docs/plans.md", "docs/faults.md"}


def written() -> Iterator[tuple[str, int, str]]:
    """Each line of code and prose: file, number, text."""
    for name in WRITTEN:
        path = ROOT / name
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.suffix in {".py", ".md", ".toml", ".json", ".sql", ".template"}:
                relative = str(file.relative_to(ROOT))
                if relative not in QUOTING:
                    for number, line in enumerate(file.read_text().splitlines(), 1):
                        yield relative, number, line


def test_the_words_that_are_gone_stay_away() -> None:
    found = [
        f"{file}:{number}: {word.group()}: {line.strip()[:100]}"
        for file, number, line in written()
        if (word := GONE.search(NAMES.sub("", line).replace("_", " ")))
    ]
    assert not found, "\n".join(found)


def test_names_of_tests_use_the_same_words() -> None:
    names = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)
    found = [
        f"{file.name}: {name}"
        for file in sorted((ROOT / "tests").rglob("*.py"))
        for name in names.findall(file.read_text())
        if GONE.search(name.replace("_", " "))
    ]
    assert not found, "\n".join(found)


# Documents ------------------------------------------------------------------------------------------------------------


def test_every_failpoint_has_its_row_in_the_documents() -> None:
    rows = re.findall(r"^\| `([a-z]+\.[a-z]+)` \|", (ROOT / "docs" / "faults.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(place.value for place in Failpoint)


def test_every_transition_has_its_number_in_the_documents() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    section = text[text.index("## States and transitions") :]
    numbers = {int(number) for number in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}
    assert set(ALLOWED.values()) <= numbers


def test_the_openapi_document_names_every_event() -> None:
    document = json.loads((ROOT / "openapi" / "gateway.json").read_text())
    mapping = document["components"]["schemas"]["JobEvent"]["discriminator"]["mapping"]
    assert list(mapping) == [event.value for event in EventType]
    assert all(f"| `{event}` |" in document["info"]["description"] for event in EventType)


def test_what_the_code_cites_is_in_the_repository() -> None:
    cited = re.compile(r"docs/[\w/-]+\.md")
    missing = {
        f"{file}: {name}" for file, _, line in written() for name in cited.findall(line) if not (ROOT / name).exists()
    }
    assert not missing
    assert not [str(file) for file, text in sources() if re.search(r"\bDESIGN\b", text)]
