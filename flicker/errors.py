"""What can go wrong, split by what the caller does next."""

from __future__ import annotations

from dataclasses import dataclass


class FlickerError(Exception):
    """Base of everything Flicker raises on purpose."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the configuration, at the path the user typed.

    Attributes:
        path: Such as `api_sources[0].pagination.page_size`; empty for the
            file as a whole.
        message: What is wrong and what to do about it; holds no value that
            could be a secret.
    """

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigError(FlickerError):
    """Fix the configuration: every problem found, not only the first."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class RegistryError(FlickerError):
    """The registry cannot be used; the message says what to do."""


class RequestError(FlickerError):
    """A request that did not bring what was asked for.

    Attributes:
        status: HTTP status, where there was an answer.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class RetryableError(RequestError):
    """Try again later.

    Attributes:
        retry_after_s: Seconds the server asked us to stay away, if it did.
    """

    def __init__(
        self, message: str, *, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, status=status)
        self.retry_after_s = retry_after_s


class HumanNeededError(RequestError):
    """Trying again changes nothing until somebody repairs something."""


class ForeignLinkError(HumanNeededError):
    """A link or redirect leads off the configured origin, where no credential goes."""


class RefusedError(RequestError):
    """The server understood and will never take this very request.

    Attributes:
        response: Start of the answer's text, for the dead-letter file.
    """

    def __init__(self, message: str, *, status: int | None = None, response: str = "") -> None:
        super().__init__(message, status=status)
        self.response = response
