"""Which series of a study belongs to which channel of the network, by the series' descriptions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dcd_ext.errors import UserError

__all__ = ["channel_patterns", "choose_series"]

_NEXT_STEP = "name the series with --series CHANNEL=REGEX"


def channel_patterns(channels: Sequence[str], defaults: Mapping[str, str], options: Sequence[str]) -> dict[str, str]:
    """One regular expression per channel, in channel order.

    Args:
        channels: names of the channels.
        defaults: patterns by channel name.
        options: ``CHANNEL=REGEX`` texts of the command line, which come before the defaults.

    Raises:
        UserError: if an option names no channel or has no valid expression, or a channel has no pattern.
    """
    patterns = dict(defaults)
    for option in options:
        channel, equals, pattern = option.partition("=")
        if not equals or channel not in channels:
            expected = " or ".join(f"{name}=REGEX" for name in channels)
            raise UserError("unknown channel", f"--series {option}", expected, option, "correct it")
        patterns[channel] = pattern
    for channel in channels:
        if channel not in patterns:
            raise UserError("channel without a pattern", channel, "a regular expression", "none", _NEXT_STEP)
        try:
            re.compile(patterns[channel])
        except re.error as error:
            found = f"{patterns[channel]} ({error})"
            raise UserError("no regular expression", f"channel {channel}", "Python's", found, _NEXT_STEP) from error
    return {channel: patterns[channel] for channel in channels}


def choose_series(patterns: Mapping[str, str], series: Sequence[Any]) -> dict[str, Any]:
    """The one series whose description a channel's pattern finds, for every channel.

    Args:
        patterns: regular expression per channel, searched without regard to case.
        series: the MR series of one study; ``SeriesDescription`` is read.

    Returns:
        Channel name -> series, in channel order.

    Raises:
        UserError: if a channel has no series or more than one, or two channels share one.
    """
    found = ", ".join(repr(_description(s)) for s in series) or "no MR series"
    chosen: dict[str, Any] = {}
    for channel, pattern in patterns.items():
        matches = [s for s in series if re.search(pattern, _description(s), re.IGNORECASE)]
        where = f"channel {channel}, pattern {pattern}"
        if not matches:
            raise UserError(f"series for {channel} is missing", where, "one series", found, _NEXT_STEP)
        if len(matches) > 1:
            names = ", ".join(repr(_description(s)) for s in matches)
            raise UserError(f"several series for {channel}", where, "one series", names, _NEXT_STEP)
        for other, taken in chosen.items():
            if taken is matches[0]:
                name = repr(_description(taken))
                raise UserError("one series for two channels", f"{other} and {channel}", "two series", name, _NEXT_STEP)
        chosen[channel] = matches[0]
    return chosen


def _description(series: Any) -> str:
    return str(series.SeriesDescription or "").strip()
