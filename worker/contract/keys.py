"""Every Redis key of a line, in one place.

All keys of a line share the hash tag `{line}`, so that they live in one Cluster slot and one script may touch them all.
Names that reach a key (lines, cameras, models, subscribers, workers) are checked here, once: they are labels, not text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gaussline.worker.errors import ContractError

GROUP = "workers"
"""The one consumer group of a frame stream."""

ABSENT = "absent"
"""Behind a line's prefix: a key that never exists; `broker.script` says what it keeps from happening in a Cluster."""

MAIN = "main"
"""The set of workers that settles every camera that nobody moved to another."""

NAME_MAX_CHARS = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


def check_name(kind: str, name: object) -> str:
    """Return `name` if it may stand in a key, a metric label and a file name; raise ContractError otherwise.

    1 to 64 characters out of letters, digits, `.`, `_` and `-`, the first a letter or a digit.
    """
    if not isinstance(name, str) or not _NAME.match(name):
        shown = repr(name if isinstance(name, str) and len(name) <= 80 else str(name)[:77] + "...")
        raise ContractError(
            f"{kind} name {shown} is not allowed: use 1 to {NAME_MAX_CHARS} characters out of letters, digits, '.', "
            "'_' and '-', beginning with a letter or a digit"
        )
    return name


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one line. Every method is pure; the table of them all stands in docs/contract.md."""

    line: str

    def __post_init__(self) -> None:
        check_name("line", self.line)

    @property
    def prefix(self) -> str:
        return f"gl:{{{self.line}}}:"

    # --- the frame's way -------------------------------------------------------------------------------------------
    @property
    def cameras(self) -> str:
        """Hash: camera -> JSON settings (weight, model)."""
        return self.prefix + "cameras"

    def camera(self, camera: str) -> str:
        """Hash: epoch, boot, last_seq, last_id, bytes and the ledger's columns of one camera."""
        return f"{self.prefix}camera:{camera}"

    def recent(self, camera: str) -> str:
        """Sorted set: entry id -> first sequence, of the last 1024 messages; answers duplicates with their first id."""
        return f"{self.prefix}recent:{camera}"

    def frames(self, camera: str) -> str:
        """Stream: one entry a message of one camera; what it carries lies under `payload`."""
        return f"{self.prefix}frames:{camera}"

    def payload(self, camera: str, entry_id: str) -> str:
        """String: the frame batch of one message in flight, in its own key because no script is to touch it."""
        return f"{self.prefix}payload:{camera}:{entry_id}"

    def incoming(self, camera: str, token: str) -> str:
        """String with a time to live: a frame batch on its way through admission, or a telling of drops."""
        return f"{self.prefix}incoming:{camera}:{token}"

    def index(self, camera: str) -> str:
        """Hash: entry id -> metadata of one message in flight. What is not in it was not admitted."""
        return f"{self.prefix}index:{camera}"

    def crashes(self, camera: str) -> str:
        """Hash: entry id -> how often its worker died over it."""
        return f"{self.prefix}crashes:{camera}"

    @property
    def totals(self) -> str:
        """Hash: the line's own counters (bytes in flight among them), and what heartbeats say of the whole line."""
        return self.prefix + "line"

    @property
    def ready(self) -> str:
        """Sorted set: camera with unread messages -> virtual time (start-time fair queueing)."""
        return self.prefix + "ready"

    @property
    def due(self) -> str:
        """Sorted set: `camera|entry id` -> deadline in microseconds, of unread messages that carry one."""
        return self.prefix + "due"

    @property
    def bell(self) -> str:
        """List: the doorbell on which idle workers block; never longer than a few items."""
        return self.prefix + "bell"

    @property
    def events(self) -> str:
        """Stream, capped: control events (a camera appeared, a pointer moved). A hint to re-read, never the truth."""
        return self.prefix + "events"

    # --- sets of workers -------------------------------------------------------------------------------------------
    @property
    def sets(self) -> str:
        """Hash: set of workers -> JSON (models, max_bytes, at, by, note); `main` has none."""
        return self.prefix + "sets"

    @property
    def set_history(self) -> str:
        """Stream, capped: every change of sets and every move of a camera: who, when, why."""
        return self.prefix + "set-history"

    def set_state(self, set: str) -> str:
        """Hash: max_bytes, and what became of a set's copies: copied, shed, taken, bytes, results, results_bytes."""
        return f"{self.prefix}set:{set}"

    def copies(self, set: str) -> str:
        """Stream: copies of frames for one set, bounded by bytes; lossy."""
        return f"{self.prefix}copies:{set}"

    def copy_payload(self, set: str, entry_id: str) -> str:
        """String: the frame batch of one copy, in its own key because no script is to touch it."""
        return f"{self.prefix}copy:{set}:{entry_id}"

    def set_results(self, set: str) -> str:
        """Stream, bounded by bytes and age: what one set says of the copies it was shown."""
        return f"{self.prefix}set-results:{set}"

    def set_ready(self, set: str) -> str:
        """Sorted set: as `ready`, of the cameras that one set settles; of `main` that itself."""
        return self.ready if set == MAIN else f"{self.ready}:{set}"

    def set_due(self, set: str) -> str:
        """Sorted set: as `due`, of the same cameras."""
        return self.due if set == MAIN else f"{self.due}:{set}"

    def set_bell(self, set: str) -> str:
        """List: as `bell`, for the workers of one set."""
        return self.bell if set == MAIN else f"{self.bell}:{set}"

    # --- what comes out --------------------------------------------------------------------------------------------
    @property
    def verdicts(self) -> str:
        """Stream: one entry a frame, fields id, camera, decision, json."""
        return self.prefix + "verdicts"

    @property
    def subscribers(self) -> str:
        """Hash: registered subscriber -> the verdict entry it was registered after."""
        return self.prefix + "subscribers"

    def cursor(self, subscriber: str) -> str:
        """String: the last verdict entry id that one subscriber acknowledged."""
        return f"{self.prefix}cursor:{subscriber}"

    def bridge(self, bridge: str) -> str:
        """Hash: a bridge's place (owner, until_us) and what was counted of its dead letters."""
        return f"{self.prefix}bridge:{bridge}"

    def bridge_dead(self, bridge: str) -> str:
        """Stream: verdicts that a bridge's receiver refused, bounded by bytes."""
        return f"{self.prefix}bridge-dead:{bridge}"

    # --- parts -----------------------------------------------------------------------------------------------------
    @property
    def parts(self) -> str:
        """Stream: one entry a part, fields id, part, decision, json."""
        return self.prefix + "parts"

    @property
    def part_subscribers(self) -> str:
        """Hash: registered subscriber -> the part verdict's entry it was registered after."""
        return self.prefix + "part-subscribers"

    def part_cursor(self, subscriber: str) -> str:
        """String: the last part verdict's entry id that one subscriber acknowledged."""
        return f"{self.prefix}part-cursor:{subscriber}"

    @property
    def part_state(self) -> str:
        """Hash: revision, cursor, and what was counted of parts."""
        return self.prefix + "part-state"

    @property
    def parts_open(self) -> str:
        """Hash: part -> JSON of what is known of it, until it is decided."""
        return self.prefix + "parts-open"

    @property
    def parts_done(self) -> str:
        """Sorted set: decided part -> when, in milliseconds; recognises late frames."""
        return self.prefix + "parts-done"

    @property
    def parts_late(self) -> str:
        """Stream, capped: frames that were judged after their part was decided."""
        return self.prefix + "parts-late"

    # --- what could not be judged, and what is kept ----------------------------------------------------------------
    def dead(self, reason: str) -> str:
        """Stream: dead letters of one reason, bounded by bytes and age."""
        return f"{self.prefix}dead:{reason}"

    @property
    def dead_stats(self) -> str:
        """Hash: what the dead-letter streams hold and what was dropped from them, by reason."""
        return self.prefix + "dead-stats"

    @property
    def kept(self) -> str:
        """Sorted set: kept frame id -> time kept in microseconds."""
        return self.prefix + "kept"

    def kept_blob(self, frame_id: str) -> str:
        """String: a frame batch of that one frame, exactly as it was admitted."""
        return f"{self.prefix}kept:{frame_id}"

    def kept_verdict(self, frame_id: str) -> str:
        """String: the verdict of a kept frame, JSON, for as long as the frame is kept."""
        return f"{self.prefix}kept-verdict:{frame_id}"

    @property
    def heats(self) -> str:
        """Sorted set: reference of a stored heat map -> time stored in microseconds."""
        return self.prefix + "heats"

    def heat(self, reference: str) -> str:
        """Hash: a heat map in pieces (`0`, `1`, …) and its `size` in bytes."""
        return f"{self.prefix}heat:{reference}"

    def heat_part(self, worker: str) -> str:
        """Hash: a heat map that a worker is just writing."""
        return f"{self.prefix}heat-part:{worker}"

    def features(self, model: str) -> str:
        """Stream: the feature events of one model."""
        return f"{self.prefix}features:{model}"

    @property
    def feedback(self) -> str:
        """Stream, capped: what people and an MES say of frames; the learner reads it."""
        return self.prefix + "feedback"

    # --- learning --------------------------------------------------------------------------------------------------
    def learner(self, model: str) -> str:
        """Hash: the learner's lease (owner, token, until_us, boot), its checkpoint, and how far feedback was taken."""
        return f"{self.prefix}learner:{model}"

    def learned(self, model: str) -> str:
        """Hash: SHA-256 -> one immutable chunk of the learner's checkpoints, 512 kB at most."""
        return f"{self.prefix}learned:{model}"

    def drift(self, model: str) -> str:
        """Stream, capped: what the learner says of drift: alarms, their ends, what was proposed."""
        return f"{self.prefix}drift:{model}"

    # --- workers ---------------------------------------------------------------------------------------------------
    def worker(self, worker: str) -> str:
        """String with a time to live: the heartbeat of one life of a worker."""
        return f"{self.prefix}worker:{worker}"

    @property
    def workers(self) -> str:
        """Hash: worker -> JSON description (host, pid, device, model versions; its life, and when that last beat)."""
        return self.prefix + "workers"

    # --- models ----------------------------------------------------------------------------------------------------
    @property
    def pointers(self) -> str:
        """Hash: `model/channel` -> JSON {version, digest, revision, share, ...}."""
        return self.prefix + "pointers"

    @property
    def pins(self) -> str:
        """Hash: pinned model -> JSON (version, at, by, note)."""
        return self.prefix + "pins"

    def trials(self, model: str) -> str:
        """Hash: `channel:revision` of the pointer of a trial -> JSON (counts, position, report)."""
        return f"{self.prefix}trials:{model}"

    def history(self, model: str) -> str:
        """Stream: every move of a model's pointers: who, when, why, from, to."""
        return f"{self.prefix}history:{model}"

    @property
    def models(self) -> str:
        """Hash: model name -> highest version number."""
        return self.prefix + "models"

    def versions(self, model: str) -> str:
        """Hash: version number -> JSON record (digest, when, by whom, note, report)."""
        return f"{self.prefix}versions:{model}"

    def artefact(self, digest: str) -> str:
        """String: JSON manifest of one artefact: its size and its chunks' digests in order."""
        return f"{self.prefix}artefact:{digest}"

    def blob(self, digest: str) -> str:
        """String: one immutable chunk, named by its SHA-256, 512 kB at most."""
        return f"{self.prefix}blob:{digest}"

    @property
    def stored(self) -> str:
        """Sorted set: a chunk or a manifest, as its key is named behind the prefix -> when it was last stored, µs."""
        return self.prefix + "stored"
