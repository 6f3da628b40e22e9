"""``make bench``: measures all figures against one stack of real processes and writes results/LATEST.md."""

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path

import uvloop

from benchmarks import machine, report
from benchmarks.report import Section
from benchmarks.rows import FIGURES, OPTIONAL, sections
from benchmarks.session import Options, opened
from benchmarks.stack import Code, workplace

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    options, figures, out = _arguments()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(options, figures, out))


async def run(options: Options, figures: Sequence[str], out: Path | None) -> None:
    """Measure the figures, write the report and print it.

    Raises:
        WindowInvalid: a request failed; figures measured before that are written to PARTIAL.md.
    """
    watch = machine.Watch()
    found: list[Section] = []
    whole = False
    try:
        with workplace() as directory:
            async with opened(directory, options) as bench:
                for name, measure in sections(figures):
                    print(f"{name} …", flush=True)
                    found += await measure(bench)
        whole = set(figures) >= set(FIGURES)
    finally:
        preface = machine.preface(options, watch.others(), figures)
        text = report.render("Benchmark", preface, found, report.notes())
        RESULTS.mkdir(exist_ok=True)
        file = out or RESULTS / ("LATEST.md" if whole else "PARTIAL.md")
        file.write_text(text)
        print(f"\n{text}\nwritten to {file}")


def _arguments() -> tuple[Options, list[str], Path | None]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default=",".join(FIGURES), help=f"comma-separated subset of {','.join(FIGURES)}")
    parser.add_argument(
        "--in-flight", type=int, default=Options().in_flight, help="number of jobs in p6 (stretch goal: 25000)"
    )
    parser.add_argument("--jobs", type=int, default=Options().most_jobs, help="maximum number of finished jobs in p3")
    parser.add_argument("--rounds", type=int, default=Options().rounds)
    parser.add_argument(
        "--rivals", action="store_true", help="measure LiteLLM in the same rounds (see make bench-rivals)"
    )
    parser.add_argument("--out", type=Path, help="report file; default: results/LATEST.md if all figures ran")
    parser.add_argument("--code", type=Path, default=Code().root, help="another checkout to measure")
    chosen = parser.parse_args()
    figures = [*chosen.only.lower().split(","), *(OPTIONAL if chosen.rivals else ())]
    if unknown := set(figures) - {*FIGURES, *OPTIONAL}:
        parser.error(f"unknown figure: {', '.join(sorted(unknown))}")
    options = Options(
        rounds=chosen.rounds,
        in_flight=chosen.in_flight,
        most_jobs=chosen.jobs,
        code=Code(chosen.code.resolve()),
    )
    return options, figures, chosen.out


if __name__ == "__main__":
    main()
