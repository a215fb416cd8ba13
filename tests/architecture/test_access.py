"""No key is forgotten by access control, and the files under deploy/redis/ are what the table says."""

from __future__ import annotations

import ast
import fnmatch

import pytest

from gaussline.worker.broker.acl import BRIDGES, LIMITS_6_2, OPERATOR, USERS, acl_file, rules_of
from gaussline.worker.broker.rights import sample_keys
from gaussline.worker.contract.keys import Keys
from tests.support.repository import ROOT

LINE = "line1"
PATTERNS = sorted(
    {
        key.removeprefix("R:").removeprefix("W:")
        for user in USERS
        if user != OPERATOR
        for rule in rules_of(user)
        for key in rule.keys.split()
    }
    - {"*"}
)


OPERATORS = {"set-history"}
"""What the operator alone reads and writes."""


@pytest.mark.parametrize("key", sample_keys(LINE, "mes"))
def test_every_key_has_a_user(key: str) -> None:
    rest = key.removeprefix(Keys(LINE).prefix)
    assert rest in OPERATORS or any(fnmatch.fnmatchcase(rest, pattern) for pattern in PATTERNS), (
        f"no user but the operator may touch {key}: add it to the users that need it in worker/broker/acl.py, "
        "then run scripts/docs"
    )


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_rule_names_a_key(pattern: str) -> None:
    names = ("mes", "parts", *BRIDGES)
    keys = [key.removeprefix(Keys(LINE).prefix) for name in names for key in sample_keys(LINE, name)]
    assert any(fnmatch.fnmatchcase(key, pattern) for key in keys), f"worker/broker/acl.py: {pattern} is no key of Keys"


SEALED = ("Registry", "CheckpointStore", "ModelBook", "Session")
UNSEALED = {"line_state.py", "retention.py", "trial_judge.py", "demo.py", "demo_online.py"}
"""Where versions are looked at and their bytes are not, and the demonstration, which has no keys."""


def test_whoever_fetches_or_publishes_artefacts_has_the_seal() -> None:
    for path in sorted((ROOT / "worker").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in SEALED:
                sealed = any(word.arg == "seal" for word in node.keywords)
                assert sealed or path.name in UNSEALED, f"{path}:{node.lineno}: pass seal=open_seal(settings)"


def test_the_files_are_made_from_the_table() -> None:
    folder = ROOT / "deploy" / "redis"
    assert (folder / "users-7.acl").read_text("utf-8") == acl_file(LINE), "run scripts/docs"
    assert (folder / "users-6.2.acl").read_text("utf-8") == acl_file(LINE, redis=6), "run scripts/docs"
    assert (folder / "users-6.2.txt").read_text("utf-8") == LIMITS_6_2 + "\n", "run scripts/docs"
