"""A worker that has a probe process, says its id, and waits to be killed: python -m tests.media.probe_child."""

import asyncio
import sys

from app.media.probe_pool import ProbePool


async def main() -> None:
    examiner = ProbePool()
    examiner.warm()
    sys.stdout.write(f"{examiner._idle[0]._process.pid}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
