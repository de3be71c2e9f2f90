"""The loops that Flicker is compared with; each is run as a process of its own.

They do the least that such a loop can do: no retries, no dedup, no envelope
around the events, nothing kept. That is in their favour.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import json
import re
from typing import Any
from urllib.parse import urlsplit

import orjson
import requests

GZIP_LEVEL = 5
WANTED = re.compile(r'"eventType":"(?:user|group|policy)\.')
UNWANTED = re.compile(r'"country":"Ireland"')

_HEADERS = {"Content-Type": "application/json"}


def run_plain(api: str, siem: str, page_size: int, batch_size: int) -> None:
    """Do what a user would write: requests, `.json()`, `json.dumps`."""
    session = requests.Session()
    page, waiting = 1, []
    while True:
        reply = session.get(api, params={"page": page, "limit": page_size}, timeout=30)
        reply.raise_for_status()
        events = reply.json()["events"]
        waiting += events
        while len(waiting) >= batch_size or (waiting and not events):
            batch, waiting = waiting[:batch_size], waiting[batch_size:]
            body = json.dumps(batch).encode()
            session.post(siem, data=body, headers=_HEADERS, timeout=30).raise_for_status()
        if not events:
            return
        page += 1


def run_filtered(api: str, siem: str, page_size: int, batch_size: int) -> None:
    """Do the same with two filters and gzip, at Flicker's own level.

    Each event is written as JSON once, for the filters and for the body.
    """
    session = requests.Session()
    headers = {**_HEADERS, "Content-Encoding": "gzip"}
    page, waiting = 1, []
    while True:
        reply = session.get(api, params={"page": page, "limit": page_size}, timeout=30)
        reply.raise_for_status()
        events = reply.json()["events"]
        texts = (json.dumps(event, separators=(",", ":"), ensure_ascii=False) for event in events)
        waiting += [text for text in texts if WANTED.search(text) and not UNWANTED.search(text)]
        while len(waiting) >= batch_size or (waiting and not events):
            batch, waiting = waiting[:batch_size], waiting[batch_size:]
            body = gzip.compress(f"[{','.join(batch)}]".encode(), GZIP_LEVEL)
            session.post(siem, data=body, headers=headers, timeout=30).raise_for_status()
        if not events:
            return
        page += 1


def run_tuned(api: str, siem: str, page_size: int, batch_size: int) -> None:
    """Do it as fast as one thread can with the libraries at hand: `raw.read` and orjson."""
    session = requests.Session()
    page = 1
    waiting: list[Any] = []
    while True:
        params = {"page": page, "limit": page_size}
        reply = session.get(api, params=params, stream=True, timeout=30)
        reply.raise_for_status()
        events = orjson.loads(reply.raw.read(decode_content=True))["events"]
        waiting += events
        while len(waiting) >= batch_size or (waiting and not events):
            batch, waiting = waiting[:batch_size], waiting[batch_size:]
            body = orjson.dumps(batch)
            session.post(siem, data=body, headers=_HEADERS, timeout=30).raise_for_status()
        if not events:
            return
        page += 1


def run_relay(api: str, siem: str, page_size: int, batch_size: int) -> None:
    """Copy bodies and parse nothing: the end is a page that is nearly empty."""
    del batch_size
    source, target = urlsplit(api), urlsplit(siem)
    get = http.client.HTTPConnection(source.netloc, timeout=30)
    post = http.client.HTTPConnection(target.netloc, timeout=30)
    page = 1
    while True:
        get.request("GET", f"{source.path}?page={page}&limit={page_size}")
        body = get.getresponse().read()
        if len(body) < 100:
            return
        post.request("POST", target.path, body, _HEADERS)
        post.getresponse().read()
        page += 1


LOOPS = {"plain": run_plain, "filtered": run_filtered, "tuned": run_tuned, "relay": run_relay}


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("api")
    parser.add_argument("siem")
    parser.add_argument("--page-size", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=1000)
    args = parser.parse_args()
    LOOPS[args.loop](args.api, args.siem, args.page_size, args.batch_size)


if __name__ == "__main__":
    main()
