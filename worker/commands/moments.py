"""`gaussline moments`: what a learner has learnt, as files: shards and sites are merged, a bad batch is subtracted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gaussline.worker.broker.seal import open_seal
from gaussline.worker.commands.console import out
from gaussline.worker.commands.options import By, Json, Line, RedisUrl, load_settings, open_line, who
from gaussline.worker.commands.signed_files import read_signed, write_signed
from gaussline.worker.errors import ArtefactError, NotFound

if TYPE_CHECKING:
    from gaussline.worker.contract.artefact import Artefact
    from gaussline.worker.gaussian.moments import Moments

EPILOG = """\b
Examples:
  gaussline moments show default
  gaussline moments export default -o hall1.moments
  gaussline moments merge hall1.moments hall2.moments -o both.moments
  gaussline moments subtract both.moments bad-batch.moments -o clean.moments
  gaussline moments import default clean.moments --by ada          (while no learner of the model runs)

A file holds the moments of one backbone; those of another are refused."""
app = typer.Typer(
    help="Moments: show, export, import, merge, subtract.", epilog=EPILOG, no_args_is_help=True, add_completion=False
)
Name = Annotated[str, typer.Argument(help="Name of the model.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]
Loaded = "tuple[BackboneSpec, list[Moments], list[dict[str, Any]]]"


def _load(path: Path) -> Any:
    from gaussline.worker.contract.artefact import Artefact
    from gaussline.worker.learning.learner_state import read_moments

    try:
        return read_moments(Artefact.unpack(read_signed(path, open_seal(load_settings()))[0]))
    except ArtefactError as error:
        raise ArtefactError(f"{path}: {error}") from None


def _write(path: Path, artefact: Artefact, moments: list[Moments], as_json: bool) -> None:
    write_signed(path, artefact.data, open_seal(load_settings()))
    facts = {"file": str(path), "frames": moments[0].count, "effective_size": moments[0].effective_size}
    if as_json:
        out().print_json(json.dumps(facts | {"digest": artefact.digest}))
    else:
        out().print(f"{path}: {moments[0].count} frames, digest {artefact.digest[:12]}…", highlight=False)


def _stored(redis_url: str | None, line: str | None, model: str) -> tuple[Any, Any, bytes]:
    from gaussline.worker.broker.checkpoints import CheckpointStore

    opened = open_line(redis_url, line)
    store = CheckpointStore(opened.client, opened.line, model, seal=opened.seal())
    checkpoint = store.latest()
    if checkpoint is None:
        raise NotFound(f"model {model!r} on line {opened.line} has no checkpoint; 'gaussline learn {model}' makes one")
    return opened, checkpoint, store.load(checkpoint, "moments")


@app.command()
def show(model: Name = "default", redis_url: RedisUrl = None, line: Line = None, as_json: Json = False) -> None:
    """The newest checkpoint: frames, effective size, place in the log, lineage."""
    from gaussline.worker.contract.artefact import Artefact
    from gaussline.worker.learning.learner_state import read_moments

    _, checkpoint, data = _stored(redis_url, line, model)
    _, _, lineage = read_moments(Artefact.unpack(data))
    facts = {**checkpoint.about, "size_bytes": checkpoint.size_bytes, "lineage": lineage}
    if as_json:
        out().print_json(json.dumps(facts))
        return
    for key, value in facts.items():
        shown = f"{value:.6g}" if isinstance(value, float) else json.dumps(value) if key == "lineage" else str(value)
        out().print(f"{key.replace('_', ' '):16} {shown}", highlight=False, markup=False, soft_wrap=True)


@app.command("export")
def export_moments(
    model: Name, output: Output, redis_url: RedisUrl = None, line: Line = None, as_json: Json = False
) -> None:
    """Write the moments of the newest checkpoint to a file."""
    from gaussline.worker.contract.artefact import Artefact
    from gaussline.worker.learning.learner_state import read_moments

    _, _, data = _stored(redis_url, line, model)
    artefact = Artefact.unpack(data)
    _write(output, artefact, read_moments(artefact)[1], as_json)


@app.command()
def merge(
    files: Annotated[list[Path], typer.Argument(help="Files to add up; shards or sites.")],
    output: Output,
    as_json: Json = False,
) -> None:
    """Add moments up: the result is what one learner of all the frames would have learnt."""
    from gaussline.worker.learning.learner_state import moments_artefact

    spec, total, lineage = _load(files[0])
    for path in files[1:]:
        other, moments, theirs = _load(path)
        spec.check_against(other)
        for level, added in zip(total, moments, strict=True):
            level.merge(added)
        lineage = [*lineage, {"merged": path.name}, *theirs]
    _write(output, moments_artefact(spec, total, lineage), total, as_json)


@app.command()
def subtract(
    file: Annotated[Path, typer.Argument(help="From these moments …")],
    taken: Annotated[Path, typer.Argument(help="… take away these, which were added to them.")],
    output: Output,
    as_json: Json = False,
) -> None:
    """Unlearn a batch that was merged in before. What was forgotten since cannot be taken away, and is refused."""
    from gaussline.worker.learning.learner_state import moments_artefact

    spec, rest, lineage = _load(file)
    other, moments, _ = _load(taken)
    spec.check_against(other)
    for level, removed in zip(rest, moments, strict=True):
        level.subtract(removed)
    _write(output, moments_artefact(spec, rest, [*lineage, {"subtracted": taken.name}]), rest, as_json)


@app.command("import")
def import_moments(
    model: Name,
    file: Annotated[Path, typer.Argument(help="Moments, as 'moments export' or 'merge' wrote them.")],
    add: Annotated[bool, typer.Option("--add", help="Add them to what is there instead of replacing it.")] = False,
    by: By = "",
    redis_url: RedisUrl = None,
    line: Line = None,
    as_json: Json = False,
) -> None:
    """Let the model's next learner go on from these moments, at its place in the log. No learner may run meanwhile."""
    from gaussline.worker.learning.policy import Policy
    from gaussline.worker.learning.session import Session

    spec, moments, lineage = _load(file)
    opened = open_line(redis_url, line)
    policy = Policy.of(load_settings(redis_url=redis_url, line=line))
    owner = f"import by {who(by)}"
    session = Session(opened.client, opened.line, model, policy, owner=owner, from_base=False, seal=opened.seal())
    learner = session.open()
    try:
        learner.spec.check_against(spec)
        if add:
            for level, added in zip(learner.moments, moments, strict=True):
                level.merge(added)
        else:
            learner.moments = moments
            learner.gated_weight = 0.0
        for fact in lineage:
            learner.remember({"from": file.name, **fact})
        learner.remember({"imported": file.name, "by": who(by), "added": add})
        session.close()
    finally:
        session.abandon()
        session.lease.release()
    facts = {"model": model, "frames": learner.moments[0].count, "effective_size": learner.moments[0].effective_size}
    if as_json:
        out().print_json(json.dumps(facts))
    else:
        out().print(f"the learner of model {model} goes on from {facts['frames']} frames", highlight=False)
