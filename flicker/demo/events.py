"""Events as Okta's System Log writes them."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random


class _Kind(NamedTuple):
    event_type: str
    message: str
    severity: str
    target: str
    result: str
    reason: str | None


class _Place(NamedTuple):
    city: str
    state: str
    country: str
    postal_code: str
    lat: float
    lon: float


_KINDS = (
    _Kind("user.session.start", "User login to Okta", "INFO", "AppInstance", "SUCCESS", None),
    _Kind(
        "user.authentication.auth_via_mfa",
        "Authentication of user via MFA",
        "WARN",
        "AuthenticatorEnrollment",
        "FAILURE",
        "INVALID_CREDENTIALS",
    ),
    _Kind(
        "user.authentication.sso", "User single sign on to app", "INFO", "AppUser", "SUCCESS", None
    ),
    _Kind(
        "policy.evaluate_sign_on",
        "Evaluation of sign-on policy",
        "INFO",
        "PolicyEntity",
        "CHALLENGE",
        "Sign-on policy evaluation resulted in CHALLENGE",
    ),
    _Kind(
        "group.user_membership.add",
        "Add user to group membership",
        "INFO",
        "UserGroup",
        "SUCCESS",
        None,
    ),
    _Kind("user.account.lock", "Max sign in attempts exceeded", "WARN", "User", "FAILURE", "LOCK"),
    _Kind("system.api_token.create", "Create API token", "INFO", "Token", "SUCCESS", None),
)
# One name outside ASCII: what ships bytes must not care.
_PEOPLE = ("Ada Lovelace", "Grace Hopper", "Zoë Müller", "Alan Turing", "Katherine Johnson")
_PLACES = (
    _Place("San Francisco", "California", "United States", "94105", 37.7852, -122.3874),
    _Place("Dublin", "Leinster", "Ireland", "D02", 53.3382, -6.2591),
    _Place("Singapore", "Central Singapore", "Singapore", "018989", 1.2868, 103.8545),
)
_BROWSERS = (("CHROME", "Mac OS X"), ("FIREFOX", "Linux"), ("EDGE", "Windows 11"))
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# The blocks that RFC 5737 keeps for examples.
_NETWORKS = ("192.0.2", "198.51.100", "203.0.113")
_ID_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def make_event(number: int, published_ns: int, rng: random.Random) -> dict[str, object]:
    """Make one System Log event of 700 to 900 bytes of compact JSON.

    Args:
        number: Which of a series; spreads kinds and people evenly, and stands
            in the event as `debugContext.debugData.sequence`.
        published_ns: Instant in nanoseconds since 1970 (UTC); the event shows
            it floored to milliseconds, as Okta does.
        rng: Everything else comes from here, the `uuid` included.

    Returns:
        A new JSON-able dict.

    Source: the field names of Okta's System Log API reference, LogEvent.
    """
    kind = _KINDS[number % len(_KINDS)]
    person = _PEOPLE[number % len(_PEOPLE)]
    place = rng.choice(_PLACES)
    browser, system = rng.choice(_BROWSERS)
    login = f"{person.split()[0].lower()}@example.com"
    return {
        "uuid": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        "published": _format_published(published_ns),
        "eventType": kind.event_type,
        "version": "0",
        "severity": kind.severity,
        "displayMessage": kind.message,
        "actor": {
            "id": _make_id("00u", rng),
            "type": "User",
            "alternateId": login,
            "displayName": person,
        },
        "client": {
            "userAgent": {"os": system, "browser": browser},
            "zone": "null",
            "ipAddress": f"{rng.choice(_NETWORKS)}.{rng.randint(1, 254)}",
            "geographicalContext": {
                "city": place.city,
                "state": place.state,
                "country": place.country,
                "postalCode": place.postal_code,
                "geolocation": {"lat": place.lat, "lon": place.lon},
            },
        },
        "outcome": {"result": kind.result, "reason": kind.reason},
        "target": [
            {"id": _make_id("0oa", rng), "type": kind.target, "displayName": kind.target},
        ],
        "transaction": {"type": "WEB", "id": _make_id("", rng)},
        "debugContext": {"debugData": {"sequence": number}},
    }


def _format_published(instant_ns: int) -> str:
    # timedelta arithmetic: a float of seconds cannot hold today's milliseconds exactly.
    instant = _EPOCH + timedelta(milliseconds=instant_ns // 1_000_000)
    return instant.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _make_id(prefix: str, rng: random.Random) -> str:
    return prefix + "".join(rng.choices(_ID_LETTERS, k=20 - len(prefix)))
