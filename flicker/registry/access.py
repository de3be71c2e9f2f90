"""Opening a registry wherever it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flicker.errors import ConfigError, Problem, RegistryError
from flicker.registry.local import open_registry
from flicker.registry.location import S3Location

if TYPE_CHECKING:
    from flicker.registry.local import Registry

LEASE_S = 30.0
SHORTEST_LEASE_S, LONGEST_LEASE_S = 3.0, 3600.0


@dataclass(frozen=True)
class RemoteOptions:
    """What can be said about a registry in S3, and about no other.

    Attributes:
        state_dir: Where its working copy is; None for a temporary directory.
        is_standby: Wait while another instance holds it.
        lease_s: Seconds that the lease outlives its holder; None for 30.
    """

    state_dir: Path | None = None
    is_standby: bool = False
    lease_s: float | None = None

    @property
    def is_given(self) -> bool:
        """Whether any of it was said."""
        return self != RemoteOptions()


def open_located(location: Path | S3Location, options: RemoteOptions) -> Registry:
    """Open a registry for a process that is alone with it.

    Raises:
        ConfigError: Options of S3 for a registry that is not there.
        RegistryError: It cannot be used.
    """
    if isinstance(location, S3Location):
        return open_remote(location, options)
    if options.is_given:
        message = "--state-dir, --standby and --lease-seconds need --registry-file s3://BUCKET/KEY"
        raise ConfigError([Problem("", message)])
    return open_registry(Path(f"{location}.d"), location)


def open_remote(location: S3Location, options: RemoteOptions, purpose: str = "") -> Registry:
    """Open a registry in S3, as the one process or the first of a cluster.

    Args:
        location: Of the registry.
        options: How.
        purpose: Why, if not to run.

    Raises:
        RegistryError: It cannot be used, or somebody else holds it.
    """
    # boto3 takes half a second to load, which local registries do without.
    from flicker.registry.remote import Remote  # noqa: PLC0415

    remote = Remote(
        location,
        options.state_dir,
        is_standby=options.is_standby,
        lease_s=options.lease_s or LEASE_S,
        purpose=purpose,
    )
    try:
        return open_registry(remote.directory, remote=remote, is_to_run=not purpose)
    except BaseException as error:
        remote.close()
        if type(error) is RegistryError:
            # A temporary directory means nothing to whoever has to repair it.
            text = str(error).replace(str(remote.directory), remote.origin)
            raise RegistryError(text) from None
        raise


def parse_lease(text: str) -> float:
    """Read the seconds of a lease.

    Raises:
        ValueError: They are not between 3 and 3600; says so.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not SHORTEST_LEASE_S <= seconds <= LONGEST_LEASE_S:
        message = f"must be a number of seconds, {SHORTEST_LEASE_S:.0f} to {LONGEST_LEASE_S:.0f}"
        raise ValueError(message)
    return seconds
