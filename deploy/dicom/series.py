"""Which series of a study belongs to which channel of the network, by the series' descriptions."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dcd_ext.errors import UserError
from dcd_ext.inference.dicom import not_one_series

DEFAULTS = Path(__file__).with_name("brats24_series.json")
_NEXT_STEP = "name the series with --series CHANNEL=REGEX"


def channel_patterns(channels: Sequence[str], options: Sequence[str]) -> dict[str, str]:
    """One regular expression per channel, in channel order.

    Options ``CHANNEL=REGEX`` come before ``DEFAULTS``. A single channel need not be named, and by default takes the
    only series there is. Refused if an option names no channel or has no valid expression, or a channel has no pattern.
    """
    single = len(channels) == 1
    patterns = {channels[0]: ""} if single else json.loads(DEFAULTS.read_text("utf-8"))
    for option in options:
        channel, equals, pattern = option.partition("=")
        if equals and channel in channels:
            patterns[channel] = pattern
        elif single:
            patterns[channels[0]] = option
        else:
            expected = " or ".join(f"{name}=REGEX" for name in channels)
            raise UserError("unknown channel", f"--series {option}", expected, option, "correct it")
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
    """Channel -> the one MR series whose description the channel's pattern finds, whatever the case of its letters.

    Refused if a channel has no series or more than one, or two channels share one.
    """
    chosen: dict[str, Any] = {}
    for channel, pattern in patterns.items():
        matches = [s for s in series if re.search(pattern, _description(s), re.IGNORECASE)]
        if len(matches) != 1:
            what = f"several series for {channel}" if matches else f"series for {channel} is missing"
            there = [_description(s) for s in matches or series]
            raise not_one_series(what, f"channel {channel}, pattern {pattern}", there, _NEXT_STEP)
        for other in (name for name, taken in chosen.items() if taken is matches[0]):
            where, found = f"{other} and {channel}", repr(_description(matches[0]))
            raise UserError("one series for two channels", where, "two series", found, _NEXT_STEP)
        chosen[channel] = matches[0]
    return chosen


def _description(series: Any) -> str:
    return str(series.SeriesDescription or "").strip()
