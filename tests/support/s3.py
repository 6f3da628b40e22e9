"""An S3 server of our own: moto's, on loopback, spoken to over HTTP."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import boto3
from moto.server import ThreadedMotoServer

REGION = "us-east-1"
CREDENTIAL = "test"


@dataclass(frozen=True, slots=True)
class S3:
    """The server. ``options`` are what ``assets.store_options`` need to reach it."""

    endpoint: str
    _numbers: Iterator[int]

    @property
    def options(self) -> dict[str, str]:
        return {
            "endpoint": self.endpoint,
            "region": REGION,
            "access_key_id": CREDENTIAL,
            "secret_access_key": CREDENTIAL,
        }

    def new_bucket(self) -> str:
        """The name of an empty bucket."""
        name = f"videos-{next(self._numbers)}"
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=CREDENTIAL,
            aws_secret_access_key=CREDENTIAL,
        )
        client.create_bucket(Bucket=name)
        client.close()
        return name


@contextmanager
def running_s3() -> Iterator[S3]:
    """A started server on a free port; what it holds goes away with it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # otherwise a line for every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3(f"http://{host}:{port}", count(1))
    finally:
        server.stop()
