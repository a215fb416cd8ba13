"""All workers of a line are restarted one after the other while frames come: nothing is lost, doubled or wrong."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from gaussline.worker.broker.client import connect
from gaussline.worker.broker.dead_letters import DeadLetters
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.ledger import read_ledger
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.verdict import Reason
from tests.faults.checker import History, Offer, check
from tests.faults.frames import Kind
from tests.faults.zygote import Process, Zygote
from tests.support.waiting import eventually

LINE = "rolling"
CAMERAS = ("cam1", "cam2")
FRAMES = 1_200
"""Of each camera; at one every four milliseconds they outlast the restarts."""
ROUNDS = 2


def journal(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def test_a_rolling_restart_of_all_workers_under_load_loses_nothing(tmp_path: Path) -> None:
    with EmbeddedRedis(appendfsync="always") as server, Zygote() as zygote:
        client = connect(server.url)

        def spawn(role: str, name: str, **arguments: Any) -> Process:
            notes = str(tmp_path / f"{name}.{role}")
            return zygote.spawn(
                role, name, tmp_path / f"{name}.log", url=server.url, line=LINE, journal=notes, **arguments
            )

        def worker(number: int) -> Process:
            made = spawn("judge", f"w{number}", batch_frames=8, batch_s=0.005)
            eventually(lambda: journal(tmp_path / f"w{number}.judge"), what=f"worker {number}")
            return made

        working = [worker(number) for number in range(2)]
        producers = [
            spawn(
                "produce",
                camera,
                camera=camera,
                seed=place,
                first_token=1 + place * FRAMES,
                frames=FRAMES,
                message_frames=2,
                frame_bytes=2_000,
                gap_s=0.006,
                kinds={"GOOD": 0.9, "DEFECT": 0.1},
            )
            for place, camera in enumerate(CAMERAS)
        ]
        restarted = 0
        for number in range(2, 2 + ROUNDS * len(working)):
            before = client.xlen(f"gl:{{{LINE}}}:verdicts")
            working.append(worker(number))
            old = working.pop(0)
            old.signal(signal.SIGTERM)
            assert old.wait(20.0)
            old.close()
            (ended,) = [line for line in journal(tmp_path / f"w{number - 2}.judge") if "stopped" in line]
            assert ended["stopped"] == 0, "what was in hand was judged before the end"
            restarted += 1
            eventually(lambda before=before: client.xlen(f"gl:{{{LINE}}}:verdicts") > before + 20, what="frames")  # type: ignore[misc]
        assert any(
            not [line for line in journal(tmp_path / f"{camera}.produce") if "done" in line] for camera in CAMERAS
        )
        assert restarted == 4
        for camera in CAMERAS:
            eventually(
                lambda camera=camera: [line for line in journal(tmp_path / f"{camera}.produce") if "done" in line],  # type: ignore[misc]
                within_s=60.0,
                what=camera,
            )
        eventually(lambda: read_ledger(client, LINE).in_flight == 0, what="an empty line")
        offered: dict[int, Offer] = {}
        told: dict[int, str] = {}
        for camera in CAMERAS:
            for line in journal(tmp_path / f"{camera}.produce"):
                if "offer" in line:
                    kinds = enumerate(line["kinds"], line["offer"])
                    offered |= {token: Offer(camera, Kind(kind)) for token, kind in kinds}
                elif "told" in line:
                    told |= dict(enumerate(line["ids"], line["told"]))
        surprises = [
            line["surprise"] for path in tmp_path.glob("*.judge") for line in journal(path) if "surprise" in line
        ]
        history = History(
            offered=offered,
            told=told,
            verdicts=Verdicts(client, LINE).read("0-0", count=100_000),
            letters=[letter for reason in Reason for _, letter in DeadLetters(client, LINE).each(reason)],
            ledger=read_ledger(client, LINE).rows,
            surprises=surprises,
        )
        assert len(told) == FRAMES * len(CAMERAS)
        assert check(history) == []
        for process in [*working, *producers]:
            process.close()
        client.close()
