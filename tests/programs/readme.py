"""Writes the README's tables: of settings from the settings, of throughput from `tests/measured/bench.json`.

`python -m tests.programs.readme` does; `tests/unit/test_readme.py` sees that it was done.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from bridge.settings.settings import options
from tests.bench import report

if TYPE_CHECKING:
    from tests.bench.report import Result

README = Path(__file__).parents[2] / "README.md"
MEASURED = Path(__file__).parents[1] / "measured" / "bench.json"
CONTESTANTS = ("bridge", "Shovel", "aio-pika loop")
QUEUE_TYPES = ("classic", "quorum")
SHOWN_IN_MB = 100_000
"""Bytes of a message from which on its throughput is told in MB/s."""


def settings_table() -> str:
    """Return the table in Markdown."""
    lines = ["| variable | default | |", "|---|---|---|"]
    for option in options():
        default = f"`{option.default}`" if option.default_is_value and option.default else option.default
        lines.append(f"| `{option.variable}` | {default} | {option.description.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def throughput_table() -> str:
    """Return the table in Markdown: medians on classic / on quorum queues, and ratios of medians."""
    found: dict[tuple[str, int, int], dict[tuple[str, str], Result]] = {}
    for result in report.load(MEASURED):
        if result.row == "throughput":
            cell = result.cell
            same = found.setdefault((result.version, cell.size, cell.headers), {})
            same[result.contestant, cell.queue_type] = result
    lines = [
        "| RabbitMQ, messages | bridge | Shovel | aio-pika loop | ÷ Shovel | ÷ loop | CPU: bridge | broker |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (version, size, headers), results in sorted(found.items(), key=lambda item: (-float(item[0][0]), item[0][1:])):
        quantity, unit = ("MB/s", "MB/s") if size >= SHOWN_IN_MB else ("msg/s", "")
        speeds = [_both(results, contestant, quantity, unit) for contestant in CONTESTANTS]
        ratios = [
            " / ".join(f"{results['bridge', kind].median / results[other, kind].median:.2f}" for kind in QUEUE_TYPES)
            for other in CONTESTANTS[1:]
        ]
        cpu = [_both(results, "bridge", f"{whose} CPU µs/msg", "µs") for whose in ("own", "broker")]
        what = f"{version}, {_size(size)}{f', {headers} headers' if headers else ''}"
        lines.append(f"| {' | '.join([what, *speeds, *ratios, *cpu])} |")
    return "\n".join(lines) + "\n"


def _both(results: dict[tuple[str, str], Result], contestant: str, quantity: str, unit: str) -> str:
    medians = (statistics.median(results[contestant, kind].values(quantity)) for kind in QUEUE_TYPES)
    return f"{' / '.join(map(_three_digits, medians))} {unit}".rstrip()


def _three_digits(value: float) -> str:
    """Round to what the noise leaves."""
    if value < 10:
        return f"{value:.1f}"
    digits = max(0, len(f"{value:.0f}") - 3)
    return f"{round(value / 10**digits) * 10**digits:,}"


def _size(size: int) -> str:
    if size >= 1_000_000:
        return f"{size // 1_000_000} MB"
    return f"{size // 1000} kB" if size >= 1000 else f"{size} B"


TABLES = {
    "settings: written by `python -m tests.programs.readme`": settings_table,
    "throughput: written by `python -m tests.programs.readme`": throughput_table,
}
"""By the mark that they stand behind, up to the next `<!-- end -->`."""


def with_tables(text: str) -> str:
    """Return the README with the tables of now between their marks. Raises ValueError when a mark is missing."""
    for mark, table in TABLES.items():
        begin = text.index(f"<!-- {mark} -->\n") + len(f"<!-- {mark} -->\n")
        text = text[:begin] + table() + text[text.index("<!-- end -->\n", begin) :]
    return text


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
