"""Log lines for people or for machines, with secrets taken out."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from flicker.settings import Settings

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
MIN_SECRET_CHARS = 6


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
    # As they look inside a quoted fact or a JSON line.
    texts |= {json.dumps(text, ensure_ascii=False)[1:-1] for text in texts}
    return sorted((text for text in texts if len(text) >= MIN_SECRET_CHARS), key=len, reverse=True)


class _Formatter(logging.Formatter):
    secrets: list[str]

    def __init__(self) -> None:
        super().__init__()
        self.secrets = []

    def format(self, record: logging.LogRecord) -> str:
        facts = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        when = datetime.fromtimestamp(record.created, timezone.utc)
        line = self.line(record, when.isoformat(timespec="milliseconds")[:-6] + "Z", facts)
        for secret in self.secrets:
            line = line.replace(secret, "***")
        return line

    def line(self, record: logging.LogRecord, when: str, facts: dict[str, Any]) -> str:
        raise NotImplementedError


class _TextFormatter(_Formatter):
    def line(self, record: logging.LogRecord, when: str, facts: dict[str, Any]) -> str:
        source = f" {facts.pop('source')}:" if "source" in facts else ""
        pairs = "".join(f" {key}={_shown(value)}" for key, value in facts.items())
        line = f"{when} {record.levelname.lower():7}{source} {record.getMessage()}{pairs}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _JsonFormatter(_Formatter):
    def line(self, record: logging.LogRecord, when: str, facts: dict[str, Any]) -> str:
        entry = {
            "time": when,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **facts,
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


def _shown(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or set(text) & set(' "=\n') else text
