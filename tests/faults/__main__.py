"""``make faults``: hundreds of faults, and what became of every job. The exit code says whether a promise was broken.

``--seed N --round K`` plays one round of a run again, as far as timing allows.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import count, islice
from pathlib import Path

from tests.faults.plan import Fault, plan
from tests.faults.run import Result, run
from tests.faults.table import table, versions

ENOUGH = 500
DEATHS = 3
INTERRUPTED = 130  # the exit code, as of a shell


def main() -> int:
    options = _options()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    say(f"seed {seed}; {', '.join(f'{name} {found}' for name, found in versions().items())}")
    result = Result()
    directory = Path(tempfile.mkdtemp(prefix="filmgate-faults-"))
    interrupted = False
    try:
        asyncio.run(run(directory, seed, _rounds(seed, options.round), _enough(options.minutes), say, result))
    except KeyboardInterrupt:
        say("interrupted; everything is stopped, and the last round is not counted")
        interrupted = True
    whole = options.minutes is None and options.round is None and not interrupted
    problems = list(_problems(seed, result, whole=whole))
    text = table(result.kinds, result.tally, result.findings)
    say("", text, "")
    if options.write is not None:
        options.write.write_text(f"Seed {seed}, {result.seconds / 60:.0f} minutes.\n\n{text}\n")
    if problems:
        say(*problems, f"data and logs are in {directory}")
        return 1
    shutil.rmtree(directory)
    return INTERRUPTED if interrupted else 0


def say(*lines: str) -> None:
    """At once, also into a pipe."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, help="what decides everything but timing; a random one otherwise")
    parser.add_argument("--minutes", type=float, help=f"how long; until {ENOUGH} faults otherwise")
    parser.add_argument("--round", type=int, help="play only this round, from 1")
    parser.add_argument("--write", type=Path, help="a file for the table, in Markdown")
    return parser.parse_args()


def _enough(minutes: float | None) -> Callable[[Result], bool]:
    def enough(result: Result) -> bool:
        if minutes is not None:
            return result.seconds >= 60 * minutes
        return (result.tally.total >= ENOUGH and not result.unreached(DEATHS)) or result.tally.total >= 2 * ENOUGH

    return enough


def _rounds(seed: int, only: int | None) -> Iterable[tuple[int, Sequence[Fault]]]:
    rounds = zip(count(1), plan(seed), strict=False)
    return rounds if only is None else islice(rounds, only - 1, only)


def _problems(seed: int, result: Result, *, whole: bool) -> Iterable[str]:
    """What was not as promised; of a whole run also the places that it did not attack often enough."""
    if result.findings.broken:
        last = list(result.rounds)[-1]
        yield from (f"BROKEN: {words}" for words in result.findings.broken)
        yield f"again: python -m tests.faults --seed {seed} --round {last}"
    elif whole and (unreached := result.unreached(DEATHS)):
        yield f"processes died less than {DEATHS} times at: {', '.join(unreached)}"


if __name__ == "__main__":
    sys.exit(main())
