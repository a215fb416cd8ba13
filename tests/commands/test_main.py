"""The command line itself: quick, teaching, and plain about mistakes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from gaussline.worker import errors
from gaussline.worker.commands.main import COMMANDS
from gaussline.worker.commands.mistakes import exit_code, tell
from tests.support.cli import Cli, environment

HEAVY = {"torch", "torchvision", "scipy", "redis", "numpy", "prometheus_client"}


def python(code: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def gaussline(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gaussline.worker.commands.main", *arguments],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def called(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A call that must end well, with the top-level modules that it loads on standard error."""
    done = python(
        "import sys, contextlib\n"
        "from gaussline.worker.commands.main import main\n"
        f"with contextlib.suppress(SystemExit): main({list(arguments)!r})\n"
        "print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)\n"
    )
    assert done.returncode == 0, done.stderr
    return done


def loaded(*arguments: str) -> set[str]:
    """Those modules."""
    return set(called(*arguments).stderr.split())


def test_help_and_version_load_nothing_heavy() -> None:
    assert not loaded("--help") & HEAVY
    assert not loaded("--version") & HEAVY
    assert {"redis", "typer"} <= loaded("ledger", "--help"), "the test sees what is loaded"


def test_help_teaches() -> None:
    said = gaussline("--help").stdout
    for command in COMMANDS:
        assert f"\n  {command} " in said
    for example in ("gaussline demo", "gaussline fit parts/ --promote", "gaussline verdicts --follow"):
        assert f"\n    {example}\n" in said, "each example on a line of its own"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_and_no_torch(command: str) -> None:
    done = called(command, "--help")
    assert f"Usage: gaussline {command}" in done.stdout
    assert "Example" in done.stdout or "Columns" in done.stdout
    assert "torch" not in done.stderr.split()
    text = done.stdout[: done.stdout.index("Example" if "Example" in done.stdout else "Columns")]
    assert max(map(len, text.splitlines())) <= 80, "the width that every terminal has"
    assert not set("│╭") & set(text), "no frame, which would take a third of it"
    assert "--install-completion" not in text, "of gaussline itself alone"


@pytest.mark.parametrize("command", ["settings", "--help"])
def test_a_reader_that_has_enough_is_no_mistake(command: str) -> None:
    """As in `gaussline settings | head -3`, in a script with `set -o pipefail`."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "gaussline.worker.commands.main", command],
            env=environment(),
            stdout=gone,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_wrong_word_is_a_usage_error() -> None:
    done = gaussline("leger")
    assert done.returncode == 2
    assert "leger" in done.stderr
    assert gaussline("ledger", "--nonsense").returncode == 2
    assert gaussline("dead", "list", "--reason", "nonsense").returncode == 2


def test_the_version_is_the_package_s() -> None:
    from importlib.metadata import version

    assert gaussline("--version").stdout.strip() == f"gaussline {version('gaussline')}"


@pytest.mark.parametrize(("shell", "words"), [("bash", "gaussline su"), ("zsh", "gaussline su")])
def test_the_shell_completes_commands(shell: str, words: str) -> None:
    settings = {"_GAUSSLINE_COMPLETE": f"complete_{shell}", "COMP_WORDS": words, "COMP_CWORD": "1"}
    settings["_TYPER_COMPLETE_ARGS"] = words
    assert "subscribers" in gaussline(**settings).stdout


def test_every_error_has_a_code_and_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    codes = {
        errors.SettingsError: 2,
        errors.SourceError: 2,
        errors.BrokerUnavailable: 3,
        errors.ModelError: 4,
        errors.ArtefactError: 4,
        errors.BackboneMismatch: 4,
        errors.WeightsUnavailable: 4,
        errors.Conflict: 1,
        errors.NotFound: 1,
        errors.FitError: 1,
        errors.ContractError: 1,
    }
    for kind, code in codes.items():
        assert exit_code(kind("what")) == code, kind
    assert tell(errors.SettingsError("one\ntwo")) == 2
    assert capsys.readouterr().err == "gaussline: one\ngaussline: two\n"
    assert tell(errors.NotFound()) == 1
    assert capsys.readouterr().err == "gaussline: NotFound\n"


def test_expected_mistakes_are_one_plain_line(cli: Cli) -> None:
    away = "redis://somebody:hidden@127.0.0.1:1/0"
    for command in (["ledger"], ["verdicts"], ["verdicts", "--follow"], ["models", "list"], ["worker"]):
        said = cli(*command, code=3, GAUSSLINE_REDIS_URL=away, GAUSSLINE_HTTP_PORT="0").stderr
        assert "cannot be reached" in said
        assert "hidden" not in said
    said = cli("ledger", code=2, GAUSSLINE_LIME="x").stderr
    assert said == "gaussline: GAUSSLINE_LIME is no setting: did you mean GAUSSLINE_LINE?\n"
    assert "http://" in cli("ledger", code=2, GAUSSLINE_REDIS_URL="http://x").stderr


def test_without_torch_a_command_says_what_to_install() -> None:
    done = python(
        "import sys\n"
        "class Refuse:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'torch', 'torchvision', 'prometheus_client', 'scipy'}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Refuse)\n"
        "from gaussline.worker.commands.main import main\n"
        "main(['worker'])\n"
    )
    assert done.returncode == 2
    assert "pip install 'gaussline[worker]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_nobody_expected_shows_no_values(cli: Cli) -> None:
    """A traceback of ours is for us; it must not print what stood in the variables."""
    done = python(
        "import gaussline.worker.commands.ledger as ledger\n"
        "def broken(client, line): secret = 'hunter2' * 2; raise RuntimeError('boom')\n"
        "ledger.read_ledger = broken\n"
        "from gaussline.worker.commands.main import main\n"
        "main(['ledger'])\n",
        GAUSSLINE_REDIS_URL=cli.url,
    )
    assert done.returncode == 1
    assert "RuntimeError: boom" in done.stderr
    assert "hunter2hunter2" not in done.stderr


def test_ctrl_c_while_a_command_waits_is_130_and_silent() -> None:
    code = (
        "import time, gaussline.worker.commands.ledger as ledger\n"
        "def wait(*a): print('waiting', flush=True); time.sleep(60)\n"
        "ledger.open_line = wait\n"
        "from gaussline.worker.commands.main import main\n"
        "main(['ledger'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.strip()) == (130, "", "")
