"""Which time a scan asks for: from where, up to where, and never more than the vendor keeps.

No clock here; whoever begins a scan says what the time is.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from flicker.timefmt import (
    SECOND_NS,
    floor_to,
    format_rfc3339,
    format_timestamp,
    resolution_ns,
)

if TYPE_CHECKING:
    from flicker.position import Position, Scan
    from flicker.settings import Source

MICROSECOND = timedelta(microseconds=1)

logger = logging.getLogger(__name__)


class TimeBounds:
    """Bounds of one source's scans.

    Args:
        source: What is read.
        position: How far it has been read.
    """

    def __init__(self, source: Source, position: Position) -> None:
        self._source = source
        self._position = position
        self._said_gap_ns: int | None = None
        self._has_said_late = False

    def start_ns(self, now_ns: int) -> int | None:
        """Give where a source without a position begins, None for whatever the API serves."""
        source = self._source
        start = source.start_time
        if start is not None:
            return start if isinstance(start, int) else now_ns - span_ns(start)
        if source.max_window is None or source.max_age is not None or self._read_to_ns is not None:
            return None
        # Without a beginning, the first request would ask for all there is.
        return max(0, now_ns - span_ns(source.delay) - span_ns(source.max_window))

    def set_bounds(self, scan: Scan, now_ns: int) -> bool:
        """Fix the time that a scan asks for.

        Returns:
            Whether there is any: a vendor may need longer to settle than has
            passed since the last scan, and clocks go backwards.
        """
        source = self._source
        form = source.time_filter_format
        since_ns = self.since_ns(self._position.last_timestamp_ns)
        if since_ns is not None:
            since_ns = floor_to(since_ns, form)
        if source.max_age is not None:
            since_ns = self._within_age(since_ns, max(0, now_ns - span_ns(source.max_age)))
        if since_ns is not None:
            scan.since_ns = since_ns
            scan.since = format_timestamp(since_ns, form)
        if not source.has_upper_bound:
            return True
        until_ns = max(0, now_ns - span_ns(source.delay))
        if source.max_window is not None and since_ns is not None:
            window_end_ns = floor_to(since_ns + span_ns(source.max_window), form)
            if window_end_ns < until_ns:
                until_ns = scan.window_end_ns = window_end_ns
        if since_ns is not None and not self._is_span(since_ns, until_ns):
            if since_ns > now_ns and not self._has_said_late:
                self._has_said_late = True
                logger.warning(
                    "the position is later than this machine's clock; waiting for it",
                    extra={"source": source.name},
                )
            return False
        scan.until_ns = until_ns
        scan.until = format_timestamp(until_ns, form)
        return True

    def _is_span(self, since_ns: int, until_ns: int) -> bool:
        """Tell whether there is time between two bounds as they are written.

        Many vendors refuse equal ones; in a coarse format they mean a whole day or so.
        """
        finest_ns = resolution_ns(self._source.time_filter_format)
        return until_ns - since_ns >= (0 if self.is_coarse else finest_ns)

    @property
    def is_coarse(self) -> bool:
        """Whether a bound stands for a whole day, hour or minute."""
        return resolution_ns(self._source.time_filter_format) > SECOND_NS

    def _within_age(self, since_ns: int | None, oldest_ns: int) -> int:
        """Ask for nothing older than the vendor keeps, and say what that leaves out."""
        if since_ns is not None and since_ns >= oldest_ns:
            return since_ns
        # Rounded up, since writing it rounds down.
        oldest_ns = -floor_to(-oldest_ns, self._source.time_filter_format)
        read_to_ns = self._read_to_ns
        if read_to_ns is None:
            read_to_ns = self._position.start_ns
        is_gap = read_to_ns is not None and read_to_ns < oldest_ns
        if is_gap and read_to_ns is not None and read_to_ns != self._said_gap_ns:
            # Once for each gap: a scan from here may have to start over.
            self._said_gap_ns = read_to_ns
            logger.warning(
                "the position is older than max_age_ms; what came in between is not asked for, "
                "since the vendor is said to keep it no longer",
                extra={
                    "source": self._source.name,
                    "position": format_rfc3339(read_to_ns),
                    "asked_from": format_rfc3339(oldest_ns),
                },
            )
        return oldest_ns

    def is_outdated(self, now_ns: int) -> bool:
        """Tell whether the scan asks by now for more than the vendor keeps."""
        scan, max_age = self._position.scan, self._source.max_age
        if scan is None or max_age is None or scan.since_ns is None:
            return False
        pagination = self._source.pagination
        if scan.place.is_token and pagination is not None and pagination.persist_cursor:
            # It is sent alone.
            return False
        return scan.since_ns < now_ns - span_ns(max_age)

    def since_ns(self, watermark_ns: int | None) -> int | None:
        """Give where the next scan asks from, before rounding; None to ask without.

        Args:
            watermark_ns: The newest instant read.
        """
        start_ns = self._position.start_ns
        known = [at for at in (watermark_ns, self._position.swept_ns) if at is not None]
        if not known:
            return start_ns
        return max(max(known) - span_ns(self._source.lookback), start_ns or 0)

    @property
    def _read_to_ns(self) -> int | None:
        """The instant up to which all was read; None where nothing was."""
        known = (self._position.last_timestamp_ns, self._position.swept_ns)
        return max((at for at in known if at is not None), default=None)

    def follow_the_present(self, scan: Scan) -> None:
        """Keep the position of a source where nothing happens from growing too old.

        Else what was read and found empty would look like what the vendor
        keeps no longer. In great steps, since each is written to the registry,
        and at a distance, for events that come late.
        """
        max_age, read_to_ns = self._source.max_age, self._read_to_ns
        if read_to_ns is None:
            read_to_ns = self._position.start_ns
        if max_age is None or read_to_ns is None or scan.until_ns is None:
            return
        max_age_ns = span_ns(max_age)
        if read_to_ns < scan.until_ns - max_age_ns // 2:
            self._position.swept_ns = scan.until_ns - max_age_ns // 4


def span_ns(span: timedelta) -> int:
    """Give a span in nanoseconds."""
    return span // MICROSECOND * 1000
