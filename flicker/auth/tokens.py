"""Bearer tokens: asked for when needed, kept while they last, never stored.

The token endpoint is asked by `Client`, and so with its bounds, and
credentials go to no other place. The form of request and answer is oauthlib's.
"""

from __future__ import annotations

import copy
import json
import math
import re
import threading
import time
from base64 import b64encode
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, quote_plus, urlencode, urlsplit

from oauthlib.oauth2 import MissingTokenError, OAuth2Error
from oauthlib.oauth2.rfc6749.parameters import parse_token_response, prepare_token_request

from flicker import log
from flicker.client import Client
from flicker.conceal import hide
from flicker.errors import HumanNeededError, RequestError, RetryableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flicker.auth.authenticator import SigningRequest
    from flicker.client import Reply
    from flicker.settings import Endpoint, TokenBodyFormat

RECENT_TOKENS = 48
"""Tokens that are looked for where none may be: a link may be older than the present one."""

EARLY_S = 60.0
"""Before its end, a token is not used any more, or the tenth of its life that is less."""

_VISIBLE = re.compile(r"[\x21-\x7e]+\Z")
_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,64}\Z")
_ADVICE = {
    "invalid_client": "Check client_id and client_secret or key, and auth_style",
    "invalid_grant": "Check the refresh token, or the key, issuer and subject of the assertion",
    "unauthorized_client": "Have the client allowed to use this grant",
    "access_denied": "Check the client's credentials and what it is allowed to",
    "invalid_scope": "Check scope",
    "invalid_target": "Check audience",
    "unsupported_grant_type": "Check grant_type, and that body_format is what the vendor asks for",
    "invalid_request": "Check the parameters against the vendor's documentation",
}
"""What to do about the errors that asking again does not mend (RFC 6749, section 5.2)."""

_PASSING = frozenset({"temporarily_unavailable", "server_error", "slow_down"})


@dataclass(frozen=True)
class TokenRequest:
    """What to ask a token endpoint.

    Attributes:
        basic: User name and password, where the client proves itself so.
    """

    grant_type: str
    params: Mapping[str, str] = field(repr=False)
    basic: tuple[str, str] | None = field(default=None, repr=False)


class Grant(Protocol):
    """What a token is given for."""

    def request(self) -> TokenRequest:
        """Give the request of this moment."""

    def note(self, answer: Mapping[str, Any]) -> None:
        """Take from a successful answer what the next request needs."""

    def note_refusal(self) -> None:
        """Take note that what the token was asked for with is not good, or not any more."""

    def secrets(self) -> list[str]:
        """Give what nobody may see of what is configured."""

    def obtained(self) -> list[str]:
        """Give what nobody may see of what answers gave for the next request."""


@dataclass(frozen=True)
class _Token:
    text: str = field(repr=False)
    good_until_s: float

    @property
    def is_good(self) -> bool:
        return time.monotonic() < self.good_until_s


class BearerTokens:
    """Puts a token to requests, and renews it before it expires or when it is refused.

    One request for a token is on its way at a time; who needs it too waits for
    the answer, and shares the failure.

    Args:
        grant: What the token is given for.
        endpoint: The token endpoint, without credentials.
        body_format: Of the token request.
    """

    def __init__(self, grant: Grant, endpoint: Endpoint, body_format: TokenBodyFormat) -> None:
        self._grant = grant
        self._client = Client(endpoint)
        self._host = urlsplit(endpoint.url).netloc
        self._patience_s = endpoint.timeout.total_seconds()
        self._body_format = body_format
        self._asking = threading.Lock()
        self._lock = threading.Lock()
        self._token: _Token | None = None
        self._recent: deque[str] = deque(maxlen=RECENT_TOKENS)
        self._failure: RequestError | None = None
        self._answers = 0

    def headers(self, request: SigningRequest) -> dict[str, str]:
        """Give the Authorization header; asks for a token where there is none."""
        del request
        token, answers = self._token, self._answers
        if token is None or not token.is_good:
            if not self._asking.acquire(timeout=self._patience_s):
                raise RetryableError(self._failed("another request for one takes too long"))
            try:
                token = self._shared(answers) or self._ask()
            finally:
                self._asking.release()
        return {"Authorization": f"Bearer {token.text}"}

    def renew(self, refused: Mapping[str, str]) -> bool:
        """Drop the token that was refused; another may have got a new one since."""
        with self._lock:
            token = self._token
            if token is not None and refused.get("Authorization") == f"Bearer {token.text}":
                self._token = None
        return True

    def secrets(self) -> list[str]:
        """Give the last few tokens, and what the next is asked for with and was obtained."""
        return [*self._grant.obtained(), *self._recent]

    def _shared(self, answers: int) -> _Token | None:
        """Give what another thread was told, None if nobody has asked in between."""
        token = self._token
        if token is not None and token.is_good:
            return token
        if self._answers != answers and self._failure is not None:
            raise copy.copy(self._failure)
        return None

    def _ask(self) -> _Token:
        failure: RequestError | None = None
        try:
            token = self._read(self._send(self._grant.request()))
        except RequestError as error:
            failure = error
            raise
        else:
            self._recent.append(token.text)
            # Before anybody can use it.
            log.conceal_tokens(self, self.secrets())
            with self._lock:
                self._token = token
        finally:
            self._failure = failure
            self._answers += 1
        return token

    def _send(self, request: TokenRequest) -> Reply:
        form = prepare_token_request(request.grant_type, body=urlencode(request.params))
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        body = form.encode()
        if self._body_format == "json":
            headers = {"Content-Type": "application/json"}
            body = json.dumps(dict(parse_qsl(form, keep_blank_values=True))).encode()
        if request.basic is not None:
            # Encoded first, as RFC 6749 asks in section 2.3.1.
            pair = ":".join(map(quote_plus, request.basic))
            headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        try:
            return self._client.post(body, headers)
        except RequestError as error:
            # Without its status: that is not the API's, and says nothing of a cursor.
            raise type(error)(self._failed(str(error))) from None

    def _read(self, reply: Reply) -> _Token:
        """Read an answer.

        Raises:
            RetryableError: It may be another one later.
            HumanNeededError: It refuses the credentials.
        """
        status = reply.status
        if status in {408, 425, 429} or status >= 500:
            raise RetryableError(self._failed(f"it answers {status}"), retry_after_s=reply.wait_s)
        code: str | None = None
        answer: dict[str, Any] = {}
        life_s = 0.0
        try:
            answer, life_s = _read_answer(reply.body.decode())
        except OAuth2Error as error:
            # Its own for an answer without a token is none that a server gave.
            is_code = isinstance(error.error, str) and not isinstance(error, MissingTokenError)
            code = error.error if is_code else None
        except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError):
            # It is no JSON, or not an object.
            pass
        if code in _ADVICE:
            if code == "invalid_grant":
                self._grant.note_refusal()
            raise HumanNeededError(
                self._failed(f"it answers {status} with the error {code}. {_ADVICE[code]}")
            )
        if status >= 300 and code not in _PASSING:
            named = f" with the error {self._shown(code)}" if code else ""
            advice = "Check token_url" if status < 400 or status == 404 else "Check the credentials"
            raise HumanNeededError(self._failed(f"it answers {status}{named}. {advice}"))
        text = answer.get("access_token")
        if not isinstance(text, str) or not _VISIBLE.match(text):
            named = f"the error {self._shown(code)}" if code else "no access_token to use"
            raise RetryableError(
                self._failed(f"it answers {status} with {named}"), retry_after_s=reply.wait_s
            )
        self._grant.note(answer)
        # Of unknown life, it is used until it is refused.
        good_s = life_s - min(EARLY_S, life_s / 10) if life_s > 0 else float("inf")
        return _Token(text, time.monotonic() + good_s)

    def _shown(self, code: str) -> str:
        code = hide(code, [*self._grant.secrets(), *self._grant.obtained()])
        return code if _CODE.match(code.replace("***", "")) else "of its own"

    def _failed(self, detail: str) -> str:
        return f"the token endpoint {self._host} gave no token: {detail}"


def _read_answer(text: str) -> tuple[dict[str, Any], float]:
    """Read a token endpoint's answer.

    A lifetime that is none is taken out before: for oauthlib an answer with
    one is wrong as a whole, and the token in it is good all the same.

    Returns:
        The answer, and the seconds that the token lives; 0 where that is unknown.

    Raises:
        OAuth2Error: The answer is an error.
        ValueError: It cannot be read.
    """
    try:
        members = json.loads(text)
    except ValueError:
        members = dict(parse_qsl(text))
    if not isinstance(members, dict):
        raise TypeError
    life_s = _seconds(members.pop("expires_in", None))
    members.pop("expires_at", None)
    return parse_token_response(json.dumps(members)), life_s


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return 0.0
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return 0.0
    return seconds if math.isfinite(seconds) else 0.0
