"""The command `gaussline`. A command loads what it needs when it is called: --help is quick and needs no torch."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from gaussline.worker.commands.mistakes import INTERRUPTED, tell
from gaussline.worker.errors import GausslineError

COMMANDS = {
    "demo": ("gaussline.worker.commands.demo", "demo", "A whole line on this machine: the quickest look."),
    "demo-online": (
        "gaussline.worker.commands.demo_online",
        "demo_online",
        "A line that drifts, and a model that learns.",
    ),
    "fit": ("gaussline.worker.commands.fit", "fit", "Fit a model on normal frames and publish it."),
    "evaluate": ("gaussline.worker.commands.evaluate", "evaluate", "AUROC of a folder with known defects."),
    "calibrate": ("gaussline.worker.commands.calibrate", "calibrate", "Another working point, same Gaussians."),
    "models": ("gaussline.worker.commands.models", "app", "Versions: list, show, promote, rollback, …"),
    "status": ("gaussline.worker.commands.status", "status", "The whole line on one screen, live."),
    "doctor": ("gaussline.worker.commands.doctor", "doctor", "Check an installation, and say what to do."),
    "plan": ("gaussline.worker.commands.plan", "plan_command", "What a line of a given size needs."),
    "service": ("gaussline.worker.commands.service", "app", "systemd units of this machine's processes: install."),
    "exporter": ("gaussline.worker.commands.exporter", "exporter", "Metrics of the line itself."),
    "judge": ("gaussline.worker.commands.judge", "judge", "Judge canaries and shadows, and promote or roll back."),
    "worker": ("gaussline.worker.commands.worker", "worker", "Judge frames."),
    "learn": ("gaussline.worker.commands.learn", "learn", "Keep a model true while the line drifts."),
    "drift": ("gaussline.worker.commands.drift", "app", "What changed on the line; confirm or release an alarm."),
    "moments": ("gaussline.worker.commands.moments", "app", "What a learner has learnt: show, export, merge, …"),
    "produce": ("gaussline.producer.command", "produce", "Push frames of a folder, video, camera, or synthetic ones."),
    "verdicts": ("gaussline.worker.commands.verdicts", "verdicts", "Read and follow verdicts."),
    "heatmap": ("gaussline.worker.commands.heatmap", "heatmap", "Where on a frame its score comes from."),
    "verify": (
        "gaussline.worker.commands.verify",
        "verify",
        "Score kept frames again and compare with their verdicts.",
    ),
    "review": ("gaussline.worker.commands.review", "review", "A page of kept frames to say good or bad of."),
    "feedback": ("gaussline.worker.commands.feedback", "feedback", "Say of a frame that it is good or bad."),
    "parts": ("gaussline.worker.commands.parts", "parts", "One verdict a part, out of its frames' verdicts."),
    "bridge": ("gaussline.worker.commands.bridge", "app", "Verdicts to an MES that speaks no Redis: webhook, mqtt, …"),
    "ledger": ("gaussline.worker.commands.ledger", "ledger", "The balance of every camera."),
    "cameras": ("gaussline.worker.commands.cameras", "app", "Cameras: list, set."),
    "sets": ("gaussline.worker.commands.sets", "app", "A new backbone through workers of its own: add, copy, move, …"),
    "subscribers": ("gaussline.worker.commands.subscribers", "app", "Durable cursors: list, register, unregister."),
    "kept": ("gaussline.worker.commands.kept", "app", "Kept frames: list, get."),
    "keys": ("gaussline.worker.commands.keys", "app", "Keys that sign artefacts: new, show, sign, check."),
    "acl": ("gaussline.worker.commands.acl", "acl", "Redis users of a line, each with the least it needs."),
    "dead": ("gaussline.worker.commands.dead", "app", "Dead letters: list, show, get, retry, drop."),
    "settings": ("gaussline.worker.commands.settings", "settings", "Every setting, its value here, and what it means."),
}
_EXTRAS = {
    **dict.fromkeys(("torch", "torchvision", "scipy", "prometheus_client"), "worker"),
    "urllib3": "webhook",
    "paho": "mqtt",
    "asyncua": "opcua",
}
"""Packages that the light install lacks, and the extra that brings them."""


class _Plain(TyperGroup):
    """Commands within a command, each with its whole first sentence, wrapped."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str(limit=1_000)) for name, command in self.commands.items()]
            )


class _Lazy(TyperGroup):
    """Knows its commands by name, and imports one when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        name, attribute, _ = COMMANDS[cmd_name]
        module = importlib.import_module(name)
        found = getattr(module, attribute)
        if isinstance(found, typer.Typer):
            own = found
            own.info.cls = _Plain
        else:
            own = typer.Typer(add_completion=False)
            own.command(cmd_name, epilog=getattr(module, "EPILOG", None))(found)
        own.rich_markup_mode = None  # rich keeps a text's own line ends, and 80 columns break each of them once more
        command = typer.main.get_command(own)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


app = typer.Typer(
    cls=_Lazy,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # what nobody expected is a plain traceback, with no values of variables in it
    help="""Judge every part on a production line with Gaussians of pretrained deep features.

    \b
    A first look, on this machine:
      gaussline demo
    A line:
      gaussline fit parts/ --promote
      gaussline worker
      gaussline produce --camera cam1 pictures/ --rate 5
    What came out:
      gaussline verdicts --follow
      gaussline ledger

    Settings are environment variables GAUSSLINE_…, or options. Every command has --help, with examples.
    """,
    epilog="""\b
    Exit codes: 0 done, 1 an expected mistake, 2 wrong usage, settings or source, 3 Redis cannot be reached,
    4 a model or weights that do not fit, 5 the ledger does not balance or a verdict is not confirmed, 130 Ctrl-C.
    """,
)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"gaussline {version('gaussline')}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Only the options above the commands."""


def _nobody_reads() -> NoReturn:
    """Who read our output has what was wanted, as `head` has: that is no mistake."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def main(arguments: list[str] | None = None) -> Any:
    """Entry point: expected mistakes become one plain message on standard error and an exit code."""
    try:
        app(arguments, prog_name="gaussline")
    except GausslineError as error:
        sys.exit(tell(error))
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        print(
            f"gaussline: this command needs {error.name}, which is not installed: pip install 'gaussline[{extra}]'",
            file=sys.stderr,
        )
        sys.exit(2)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # which typer takes for a failure of ours
            _nobody_reads()
        raise
    except BrokenPipeError:
        _nobody_reads()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
