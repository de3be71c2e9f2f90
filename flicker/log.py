"""Log lines for people or for machines, with secrets taken out."""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from datetime import datetime, timezone
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from flicker.conceal import (
    body_texts,
    header_secrets,
    path_secrets,
    query_secrets,
    secrets_of,
)
from flicker.spelling import Spellings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flicker.settings import Settings

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")


def configure_logging(level: str, form: str) -> None:
    """Send Flicker's log to stderr.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        form: `text` or `json`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if form == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("flicker").setLevel(level.upper())
    # Its warnings name URLs, query and all; our client says the same without.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    # Tracebacks of credentials that cannot be refreshed; the registry says so.
    logging.getLogger("botocore").setLevel(logging.CRITICAL + 1)


def conceal_secrets(settings: Settings) -> None:
    """Have the configured secrets replaced by stars in all later log lines.

    Nothing is meant to log them; this is for what nobody thought of.
    """
    secrets = _secrets_of(settings)
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, _Formatter):
            handler.formatter.look_for(secrets)


def conceal_tokens(owner: object, tokens: Iterable[str]) -> None:
    """Have tokens that were obtained replaced by stars too.

    Args:
        owner: Who obtained them; those it gave before are not looked for any more.
        tokens: All that it has.
    """
    present = tuple(tokens)
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, _Formatter):
            handler.formatter.look_for_tokens(owner, present)


def _secrets_of(settings: Settings) -> set[str]:
    texts: set[str] = set()
    for source in settings.sources:
        for endpoint in (source.endpoint, source.destination.endpoint):
            for _, value in endpoint.headers:
                texts |= {value.reveal(), *header_secrets(value.reveal())}
            texts |= set(secrets_of(endpoint))
            texts |= {value for _, value in query_secrets(endpoint.url)}
            texts |= set(path_secrets(endpoint.url))
        texts |= {value.reveal() for _, value in source.params}
    texts |= {text.split()[-1] for text in texts if text.split()}
    return texts | {text for source in settings.sources for _, text in body_texts(source.body)}


def fault_facts(error: BaseException) -> dict[str, str]:
    """Give what may be logged of a fault of our own.

    Where it happened, not what it says: that may quote a URL or an event.
    """
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return {
        "fault": type(error).__name__,
        "at": " ".join(f"{frame.name}:{frame.lineno}" for frame in frames),
    }


class _Entry(NamedTuple):
    """A record without secrets, ready to be written in either form."""

    when: str
    level: str
    logger: str
    message: str
    facts: dict[str, Any]
    trace: str | None


class _Formatter(logging.Formatter, ABC):
    def __init__(self) -> None:
        super().__init__()
        self._configured: frozenset[str] = frozenset()
        self._tokens: WeakKeyDictionary[object, tuple[str, ...]] = WeakKeyDictionary()
        self._secrets = Spellings(())
        # Sources obtain tokens on threads of their own; whoever writes a line
        # takes what is there.
        self._looking_for = threading.Lock()

    def look_for(self, configured: Iterable[str]) -> None:
        """Replace these by stars, and no longer those given here before."""
        with self._looking_for:
            self._configured = frozenset(configured)
            self._renew()

    def look_for_tokens(self, owner: object, tokens: tuple[str, ...]) -> None:
        """Replace these by stars, and no longer what the owner had before."""
        with self._looking_for:
            self._tokens[owner] = tokens
            self._renew()

    def _renew(self) -> None:
        obtained = frozenset(chain.from_iterable(self._tokens.values()))
        self._secrets = Spellings(self._configured | obtained)

    def format(self, record: logging.LogRecord) -> str:
        # Our own messages are constants, and a source's name is its name: a
        # configured value such as `events` must not tear holes into them.
        is_constant = record.name.startswith("flicker") and not record.args
        message = record.getMessage() if is_constant else self._conceal(record.getMessage())
        facts = {
            key: value if key == "source" else self._conceal(value)
            for key, value in vars(record).items()
            if key not in _STANDARD
        }
        trace = self._conceal(self.formatException(record.exc_info)) if record.exc_info else None
        when = datetime.fromtimestamp(record.created, timezone.utc)
        return self.line(
            _Entry(
                when.isoformat(timespec="milliseconds")[:-6] + "Z",
                record.levelname.lower(),
                record.name,
                message,
                facts,
                trace,
            )
        )

    @abstractmethod
    def line(self, entry: _Entry) -> str: ...

    def _conceal(self, value: Any) -> Any:
        if isinstance(value, (int, float, bool, type(None))):
            return value
        return self._secrets.hide(str(value))


class _TextFormatter(_Formatter):
    def line(self, entry: _Entry) -> str:
        facts = entry.facts
        source = f" {facts.pop('source')}:" if "source" in facts else ""
        pairs = "".join(f" {key}={_shown(value)}" for key, value in facts.items())
        line = f"{entry.when} {entry.level:7}{source} {entry.message}{pairs}"
        return f"{line}\n{entry.trace}" if entry.trace else line


class _JsonFormatter(_Formatter):
    def line(self, entry: _Entry) -> str:
        members = {
            "time": entry.when,
            "level": entry.level,
            "logger": entry.logger,
            "message": entry.message,
            **entry.facts,
        }
        if entry.trace:
            members["exception"] = entry.trace
        return json.dumps(members, ensure_ascii=False)


def _shown(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or set(text) & set(' "=\n') else text
