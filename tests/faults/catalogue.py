"""The faults. Each begins something and says how it is undone; at the end of an episode everything is undone."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from random import Random
from typing import Final

from redis.exceptions import RedisError

from tests.faults.plan import STEPS, Step
from tests.faults.stage import Stage
from tests.faults.zygote import Process

Undo = Callable[[], None]


def _nothing() -> None:
    """What needs no undoing."""


def kill_worker(stage: Stage, step: Step) -> Undo:
    """SIGKILL; another one starts later."""
    return _nothing if _killed(stage, step) is None else stage.refill


def restart_worker(stage: Stage, step: Step) -> Undo:
    """SIGKILL, and another one under the same name at once, as systemd and containers do it."""
    worker = _killed(stage, step)
    if worker is not None:
        stage.workers.append(stage.spawn_worker(after=worker))
    return _nothing


def _killed(stage: Stage, step: Step) -> Process | None:
    """A worker that was killed, None where there is none."""
    if not stage.workers:
        return None
    worker = stage.workers.pop(step.target % len(stage.workers))
    stage.note_kill(worker)
    worker.kill()
    stage.ended.append(worker)
    return worker


def drain_worker(stage: Stage, step: Step) -> Undo:
    """SIGTERM, and SIGKILL where it has not drained when its time is over."""
    if not stage.workers:
        return _nothing
    worker = stage.workers.pop(step.target % len(stage.workers))
    worker.signal(signal.SIGTERM)
    stage.ended.append(worker)

    def undo() -> None:
        worker.kill()
        stage.refill()

    return undo


def stop_worker(stage: Stage, step: Step) -> Undo:
    """SIGSTOP for a while: its messages are claimed, and then it goes on with them."""
    return _stop(stage.workers[step.target % len(stage.workers)]) if stage.workers else _nothing


def stop_producer(stage: Stage, step: Step) -> Undo:
    """SIGSTOP for a while."""
    producer = stage.producers[step.target % len(stage.producers)]
    return _stop(producer) if producer is not None else _nothing


def _stop(process: Process) -> Undo:
    process.signal(signal.SIGSTOP)
    return lambda: _go_on(process)


def _go_on(process: Process) -> None:
    process.signal(signal.SIGCONT)


def kill_producer(stage: Stage, step: Step) -> Undo:
    """SIGKILL; another one takes the camera later, in a new epoch."""
    camera = step.target % len(stage.producers)
    producer = stage.producers[camera]
    if producer is None:
        return _nothing
    producer.kill()
    stage.ended.append(producer)
    stage.producers[camera] = None

    def undo() -> None:
        if stage.producers[camera] is None:
            stage.producers[camera] = stage.spawn_producer(camera)

    return undo


def kill_subscriber(stage: Stage, step: Step) -> Undo:
    """SIGKILL at an instant that may lie between a read and its acknowledgement; it comes back at once."""
    stage.subscriber.kill()
    stage.ended.append(stage.subscriber)
    stage.subscriber = stage.spawn_subscriber()
    return _nothing


def kill_parts(stage: Stage, step: Step) -> Undo:
    """SIGKILL of the part judge, for a while: what it missed it decides as if it had been there."""
    killed = stage.parts
    killed.kill()

    def undo() -> None:
        if stage.parts is killed:
            stage.ended.append(killed)
            stage.parts = stage.spawn_parts()

    return undo


def kill_redis(stage: Stage, step: Step) -> Undo:
    """SIGKILL; it is started again from its append-only file."""
    if not stage.server.up:
        return _nothing
    stage.server.kill()
    return stage.restart_redis


def stop_redis(stage: Stage, step: Step) -> Undo:
    """SIGSTOP for a while."""
    pid = stage.server.signal(signal.SIGSTOP)

    def undo() -> None:
        if stage.server.up and stage.server.redis.pid == pid:
            stage.server.signal(signal.SIGCONT)

    return undo


def pause_clients(stage: Stage, step: Step) -> Undo:
    """CLIENT PAUSE, of all commands or of those that write."""
    with _quietly():
        stage.client.client_pause(int(step.for_s * 1000), all=step.target % 2 == 0)
    return _nothing


def destroy_group(stage: Stage, step: Step) -> Undo:
    """XGROUP DESTROY of every camera, under load."""
    for camera in range(stage.plan.cameras):
        with _quietly():
            stage.client.xgroup_destroy(stage.keys.frames(f"cam{camera}"), "workers")
    return _nothing


def delete_entries(stage: Stage, step: Step) -> Undo:
    """XDEL of messages that wait or are worked on: somebody tidies up by hand."""
    random = Random(f"{stage.plan.seed} {step.at_s}")
    for camera in range(stage.plan.cameras):
        with _quietly():
            entries = stage.client.xrange(stage.keys.frames(f"cam{camera}"), count=50)
            ids = [entry_id for entry_id, _ in entries]
            if ids:
                stage.client.xdel(stage.keys.frames(f"cam{camera}"), *random.sample(ids, min(3, len(ids))))
    return _nothing


def forget_scripts(stage: Stage, step: Step) -> Undo:
    """SCRIPT FLUSH."""
    with _quietly():
        stage.client.script_flush()
    return _nothing


def full_memory(stage: Stage, step: Step) -> Undo:
    """A maxmemory below what is used."""
    with _quietly():
        used = stage.client.info("memory")["used_memory"]
        stage.client.config_set("maxmemory", used // 2)
    return stage.free_memory


def full_disk(stage: Stage, step: Step) -> Undo:
    """The append-only file cannot grow: with appendfsync always Redis ends, and is started again when there is room."""
    if not stage.server.up:
        return _nothing
    stage.server.fill_disk(room=step.target * 500)
    return stage.free_disk


def cut(stage: Stage, step: Step) -> Undo:
    """Every connection is cut."""
    assert stage.proxy is not None
    stage.proxy.cut()
    return _nothing


def half_close(stage: Stage, step: Step) -> Undo:
    """Answers end; requests still come through."""
    assert stage.proxy is not None
    stage.proxy.half_close()
    return _nothing


def delay(stage: Stage, step: Step) -> Undo:
    """Every piece of a conversation is late, up to beyond the time-out."""
    assert stage.proxy is not None
    stage.proxy.delay_s = (0.01, 0.05, 0.3, 0.7)[step.target % 4]
    return stage.proxy.heal


def throttle(stage: Stage, step: Step) -> Undo:
    """A slow line."""
    assert stage.proxy is not None
    stage.proxy.bytes_per_s = (2_000.0, 20_000.0, 200_000.0)[step.target % 3]
    return stage.proxy.heal


def mute(stage: Stage, step: Step) -> Undo:
    """Answers are swallowed; nobody is told."""
    assert stage.proxy is not None
    stage.proxy.mute = True
    return stage.proxy.heal


def lose_replies(stage: Stage, step: Step) -> Undo:
    """One answer in five is lost, and its connection."""
    assert stage.proxy is not None
    random = Random(f"{stage.plan.seed} {step.at_s}")
    stage.proxy.lose_reply = lambda: random.random() < 0.2
    return stage.proxy.heal


def tear_requests(stage: Stage, step: Step) -> Undo:
    """One request in five is torn, and its connection cut."""
    assert stage.proxy is not None
    random = Random(f"{stage.plan.seed} {step.at_s}")
    stage.proxy.tear_request = lambda size: random.randrange(size) if random.random() < 0.2 else None
    return stage.proxy.heal


def _quietly() -> contextlib.suppress:
    """For what is done to a Redis that may be away just now."""
    return contextlib.suppress(RedisError, OSError)


CATALOGUE: Final[dict[str, Callable[[Stage, Step], Undo]]] = {name: globals()[name] for name in STEPS}
