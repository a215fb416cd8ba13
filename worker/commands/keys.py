"""`gaussline keys`: pairs of keys that sign artefacts, and files that are signed with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from gaussline.worker.broker.seal import Seal, fingerprint, new_keys, open_seal, read_private_key, read_public_keys
from gaussline.worker.commands.console import out
from gaussline.worker.commands.options import Json, load_settings
from gaussline.worker.commands.signed_files import read_signatures, read_signed, write_signed
from gaussline.worker.errors import SettingsError

EPILOG = """\b
Examples:
  gaussline keys new quality
  GAUSSLINE_SIGNING_KEY=quality.key gaussline fit parts/
  GAUSSLINE_TRUSTED_KEYS=quality.pub gaussline worker
  GAUSSLINE_SIGNING_KEY=quality.key gaussline keys sign model.safetensors

Where a signing key or trusted keys are configured, an artefact that no trusted key has signed is refused."""
app = typer.Typer(
    help="Keys that sign artefacts: new, show, sign, check.", epilog=EPILOG, no_args_is_help=True, add_completion=False
)
File = Annotated[Path, typer.Argument(help="Artefact; its signatures lie beside it, in FILE.sig.")]


@app.command()
def new(
    name: Annotated[Path, typer.Argument(help="NAME.key and NAME.pub are written; no file is overwritten.")],
    as_json: Json = False,
) -> None:
    """Make a pair of keys: NAME.key signs and stays where models are made, NAME.pub goes to everybody else."""
    private, public = name.with_name(name.name + ".key"), name.with_name(name.name + ".pub")
    made = new_keys(private, public)
    if as_json:
        out().print_json(json.dumps({"fingerprint": made, "private": str(private), "public": str(public)}))
        return
    out().print(f"key {made}: {private} (keep it secret) and {public}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def show(
    files: Annotated[list[Path] | None, typer.Argument(help="Public keys; none shows what is configured.")] = None,
    as_json: Json = False,
) -> None:
    """Fingerprints of keys: what this process signs with, and whom it trusts."""
    settings = load_settings()
    rows: list[dict[str, str]] = []
    if not files and settings.signing_key is not None:
        name = fingerprint(read_private_key(settings.signing_key).public_key())
        rows.append({"fingerprint": name, "role": "signs", "file": str(settings.signing_key)})
    trusted = files or ([settings.trusted_keys] if settings.trusted_keys is not None else [])
    for path in trusted:
        rows += [{"fingerprint": name, "role": "trusted", "file": str(path)} for name in read_public_keys(path)]
    if as_json:
        out().print_json(json.dumps(rows))
        return
    for row in rows:
        out().print(
            f"{row['fingerprint']}  {row['role']:8} {row['file']}", highlight=False, markup=False, soft_wrap=True
        )
    if not rows:
        out().print("no keys are configured: nothing is signed, and everything is taken", highlight=False)


@app.command()
def sign(file: File, as_json: Json = False) -> None:
    """Sign an artefact in a file with the configured signing key. What others have signed stays signed."""
    settings = load_settings()
    if settings.signing_key is None:
        raise SettingsError("no signing key is configured: set GAUSSLINE_SIGNING_KEY; 'gaussline keys new' makes one")
    data, _ = read_signed(file, Seal())
    signatures = write_signed(file, data, open_seal(settings), read_signatures(file))
    _say(file, signatures, as_json)


@app.command()
def check(file: File, as_json: Json = False) -> None:
    """Check an artefact in a file against the trusted keys. Exits with 4 where it would be refused."""
    seal = open_seal(load_settings())
    if not seal.strict:
        raise SettingsError("no keys are configured to check it against: set GAUSSLINE_TRUSTED_KEYS")
    _, signatures = read_signed(file, seal)
    _say(file, signatures, as_json)


def _say(file: Path, signatures: dict[str, str], as_json: bool) -> None:
    if as_json:
        out().print_json(json.dumps({"file": str(file), "signed_by": sorted(signatures)}))
        return
    said = f"{file} is signed by {', '.join(sorted(signatures))}"
    out().print(said, highlight=False, markup=False, soft_wrap=True)
