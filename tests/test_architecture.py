"""House rules that a linter does not know."""

import re
from collections.abc import Iterator
from pathlib import Path

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


def test_only_the_state_table_decides_what_a_move_is() -> None:
    """`jobs.state` is written in one place: the conditional UPDATE of the repository."""
    writes = re.compile(r"(?:update|insert)\(jobs\)")
    assert [str(file) for file, text in sources() if writes.search(text)] == ["app/jobs/db/repository.py"]


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
