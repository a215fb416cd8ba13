"""Artefacts are signed where a key is configured, and an unsigned or tampered one is refused there."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from gaussline.worker.broker.checkpoints import CheckpointStore
from gaussline.worker.broker.lease import Lease
from gaussline.worker.broker.registry import Registry
from gaussline.worker.broker.seal import Seal, new_keys, open_seal, read_private_key, read_public_keys
from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.errors import ArtefactError, SettingsError
from gaussline.worker.settings import Settings
from tests.access.conftest import LINE
from tests.broker.way import Way
from tests.commands.workers import start_worker
from tests.support.cli import Cli
from tests.support.waiting import eventually

DIGEST = "ab" * 32


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Two pairs: ours, and a stranger's."""
    for name in ("ours", "strange"):
        new_keys(tmp_path / f"{name}.key", tmp_path / f"{name}.pub")
    return tmp_path


def seal(keys: Path, name: str = "ours") -> Seal:
    return Seal(read_private_key(keys / f"{name}.key"))


def trusting(keys: Path, name: str = "ours") -> Seal:
    return Seal(None, read_public_keys(keys / f"{name}.pub"))


# --- the seal --------------------------------------------------------------------------------------------------------
def test_what_was_signed_is_taken_and_nothing_else(keys: Path) -> None:
    signatures = seal(keys).sign(DIGEST)
    trusting(keys).check(DIGEST, signatures)
    with pytest.raises(ArtefactError, match="not signed"):
        trusting(keys).check(DIGEST, {})
    with pytest.raises(ArtefactError, match="not signed"):
        trusting(keys).check(DIGEST, ["of", "another", "kind"])
    with pytest.raises(ArtefactError, match="tampered"):
        trusting(keys).check("cd" * 32, signatures)
    with pytest.raises(ArtefactError, match="no trusted key"):
        trusting(keys, "strange").check(DIGEST, signatures)
    (name,) = signatures
    for broken in ("", "no base64 !", signatures[name][:-8], None):
        with pytest.raises(ArtefactError, match="tampered"):
            trusting(keys).check(DIGEST, {name: broken})


def test_without_keys_nothing_is_signed_and_everything_is_taken() -> None:
    assert Seal().sign(DIGEST) == {}
    Seal().check(DIGEST, None)
    assert not open_seal(Settings.load({})).strict


def test_a_signing_key_trusts_itself_and_others_signatures_stay(keys: Path) -> None:
    both = seal(keys, "strange").sign(DIGEST, seal(keys).sign(DIGEST))
    assert len(both) == 2
    seal(keys).check(DIGEST, both)
    trusting(keys, "strange").check(DIGEST, both)


def test_keys_in_files(keys: Path, tmp_path: Path) -> None:
    assert stat.S_IMODE((keys / "ours.key").stat().st_mode) == 0o600
    with pytest.raises(SettingsError, match="never overwritten"):
        new_keys(keys / "ours.key", keys / "new.pub")
    assert len(read_public_keys(keys)) == 2, "a folder of *.pub"
    together = tmp_path / "together.pem"
    together.write_bytes((keys / "ours.pub").read_bytes() + (keys / "strange.pub").read_bytes())
    assert set(read_public_keys(together)) == set(read_public_keys(keys))


@pytest.mark.parametrize("text", ["", "no key", "-----BEGIN PUBLIC KEY-----\nSECRETTEXT\n-----END PUBLIC KEY-----\n"])
def test_files_that_hold_no_key_are_told_without_their_text(tmp_path: Path, text: str) -> None:
    file = tmp_path / "file"
    file.write_text(text, "utf-8")
    for read in (read_private_key, read_public_keys):
        with pytest.raises(SettingsError, match="key") as caught:
            read(file)
        assert "SECRETTEXT" not in str(caught.value)
    for name in ("signing_key", "trusted_keys"):
        with pytest.raises(SettingsError, match=f"{name} /no/such cannot be read"):
            open_seal(Settings.load({}, **{name: "/no/such"}))


def test_a_private_key_is_never_shown(keys: Path) -> None:
    secret = "".join((keys / "ours.key").read_text("utf-8").splitlines()[1:-1])
    shown = repr(seal(keys)) + repr(open_seal(Settings.load({}, signing_key=str(keys / "ours.key"))))
    assert secret not in shown


# --- in the registry and in checkpoints ------------------------------------------------------------------------------
def test_the_registry_signs_and_refuses(way: Way, keys: Path) -> None:
    signed = Registry(way.client, LINE, seal=seal(keys))
    plain = Registry(way.client, LINE)
    data = Artefact.pack({"kind": "example"}, {}).data
    version = plain.publish("default", data, by="ada")
    with pytest.raises(ArtefactError, match="not signed"):
        signed.fetch(version.digest)
    with pytest.raises(ArtefactError, match="not signed"):
        signed.promote("default", 1, by="ada")
    signed.publish("default", data, by="ada")
    assert signed.fetch(version.digest) == data
    plain.store(data)
    assert signed.fetch(version.digest) == data, "storing the same again takes no signature away"
    with pytest.raises(ArtefactError, match="no trusted key"):
        Registry(way.client, LINE, seal=trusting(keys, "strange")).fetch(version.digest)
    # Other bytes under the same name, with the signature of the right ones.
    manifest = json.loads(way.client.get(way.keys.artefact(version.digest)))
    other = plain.store(Artefact.pack({"kind": "other"}, {}).data)
    stolen = json.loads(way.client.get(way.keys.artefact(other))) | {"signatures": manifest["signatures"]}
    way.client.set(way.keys.artefact(other), json.dumps(stolen))
    with pytest.raises(ArtefactError, match="tampered"):
        signed.fetch(other)


def test_a_checkpoint_is_signed_and_a_changed_one_refused(way: Way, keys: Path) -> None:
    lease = Lease(way.client, LINE, "default", "one", 60.0)
    lease.take()
    store = CheckpointStore(way.client, LINE, "default", seal=seal(keys))
    store.save(lease, {"position": 5}, {"moments": b"m" * 1000})
    latest = store.latest()
    assert latest is not None
    assert store.load(latest, "moments") == b"m" * 1000
    key = way.keys.learner("default")
    said = json.loads(way.client.hget(key, "checkpoint"))
    way.client.hset(key, "checkpoint", json.dumps(said | {"about": {"position": 6}}))
    with pytest.raises(ArtefactError, match="tampered"):
        store.latest()
    del said["signatures"]
    way.client.hset(key, "checkpoint", json.dumps(said))
    with pytest.raises(ArtefactError, match="not signed"):
        store.latest()
    assert CheckpointStore(way.client, LINE, "default").latest() is not None


# --- on the command line ---------------------------------------------------------------------------------------------
def test_a_model_goes_from_line_to_line_with_its_signature(cli: Cli, way: Way, keys: Path, model_file: Path) -> None:
    ours = {"GAUSSLINE_SIGNING_KEY": str(keys / "ours.key")}
    trusts = {"GAUSSLINE_TRUSTED_KEYS": str(keys / "ours.pub")}
    refused = cli("models", "import", str(model_file), code=4, env=ours)
    assert "not signed" in refused.stderr
    cli("keys", "sign", str(model_file), env=ours)
    cli("keys", "check", str(model_file), env=trusts)
    cli("models", "import", str(model_file), env=ours)
    taken = model_file.with_name("taken.safetensors")
    cli("models", "export", "default", "1", "-o", str(taken), env=trusts)
    assert json.loads(cli("keys", "check", "--json", str(taken), env=trusts).stdout)["signed_by"]
    cli("keys", "check", str(taken), code=4, env={"GAUSSLINE_TRUSTED_KEYS": str(keys / "strange.pub")})
    taken.write_bytes(taken.read_bytes()[:-1] + b"x")
    assert "tampered" in cli("models", "import", str(taken), code=4, env=trusts).stderr
    shown = cli("keys", "show", env=ours | trusts).stdout
    assert "signs" in shown
    assert "trusted" in shown


def test_a_worker_refuses_an_unsigned_version_and_goes_on(cli: Cli, way: Way, keys: Path, model_file: Path) -> None:
    ours = {"GAUSSLINE_SIGNING_KEY": str(keys / "ours.key")}
    trusts = {"GAUSSLINE_TRUSTED_KEYS": str(keys / "ours.pub")}
    cli("keys", "sign", str(model_file), env=ours)
    cli("models", "import", str(model_file), env=ours)
    cli("models", "promote", "default", "1", env=trusts)
    worker = start_worker(cli, env=trusts)
    model_file.with_name(model_file.name + ".sig").unlink()
    model = Artefact.unpack(model_file.read_bytes())
    changed = Artefact.pack({**model.manifest, "info": {"who": "a stranger"}}, model.arrays)
    model_file.write_bytes(changed.data)
    cli("models", "import", str(model_file))
    assert "not signed" in cli("models", "promote", "default", "2", code=4, env=trusts).stderr
    cli("models", "promote", "default", "2")  # by somebody who has no keys
    assert "not signed" in worker.says("model refused")["said"]
    eventually(lambda: b"not signed" in way.client.hvals(way.keys.workers)[0], what="the worker's word of it")
    assert worker.end(15) == 0
