"""The seven invariants of the design, one test a number, on a real Redis with real worker processes.

They are tested much harder elsewhere (tests/broker, tests/faults, tests/vision, …); here each of them is seen to hold
on a whole line, under the conditions that would break it first.
"""

from __future__ import annotations

import ast
import hashlib
import json
import pickle
import signal
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgpack
import pytest

from gaussline.worker.broker.dead_letters import DeadLetters
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.kept import KeptFrames
from gaussline.worker.broker.ledger import read_ledger
from gaussline.worker.broker.registry import Registry
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.frame import Frame, decode_batch
from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.verdict import Reason
from gaussline.worker.errors import ArtefactError, BackboneMismatch, ContractError, ImageError, WeightsUnavailable
from gaussline.worker.vision.backbones import load_for
from gaussline.worker.vision.decode import decode
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.preprocess import preprocess_one, stack
from gaussline.worker.vision.runtime import RuntimeChoice
from gaussline.worker.vision.weights import WeightsSource
from tests.architecture.house import PICKLERS
from tests.broker.way import Way
from tests.commands.workers import start_worker
from tests.invariants.line import Camera, duplicates, picture
from tests.support.cli import Cli
from tests.support.repository import ROOT
from tests.support.waiting import eventually

TOLERANCE = 1e-4
"""Of a score that is computed again in float32, relative."""


@pytest.fixture
def images(parts: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((parts / "good").glob("*.png"))]


def promote(cli: Cli, model_file: Path, version: int = 1) -> None:
    cli("models", "import", str(model_file))
    cli("models", "promote", "default", str(version))


def verdicts_of(way: Way) -> list[dict[str, object]]:
    return [verdict for _, verdict in Verdicts(way.client, way.line).read("0-0", count=100_000)]


@pytest.fixture
def own_server(model_file: Path) -> Iterator[tuple[EmbeddedRedis, Cli, Way]]:
    """A Redis that a test may kill; nothing that it acknowledged is forgotten."""
    with EmbeddedRedis(appendfsync="always") as server:
        cli, way = Cli(server.url, "line1"), Way(server.url, "line1")
        promote(cli, model_file)
        yield server, cli, way
        cli.close()
        way.close()


def test_1_every_admitted_frame_ends_in_exactly_one_verdict_or_is_still_in_flight(
    own_server: tuple[EmbeddedRedis, Cli, Way], images: list[bytes]
) -> None:
    """Workers die by SIGKILL over it, Redis dies, and a share of the frames can never be judged."""
    server, cli, way = own_server
    good, odd = Camera(way.client, way.line, "good"), Camera(way.client, way.line, "odd")
    homeless = Camera(way.client, way.line, "homeless", model="nobody")
    for number in range(200):
        good.send(*(images[(number + offset) % len(images)] for offset in range(3)))
    odd.send(b"no picture", images[0])
    odd.send(picture(300))
    odd.send(images[0], deadline_us=1_700_000_000_000_001)
    odd.send_bytes(b"\xc1 is never used by msgpack", 3)
    odd.send_bytes(msgpack.packb({"v": 99}), 1)
    homeless.send(images[0])
    admitted = good.sent + odd.sent + homeless.sent
    assert way.ledger().in_flight == len(admitted)

    env = {"GAUSSLINE_CLAIM_AFTER_S": "0.5", "GAUSSLINE_HEARTBEAT_S": "0.2", "GAUSSLINE_IMAGE_MAX_PIXELS": "50000"}
    first, second = start_worker(cli, ready=False, env=env), start_worker(cli, ready=False, env=env)
    eventually(lambda: len(way.verdict_ids()) > 20, within_s=60.0, what="a line that is under way")
    first.end(signal.SIGKILL)
    mid = way.ledger()
    assert mid.balances
    server.kill()
    server.start()
    after = way.ledger()
    assert after.balances
    assert after.in_flight > 0, "Redis died in the middle of it"
    third = start_worker(cli, env=env)
    second.end(signal.SIGKILL)
    eventually(lambda: way.ledger().in_flight == 0, within_s=60.0, what="the last verdict")

    assert not duplicates(way.verdict_ids())
    assert set(way.verdict_ids()) == set(admitted)
    reasons = {verdict["id"]: verdict["reason"] for verdict in verdicts_of(way) if verdict["reason"]}
    assert reasons == {
        "odd:1:0": "undecodable",
        "odd:1:2": "too_large",
        "odd:1:3": "expired",
        **{f"odd:1:{sequence}": "undecodable_message" for sequence in (4, 5, 6)},
        "odd:1:7": "unknown_version",
        "homeless:1:0": "no_model",
    }
    letters = DeadLetters(way.client, way.line)
    for reason in {Reason(str(reason)) for reason in reasons.values()}:
        for _, letter in letters.list(reason):
            whole = letter.reason is not Reason.UNDECODABLE_MESSAGE or letter.id == "odd:1:4"
            assert bool(letter.data) == (whole and letter.reason is not Reason.EXPIRED), letter
    assert third.end(signal.SIGTERM) == 0


def test_2_the_ledger_balances_at_every_moment(cli: Cli, way: Way, model_file: Path, images: list[bytes]) -> None:
    """It is read as fast as it can be, while producers admit and workers settle."""
    promote(cli, model_file)
    start_worker(cli)
    start_worker(cli)
    cameras = [Camera(way.client, way.line, f"cam{number}") for number in range(3)]
    stop = threading.Event()

    def audit() -> tuple[int, int]:
        reader = Way(cli.url, cli.line)
        looks, busy = 0, 0
        while not stop.is_set():
            book = read_ledger(reader.client, reader.line)
            assert book.balances, book
            looks, busy = looks + 1, busy + bool(book.in_flight)
        reader.close()
        return looks, busy

    with ThreadPoolExecutor() as pool:
        auditor = pool.submit(audit)
        for number in range(300):
            cameras[number % 3].send(*images[: 1 + number % 4])
        eventually(lambda: way.ledger().in_flight == 0, within_s=60.0, what="the last verdict")
        stop.set()
        looks, busy = auditor.result()
    assert looks > 50
    assert busy > 20, "most of it was seen on the way"
    book = way.ledger()
    assert [row.admitted for row in book.rows] == [len(camera.sent) for camera in cameras]
    assert sum(row.judged + row.not_judged for row in book.rows) == len(way.verdict_ids())
    # In flight is counted, not computed: what vanishes from the index is missed.
    cameras[0].send(images[0])
    way.client.delete(way.keys.index("cam0"))
    assert not read_ledger(way.client, way.line).balances


def test_3_a_verdict_names_the_version_that_gives_the_same_score_again(
    cli: Cli, way: Way, model_file: Path, images: list[bytes]
) -> None:
    """Whatever batch the frame rode in."""
    promote(cli, model_file)
    start_worker(cli, GAUSSLINE_KEEP_PASS_SHARE="1", GAUSSLINE_BATCH_MAX_FRAMES="8")
    cameras = [Camera(way.client, way.line, f"cam{number}") for number in range(3)]
    for number, image in enumerate(images):
        cameras[number % 3].send(*[image, images[-1 - number]][: 1 + number % 2])
    eventually(lambda: way.ledger().in_flight == 0, what="the last verdict")
    verdicts = verdicts_of(way)
    assert len(verdicts) == sum(len(camera.sent) for camera in cameras)
    registry, kept = Registry(way.client, way.line), KeptFrames(way.client, way.line)
    for verdict in verdicts:
        named = verdict["model"]
        assert isinstance(named, dict)
        version = registry.version(named["name"], named["version"])
        assert version.digest == named["digest"] == hashlib.sha256(registry.fetch(version.digest)).hexdigest()
    digest = registry.version("default", 1).digest
    model = Model.from_artefact(Artefact.unpack(registry.fetch(digest), digest))
    backbone = load_for(model.spec, WeightsSource(random_seed=1))
    extractor = FeatureExtractor(backbone, RuntimeChoice(memory_format="contiguous"))
    for verdict in verdicts:
        frame = kept.get(str(verdict["id"])).frames[0]
        assert isinstance(frame, Frame)
        alone = stack([preprocess_one(decode(frame.data, frame.encoding, ImageLimits()), model.spec.input_size)])
        score = float(model.scores(list(extractor.extract(alone)))[0])
        assert score == pytest.approx(verdict["score"], rel=TOLERANCE)
        at_the_threshold = score == pytest.approx(model.working_point.threshold, rel=TOLERANCE)
        assert at_the_threshold or bool(model.working_point.fails([score])[0]) == (verdict["decision"] == "fail")


def test_4_a_version_never_changes_and_a_swap_costs_no_frame(
    cli: Cli, way: Way, model_file: Path, images: list[bytes]
) -> None:
    """Pointers move back and forth under a running line."""
    promote(cli, model_file)
    registry = Registry(way.client, way.line)
    other = Model.from_artefact(Artefact.unpack(model_file.read_bytes()))
    changed = Model(other.spec, other.gaussians, other.combination, other.working_point, info={"note": "another"})
    registry.publish("default", changed.to_artefact().data, by="ada", note="another")
    before = [registry.version("default", number) for number in (1, 2)]
    worker = start_worker(cli)
    camera = Camera(way.client, way.line, "cam1")
    for number in range(240):
        if number % 20 == 0:
            registry.promote("default", 1 + number // 20 % 2, by="ada", note="")
        camera.send(images[number % len(images)])
        eventually(lambda: way.ledger().in_flight <= 4, what="a line that keeps pace")
    eventually(lambda: way.ledger().in_flight == 0, what="the last verdict")
    verdicts = verdicts_of(way)
    assert {verdict["id"] for verdict in verdicts} == set(camera.sent)
    assert len(verdicts) == len(camera.sent)
    named = {(verdict["model"]["version"], verdict["model"]["digest"]) for verdict in verdicts}  # type: ignore[index]
    assert named == {(version.number, version.digest) for version in before}, "both judged, and nothing in between"
    assert not [verdict for verdict in verdicts if verdict["decision"] == "not_judged"]
    assert [registry.version("default", number) for number in (1, 2)] == before
    for version in before:
        assert hashlib.sha256(registry.fetch(version.digest)).hexdigest() == version.digest
    assert registry.publish("default", model_file.read_bytes(), by="bo", note="").number == 3, "never in its place"
    assert worker.metric("gaussline_surprises_total") == 0


def test_5_scoring_never_learns(cli: Cli, way: Way, model_file: Path, images: list[bytes]) -> None:
    promote(cli, model_file)
    start_worker(cli, GAUSSLINE_FEATURES="all")

    def stored() -> dict[bytes, bytes]:
        parts = (b":versions:", b":artefact:", b":blob:", b":pointers", b":models", b":history:")
        return {key: value for key, value in way.dump().items() if any(part in key for part in parts)}

    before = stored()
    assert len(before) >= 6
    camera = Camera(way.client, way.line, "cam1")
    for number in range(200):
        camera.send(images[0] if number in (0, 199) else images[number % len(images)])
    eventually(lambda: way.ledger().in_flight == 0, what="the last verdict")
    assert stored() == before
    scores = {verdict["id"]: verdict["score"] for verdict in verdicts_of(way)}
    assert scores["cam1:1:0"] == pytest.approx(scores["cam1:1:199"], rel=TOLERANCE)
    assert way.client.xlen(way.keys.features("default")) == 200, "what a learner learns from was written"


def test_6_no_pickle_anywhere_and_limits_before_memory(model_file: Path) -> None:
    for path in [*(ROOT / "worker").rglob("*.py"), *(ROOT / "producer").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not PICKLERS & {name.split(".")[0] for name in names}, path
    evil = pickle.dumps({"weights": [1.0]})
    with pytest.raises(ArtefactError):
        Artefact.unpack(evil)
    huge = bytearray(picture(8))
    huge[16:24] = (60_000).to_bytes(4, "big") * 2  # the header's width and height
    hostile = [
        b"\xdd\xff\xff\xff\xff",  # an array of 4 thousand million
        b"\xc6\xff\xff\xff\xff",  # so many bytes
        b"\x91" * 100_000,  # a hundred thousand arrays within each other
        evil,
    ]
    tracemalloc.start()
    try:
        for payload in hostile:
            with pytest.raises(ContractError):
                decode_batch(payload)
        with pytest.raises(ImageError, match="pixels"):
            decode(bytes(huge), "png", ImageLimits(max_side=100_000))
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def test_7_nothing_is_scored_with_weights_or_a_model_that_do_not_match(
    cli: Cli, way: Way, artefact: Artefact, model_file: Path, images: list[bytes]
) -> None:
    model = Model.from_artefact(artefact)
    load_for(model.spec, WeightsSource(random_seed=1))
    with pytest.raises(BackboneMismatch, match="weights"):
        load_for(model.spec, WeightsSource(random_seed=2))
    with pytest.raises(ArtefactError, match="widths"):
        Model(model.spec, model.gaussians[::-1], model.combination, model.working_point)
    with pytest.raises((WeightsUnavailable, BackboneMismatch)):
        load_for(model.spec, model_file)

    promote(cli, model_file)
    refused = cli("worker", code=4, GAUSSLINE_HTTP_PORT="0").stderr
    assert "random weights" in refused
    # A worker that runs keeps the version before, and says why.
    worker = start_worker(cli)
    manifest = json.loads(json.dumps(artefact.manifest))
    manifest["spec"]["weights_digest"] = "0" * 64
    tampered = Artefact.pack(manifest, artefact.arrays)
    Registry(way.client, way.line).publish("default", tampered.data, by="eve", note="")
    eventually(lambda: way.client.hlen(way.keys.workers) == 1, what="a heartbeat")
    assert "another backbone" in cli("models", "promote", "default", "2", code=4).stderr
    cli("models", "promote", "default", "2", "--force")
    eventually(lambda: worker.get("/readyz")[0] == 503 and "version 2" in worker.get("/readyz")[1], what="a refusal")
    camera = Camera(way.client, way.line, "cam1")
    camera.send(images[0])
    eventually(lambda: verdicts_of(way), what="a verdict")
    (verdict,) = verdicts_of(way)
    named = verdict["model"]
    assert isinstance(named, dict)
    assert (named["version"], named["digest"]) == (1, artefact.digest)
