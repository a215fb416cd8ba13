"""What the user of a connection may do, asked of Redis itself and compared with the table: no more, and no less.

Redis 7 answers, inside a script, whether its caller may run a command (`redis.acl_check_cmd`), without running it. So a
process can check its own rights on a line that works, and `gaussline doctor` does.
"""

from __future__ import annotations

import fnmatch
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gaussline.worker.broker.acl import OPERATOR, USERS, Rule, acl_users, rules_of
from gaussline.worker.broker.client import Redis, translated
from gaussline.worker.contract.keys import Keys
from gaussline.worker.errors import BrokerError

STRANGER: Final = "x"
"""What stands for the name of a camera, a model or another subscriber in the sample of keys."""
_ASK = """
local out = {}
for i, words in ipairs(cjson.decode(ARGV[1])) do out[i] = redis.acl_check_cmd(unpack(words)) and '1' or '0' end
return table.concat(out)
"""


@dataclass(frozen=True, slots=True)
class Rights:
    """Where a user's rights differ from the table's.

    Attributes:
        missing: commands, with their keys, that it needs and may not run.
        beyond: those that it may run and has no need of.
    """

    missing: tuple[str, ...]
    beyond: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """They are the table's."""
        return not self.missing and not self.beyond


def whoami(client: Redis) -> str:
    """Name of the connection's user. Raises BrokerError."""
    with translated("asking who we are"):
        name = client.execute_command("ACL WHOAMI")
    return name.decode() if isinstance(name, bytes) else str(name)


def role_of(user: str) -> tuple[str, str] | None:
    """(user of the table, subscriber) by a name that may have a prefix; None for somebody else."""
    for role in USERS:
        before, found, name = user.rpartition(role)
        if found and (not name or (role == "subscriber" and name.startswith("-"))) and before[-1:] in ("", "-"):
            return role, name[1:]
    return None


def check_rights(client: Redis, line: str, role: str, subscriber: str = "mes") -> Rights:
    """Compare the connection's rights on a line with those of a user of the table.

    Raises BrokerError where Redis cannot say (6.2), BrokerUnavailable, NotFound.
    """
    rules = rules_of(role, subscriber)
    prefix = Keys(line).prefix
    asked: list[tuple[str, str, list[str], bool]] = []
    for key in sample_keys(line, subscriber):
        rest = key.removeprefix(prefix)
        for command in all_commands():
            asked.append((command, key, sample_words(command, key), role == OPERATOR or _granted(rules, command, rest)))
    other = sample_keys(line + "x", subscriber)
    asked += [(command, key, sample_words(command, key), False) for key in other for command in ("get", "hset", "xadd")]
    with translated("checking this user's rights"):
        answers = client.eval(_ASK, 0, json.dumps([words for _, _, words, _ in asked])).decode()
    if len(answers) != len(asked):
        raise BrokerError("checking this user's rights: Redis left questions unanswered")
    missing: list[str] = []
    beyond: list[str] = []
    for (command, key, _, granted), answer in zip(asked, answers, strict=True):
        if granted != (answer == "1"):
            (missing if granted else beyond).append(f"{command} {key}")
    return Rights(tuple(missing), tuple(beyond))


def missing_users(client: Redis, line: str) -> tuple[list[str], list[str]]:
    """(users of the line that this server has not, users without a password). Needs `ACL LIST`; raises BrokerError."""
    with translated("listing Redis's users"):
        listed = [
            text.decode() if isinstance(text, bytes) else str(text) for text in client.execute_command("ACL LIST")
        ]
    prefix = Keys(line).prefix
    here = {words[1]: words for words in (text.split() for text in listed)}
    own = {role_of(name) for name, words in here.items() if any(prefix in word for word in words)}
    missing = [user for user in acl_users(line) if role_of(user) not in own]
    return missing, [name for name, words in here.items() if "nopass" in words and "on" in words]


def all_commands() -> list[str]:
    """Every command of the table on one key, once."""
    found = {command for user in USERS for rule in rules_of(user) for command in rule.commands.split()}
    return sorted(found - {"rename", "copy"})


def sample_keys(line: str, subscriber: str = "mes") -> list[str]:
    """One key of each kind that `Keys` knows; of a subscriber's, its own and a stranger's."""
    keys = Keys(line)
    found: list[str] = []
    for name, member in inspect.getmembers(Keys):
        if name.startswith("_") or name in ("line", "prefix"):
            continue
        if isinstance(member, property):
            found.append(getattr(keys, name))
        else:
            wanted = list(inspect.signature(member).parameters)[1:]
            names = [subscriber, STRANGER] if wanted == ["subscriber"] else [STRANGER]
            found += [member(keys, *([value] * len(wanted))) for value in names]
    return found


def sample_words(command: str, key: str) -> list[str]:
    """A call of the command on the key, complete enough for Redis to find the key in it."""
    special = {
        "xread": ["streams", key, "0"],
        "xreadgroup": ["group", "g", "c", "streams", key, ">"],
        "blpop": [key, "0"],
        "set": [key, "v"],
    }
    return [*command.split("|"), *special.get(command, [key])]


def _granted(rules: tuple[Rule, ...], command: str, rest: str) -> bool:
    return any(
        command in rule.commands.split() and any(_matches(rest, key) for key in _patterns(rule)) for rule in rules
    )


def _patterns(rule: Rule) -> Iterator[str]:
    for key in rule.keys.split():
        yield key.removeprefix("R:").removeprefix("W:")


def _matches(rest: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(rest, pattern)
