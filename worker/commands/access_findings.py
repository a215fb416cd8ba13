"""What `gaussline doctor` says of access: this user's rights, the server's users, certificates and files of secrets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from gaussline.worker.broker.certificates import certificates
from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.rights import check_rights, missing_users, role_of, whoami
from gaussline.worker.broker.seal import open_seal
from gaussline.worker.commands.finding import Finding, Level, judge
from gaussline.worker.errors import BrokerError, SettingsError
from gaussline.worker.settings import Settings

SOON_S = 21 * 86_400.0
"""Time before a certificate's end at which it is told; the alert has the same."""
SHOWN = 3


def access(client: Redis, settings: Settings) -> Iterator[Finding]:
    """Who we are to Redis, whether that is as much as the table says, and how long certificates last."""
    try:
        user = whoami(client)
    except BrokerError as error:
        yield Finding("access", Level.WARNING, str(error), "load the users of this version: gaussline acl")
        return
    place = urlsplit(settings.redis_url.get_secret_value())
    alone = place.scheme == "unix" or place.hostname in ("127.0.0.1", "::1", "localhost")
    yield judge(
        "access",
        user != "default" or alone,
        f"connected as {user}" + (", by this machine alone" if alone and user == "default" else ""),
        "whoever reaches Redis may do everything: give each process its user, docs/access.md takes ten minutes",
        Level.WARNING,
    )
    yield from _rights(client, settings, user)
    yield from _users(client, settings, user)
    yield from _certificates(settings)


def _rights(client: Redis, settings: Settings, user: str) -> Iterator[Finding]:
    role = role_of(user)
    if role is None:
        return
    advice = "load the users of this version: gaussline acl, then ACL LOAD; docs/access.md"
    try:
        rights = check_rights(client, settings.line, role[0], role[1] or "mes")
    except BrokerError as error:
        if "acl_check_cmd" in str(error):
            yield Finding("rights", Level.WARNING, "cannot be checked: this needs Redis 7", "run Redis 7 or later")
        else:
            yield Finding("rights", Level.FAULT, str(error), advice)
        return
    if rights.missing:
        said = f"{len(rights.missing)} rights that {role[0]} needs are missing: {_some(rights.missing)}"
        yield Finding("rights", Level.FAULT, said, advice)
    if rights.beyond:
        said = f"{len(rights.beyond)} rights that {role[0]} does not need: {_some(rights.beyond)}"
        yield Finding("rights", Level.WARNING, said, advice)
    if rights.exact:
        yield Finding("rights", Level.GOOD, f"exactly those that {role[0]} needs on line {settings.line}")


def _users(client: Redis, settings: Settings, user: str) -> Iterator[Finding]:
    """What only an administrator can see; nothing for everybody else."""
    try:
        missing, open_to_all = missing_users(client, settings.line)
    except BrokerError:
        return
    if user == "default" and "default" in open_to_all and len(missing) > SHOWN:
        return  # there are no users at all, which was told
    yield judge(
        "users",
        not missing,
        f"those of line {settings.line} are there" if not missing else f"missing: {', '.join(missing)}",
        "gaussline acl prints them; docs/access.md",
        Level.WARNING,
    )
    if open_to_all:
        said = f"without a password: {', '.join(open_to_all)}"
        yield Finding("passwords", Level.FAULT, said, "ACL SETUSER default off, and a password for everybody else")


def _certificates(settings: Settings) -> Iterator[Finding]:
    try:
        found = certificates(settings)
    except (SettingsError, BrokerError) as error:
        yield Finding("certificates", Level.WARNING, str(error), "see docs/access.md#certificates")
        return
    now_s = time.time()
    for certificate in found:
        left_s = certificate.not_after_s - now_s
        day = time.strftime("%Y-%m-%d", time.gmtime(certificate.not_after_s))
        said = f"{certificate.place} ends on {day}, in {left_s / 86_400:.0f} days"
        yield judge(
            f"certificate {certificate.what}",
            left_s > SOON_S,
            said,
            "make a new one: docs/access.md#certificates",
            Level.WARNING if left_s > 0 else Level.FAULT,
        )


def secret_files(settings: Settings) -> Iterator[Finding]:
    """Files of secrets that others may read, and keys that cannot be used."""
    redis = (settings.redis_password_file, settings.redis_tls_key, settings.signing_key)
    bridge = (settings.bridge_token_file, settings.bridge_sign_key_file, settings.bridge_password_file)
    secrets = (*redis, *bridge, settings.bridge_key_file)
    loose = [str(path) for path in secrets if path is not None and path.exists() and path.stat().st_mode & 0o077]
    if loose:
        yield Finding("secrets", Level.WARNING, f"others may read {', '.join(loose)}", "chmod 600 on each")
    try:
        seal = open_seal(settings)
    except SettingsError as error:
        yield Finding("signatures", Level.FAULT, str(error), "see docs/access.md#signed-artefacts")
        return
    if seal.strict:
        yield Finding("signatures", Level.GOOD, "only artefacts that a trusted key has signed are taken")


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
