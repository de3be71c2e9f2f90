"""Log lines for people or for machines, with secrets taken out."""

from __future__ import annotations

import json
import logging
import sys
from abc import ABC, abstractmethod
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from flicker.settings import Settings

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
MIN_SECRET_CHARS = 6
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


def conceal_secrets(settings: Settings) -> None:
    """Have the configured secrets replaced by stars in all later log lines.

    Nothing is meant to log them; this is for what nobody thought of.
    """
    secrets = _secrets_of(settings)
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, _Formatter):
            handler.formatter.secrets = secrets


def _secrets_of(settings: Settings) -> list[str]:
    texts: set[str] = set()
    for source in settings.sources:
        for endpoint in (source.endpoint, source.destination.endpoint):
            texts |= {value.reveal() for _, value in endpoint.headers}
            credentials = endpoint.credentials
            if credentials.basic is not None:
                texts.add(credentials.basic.password.reveal())
            texts |= {
                secret.reveal()
                for secret in (
                    credentials.bearer,
                    credentials.api_key,
                    (credentials.header or (None, None))[1],
                )
                if secret is not None
            }
            texts |= {value for _, value in parse_qsl(urlsplit(endpoint.url).query)}
        texts |= {value.reveal() for _, value in source.params}
    texts |= {text.split()[-1] for text in texts if text.split()}
    return sorted((text for text in texts if len(text) >= MIN_SECRET_CHARS), key=len, reverse=True)


class _Formatter(logging.Formatter, ABC):
    secrets: list[str]

    def __init__(self) -> None:
        super().__init__()
        self.secrets = []

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
            when.isoformat(timespec="milliseconds")[:-6] + "Z", record, message, facts, trace
        )

    @abstractmethod
    def line(
        self,
        when: str,
        record: logging.LogRecord,
        message: str,
        facts: dict[str, Any],
        trace: str | None,
    ) -> str: ...

    def _conceal(self, value: Any) -> Any:
        if isinstance(value, (int, float, bool, type(None))):
            return value
        text = str(value)
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


class _TextFormatter(_Formatter):
    def line(
        self,
        when: str,
        record: logging.LogRecord,
        message: str,
        facts: dict[str, Any],
        trace: str | None,
    ) -> str:
        source = f" {facts.pop('source')}:" if "source" in facts else ""
        pairs = "".join(f" {key}={_shown(value)}" for key, value in facts.items())
        line = f"{when} {record.levelname.lower():7}{source} {message}{pairs}"
        return f"{line}\n{trace}" if trace else line


class _JsonFormatter(_Formatter):
    def line(
        self,
        when: str,
        record: logging.LogRecord,
        message: str,
        facts: dict[str, Any],
        trace: str | None,
    ) -> str:
        entry = {
            "time": when,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
            **facts,
        }
        if trace:
            entry["exception"] = trace
        return json.dumps(entry, ensure_ascii=False)


def _shown(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or set(text) & set(' "=\n') else text
