"""An estimate in words: time, memory and disk in the units that suit them, and where the numbers come from."""

from __future__ import annotations

import time
from collections.abc import Sequence

from hedflow.estimate import Estimate, Part, Span
from hedflow.speed import Speed, has_epochs

# Kinds of run of which it is said where their numbers come from; a UPF file may have a hundred.
BASES_SHOWN = 6
# Below this other work on the machine is not worth a word.
BUSY = 1.2


def said(estimate: Estimate, counted: str) -> str:
    """The estimate for people, a few lines.

    Args:
        counted: the runs in words (`plan.summary`).
    """
    left = estimate.runs - estimate.finished
    lines = [f"{estimate.experiment}: {counted}"]
    if not left:
        return f"{lines[0]}; all of them are finished"
    if estimate.finished:
        lines[0] += f"; {estimate.finished:,} finished, {left:,} to do"
    lines.append(f"  time    {_time_said(estimate)}")
    each = sorted({part.job_mb for part in estimate.parts})
    memory = " to ".join(size_said(1e6 * mb) for mb in dict.fromkeys((each[0], each[-1])))
    lines.append(f"  memory  {memory} a job, {size_said(1e6 * estimate.memory_mb)} together")
    lines.append(f"  disk    {_disk_said(estimate)}")
    lines += [f"  {line}" for line in _bases(estimate.parts)]
    return "\n".join(lines)


def together(estimates: Sequence[Estimate]) -> str:
    """One line for several experiments, one after the other."""
    left = sum(estimate.runs - estimate.finished for estimate in estimates)
    total = Span(0, 0, 0)
    for estimate in estimates:
        total += estimate.wall or Span(0, 0, 0)
    known = not any(estimate.unknown for estimate in estimates)
    time_of_all = span_said(total) + ("" if known else " for those whose time is known")
    disk = size_said(sum(estimate.lasting for estimate in estimates))
    return f"all experiments: {left:,} runs to do, {time_of_all}, {disk}"


def _time_said(estimate: Estimate) -> str:
    how = f"on {_many(estimate.machine.cores, 'core')}, {_many(estimate.at_once, 'job')} at once"
    if estimate.wall is None:
        return f"not known {how}{_unknown(estimate)}"
    kinds = {"core-hours": estimate.core_seconds, "device-hours": estimate.device_seconds}
    work = [f"{range_said(span.least / 3600, span.most / 3600)} {unit}" for unit, span in kinds.items() if span.most]
    words = "; ".join([f"{span_said(estimate.wall)} {how}", *work])
    return words + (f"; besides{_unknown(estimate)}" if estimate.unknown else "")


def _unknown(estimate: Estimate) -> str:
    """What is to be done about speeds that are not known."""
    measured = any(has_epochs(part.specs[0]) for part in estimate.unknown)
    others = dict.fromkeys(part.model for part in estimate.unknown if not has_epochs(part.specs[0]))
    said = ": `hedflow plan` measures this machine's speed in some seconds" if measured else ""
    if others:
        said += f"{';' if said else ':'} the time of {', '.join(others)} is known once a run of it is finished"
    return said


def _disk_said(estimate: Estimate) -> str:
    if estimate.lasting == 0:
        return "not known"
    passing = f", {size_said(estimate.passing)} of checkpoints while they go" if estimate.passing else ""
    return f"{size_said(estimate.lasting)} that the runs leave{passing}"


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _bases(parts: Sequence[Part]) -> list[str]:
    """Where the numbers come from, a line for each different answer."""
    lines = []
    for part in parts:
        if part.speed is None:
            continue
        facts = [f"{part.speed.rows_per_second:,.0f} rows/s on {part.speed.device}", _basis(part.speed)]
        if has_epochs(part.specs[0]):
            open_end = part.epochs.likely is None and part.epochs.least < part.epochs.most
            patience = " (where patience may end a run, and the limit)" if open_end else ""
            facts.insert(0, f"{range_said(part.epochs.least, part.epochs.most)} epochs{patience}")
        if part.together > 1:
            facts.insert(0, f"{part.together} runs a job")
        lines.append(f"{part.model}: {', '.join(facts)}")
    lines = list(dict.fromkeys(lines))
    return (
        lines if len(lines) <= BASES_SHOWN else [*lines[:BASES_SHOWN], f"and {len(lines) - BASES_SHOWN} other settings"]
    )


def _basis(speed: Speed) -> str:
    if speed.finished:
        return f"from {speed.finished} finished run{'s' if speed.finished > 1 else ''}"
    busy = f", which was busy: {speed.busy:.1f} times as slow as alone" if speed.busy > BUSY else ""
    return f"measured {time_said(max(0.0, time.time() - speed.at))} ago on this machine{busy}"


def span_said(span: Span) -> str:
    """`3 to 6 min`, or `about 4 min (3 to 6 min)`."""
    low, high = time_said(span.least), time_said(span.most)
    unit = high.rpartition(" ")[2]
    whole = low if low == high else f"{low.removesuffix(f' {unit}')} to {high}"
    return whole if span.likely is None or low == high else f"about {time_said(span.likely)} ({whole})"


def range_said(low: float, high: float) -> str:
    """Two numbers, or one where they are shown alike."""
    first, last = _short(low), _short(high)
    return first if first == last else f"{first} to {last}"


def time_said(seconds: float) -> str:
    """A time in the unit that suits it: s, min, h, days."""
    for unit, size, most in (("s", 1, 90), ("min", 60, 90 * 60), ("h", 3600, 48 * 3600)):
        if seconds < most:
            return f"{_short(seconds / size)} {unit}"
    return f"{_short(seconds / 86400)} days"


def size_said(size: float) -> str:
    """Bytes in the unit that suits them: kB, MB, GB."""
    for unit, factor in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if size < 1000 * factor:
            return f"{_short(size / factor)} {unit}"
    return f"{_short(size / 1e12)} TB"


def _short(number: float) -> str:
    """Two figures that count."""
    if number >= 100:
        return f"{float(f'{number:.2g}') if number < 1e4 else number:,.0f}"
    return f"{float(f'{number:.2g}'):g}"
