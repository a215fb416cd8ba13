"""`python -m tests.faults`: many fault episodes, several at a time; see --help."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.availability import series
from tests.availability.drill import TOPOLOGIES
from tests.availability.series import WAITS, faults_of
from tests.faults.campaign import describe, episodes
from tests.faults.plan import FAULTS
from tests.faults.report import markdown, table

EXAMPLES: Final = """Examples:

  make faults                                   100 episodes
  make faults SEED=7 EPISODES=500               the long run of docs/reliability.md
  make faults SEED=7 EPISODES=1 ARGS='--only 7000123'   one episode again
  make faults ARGS='--faults kill_redis,cut'    only these
  make faults ARGS='--fsync everysec'           kills of Redis are power cuts: what they take is measured, and bounded
  make faults ARGS='--pages a.jsonl b.jsonl'    the table of earlier runs together, for a page
  make faults ARGS='--topology sentinel'        failovers, without and with WAIT: a table; also --topology cluster
  make faults ARGS='--topology sentinel --faults cut_off --wait with --failovers 3'

The exit code is 1 where a promise was broken; the seed that broke it is printed."""
SPAN: Final = 1_000_000
"""Episodes of a campaign have the seeds SEED * SPAN, SEED * SPAN + 1, …"""


def main() -> int:
    """Run the campaign; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description="Break a line on purpose, many times, and check that no frame is lost or doubled.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the campaign; default 1")
    parser.add_argument("--episodes", type=int, default=100, help="how many; default 100")
    parser.add_argument("--only", type=int, action="append", help="the seed of one episode, as a finding names it")
    parser.add_argument("--first", type=int, default=0, help="number of the first episode; default 0")
    parser.add_argument("--lanes", type=int, default=os.cpu_count() or 1, help="episodes at a time, a server each")
    parser.add_argument("--faults", default="", help=f"only these, with commas between; all: {', '.join(FAULTS)}")
    parser.add_argument("--fsync", default="always", choices=["always", "everysec"])
    parser.add_argument("--output", type=Path, default=Path(".build/faults.jsonl"), help="one JSON line an episode")
    parser.add_argument("--topology", choices=TOPOLOGIES, help="failovers of a replicated Redis instead")
    parser.add_argument("--failovers", type=int, default=10, help="with --topology: of each kind; default 10")
    parser.add_argument("--wait", default="", choices=["", *WAITS], help="with --topology: only without, or with WAIT")
    parser.add_argument(
        "--pages", type=Path, nargs="+", help="run nothing: the table of what earlier runs have written"
    )
    parser.add_argument("--lane", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    faults = [name for name in options.faults.split(",") if name]
    known = faults_of(options.topology) if options.topology else FAULTS
    unknown = sorted(set(faults) - set(known))
    if unknown:
        parser.error(f"no fault is called {', '.join(unknown)}: there are {', '.join(known)}")
    if options.topology:
        return series.run(options)
    if options.pages:
        print(markdown([json.loads(line) for path in options.pages for line in path.read_text("utf-8").splitlines()]))
        return 0
    if options.lane:
        return _lane(json.loads(sys.stdin.readline()), faults, options.fsync)
    start = options.seed * SPAN + options.first
    seeds = options.only or list(range(start, start + options.episodes))
    return _campaign(seeds, options)


def _lane(seeds: list[int], faults: list[str], fsync: str) -> int:
    """One after the other, one line of JSON each; the logs of a bad one besides."""
    for result in episodes(seeds, appendfsync=fsync, faults=faults):
        line = describe(result) | ({"logs": result.logs} if result.taken.broken else {})
        print(json.dumps(line), flush=True)
    return 0


def _campaign(seeds: list[int], options: argparse.Namespace) -> int:
    lanes = max(1, min(options.lanes, len(seeds)))
    # A lane takes every so-manieth pair: the plan alternates between one fault and several.
    shares: list[list[int]] = [[] for _ in range(lanes)]
    for place, seed in enumerate(seeds):
        shares[place // 2 % lanes].append(seed)
    begin = time.monotonic()
    results: list[dict[str, Any]] = []
    options.output.parent.mkdir(parents=True, exist_ok=True)
    console = Console(width=118)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    processes = [_start(share, options) for share in shares if share]
    try:
        with Progress(*columns, console=console) as progress, options.output.open("w", encoding="utf-8") as file:
            task = progress.add_task("episodes", total=len(seeds))
            for line in _lines(processes):
                file.write(json.dumps(line) + "\n")
                results.append(line)
                progress.advance(task)
                if line["broken"]:
                    progress.console.print(_story(line, options), markup=False, highlight=False)
    finally:
        for process in processes:
            process.terminate()
            process.wait()
    broken = [line for line in results if line["broken"]]
    admitted = sum(line["admitted"] for line in results)
    console.print(table(results))
    options.output.with_suffix(".md").write_text(markdown(results), "utf-8")
    console.print(
        f"{len(results)} episodes in {time.monotonic() - begin:.0f} s; {admitted} frames admitted; "
        f"appendfsync {options.fsync}; {len(broken)} with findings; for a page: {options.output.with_suffix('.md')}",
        highlight=False,
    )
    if len(results) < len(seeds):
        console.print(f"{len(seeds) - len(results)} episodes gave no result: a lane ended early")
        return 1
    return 1 if broken else 0


def _start(share: list[int], options: argparse.Namespace) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.faults", "--lane", "--fsync", options.fsync, "--faults", options.faults]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(json.dumps(share) + "\n")
    process.stdin.flush()
    return process


def _lines(processes: list[subprocess.Popen[str]]) -> Any:
    """Lines of all lanes as they come."""
    import selectors

    with selectors.DefaultSelector() as selector:
        for process in processes:
            assert process.stdout is not None
            selector.register(process.stdout, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                line = key.fileobj.readline()  # type: ignore[union-attr]
                if line:
                    yield json.loads(line)
                else:
                    selector.unregister(key.fileobj)


def _story(line: dict[str, Any], options: argparse.Namespace) -> str:
    """What a person needs to look into one bad episode."""
    extra = f" --faults {options.faults}" if options.faults else ""
    return "\n".join(
        (
            f"episode {line['seed']} ({', '.join(line['faults'])}), admitted {line['admitted']}:",
            *(f"  {finding}" for finding in line["broken"]),
            f"  again: make faults ARGS='--only {line['seed']}{extra} --fsync {options.fsync}'",
            line.get("logs", ""),
        )
    )


if __name__ == "__main__":
    sys.exit(main())
