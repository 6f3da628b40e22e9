"""A worker that has a process for films, says its id, and waits to be killed. Usage: python -m tests.assets.holding"""

import asyncio
import sys

from app.assets.probe_pool import Examiner


async def main() -> None:
    examiner = Examiner()
    examiner.warm()
    sys.stdout.write(f"{examiner._idle[0]._process.pid}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
