"""The learner beside its peers: `make bench-learner`, or python -m bench.learner --help.

Made-up events at the sizes of EfficientNet-B4: 2,944 features on nine levels. (a) the fold alone: blocks of events into
moments; (b) the whole learner: blocks read from Redis, decoded, gated, watched for drift, folded, checkpointed while it
goes on; (c) a proposal: Ledoit–Wolf, Cholesky, guard, artefact. The peers get the same features: scikit-learn's
LedoitWolf refitted on everything at each proposal, river's EmpiricalCovariance and alibi-detect's online Mahalanobis in
an environment of their own (.build/learner-peers), where they install.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.record import machine
from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.registry import Registry
from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.contract.keys import Keys
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.gaussian.moments import Moments
from gaussline.worker.learning.block import level_slices
from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.learning.policy import Policy
from gaussline.worker.learning.proposal import make_candidate
from gaussline.worker.learning.session import Rhythm, Session

CHANNELS = (48, 24, 32, 56, 112, 160, 272, 448, 1792)
SPEC = BackboneSpec(
    name="efficientnet_b4",
    weights_digest="0" * 64,
    weights_source="none",
    random_weights=True,
    levels=tuple(f"features.{index}" for index in range(9)),
    channels=CHANNELS,
    input_size=(380, 380),
)
LINE, MODEL, RATE = "bench", "default", 0.02
FIT_FRAMES, REFIT_EVERY = 2_600, 5_000
EVENTS_TARGET, PROPOSAL_TARGET_S = 5_000.0, 3.0
PEERS = Path(".build/learner-peers")
PACKAGES = (
    "river>=0.22",
    "catalogue",
    "dill",
    "numba",
    "pillow",
    "pydantic",
    "requests",
    "scikit-learn",
    "toml",
    "tqdm",
    "transformers",
)
BETWEEN = 500

Rows = NDArray[np.float32]


def features(count: int, seed: int) -> Rows:
    """(n, D) float32: correlated within a level, as features are; one law whatever the seed."""
    shape, draw = np.random.default_rng(1), np.random.default_rng(seed)
    parts = []
    for width in CHANNELS:
        rank = max(4, width // 8)
        mix = shape.standard_normal((rank, width)).astype(np.float32)
        frames = draw.standard_normal((count, rank), dtype=np.float32) @ mix / np.float32(np.sqrt(rank))
        parts.append(frames + np.float32(0.2) * draw.standard_normal((count, width), dtype=np.float32))
    return np.concatenate(parts, axis=1)


def by_level(rows: Rows) -> list[Rows]:
    """One (n, d) a level."""
    return [rows[:, place] for place in level_slices(CHANNELS)]


def fold(rows: Rows, block: int) -> float:
    """Events a second of the moments alone."""
    moments, slices = [Moments(width) for width in CHANNELS], level_slices(CHANNELS)
    began = time.perf_counter()
    for start in range(0, len(rows), block):
        for level, place in zip(moments, slices, strict=True):
            level.update(rows[start : start + block, place])
    return len(rows) / (time.perf_counter() - began)


def events(model: Model, digest: str, rows: Rows, first: int = 0) -> list[bytes]:
    """As a worker writes them, 20 a second of one camera; `first` is the number of the first frame."""
    decisions = model.judge(by_level(rows))
    drawn = np.random.default_rng(5).random(len(rows)) < 0.1
    spec, places = SPEC.digest, level_slices(CHANNELS)
    statistics = {"exposure": 0.4, "contrast": 0.2, "sharpness": 0.1, "red": 0.3, "blue": 0.3}
    return [
        FeatureEvent(
            id=f"cam1:1:{first + row}",
            camera="cam1",
            captured_us=1_700_000_000_000_000 + 50_000 * (first + row),
            admitted_us=1_700_000_000_000_000 + 50_000 * (first + row),
            decision=Decision.FAIL if decisions.failed[row] else Decision.PASS,
            model=MODEL,
            version=1,
            digest=digest,
            spec_digest=spec,
            score=float(decisions.scores[row]),
            p_value=float(decisions.p_values[row]),
            features=tuple(rows[row, place] for place in places),
            reservoir=bool(drawn[row]),
            statistics=statistics,
        ).encode()
        for row in range(len(rows))
    ]


def fill(client: Redis, payloads: list[bytes], line: str = LINE, model: str = MODEL) -> None:
    """Into the log, bytes counted, as settling does."""
    keys = Keys(line)
    for start in range(0, len(payloads), BETWEEN):
        pipe = client.pipeline(transaction=False)
        for payload in payloads[start : start + BETWEEN]:
            pipe.xadd(keys.features(model), {"e": payload})
            pipe.hincrby(keys.totals, f"features_bytes:{model}", len(payload))
        pipe.execute()


def whole(model: Model, payloads: list[bytes], block: int) -> tuple[dict[str, float], Session]:
    """Events a second from Redis to moments, one checkpoint among them; and the session, its learner at the end."""
    with EmbeddedRedis() as server:
        client = server.client()
        registry = Registry(client, LINE)
        version = registry.publish(MODEL, model.to_artefact().data, by="bench")
        registry.promote(MODEL, version.number, by="bench")
        fill(client, payloads)
        policy = Policy(block=block, quarantine_s=60.0, propose_frames=None)
        session = Session(client, LINE, MODEL, policy, owner="bench", rhythm=Rhythm(checkpoint_s=1e9))
        learner = session.open()
        began = time.perf_counter()
        while session.step(time.monotonic()):
            pass
        learnt_s = time.perf_counter() - began
        began = time.perf_counter()
        session.checkpoint()
        saved_s = time.perf_counter() - began
        session.close()
        count = learner.position * block
        taught = learner.counts["taught"]
    return {"events_per_second": count / learnt_s, "events": count, "taught": taught, "checkpoint_s": saved_s}, session


def proposal(session: Session, model: Model) -> dict[str, float]:
    """Seconds of a proposal: Gaussians, calibration and guard; artefact."""
    began = time.perf_counter()
    candidate = make_candidate(session.learner, model)
    made_s = time.perf_counter() - began
    if candidate.model is None:
        raise SystemExit(f"bench: no candidate: {candidate.report()}")
    began = time.perf_counter()
    size = len(candidate.model.to_artefact().data)
    packed_s = time.perf_counter() - began
    return {"made_s": made_s, "packed_s": packed_s, "seconds": made_s + packed_s, "artefact_mb": size / 1e6}


def refits(rows: Rows) -> float:
    """Events a second of scikit-learn's LedoitWolf, refitted on all of them at every `REFIT_EVERY`."""
    from sklearn.covariance import LedoitWolf

    began = time.perf_counter()
    for end in range(REFIT_EVERY, len(rows) + 1, REFIT_EVERY):
        for level in by_level(rows[:end]):
            LedoitWolf(store_precision=True).fit(level.astype(np.float64))
    return len(rows) // REFIT_EVERY * REFIT_EVERY / (time.perf_counter() - began)


def peers(rows: Rows) -> list[dict[str, Any]]:
    """What runs in the other environment."""
    python = PEERS / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--prefer-binary"]
        subprocess.run([*pip, *PACKAGES], check=True)
        # By its own requirements it wants an older numpy than the other peer; its detector runs with the newer one.
        subprocess.run([*pip, "--no-deps", "alibi-detect"], check=False)
    folder = Path(".build/bench")
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "learner-events.npy", rows[:2_000])
    ask = {"features": str(folder / "learner-events.npy"), "channels": CHANNELS, "output": str(folder / "peers.json")}
    (folder / "learner-ask.json").write_text(json.dumps(ask), "utf-8")
    subprocess.run([str(python), "bench/learner_peers.py", str(folder / "learner-ask.json")], check=True)
    found: list[dict[str, Any]] = json.loads((folder / "peers.json").read_text("utf-8"))
    return found


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.learner", description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=15_360)
    parser.add_argument("--block", type=int, default=Policy().block)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true", help="this package alone")
    parser.add_argument("--output", type=Path, default=Path(".build/bench/learner.json"))
    options = parser.parse_args()
    console = Console(width=120)
    console.print(f"{machine()}; {sum(CHANNELS)} features on {len(CHANNELS)} levels, blocks of {options.block}")
    model = fit_model(by_level(features(FIT_FRAMES, 2)), SPEC, FitOptions(rate=RATE))
    rows = features(options.events, 3)
    folds = [fold(rows, options.block) for _ in range(options.rounds)]
    payloads = events(model, model.to_artefact().digest, rows)
    wholes, proposals = [], []
    for _ in range(options.rounds):
        told, session = whole(model, payloads, options.block)
        wholes.append(told)
        proposals.append(proposal(session, model))
    table: list[dict[str, Any]] = [
        {"what": "gaussline, moments alone", "events_per_second": float(np.median(folds))},
        {
            "what": "gaussline learn, from Redis, gate and watch on",
            "events_per_second": float(np.median([told["events_per_second"] for told in wholes])),
        },
    ]
    if not options.no_peers:
        every = f"scikit-learn LedoitWolf, refitted every {REFIT_EVERY} events"
        table.append({"what": every, "events_per_second": refits(rows)})
        table += peers(rows)
    seconds = float(np.median([each["seconds"] for each in proposals]))
    shape = Table()
    for column in ("what", "events/s"):
        shape.add_column(column, justify="left" if column == "what" else "right")
    for row in table:
        each = row.get("events_per_second")
        shape.add_row(str(row["what"]), "–" if each is None else f"{each:,.1f}" if each < 100 else f"{each:,.0f}")
    console.print(shape)
    saved = float(np.median([told["checkpoint_s"] for told in wholes]))
    console.print(f"a proposal takes {seconds:.2f} s, a checkpoint {saved:.2f} s (both medians of {options.rounds})")
    rate = float(np.median([told["events_per_second"] for told in wholes]))
    reached = rate >= EVENTS_TARGET and seconds <= PROPOSAL_TARGET_S
    found = {"machine": machine(), "rows": table, "folds": folds, "wholes": wholes, "proposals": proposals}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found | {"reached": reached}, indent=2) + "\n", "utf-8")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
