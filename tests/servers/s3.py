"""S3 stores of other people, each in a process of its own.

SeaweedFS is a real store: it checks signatures and keeps its promises on disk.
moto is quick, and lets anybody in. A test module that uses the fixtures says
`pytest_plugins = ("tests.servers.s3",)`.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import subprocess
import sys
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.processes import LIMIT_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from typing_extensions import Self

KEY = "AKIAFLICKERTEST"
SECRET = "flicker/test+secret"
REGION = "us-east-1"

# Seconds are usual; this is for a machine with much else to do.
_START_LIMIT_S = 60.0
_ATTEMPTS = 3
_WEED = Path(sys.executable).with_name("weed")
_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
)
_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


class S3Server:
    """A store that runs inside the `with` block."""

    def __init__(self, directory: Path) -> None:
        """Take a directory that is the server's alone."""
        self.directory = directory
        self.endpoint = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._client: Any = None
        self._clients = ExitStack()
        self._numbers = itertools.count(1)
        # Two servers never have a bucket of the same name.
        self._stem = f"t{uuid.uuid4().hex[:12]}"

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has said so far."""
        path = self.directory / "output"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    @property
    def env(self) -> dict[str, str]:
        """What a process needs in its environment to use the store, and nothing of this machine."""
        nowhere = str(self.directory / "no-such-file")
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_S3_FORCE_PATH_STYLE": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": nowhere,
            "AWS_SHARED_CREDENTIALS_FILE": nowhere,
        }

    def client(self, **changes: Any) -> Any:
        """Make a boto3 client that is closed when the server stops.

        Args:
            changes: Arguments of boto3's, such as `aws_secret_access_key` or
                `endpoint_url`; `config` is merged into the one that is there.
        """
        nowhere = self.env["AWS_CONFIG_FILE"]
        session = botocore.session.Session(
            {
                "profile": (None, None, None, None),
                "config_file": (None, None, nowhere, None),
                "credentials_file": (None, None, nowhere, None),
            }
        )
        config = Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            connect_timeout=LIMIT_S,
            read_timeout=LIMIT_S,
            proxies={},
        )
        arguments = {
            "endpoint_url": self.endpoint,
            "aws_access_key_id": KEY,
            "aws_secret_access_key": SECRET,
            "region_name": REGION,
            **changes,
            "config": config.merge(changes.get("config", Config())),
        }
        client = boto3.Session(botocore_session=session).client("s3", **arguments)
        self._clients.callback(client.close)
        return client

    def new_bucket(self) -> str:
        """Make a bucket that no other test has."""
        bucket = f"{self._stem}-{next(self._numbers)}"
        self._own.create_bucket(Bucket=bucket)
        return bucket

    def read(self, bucket: str, key: str) -> bytes | None:
        """Give an object's bytes; None where there is no such object."""
        try:
            return self._own.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchKey":
                return None
            raise

    def keys(self, bucket: str) -> list[str]:
        """List all keys, in order."""
        pages = self._own.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return sorted(entry["Key"] for page in pages for entry in page.get("Contents", []))

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write an object, whatever is there."""
        self._own.put_object(Bucket=bucket, Key=key, Body=data)

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object, if it is there."""
        self._own.delete_object(Bucket=bucket, Key=key)

    def stop(self) -> None:
        """Kill the process: SeaweedFS takes half a minute to stop when asked to."""
        self._clients.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait(LIMIT_S)

    @property
    def _own(self) -> Any:
        # Lazily, since a client takes a while to make; clients bear several threads.
        if self._client is None:
            self._client = self.client()
        return self._client

    def _start(self) -> None:
        raise NotImplementedError

    def _run(self, argv: list[str], env: Mapping[str, str]) -> None:
        with (self.directory / "output").open("wb") as output:
            self._process = subprocess.Popen(
                argv,
                cwd=self.directory,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _wait(self) -> bool:
        """Wait until it is ready; False when it has ended, or is not ready in time."""
        wait_until(lambda: not self._is_running or self._is_ready(), _START_LIMIT_S)
        return self._is_running and self._is_ready()

    def _is_ready(self) -> bool:
        raise NotImplementedError

    def _fail(self) -> TimeoutError:
        return TimeoutError(f"the store does not answer:\n{self.output[-4000:]}")


class SeaweedServer(S3Server):
    """SeaweedFS, ready in four seconds."""

    def _start(self) -> None:
        # Somebody else may take one of the ports before it does; then it ends.
        for _ in range(_ATTEMPTS):
            self._spawn()
            if self._wait():
                return
            if self._is_running:
                break
        raise self._fail()

    def stop(self) -> None:
        """Kill the process and remove the sockets that it leaves behind."""
        super().stop()
        self._remove_sockets()

    def _spawn(self) -> None:
        self._remove_sockets()
        self._ports = _free_ports()
        self.endpoint = f"http://127.0.0.1:{self._ports['s3.port']}"
        self._client = None
        self._probe = ""
        identities = {
            "identities": [
                {
                    "name": "flicker",
                    "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
                    "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                }
            ]
        }
        path = self.directory / "identities.json"
        path.write_text(json.dumps(identities), encoding="utf-8")
        data = self.directory / uuid.uuid4().hex
        data.mkdir()
        argv = [
            str(_WEED),
            "-logtostderr=true",
            "server",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            # A bucket takes volumes; when there are no more, every PUT fails.
            "-volume.max=1000",
            "-master.volumeSizeLimitMB=64",
            "-master.resumeState=false",
            "-master.telemetry=false",
            "-filer",
            "-s3",
            f"-s3.config={path}",
            # On by default, on ports that two servers would fight for.
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            *(f"-{name}={port}" for name, port in self._ports.items()),
        ]
        # A bucket takes one volume, not seven.
        self._run(argv, {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"})

    def _is_ready(self) -> bool:
        """Whether an object can be written and read: the port answers seconds before that."""
        try:
            # One bucket, however often the first PUT fails.
            self._probe = self._probe or self.new_bucket()
            self.put(self._probe, "ready", b"ready")
            return self.read(self._probe, "ready") == b"ready"
        except (BotoCoreError, ClientError):
            return False

    def _remove_sockets(self) -> None:
        # No option moves them all out of there.
        for port in getattr(self, "_ports", {}).values():
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                with suppress(FileNotFoundError):
                    path.unlink()


class MotoServer(S3Server):
    """moto's server, ready in a second or two: it checks no signature."""

    def _start(self) -> None:
        argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        self._run(argv, {})
        if not self._wait():
            raise self._fail()

    def _is_ready(self) -> bool:
        address = _ADDRESS.search(self.output)
        if address is None:
            return False
        self.endpoint = address.group()
        try:
            self._own.list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True


def _free_ports() -> dict[str, int]:
    with ExitStack() as stack:
        ports = {}
        for name in _PORTS:
            held = stack.enter_context(socket.socket())
            held.bind(("127.0.0.1", 0))
            ports[name] = held.getsockname()[1]
        return ports


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    """A SeaweedFS for all tests of this process; each test makes its own bucket."""
    with SeaweedServer(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    """A moto for all tests of this process; each test makes its own bucket."""
    with MotoServer(tmp_path_factory.mktemp("moto")) as server:
        yield server
