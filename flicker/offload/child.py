"""The process that decodes pages: one after the other, until nobody asks any more."""

from __future__ import annotations

import selectors
import signal
import socket
import sys
from functools import lru_cache

from flicker.decode import DecodeOptions, Page, PageDecoder
from flicker.offload.lane import MOST_ENTRIES, Job, Lane

DECODERS = 256
"""Of sources, kept."""


def serve(lanes: list[Lane]) -> None:
    """Answer what is asked on lanes, until one of them is closed."""
    with selectors.DefaultSelector() as selector:
        for lane in lanes:
            selector.register(lane, selectors.EVENT_READ)
            # Says that we are here.
            lane.give(None)
        while True:
            for key, _ in selector.select():
                lane = key.fileobj  # type: ignore[assignment]
                received = lane.receive_job()
                if received is None:
                    return
                lane.give(_decode(lane, *received))


class _TooManyError(Exception):
    """The page has more entries than `MOST_ENTRIES`."""


def _decode(lane: Lane, job: Job, body: bytes) -> Page | None:
    decoder = _decoder_of(job.options)

    def tell(outline: Page) -> None:
        if outline.entries > MOST_ENTRIES:
            raise _TooManyError
        lane.outline(outline)

    try:
        return decoder.decode(body, job.content_type, within=job.within, on_outline=tell)
    except OSError:
        raise
    except _TooManyError:
        return None
    except Exception:  # noqa: BLE001 - who asked finds the same fault, and can say what it means
        return None


@lru_cache(maxsize=DECODERS)
def _decoder_of(options: DecodeOptions) -> PageDecoder:
    return PageDecoder(options)


def main(descriptors: list[int]) -> None:
    """Serve the lanes of these descriptors: of each its socket's and its memory's."""
    # Who stops all processes of a service wants the last pages decoded all the
    # same; we end when our parent does.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    pairs = zip(descriptors[::2], descriptors[1::2], strict=True)
    try:
        serve([Lane(socket.socket(fileno=sock), memory) for sock, memory in pairs])
    except OSError:
        # The parent is gone.
        sys.exit(0)


if __name__ == "__main__":
    main([int(number) for number in sys.argv[1:]])
