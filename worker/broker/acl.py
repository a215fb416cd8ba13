"""Access control: the users of a line and the least that each of them needs, as Redis ACL rules.

A rule is a selector: commands, and the keys that they may be used on. Redis checks every command that a script calls
with the rights of its caller; `evalsha` itself is checked against the keys that are declared, and gives nothing. So a
user may run any script, and each script can do with each key what the user could do without it.

Selectors, and keys that are only read (%R) or only written (%W), need Redis 7. For 6.2 the selectors of a user are
melted into one list of commands and one of keys; `LIMITS_6_2` says what that cannot keep apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gaussline.worker.contract.keys import Keys, check_name
from gaussline.worker.errors import NotFound

USERS: Final = (
    "producer",
    "worker",
    "learner",
    "subscriber",
    "feedback",
    "parts",
    "bridge",
    "judge",
    "exporter",
    "operator",
)
BRIDGES: Final = ("webhook", "mqtt", "opcua")
"""Names of bridges, unless they are given others; an operator registers them: `gaussline subscribers register mqtt`."""
OPERATOR: Final = "operator"
LIMITS_6_2: Final = """\
Redis 6.2 knows one list of commands and one of keys for each user, and cannot tell reading from writing. There:
producer, worker, learner: may use each of their commands on each of their keys. A worker could overwrite a pointer or a
version that it should only read, a learner too, and a producer could delete frames.
judge, parts, bridge: may write what they should only read.
subscriber: has no command that changes a stream or a hash, and GETSET refuses keys of another type: its own cursor is
still all that it can write.
Run Redis 7 where users must not trust each other."""

# What every client needs to connect, to find its server, and to run scripts. None of it reads or writes a key.
CONNECT: Final = (
    "ping hello auth reset select echo time info wait role readonly command acl|whoami client|setname client|id "
    "cluster|slots cluster|nodes cluster|info asking script|load multi exec discard"
)
EVAL: Final = "evalsha eval"
_HASH = "hget hmget hgetall hkeys hvals hlen hexists hscan"
_STREAM = "xread xrange xrevrange xlen xinfo|stream"
_LOOK = "type exists"
_MODELS = "R:pointers R:pins R:trials:* R:versions:* R:models"


@dataclass(frozen=True, slots=True)
class Rule:
    """Commands and the keys they may be used on. A key is given behind the line's prefix, with `R` or `W` before it
    where it is only read, or only written; a blank stands between."""

    commands: str
    keys: str


_RULES: Final[Mapping[str, tuple[Rule, ...]]] = {
    "producer": (
        Rule(_LOOK, "R:camera:* R:frames:* R:index:* R:recent:* R:line R:ready R:due R:bell R:cameras R:events"),
        Rule("hget hmget hexists hset hincrby hdel", "camera:*"),
        Rule("xadd xgroup|create", "W:frames:*"),
        Rule("hset", "W:index:*"),
        Rule("zadd zcard zrangebyscore zremrangebyrank del", "recent:*"),
        Rule("hmget hset hincrby", "line"),
        Rule("zscore zadd", "ready due ready:* due:*"),
        Rule("llen lpush", "bell bell:*"),
        Rule("hmget hincrby", "set:*"),
        Rule("xadd xdel", "W:copies:*"),
        Rule("copy", "R:payload:* W:copy:*"),
        Rule("hsetnx", "W:cameras"),
        Rule("xadd", "W:events"),
        Rule("type set strlen unlink", "incoming:*"),
        # A command is granted by one selector as a whole, so both keys of a renaming stand in one.
        Rule("rename persist", "incoming:* W:payload:*"),
    ),
    "worker": (
        Rule(_LOOK, "R:*"),
        Rule(
            "xreadgroup xack xdel xclaim xpending xrange xlen xgroup|create xgroup|delconsumer xinfo|groups "
            "xinfo|consumers xinfo|stream",
            "frames:*",
        ),
        Rule(f"{_HASH} hset hincrby hdel", "camera:* index:* crashes:* line dead-stats workers"),
        Rule(_HASH, f"R:cameras R:subscribers {_MODELS}"),
        Rule("zadd zrange zrangebyscore zrem zscore zcard", "ready due ready:* due:* kept heats"),
        Rule("blpop lpush llen", "bell bell:*"),
        Rule(_HASH, "R:sets"),
        Rule("hget hincrby", "set:*"),
        Rule("xrange xdel", "copies:*"),
        Rule("expire getdel", "copy:*"),
        Rule("xadd xrange xdel", "set-results:*"),
        Rule("xadd xrange xdel xlen", "verdicts dead:* features:*"),
        Rule("xread", "R:events"),
        Rule("get set strlen unlink", "kept:* kept-verdict:*"),
        Rule("hget hset del expire persist rename unlink", "heat:* heat-part:*"),
        Rule("set del pexpire", "worker:*"),
        Rule("get", "R:artefact:* R:blob:* R:cursor:*"),
        Rule("mget unlink", "payload:*"),
    ),
    "learner": (
        Rule(_LOOK, "R:*"),
        Rule(
            f"{_STREAM} {_HASH} get strlen zrange zrevrange zscore",
            "R:features:* R:feedback R:verdicts R:kept R:kept:* R:kept-verdict:* R:cameras R:camera:* R:line R:events "
            f"{_MODELS} R:artefact:* R:blob:* R:history:*",
        ),
        Rule("hget hmget hgetall hkeys hexists hset hdel", "learner:* learned:*"),
        Rule("xadd xdel", "features:*"),
        Rule("xadd xrevrange", "drift:*"),
        Rule("hget hmget hincrby", "line"),
        Rule("hincrby", "models"),
        Rule("hsetnx", "W:versions:*"),  # a version never changes
        Rule("set", "artefact:* blob:*"),
        Rule("zadd zscore", "stored"),
        Rule("xadd", "W:events"),
    ),
    # `<subscriber>` is its name.
    "subscriber": (
        Rule(f"{_STREAM} {_LOOK}", "R:verdicts R:parts"),
        Rule("hget hexists", "R:subscribers R:part-subscribers"),
        Rule("get getset persist", "cursor:<subscriber> part-cursor:<subscriber>"),
    ),
    "feedback": (
        Rule(_LOOK, "R:feedback R:camera:* R:kept"),
        Rule(f"{_STREAM} hmget zscore", "R:camera:* R:kept R:verdicts"),
        Rule("xadd", "W:feedback"),
    ),
    "parts": (
        Rule(_LOOK, "R:*"),
        Rule(_STREAM, "R:verdicts"),
        Rule("hget hexists hgetall", "R:subscribers R:part-subscribers"),
        Rule("hsetnx", "W:subscribers"),
        Rule("get getset persist", "cursor:parts"),
        Rule("get", "R:part-cursor:*"),
        Rule("hget hmget hgetall hset hdel hincrby", "part-state parts-open"),
        Rule("xadd xdel xrange", "parts"),
        Rule("zadd zscore zcard zremrangebyscore zremrangebyrank", "parts-done"),
        Rule("xadd", "W:parts-late"),
    ),
    "bridge": (
        Rule(f"{_STREAM} {_LOOK}", "R:verdicts R:parts R:bridge-dead:*"),
        Rule("hget hexists", "R:subscribers R:part-subscribers"),
        Rule("get getset persist", " ".join(f"cursor:{name} part-cursor:{name}" for name in BRIDGES)),
        Rule("type exists hget hmget hset hdel hincrby", "bridge:*"),
        Rule("xadd xdel xrange", "bridge-dead:*"),
    ),
    "judge": (
        Rule(_LOOK, "R:*"),
        Rule(_STREAM, "R:verdicts R:history:* R:events"),
        Rule(_HASH, f"{_MODELS} R:workers"),
        Rule("hset hdel hincrby", "pointers trials:*"),
        Rule("hincrby", "versions:*"),
        Rule("xadd", "history:* events"),
        Rule("get strlen del unlink", "artefact:* blob:*"),
        Rule("zrange zscore zrem", "stored"),
        Rule("zrange", "R:kept"),
        Rule("mget", "R:kept-verdict:*"),
    ),
    "exporter": (
        Rule(_LOOK, "R:*"),
        Rule(
            f"{_STREAM} {_HASH} xpending get zcard",
            "R:frames:* R:index:* R:camera:* R:cameras R:line R:workers R:dead:* R:dead-stats R:verdicts R:subscribers "
            "R:cursor:* R:parts R:part-state R:part-subscribers R:part-cursor:* R:heats R:kept "
            f"R:learner:* R:features:* R:drift:* R:sets R:set:* {_MODELS}",
        ),
    ),
}


def acl_users(line: str, subscribers: Sequence[str] = ("mes",), *, redis: int = 7, prefix: str = "") -> dict[str, str]:
    """Rules by user name, as `ACL SETUSER` takes them, without passwords: until it has one, nobody can be that user.

    The first subscriber's user is `subscriber`; a further one's is `subscriber-NAME`. `prefix` stands before all names,
    where several lines share a server.
    """
    keys = Keys(line).prefix
    users: dict[str, str] = {}
    for name in USERS:
        if name == OPERATOR:
            users[prefix + name] = _operator(keys)
        elif name == "subscriber":
            for place, subscriber in enumerate(subscribers):
                user = name if place == 0 else f"{name}-{subscriber}"
                users[prefix + user] = _text(rules_of(name, subscriber), keys, redis)
        else:
            users[prefix + name] = _text(rules_of(name), keys, redis)
    return users


def acl_file(
    line: str,
    subscribers: Sequence[str] = ("mes",),
    *,
    redis: int = 7,
    prefix: str = "",
    digests: Mapping[str, str] | None = None,
) -> str:
    """The same as the lines of an `aclfile`, each user with the SHA-256 of its password where `digests` has one."""
    users = acl_users(line, subscribers, redis=redis, prefix=prefix)
    known = digests or {}
    return "".join(
        f"user {name} on {f'#{known[name]} ' if name in known else ''}{rules}\n" for name, rules in users.items()
    )


def rules_of(user: str, subscriber: str = "mes") -> tuple[Rule, ...]:
    """The table of one user; none for the operator, who may do everything on the line. Raises NotFound."""
    if user not in USERS:
        raise NotFound(f"no user {user!r}: there are {', '.join(USERS)}")
    check_name("subscriber", subscriber)
    return tuple(Rule(rule.commands, rule.keys.replace("<subscriber>", subscriber)) for rule in _RULES.get(user, ()))


def _operator(prefix: str) -> str:
    # Everything of this line, nothing of another one, and no command that can stop a server.
    kinds = _commands("@read @write @scripting @transaction @connection")
    return f"resetkeys resetchannels -@all {kinds} -@dangerous {_commands(CONNECT)} ~{prefix}*"


def _text(rules: Sequence[Rule], prefix: str, redis: int) -> str:
    head = "resetkeys resetchannels -@all " + _commands(CONNECT)
    if redis >= 7:
        selectors = [f"({_commands(EVAL)} ~{prefix}*)"]
        selectors += [f"({_commands(rule.commands)} {_keys(rule.keys, prefix)})" for rule in rules]
        return " ".join([head, *selectors])
    commands = sorted({command for rule in rules for command in rule.commands.split()} | set(EVAL.split()))
    # Everything of a line may be looked at with `type`; that alone must not open its keys to the other commands.
    keys = sorted({key.removeprefix("R:").removeprefix("W:") for rule in rules for key in rule.keys.split()} - {"*"})
    return " ".join([head, _commands(" ".join(commands)), *(f"~{prefix}{key}" for key in keys)])


def _commands(text: str) -> str:
    return " ".join(f"+{command}" for command in text.split())


def _keys(text: str, prefix: str) -> str:
    return " ".join(
        f"%{key[0]}~{prefix}{key[2:]}" if key[:2] in ("R:", "W:") else f"~{prefix}{key}" for key in text.split()
    )
