"""What no single value can be blamed for: values that are wrong only together.

Works on what was read, not on the models, so that a wrong value elsewhere
hides none of these problems. Values of the wrong kind are left to the models.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from flicker.config.checks import (
    ITEM,
    filled_url_problem,
    header_name_problem,
    header_value_problem,
    time_format_problem,
)
from flicker.config.fields import as_param
from flicker.config.scalars import Expanded
from flicker.timefmt import resolution_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flicker.config.document import Finding, Keys

_PLACES_OF_ITEMS: tuple[Keys, ...] = (
    ("endpoint",),
    ("params",),
    ("headers",),
    ("body",),
    ("time_filter_template",),
    ("oauth2", "token_url"),
    ("oauth2", "scope"),
    ("aws_sigv4", "region"),
)

_NO_PLACES_OF_ITEMS = frozenset({"foreach", "rate_limit_group", "match_on", "exclude_on"})
"""Where `{item}` makes no source differ, and is no mistake: a pattern may look for it."""

_NO_ITEM_HERE = (
    f"has `{ITEM}` where no item is put in its place: write out what is meant, in a source for"
    " each item where it differs"
)


def check_relations(root: dict[str, Any]) -> Iterator[Finding]:
    """Check the values of a file against each other."""
    names: dict[str, int] = {}
    sources = root.get("api_sources")
    for index, source in enumerate(sources if isinstance(sources, list) else []):
        if isinstance(source, dict):
            keys = ("api_sources", index)
            yield from _source_relations(source, keys)
            if "destination" not in source and root.get("destination") is None:
                message = (
                    "is required and missing. Give this source a `destination`,"
                    " or the file one for all its sources."
                )
                yield (*keys, "destination"), message
            for name in _names(source):
                if names.setdefault(name, index) != index:
                    message = (
                        f"is also the name of api_sources[{names[name]}]: each source needs its"
                        " own, because its position is kept under it"
                    )
                    yield (*keys, "name"), message
    destination = _map(root, "destination")
    yield from _destination_relations(destination, ("destination",))
    for place, _ in _places_of_item(destination, ("destination",)):
        yield place, _NO_ITEM_HERE
    yield from _retry_relations(_map(root, "retry"))


def _source_relations(source: dict[str, Any], keys: Keys) -> Iterator[Finding]:
    pagination = _map(source, "pagination")
    sent_as = {
        "basic": "Authorization",
        "api_key": _text(source, "api_key_header") or "X-API-Key",
        "oauth2": "Authorization",
        "jwt_bearer": "Authorization",
        "aws_sigv4": "Authorization",
    }
    credentials = {key: header for key, header in sent_as.items() if _has(source, key)}
    yield from _header_relations(source, keys, credentials)
    yield from _credential_relations(source, keys)
    yield from _tls_relations(source, keys)
    yield from _param_relations(source, pagination, keys)
    yield from _destination_relations(_map(source, "destination"), (*keys, "destination"))
    if _has(source, "max_pages") and _has(pagination, "max_pages"):
        message = "is also given in the source itself: keep one of them"
        yield (*keys, "pagination", "max_pages"), message
    yield from _request_relations(source, pagination, keys)
    yield from _item_relations(source, keys)
    yield from _window_relations(source, keys)
    if _has_end(source) and _is_on(pagination.get("persist_cursor")):
        message = (
            "is true, and a cursor that came with an upper bound leads up to that and no further:"
            " remove it, or what bounds the time from above"
        )
        yield (*keys, "pagination", "persist_cursor"), message
    yield from _fetch_relations(source, pagination, keys)
    if _has(source, "time_filter_template") and not _has(source, "time_filter_param"):
        message = "is sent nowhere: name the query parameter in `time_filter_param`"
        yield (*keys, "time_filter_template"), message
    if _has(source, "start_time") and not (
        _has(source, "time_filter_param") or _has(source, "timestamp_field")
    ):
        message = (
            "has nothing to be compared with: add `time_filter_param`, so that the API is asked"
            " from there, or `timestamp_field`, so that earlier events are left out"
        )
        yield (*keys, "start_time"), message


def _names(source: dict[str, Any]) -> list[str]:
    """Give the names of the sources that an entry makes."""
    name, items = _text(source, "name"), source.get("foreach")
    if not name:
        return []
    if isinstance(items, list):
        return list(dict.fromkeys(f"{name}/{as_param(item)}" for item in items))
    return [name]


def _request_relations(
    source: dict[str, Any], pagination: dict[str, Any], keys: Keys
) -> Iterator[Finding]:
    if source.get("method") == "POST":
        for place, number in _numbers_in(source.get("body"), (*keys, "body")):
            if not math.isfinite(number):
                yield place, "is no number that JSON has a word for: write it as text"
        return
    if _has(source, "body"):
        yield (*keys, "body"), "is sent with POST only: add `method: POST`, or use `params`"
    if pagination.get("location") == "body":
        message = "is `body`, and only POST has one: add `method: POST`"
        yield (*keys, "pagination", "location"), message


def _numbers_in(value: object, keys: Keys) -> Iterator[tuple[Keys, float]]:
    if isinstance(value, dict):
        for key, member in value.items():
            yield from _numbers_in(member, (*keys, key))
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from _numbers_in(member, (*keys, index))
    elif isinstance(value, float):
        yield keys, value


def _item_relations(source: dict[str, Any], keys: Keys) -> Iterator[Finding]:
    items = source.get("foreach")
    told = {key: value for key, value in source.items() if key not in _NO_PLACES_OF_ITEMS}
    if items is None:
        for place, is_filled in _places_of_item(told, ()):
            if is_filled:
                message = f"has `{ITEM}`, which stands for the items of `foreach`: add that"
                yield (*keys, *place), message
    if not isinstance(items, list):
        return
    texts = [str(as_param(item)) for item in items]
    for index, text in enumerate(texts):
        if text in texts[:index]:
            yield (*keys, "foreach", index), "is given twice: keep one of them"
    is_anywhere = False
    for place, is_filled in _places_of_item(told, ()):
        is_anywhere = is_anywhere or is_filled
        if not is_filled:
            yield (*keys, *place), _NO_ITEM_HERE
    if not is_anywhere:
        message = (
            f"has nowhere to go: write `{ITEM}` where its items belong, in `endpoint`, `params`,"
            " `headers` or `body`"
        )
        yield (*keys, "foreach"), message
    yield from _filled_relations(source, texts, keys)


def _filled_relations(source: dict[str, Any], texts: list[str], keys: Keys) -> Iterator[Finding]:
    """Find items that do not fit into the places that they are put into."""
    urls = {"endpoint": _text(source, "endpoint")}
    urls["oauth2.token_url"] = _text(_map(source, "oauth2"), "token_url")
    for name, url in urls.items():
        for index, text in enumerate(texts):
            problem = filled_url_problem(url, text)
            if problem:
                yield (*keys, "foreach", index), f"makes an `{name}` that {problem}"
    for name, value in _map(source, "headers").items():
        for index, text in enumerate(texts):
            problem = header_value_problem(text) if ITEM in str(value) else None
            if problem:
                yield (*keys, "foreach", index), f"makes a header {name} that {problem}"


def _places_of_item(value: object, place: Keys) -> Iterator[tuple[Keys, bool]]:
    """Find `{item}`, and whether an item is put in its place there."""
    if isinstance(value, dict):
        for key, member in value.items():
            if ITEM in str(key):
                # Of names, only those in the body are filled.
                yield (*place, key), place[:1] == ("body",)
            yield from _places_of_item(member, (*place, key))
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from _places_of_item(member, (*place, index))
    elif isinstance(value, str) and ITEM in value:
        yield place, any(place[: len(known)] == known for known in _PLACES_OF_ITEMS)


def _has_end(source: dict[str, Any]) -> bool:
    template = _text(source, "time_filter_template")
    return _has(source, "time_filter_end_param") or "{until}" in template


def _window_relations(source: dict[str, Any], keys: Keys) -> Iterator[Finding]:
    if not _has(source, "time_filter_param"):
        bounds = ("time_filter_end_param", "max_window_ms", "max_age_ms")
        given = [key for key in bounds if _has(source, key)]
        if (_whole(source.get("lookback_ms")) or 0) > 0:
            given.append("lookback_ms")
        for key in given:
            message = "needs `time_filter_param`, which says from when on to ask: add it"
            yield (*keys, key), message
        return
    for key in ("delay_ms", "max_window_ms"):
        if not _has_end(source) and _whole(source.get(key)):
            message = (
                "needs an upper bound to move: add `time_filter_end_param`, or `{until}` in"
                " `time_filter_template`"
            )
            yield (*keys, key), message
    window, lookback = _whole(source.get("max_window_ms")), _whole(source.get("lookback_ms")) or 0
    form = source.get("time_filter_format") or "rfc3339"
    if not isinstance(form, str) or time_format_problem(form):
        return
    finest = max(1, resolution_ns(form) // 10**6)
    max_age, delay = _whole(source.get("max_age_ms")), _whole(source.get("delay_ms")) or 0
    if max_age is not None and max_age < delay + finest:
        message = (
            f"is {max_age}, which leaves nothing to ask for: write {delay + finest} or more, which"
            " is `delay_ms` and what `time_filter_format` can tell apart"
        )
        yield (*keys, "max_age_ms"), message
    if window is None:
        return
    # Both bounds are rounded down to what the format can tell.
    if window - window % finest < lookback + finest:
        least = -(-lookback // finest) * finest + finest
        message = (
            f"is {window}, too short to get on with `lookback_ms` ({lookback}) and what"
            f" `time_filter_format` can tell apart ({finest}): write {least} or more"
        )
        yield (*keys, "max_window_ms"), message


_JSON_PATHS = ("results_field", "success_field", "error_field", "decode_field", "explode_field")
_JSON_PAGE_PATHS = ("next_cursor_field", "has_more_field", "next_url_field")


def _fetch_relations(
    source: dict[str, Any], pagination: dict[str, Any], keys: Keys
) -> Iterator[Finding]:
    if _has(source, "fetch_each"):
        for key in ("decode_field", "explode_field"):
            if _has(source, key):
                message = "does not go together with `fetch_each`: remove one of them"
                yield (*keys, key), message
    if source.get("response_format") not in ("ndjson", "csv"):
        return
    listing: tuple[tuple[dict[str, Any], Keys, tuple[str, ...]], ...] = (
        (source, keys, _JSON_PATHS),
        (pagination, (*keys, "pagination"), _JSON_PAGE_PATHS),
    )
    fetched = ((_map(source, "fetch_each"), (*keys, "fetch_each"), _JSON_PATHS),)
    for entry, place, names in fetched if _has(source, "fetch_each") else listing:
        for name in names:
            if entry.get(name):
                message = "finds nothing where `response_format` is not json: remove one of them"
                yield (*place, name), message


def _credential_relations(source: dict[str, Any], keys: Keys) -> Iterator[Finding]:
    for key, main in (("api_key_header", "api_key"), ("signer_options", "signer")):
        if _has(source, key) and not _has(source, main):
            yield (*keys, key), f"does nothing without `{main}`: add that, or remove it"
    rivals = [key for key in ("oauth2", "jwt_bearer", "aws_sigv4") if _has(source, key)]
    if rivals and _has(source, "signer"):
        message = f"signs requests that `{rivals[0]}` authenticates already: keep one of them"
        yield (*keys, "signer"), message
    oauth2 = _map(source, "oauth2")
    needs_secret = _text(oauth2, "grant_type") != "refresh_token"
    is_proven = _has(oauth2, "client_secret") or _has(_map(source, "tls"), "cert_path")
    if oauth2 and needs_secret and not is_proven:
        message = (
            "is required and missing: add the client's secret, or in `tls` the certificate that"
            " proves the client; with a private key, use `jwt_bearer`"
        )
        yield (*keys, "oauth2", "client_secret"), message


def _destination_relations(destination: dict[str, Any], keys: Keys) -> Iterator[Finding]:
    auth = _map(destination, "auth")
    own_header = _text(auth, "name") if auth.get("type") == "header" else "Authorization"
    sent_as = {"auth": own_header, "api_key": "Authorization", "basic": "Authorization"}
    credentials = {key: header for key, header in sent_as.items() if _has(destination, key)}
    yield from _header_relations(destination, keys, credentials)
    yield from _tls_relations(destination, keys)
    headers = {name.lower() for name in _map(destination, "headers")}
    if (
        _is_on(destination.get("require_auth"))
        and not credentials
        and "authorization" not in headers
        and not _has(_map(destination, "tls"), "cert_path")
    ):
        message = (
            "is true, but there are no credentials: add `auth`, `api_key`, `basic`,"
            " an Authorization header or a client certificate"
        )
        yield (*keys, "require_auth"), message


def _header_relations(
    entry: dict[str, Any], keys: Keys, credentials: dict[str, str]
) -> Iterator[Finding]:
    """Find headers that would be sent twice.

    Args:
        entry: A source or a destination.
        keys: Its place.
        credentials: Header that each of its credentials is sent in, by key.
    """
    senders: dict[str, list[str]] = {}
    for key, header in credentials.items():
        senders.setdefault(header.lower(), []).append(key)
    for rivals in senders.values():
        if len(rivals) > 1:
            names = " and ".join(f"`{name}`" for name in rivals)
            header = credentials[rivals[-1]]
            message = (
                f"has more than one way of authentication in the header {header}, {names}:"
                " keep one of them"
            )
            yield keys, message
    seen: set[str] = set()
    for name in _map(entry, "headers"):
        place = (*keys, "headers", name)
        problem = header_name_problem(name)
        if problem:
            yield place, problem
        elif name.lower() in senders:
            rival = senders[name.lower()][0]
            yield place, f"is the header that `{rival}` sends too: keep one of them"
        if name.lower() in seen:
            yield place, "is given twice, as header names are the same in any case: keep one"
        seen.add(name.lower())


def _tls_relations(entry: dict[str, Any], keys: Keys) -> Iterator[Finding]:
    tls = _map(entry, "tls")
    if _has(tls, "key_path") and not _has(tls, "cert_path"):
        message = "is a key without its certificate: add `cert_path`"
        yield (*keys, "tls", "key_path"), message
    if tls and _text(entry, "endpoint").lower().startswith("http://"):
        message = (
            "does nothing for an endpoint that begins with http://: use https://, or remove it"
        )
        yield (*keys, "tls"), message


_ROLES = (
    "time_filter_param",
    "time_filter_end_param",
    "pagination.limit_param",
    "pagination.offset_param",
    "pagination.page_param",
    "pagination.cursor_param",
)


def _param_relations(
    source: dict[str, Any], pagination: dict[str, Any], keys: Keys
) -> Iterator[Finding]:
    """Find parameters that would be sent twice."""
    roles: dict[str, str] = {}
    for place in _ROLES:
        section, _, key = place.rpartition(".")
        name = _text(pagination if section else source, key)
        # Some vendors take both bounds of the time under one name.
        rivals = {place, "time_filter_param"} if key == "time_filter_end_param" else {place}
        if name and roles.setdefault(name, place) not in rivals:
            message = f"names the same parameter as `{roles[name]}`: it would be sent twice"
            yield (*keys, *place.split(".")), message
    location = pagination.get("location") or ("body" if source.get("method") == "POST" else "query")
    if location == "body":
        yield from _body_relations(source, roles, keys)
        return
    for name in roles.keys() & _map(source, "params").keys():
        message = (
            f"would be sent twice, since `{roles[name]}` names the same parameter:"
            " remove one of them"
        )
        yield (*keys, "params", name), message
    for name in roles.keys() & _query_names(_text(source, "endpoint")):
        message = (
            f"holds in its query string the parameter that `{roles[name]}` names,"
            " which would be sent twice: remove one of them"
        )
        yield (*keys, "endpoint"), message


def _body_relations(source: dict[str, Any], roles: dict[str, str], keys: Keys) -> Iterator[Finding]:
    """Find what cannot be put into the body, or would take the place of something."""
    end_name = _text(source, "time_filter_end_param")
    if end_name and end_name == source.get("time_filter_param"):
        message = (
            "names the same parameter as `time_filter_param`, and in a body one name has one value:"
            " rename it, or write both bounds into `time_filter_template`"
        )
        yield (*keys, "time_filter_end_param"), message
    for name, role in roles.items():
        place = (*keys, *role.split("."))
        outer = next((other for other in roles if name.startswith(f"{other}.")), None)
        if outer is not None:
            yield place, f"leads into what `{roles[outer]}` names, which holds one value: rename it"
        inside: Any = _map(source, "body")
        walked: Keys = (*keys, "body")
        segments = name.split(".")
        while segments and (found := _step_into(inside, segments)) is not None:
            key, segments = found
            inside, walked = inside[key], (*walked, key)
        if isinstance(inside, list) and segments:
            message = (
                f"leads into a list of {len(inside)} at `{segments[0]}`: name one of its elements,"
                " the first is 0"
            )
            yield place, message
        elif inside is not None and (not segments or not isinstance(inside, dict)):
            message = (
                f"is overwritten, since `{role}` names it too: remove one of them, or leave it null"
            )
            yield walked, message


def _step_into(inside: object, segments: list[str]) -> tuple[str | int, list[str]] | None:
    """Give the key that a path goes on with, the longest there is, and the path behind it."""
    if isinstance(inside, list):
        is_index = segments[0].isdecimal() and int(segments[0]) < len(inside)
        return (int(segments[0]), segments[1:]) if is_index else None
    if not isinstance(inside, dict):
        return None
    for length in range(len(segments), 0, -1):
        key = ".".join(segments[:length])
        if key in inside:
            return key, segments[length:]
    return None


def _query_names(url: str) -> set[str]:
    try:
        pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    except ValueError:
        return set()
    return {name for name, _ in pairs}


def _retry_relations(retry: dict[str, Any]) -> Iterator[Finding]:
    initial = _whole(retry.get("initial_delay_ms", 1000))
    longest = _whole(retry.get("max_delay_ms", 60000))
    if initial is not None and longest is not None and longest < initial:
        message = f"is {longest}, less than `initial_delay_ms` ({initial}): raise it"
        yield ("retry", "max_delay_ms"), message


def _map(entry: dict[str, Any], key: str) -> dict[str, Any]:
    value = entry.get(key)
    return value if isinstance(value, dict) else {}


def _text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    return value if isinstance(value, str) else ""


def _has(entry: dict[str, Any], key: str) -> bool:
    return entry.get(key) is not None


def _whole(value: object) -> int | None:
    if isinstance(value, Expanded):
        return value.as_whole()
    return value if isinstance(value, int) else None


def _is_on(value: object) -> bool:
    return value is True or (isinstance(value, Expanded) and value.as_switch() is True)
