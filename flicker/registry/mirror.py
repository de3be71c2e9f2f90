"""The registry's copy in S3: fetched before a flow runs, kept current while it does.

A generation is a consistent copy of all recovery partitions under a name of
its own. It counts from the moment that `registry.json` names it, so a crash
at any step leaves the one before in force.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flicker.errors import RegistryError
from flicker.log import fault_facts
from flicker.registry.location import LINEAGE_NAME
from flicker.registry.manifest import Generation, Manifest, StoredPartition
from flicker.registry.ownership import LeaseLostError
from flicker.registry.store import patiently
from flicker.registry.view import view_of, write_atomically
from flicker.timefmt import format_instant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flicker.registry.location import S3Location
    from flicker.registry.ownership import Ownership
    from flicker.registry.reader import Reader
    from flicker.registry.store import S3Store

UPLOAD_INTERVAL_S = 5.0
FIRST_UPLOAD_S = 1.0

KEPT_GENERATIONS = 3

LAST_TRIES = 3
"""Of the last upload, a second apart."""

LAST_S = 10.0
"""How long after it was asked to stop no further try begins: what stops a
container does not wait for long, and a silent store takes long to fail."""

SPOOL = "copy-"
"""Begin of the names of directories for copies on their way."""

_GENERATION_KEY = re.compile(r"(?:[0-9]{12,}-[0-9a-f]{8}/part-[0-9]+\.sqlite3|probe-[0-9a-f]{16})")

logger = logging.getLogger(__name__)


def fetch(store: S3Store, location: S3Location, manifest: Manifest, directory: Path) -> bool:
    """Put the newest generation into a directory, in place of what is there.

    What is there stays where it continues that very generation: then it is
    newer, and the journal of acknowledgements fits it.

    Returns:
        Whether it was fetched.

    Raises:
        RegistryError: It is not whole, or not what was uploaded; or the
            directory has a registry that is no copy of one in S3.
        OSError: It cannot be written.
    """
    for spool in directory.glob(f"{SPOOL}*"):
        # A killed process left it behind.
        shutil.rmtree(spool, ignore_errors=True)
    generation = manifest.generation
    lineage = _lineage(directory)
    if lineage is None and list(directory.glob("part-*.sqlite3")):
        message = (
            f"{directory} holds a registry of its own, which {location} would replace. Give "
            "another directory; `flicker registry export` and `import` move a registry into S3"
        )
        raise RegistryError(message)
    if (
        generation is not None
        and lineage is not None
        and lineage[:1] == [str(location)]
        and generation.name in lineage[1:]
        and all((directory / name).exists() for name in generation.partitions)
    ):
        logger.info(
            "the state directory continues the newest generation and is used as it is",
            extra={"registry": str(location), "generation": generation.name},
        )
        return False
    # First of all: what a crash leaves from here on is known as a copy.
    note_lineage(directory, location)
    _empty(directory)
    if generation is None:
        return False
    for name, part in generation.partitions.items():
        path = directory / f"{name}.part"
        digest = patiently(lambda: store.download(part.key, path))  # noqa: B023 - called at once
        if digest is None:
            message = (
                f"the registry {location} is not whole: s3://{location.bucket}/{part.key}, which "
                "it names, does not exist. Restore that object, or delete the registry to start "
                "afresh"
            )
            raise RegistryError(message)
        if path.stat().st_size != part.size or digest != part.sha256:
            path.unlink()
            message = (
                f"the registry {location} was tampered with or damaged: "
                f"s3://{location.bucket}/{part.key} is not what was uploaded (its size or SHA-256 "
                "differs). Restore it from a backup, or delete the registry to start afresh"
            )
            raise RegistryError(message)
    for name in generation.partitions:
        (directory / f"{name}.part").rename(directory / name)
    note_lineage(directory, location, generation.name)
    logger.info(
        "resuming from the registry's newest generation",
        extra={
            "registry": str(location),
            "generation": generation.name,
            "written_at": generation.written_at,
            "written_by": generation.instance,
        },
    )
    return True


def _lineage(directory: Path) -> list[str] | None:
    try:
        lineage = json.loads((directory / LINEAGE_NAME).read_bytes())
    except (OSError, ValueError):
        return None
    return lineage if isinstance(lineage, list) else None


def note_lineage(directory: Path, location: S3Location, *names: str) -> None:
    """Remember what the partitions in a directory continue.

    Args:
        directory: Where they are.
        location: The registry that they are a copy of.
        names: Of the generation; of two while nobody knows whether the second
            has replaced the first. None for none that counts.

    Raises:
        OSError: It is not remembered; they will be fetched again.
    """
    write_atomically(directory / LINEAGE_NAME, json.dumps([str(location), *names]).encode())


def _empty(directory: Path) -> None:
    """Remove the state of another life."""
    for path in [*directory.glob("acks/*.acks"), *directory.glob("part-*.sqlite3*")]:
        path.unlink()


class Uploader:
    """Makes generations, and deletes those that are too old.

    Args:
        store: Where they go.
        location: Of the registry.
        ownership: Its lease and manifest.
        instance: Who uploads.
    """

    def __init__(
        self, store: S3Store, location: S3Location, ownership: Ownership, instance: str
    ) -> None:
        self._store = store
        self._location = location
        self._ownership = ownership
        self._instance = instance
        self._prefix = f"{location.key}.d/"
        # Keys that no manifest is known to name. They are deleted once a later
        # write of the manifest is known to have succeeded: an earlier one,
        # whose answer got lost, may yet name them.
        self._left: list[str] = []
        # Generations that the lease was to be given up with.
        self._last: set[str] = set()
        self._said: str | None = None

    def upload(
        self,
        live: Path,
        directory: Path,
        partitions: Mapping[str, Mapping[str, Any]],
        api_sources: dict[str, dict[str, Any]],
        *,
        is_last: bool = False,
    ) -> Generation:
        """Upload a generation and make it the newest.

        Args:
            live: Where the partitions are that these are copies of.
            directory: Where the copies are.
            partitions: `size` and `sha256` of each.
            api_sources: The readable view of the same state.
            is_last: Give the lease up with it.

        Raises:
            RegistryError: The generation before is still the newest, as far
                as we know.
            OSError: A copy cannot be read.
        """
        before = self._ownership.manifest
        number = 1 + (before.generation.number if before.generation is not None else 0)
        name = f"{number:012d}-{secrets.token_hex(4)}"
        generation = Generation(
            name,
            format_instant(self._store.now),
            self._instance,
            {
                part: StoredPartition(
                    f"{self._prefix}{name}/{part}", facts["size"], facts["sha256"]
                )
                for part, facts in partitions.items()
            },
        )
        older = () if before.generation is None else (before.generation, *before.previous)
        manifest = Manifest(api_sources, generation, older[: KEPT_GENERATIONS - 1])
        keys = [part.key for part in generation.partitions.values()]
        unsettled = self._left
        self._left = unsettled + keys
        for part_name, part in generation.partitions.items():
            self._store.put(part.key, directory / part_name)
        # A crash between the two writes must not have the directory taken for
        # the continuation of something else.
        before_name = [] if before.generation is None else [before.generation.name]
        note_lineage(live, self._location, *before_name, name)
        if is_last:
            self._last.add(name)
        try:
            if is_last:
                self._ownership.release(manifest)
            else:
                self._ownership.publish(manifest)
        except LeaseLostError as error:
            # Where the answer to the release was lost, of this try or of one
            # before, the next instance goes on from what we wrote.
            ours = sorted(self._last & error.found.names)
            if not ours:
                raise
            # Nothing is deleted: all that is there is that one's.
            note_lineage(live, self._location, *ours)
            return generation
        note_lineage(live, self._location, name)
        self._left = []
        dropped = [p.key for g in older[KEPT_GENERATIONS - 1 :] for p in g.partitions.values()]
        self._delete([*dropped, *unsettled])
        return generation

    def delete_strays(self) -> None:
        """Delete what crashed instances uploaded and nothing names."""
        manifest = self._ownership.manifest
        generations = [manifest.generation, *manifest.previous]
        if manifest.generation is None:
            # Whoever deleted the registry may want them yet; the next start,
            # when there is one that counts, deletes them.
            return
        named = {part.key for g in generations if g for part in g.partitions.values()}
        try:
            found = self._store.list_keys(self._prefix)
            # If we slept meanwhile, what is there is the next holder's. As long
            # as we can write, nobody else has named any of it.
            self._ownership.publish(manifest)
        except RegistryError as error:
            self._say(str(error))
            return
        self._delete(key for key in found if key not in named)

    def _delete(self, keys: Iterable[str]) -> None:
        try:
            for key in keys:
                # A manifest that was copied here names the keys of another registry.
                if key.startswith(self._prefix) and _GENERATION_KEY.fullmatch(
                    key, len(self._prefix)
                ):
                    self._store.delete(key)
        except RegistryError as error:
            self._say(str(error))

    def _say(self, reason: str) -> None:
        if self._said != reason:
            self._said = reason
            logger.warning(
                "cannot delete old generations of the registry; they take room only",
                extra={"registry": str(self._location), "reason": reason},
            )


class Mirror:
    """Uploads the registry when it has changed, on a thread of its own.

    Args:
        uploader: Makes the generations.
        ownership: Has the manifest.
        location: For the log.
        directory: Of the live partitions.
        reader: The process that may read them.
        configured: Names in the configuration.

    Attributes:
        uploads: Generations uploaded.
        failures: Uploads that failed and were put off.
        is_behind: Whether the newest upload failed. After `stop`, the next
            instance then repeats what was shipped since the one before.
    """

    def __init__(
        self,
        uploader: Uploader,
        ownership: Ownership,
        location: S3Location,
        directory: Path,
        reader: Reader,
        configured: set[str],
    ) -> None:
        self._uploader = uploader
        self._ownership = ownership
        self._location = location
        self._directory = directory
        self._reader = reader
        self._configured = configured
        self._digest: str | None = None
        self._said: str | None = None
        self.uploads = 0
        self.failures = 0
        self.is_behind = False
        self._is_over = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flicker-upload", daemon=True)

    def start(self) -> None:
        """Begin to upload."""
        self._thread.start()

    def stop(self) -> None:
        """Upload a last time, and give the lease up."""
        deadline = time.monotonic() + LAST_S
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        pause = threading.Event()
        for _ in range(LAST_TRIES):
            if self._upload(is_last=True):
                logger.info("gave the registry up", extra={"registry": str(self._location)})
                return
            if self._is_over or time.monotonic() > deadline:
                return
            pause.wait(1.0)

    def _run(self) -> None:
        self._uploader.delete_strays()
        pause_s = FIRST_UPLOAD_S
        while not self._stopped.wait(pause_s):
            self._upload(is_last=False)
            pause_s = UPLOAD_INTERVAL_S if self.uploads else FIRST_UPLOAD_S

    def _upload(self, *, is_last: bool) -> bool:
        """Upload a generation if there is news.

        Args:
            is_last: Give the lease up with it, or where there is none.

        Returns:
            False where that failed; `is_behind` tells whether there is news.
        """
        is_news = True
        try:
            with tempfile.TemporaryDirectory(prefix=SPOOL, dir=self._directory) as spool:
                answer = self._reader.copy(Path(spool), self._digest)
                is_news = "partitions" in answer
                if is_news:
                    self._publish(Path(spool), answer, is_last=is_last)
                elif is_last:
                    self._ownership.release()
        except LeaseLostError:
            self.is_behind = is_news
            self._is_over = True
            return False
        except RegistryError as error:
            self._note_failure(str(error))
        except OSError as error:
            self._note_failure(error.strerror or type(error).__name__)
        except Exception as error:  # noqa: BLE001 - the thread has to outlive a fault of ours
            self._note_failure(" ".join(fault_facts(error).values()))
        else:
            self.is_behind = False
            if self._said is not None:
                self._said = None
                logger.info(
                    "the registry is uploaded again", extra={"registry": str(self._location)}
                )
            return True
        self.is_behind = is_news
        return False

    def _publish(self, spool: Path, answer: Mapping[str, Any], *, is_last: bool) -> None:
        before = self._ownership.manifest.api_sources
        view = view_of(answer["sources"], self._configured, before)["api_sources"]
        generation = self._uploader.upload(
            self._directory, spool, answer["partitions"], view, is_last=is_last
        )
        self._digest = answer["digest"]
        self.uploads += 1
        logger.debug(
            "uploaded the registry",
            extra={"registry": str(self._location), "generation": generation.name},
        )

    def _note_failure(self, reason: str) -> None:
        self.failures += 1
        if self._said != reason:
            self._said = reason
            logger.warning(
                "cannot upload the registry; shipping goes on, and it is tried again",
                extra={
                    "registry": str(self._location),
                    "reason": reason,
                    "failures": self.failures,
                },
            )
