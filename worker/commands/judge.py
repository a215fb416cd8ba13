"""`gaussline judge`: the roll-out judge of a line."""

from __future__ import annotations

import json
import threading
from typing import Annotated, Any

import typer

from gaussline.worker.broker.control import Control
from gaussline.worker.commands.console import err, out
from gaussline.worker.commands.options import Json, Line, RedisUrl, open_line
from gaussline.worker.commands.signals import on_signals
from gaussline.worker.errors import BrokerError

EPILOG = """Examples:

  gaussline judge

  gaussline judge --once --json

Trials are begun with 'gaussline models promote NAME VERSION --canary 10% --for 30m', and shown by 'gaussline models
trials NAME'. One judge a line is enough; a second one changes nothing, and takes over when the first ends."""
PERIOD_S = 1.0


def judge(
    once: Annotated[bool, typer.Option("--once", help="Count and rule once, and end.")] = False,
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Judge the line's trials: count canary and shadow against stable; promote, hold or roll back by their rules."""
    from gaussline.worker.learning.trial_judge import Ruling, TrialJudge

    opened = open_line(redis_url, line)
    judging = TrialJudge(opened.client, opened.line)
    control = Control(opened.client, opened.line)
    stopping = threading.Event()

    def tell(ruling: Ruling) -> None:
        report: dict[str, Any] = ruling.report
        if as_json:
            out().print(json.dumps(report), soft_wrap=True, highlight=False, markup=False)
        else:
            what = f"{report['model']} version {report['version']} ({report['channel']})"
            out().print(f"{what}: {report['state']}; {report['why']}", highlight=False, markup=False, soft_wrap=True)

    if once:
        for ruling in judging.step():
            tell(ruling)
        return
    with on_signals(lambda _: stopping.set(), lambda _: stopping.set()):
        err().print(f"judging the trials of line {opened.line}; Ctrl-C ends", highlight=False)
        while not stopping.is_set():
            try:
                for ruling in judging.step():
                    tell(ruling)
                control.wait(PERIOD_S)
            except BrokerError as error:
                err().print(f"{error}; trying again", highlight=False, markup=False)
                stopping.wait(PERIOD_S)
