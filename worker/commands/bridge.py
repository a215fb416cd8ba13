"""`gaussline bridge`: verdicts to an MES that speaks no Redis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from gaussline.worker.bridge.secrets import TlsFiles, read_secret
from gaussline.worker.broker.bridge_store import BridgeStore
from gaussline.worker.commands.console import out
from gaussline.worker.commands.options import Json, Line, RedisUrl, load_settings, open_line
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.errors import SettingsError
from gaussline.worker.settings import Settings

EPILOG = """\b
Examples:
  gaussline bridge webhook https://mes.example/verdicts --token-file /etc/gaussline/mes.token
  gaussline bridge mqtt mqtts://broker.example --topic 'plant/{line}/{camera}' --ca-file ca.pem
  gaussline bridge opcua opc.tcp://mes.example:4840 --node 'ns=2;s=Verdict' --only fail
  gaussline bridge webhook https://mes.example/verdicts --check
  gaussline bridge dead webhook

Every verdict is delivered at least once and in order for each part (else camera); its id recognises a repeat. Secrets
are read from files. Receiver and files are settings too (GAUSSLINE_BRIDGE_URL, …): docs/bridges.md."""
PORT = 9112
app = typer.Typer(
    help="Deliver verdicts to an MES that speaks no Redis: webhook, mqtt, opcua; dead.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
)

Url = Annotated[str | None, typer.Argument(help="Receiver; default GAUSSLINE_BRIDGE_URL.", show_default=False)]
Name = Annotated[str | None, typer.Option("--name", help="Name of the bridge and of its durable cursor.")]
Only = Annotated[Decision | None, typer.Option("--only", help="pass, fail or not_judged; the rest counts as read.")]
Parts = Annotated[bool, typer.Option("--parts", help="Part verdicts, of 'gaussline parts', instead of frames'.")]
FromNow = Annotated[
    bool, typer.Option("--from-now", help="A bridge that is new begins with what comes next, not with the oldest.")
]
CaFile = Annotated[Path | None, typer.Option("--ca-file", help="Authorities to trust instead of the system's.")]
CertFile = Annotated[Path | None, typer.Option("--cert-file", help="Certificate to show.")]
KeyFile = Annotated[Path | None, typer.Option("--key-file", help="Private key of the certificate.")]
User = Annotated[str | None, typer.Option("--user", help="User at the receiver.")]
PasswordFile = Annotated[Path | None, typer.Option("--password-file", help="File of that user's password.")]
HttpPort = Annotated[int, typer.Option("--http-port", help="Port of the same; 0 takes a free one and logs it.")]
Check = Annotated[bool, typer.Option("--check", help="Check settings, port, Redis and receiver, and exit.")]
RetryDead = Annotated[
    bool, typer.Option("--retry-dead", help="Deliver this bridge's dead letters once more, then exit.")
]


@app.command(epilog=EPILOG)
def webhook(
    url: Url = None,
    name: Name = None,
    only: Only = None,
    parts: Parts = False,
    from_now: FromNow = False,
    token_file: Annotated[Path | None, typer.Option(help="File of a token for 'Authorization: Bearer'.")] = None,
    sign_key_file: Annotated[Path | None, typer.Option(help="File of a key: requests are signed with it.")] = None,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    http_port: HttpPort = PORT,
    redis_url: RedisUrl = None,
    line: Line = None,
    check: Check = False,
    retry_dead: RetryDead = False,
) -> None:
    """POST each verdict's JSON to a URL until Ctrl-C; a status of 200 to 299 says that the receiver has it."""
    from gaussline.worker.bridge.webhook import Webhook, WebhookPlace
    from gaussline.worker.commands.bridge_run import Errand

    own = {"bridge_token_file": token_file, "bridge_sign_key_file": sign_key_file}
    settings = _settings(url, name, (ca_file, cert_file, key_file), redis_url, line, **own)
    token = read_secret("bridge_token_file", settings.bridge_token_file)
    sign_key = read_secret("bridge_sign_key_file", settings.bridge_sign_key_file)
    place = WebhookPlace(_url(settings), _tls(settings), token, sign_key, settings.bridge_timeout_s)
    errand = Errand("webhook", settings, http_port, only, parts, from_now, (token, sign_key))
    errand.run(Webhook(place), check=check, retry_dead=retry_dead)


@app.command(epilog=EPILOG)
def mqtt(
    url: Url = None,
    name: Name = None,
    only: Only = None,
    parts: Parts = False,
    from_now: FromNow = False,
    topic: Annotated[str | None, typer.Option(help="Topic; may hold {line}, {camera}, {decision}.")] = None,
    need_subscriber: Annotated[
        bool, typer.Option("--need-subscriber", help="What the broker had nobody for is not delivered: wait.")
    ] = False,
    user: User = None,
    password_file: PasswordFile = None,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    http_port: HttpPort = PORT,
    redis_url: RedisUrl = None,
    line: Line = None,
    check: Check = False,
    retry_dead: RetryDead = False,
) -> None:
    """Publish each verdict's JSON to an MQTT 5 broker with QoS 1 until Ctrl-C; its id is a user property besides."""
    from gaussline.worker.bridge.mqtt import Mqtt, MqttPlace
    from gaussline.worker.commands.bridge_run import Errand

    own = {"bridge_topic": topic, "bridge_user": user, "bridge_password_file": password_file}
    settings = _settings(url, name, (ca_file, cert_file, key_file), redis_url, line, **own)
    password = read_secret("bridge_password_file", settings.bridge_password_file)
    place = MqttPlace(
        _url(settings),
        _tls(settings),
        settings.bridge_topic,
        f"gaussline-{settings.line}-{settings.bridge_name or 'mqtt'}",
        settings.bridge_user,
        password,
        need_subscriber,
        settings.bridge_timeout_s,
    )
    errand = Errand("mqtt", settings, http_port, only, parts, from_now, (password,))
    errand.run(Mqtt(place), check=check, retry_dead=retry_dead)


@app.command(epilog=EPILOG)
def opcua(
    url: Url = None,
    name: Name = None,
    only: Only = None,
    parts: Parts = False,
    from_now: FromNow = False,
    node: Annotated[
        str | None,
        typer.Option(help="A variable (takes the JSON), an object (its variables named as fields), or a method."),
    ] = None,
    ack_node: Annotated[
        str | None,
        typer.Option(help="Variable in which the MES writes the id it has taken, before the next one."),
    ] = None,
    user: User = None,
    password_file: PasswordFile = None,
    ca_file: Annotated[Path | None, typer.Option(help="The server's own certificate, the only one trusted.")] = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    http_port: HttpPort = PORT,
    redis_url: RedisUrl = None,
    line: Line = None,
    check: Check = False,
    retry_dead: RetryDead = False,
) -> None:
    """Write each verdict into an OPC UA server until Ctrl-C, one after the other. With certificates: Basic256Sha256."""
    from gaussline.worker.bridge.opcua import OpcUa, OpcUaPlace
    from gaussline.worker.commands.bridge_run import Errand

    own = {"bridge_node": node, "bridge_ack_node": ack_node}
    login = {"bridge_user": user, "bridge_password_file": password_file}
    settings = _settings(url, name, (ca_file, cert_file, key_file), redis_url, line, **own, **login)
    if settings.bridge_node is None:
        raise SettingsError("bridge_node is not set: name the node to write to, such as --node 'ns=2;s=Verdict'")
    password = read_secret("bridge_password_file", settings.bridge_password_file)
    place = OpcUaPlace(
        _url(settings),
        settings.bridge_node,
        settings.bridge_ack_node,
        settings.bridge_user,
        password,
        settings.bridge_cert_file,
        settings.bridge_key_file,
        settings.bridge_ca_file,
        settings.bridge_timeout_s,
    )
    errand = Errand("opcua", settings, http_port, only, parts, from_now, (password,))
    errand.run(OpcUa(place), check=check, retry_dead=retry_dead)


@app.command(epilog=EPILOG)
def dead(
    name: Annotated[str, typer.Argument(help="Name of the bridge.")],
    drop: Annotated[bool, typer.Option("--drop", help="Let all of them go.")] = False,
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Verdicts that a bridge's receiver refused, oldest first; they are delivered again with --retry-dead."""
    opened = open_line(redis_url, line)
    store = BridgeStore(opened.client, opened.line, name)
    if drop:
        removed = store.remove([letter.letter_id for letter in store.letters()])
        out().print(json.dumps({"dropped": removed}) if as_json else f"dropped {removed}", highlight=False)
        return
    letter = None
    for letter in store.letters():
        said = {"id": letter.id, "why": letter.why, "entry": letter.entry_id}
        verdict = letter.body.decode("utf-8", "replace")
        text = json.dumps({**said, "verdict": verdict}) if as_json else f"{letter.id}  {letter.why}"
        out().print(text, highlight=False, markup=False, soft_wrap=True)
    if letter is None and not as_json:
        out().print(f"no dead letter of bridge {name} on line {opened.line}", highlight=False, markup=False)


def _settings(
    url: str | None,
    name: str | None,
    tls: tuple[Path | None, Path | None, Path | None],
    redis_url: str | None,
    line: str | None,
    **own: Path | str | None,
) -> Settings:
    """The settings of a bridge: what all kinds take, and what this one has besides. Raises SettingsError."""
    files = dict(zip(("bridge_ca_file", "bridge_cert_file", "bridge_key_file"), tls, strict=True))
    return load_settings(bridge_url=url, bridge_name=name, redis_url=redis_url, line=line, **files, **own)


def _url(settings: Settings) -> str:
    if settings.bridge_url is None:
        raise SettingsError("bridge_url is not set: name the receiver, as an argument or in GAUSSLINE_BRIDGE_URL")
    return settings.bridge_url


def _tls(settings: Settings) -> TlsFiles:
    return TlsFiles(settings.bridge_ca_file, settings.bridge_cert_file, settings.bridge_key_file)
