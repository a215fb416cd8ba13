"""All settings, in one frozen object, built once by a command from the environment and its options.

Every name carries its unit. Environment variables are the names in capitals behind `GAUSSLINE_`, such as
`GAUSSLINE_REDIS_URL`. Importing this module reads nothing.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from gaussline.worker.contract.keys import check_name
from gaussline.worker.errors import ContractError, SettingsError

PREFIX = "GAUSSLINE_"
DECODERS = 2
"""Threads that decode where nobody said how many."""
Seconds = Annotated[float, Field(gt=0)]
Milliseconds = Annotated[float, Field(ge=0)]
Bytes = Annotated[int, Field(gt=0)]


class Settings(BaseSettings):
    """Every setting of every process; `gaussline settings` prints them."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    # --- Redis -------------------------------------------------------------------------------------------------------
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis: redis://, rediss:// (TLS) or unix://; redis+sentinel://host,host2/name; "
        "redis+cluster://host,host2; may hold a user and a password.",
    )
    redis_timeout_s: Seconds = Field(5.0, description="Time after which one call to Redis counts as failed.")
    redis_user: str | None = Field(None, description="User at Redis, in the place of the URL's: one URL for all users.")
    redis_password_file: Path | None = Field(None, description="File that holds the Redis password.")
    redis_tls_ca: Path | None = Field(None, description="Certificates that may sign the server's; none: the system's.")
    redis_tls_cert: Path | None = Field(None, description="Our certificate, where the server asks clients for one.")
    redis_tls_key: Path | None = Field(None, description="Its private key.")
    redis_tls_check_hostname: bool = Field(True, description="The server's certificate must name its host.")
    wait_replicas: int = Field(
        0, ge=0, le=16, description="Replicas that must have a frame before it counts as admitted, a verdict as read."
    )
    wait_timeout_s: Seconds = Field(1.0, description="How long that is waited for, a time.")
    wait_policy: Literal["hold", "go_on"] = Field(
        "hold", description="Where fewer have it in time: ask again until they have, or go on and count."
    )
    signing_key: Path | None = Field(
        None, description="Private Ed25519 key that signs artefacts made here; 'gaussline keys new' makes one."
    )
    trusted_keys: Path | None = Field(
        None,
        description="Public keys: a PEM file, or a folder of *.pub. With keys set, unsigned artefacts are refused.",
    )
    line: str = Field("line1", description="Name of the line; the hash tag of all its keys.")

    # --- admission ---------------------------------------------------------------------------------------------------
    camera_budget_bytes: Bytes = Field(256 * 2**20, description="Unsettled bytes a camera may have before it is busy.")
    line_budget_bytes: Bytes = Field(2 * 2**30, description="Unsettled bytes all cameras together may have.")
    full_policy: Literal["block", "drop"] = Field(
        "block", description="What a producer does on busy: wait, or drop and count."
    )
    block_timeout_s: Seconds | None = Field(
        None, description="Longest wait on busy before send fails; none waits for ever."
    )

    # --- intake ------------------------------------------------------------------------------------------------------
    batch_max_frames: int | None = Field(
        None, ge=1, le=1024, description="Frames of one backbone pass; none lets the start-up probe find the knee."
    )
    batch_wait_ms: Milliseconds = Field(
        10.0, le=10_000, description="Longest wait for a full batch, from its first frame; none where frames are rare."
    )
    intake_bytes: Bytes = Field(64 * 2**20, description="Encoded bytes a worker holds ahead of its backbone.")
    message_max_bytes: Bytes = Field(64 * 2**20, description="Largest message taken.")
    message_max_frames: int = Field(64, ge=1, le=1024, description="Most frames in one message.")
    image_max_bytes: Bytes = Field(32 * 2**20, description="Largest encoded image.")
    image_max_pixels: int = Field(64_000_000, gt=0, description="Most pixels in one image, read off its header.")
    image_max_side: int = Field(16_384, gt=0, description="Longest side of an image, in pixels.")
    decode_threads: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Threads that decode images; none takes 2, or the lanes themselves where each is one CPU thread.",
    )
    decode_isolation: bool = Field(
        True, description="Decode image files in processes of their own: a crash of a codec costs its frame, no worker."
    )
    decode_timeout_s: int = Field(10, ge=1, le=600, description="Longest time that decoding one image may take there.")
    claim_after_s: Seconds = Field(5.0, description="Idle time after which a dead worker's messages are claimed.")
    slow_claim_after_s: Seconds = Field(
        60.0, description="Idle time after which a living worker's messages are claimed."
    )
    heartbeat_s: Seconds = Field(1.0, description="Period of a worker's heartbeat; dead after three of them.")
    drain_s: Seconds = Field(20.0, description="Time a worker may take to finish on SIGTERM.")

    # --- compute -----------------------------------------------------------------------------------------------------
    worker_name: str | None = Field(None, description="Name of this worker; none makes one from host and process id.")
    worker_set: str = Field(
        "main", description="Set of workers that this one belongs to; another than main: see gaussline sets."
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    torch_threads: int | None = Field(None, ge=1, description="Threads of the backbone on a CPU; none takes all cores.")
    compute_lanes: int | None = Field(
        None, ge=1, le=256, description="Batches judged side by side on a CPU, sharing those threads; none measures."
    )
    memory_format: Literal["auto", "contiguous", "channels_last"] = Field("auto", description="auto measures at start.")
    compile: Literal["auto", "on", "off"] = Field("off", description="torch.compile; auto measures at start.")
    weights: Path | None = Field(
        None,
        description="Weights file of the backbone, or a folder with a file for each; none takes torchvision's own.",
    )
    allow_random_weights: bool = Field(
        False, description="Score with random weights. Demonstrations only: it means nothing."
    )
    feature_cache: Path | None = Field(
        None, description="Folder of features and maps computed before; none takes gaussline/ in the user's cache."
    )
    feature_cache_max_bytes: Bytes = Field(
        2 * 2**30, description="Bound of that folder in bytes; what was not used the longest goes first."
    )

    # --- what is kept ------------------------------------------------------------------------------------------------
    keep_pass_share: float = Field(0.01, ge=0, le=1, description="Share of passed frames whose bytes are kept.")
    kept_store: str = Field(
        "redis", description="Where kept frames go: redis, file:///a/folder, or s3://bucket/prefix?endpoint=…."
    )
    kept_max_bytes: Bytes = Field(256 * 2**20, description="Bound of the kept frames in bytes; the oldest go first.")
    kept_max_age_s: Seconds = Field(7 * 86_400.0, description="Bound of the kept frames in age.")
    dead_max_bytes: Bytes = Field(64 * 2**20, description="Bound of the dead letters of one reason in bytes.")
    dead_max_age_s: Seconds = Field(30 * 86_400.0, description="Bound of the dead letters in age.")
    verdict_min_age_s: Annotated[float, Field(ge=0)] = Field(86_400.0, description="Verdicts younger than this stay.")
    verdict_max_bytes: Bytes = Field(1 * 2**30, description="Hard bound of the verdict stream in bytes.")
    verdict_full_policy: Literal["trim", "refuse"] = Field(
        "trim", description="At the hard bound: trim the oldest verdicts though unread (counted), or refuse new frames."
    )
    features: Literal["off", "sample", "all"] = Field(
        "off", description="Write feature events, for fits and learners: of all judged frames, or of a sample."
    )
    features_share: float = Field(
        0.1, gt=0, le=1, description="With features=sample: share of the frames outside the reservoir that is written."
    )
    reservoir_share: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of frames drawn for calibration before they are scored; they never teach a model.",
    )
    features_max_bytes: Bytes = Field(512 * 2**20, description="Bound of one model's feature events in bytes.")
    features_max_age_s: Seconds = Field(
        7 * 86_400.0, description="Bound of the same in age, whether a learner has passed them or not."
    )
    models_newest: int = Field(20, ge=0, description="Versions of each model that stay whatever their age.")
    models_max_age_s: Annotated[float, Field(ge=0)] = Field(
        30 * 86_400.0, description="Artefacts of versions younger than this stay; gaussline judge deletes what may go."
    )
    models_max_bytes: Bytes = Field(
        4 * 2**30,
        description="Bound of each model's artefacts in bytes; beyond it young ones go too. What a pointer, a pin or a "
        "rollback needs stays in any case.",
    )

    heat_maps: Literal["failed", "off"] = Field(
        "failed", description="Make heat maps of failed frames beside the verdicts, or none."
    )
    heat_maps_max_bytes: Bytes = Field(64 * 2**20, description="Bound of the stored heat maps in bytes.")
    heat_maps_max_age_s: Seconds = Field(7 * 86_400.0, description="Bound of the stored heat maps in age.")
    heat_maps_queue_frames: int = Field(
        16,
        ge=1,
        le=1024,
        description="Failed frames that may wait for their heat map; beyond it maps are shed.",
    )
    set_results_max_bytes: Bytes = Field(
        16 * 2**20, description="Bound of what each further set of workers said of copied frames, in bytes."
    )
    set_results_max_age_s: Seconds = Field(7 * 86_400.0, description="Bound of the same in age.")
    feedback_max_entries: int = Field(100_000, ge=1, description="Most entries of the feedback stream.")

    # --- parts -------------------------------------------------------------------------------------------------------
    parts_cameras: str = Field(
        "", description="Cameras that must see a part, such as cam1,cam2 or cam1,cam2=3 (three frames of cam2)."
    )
    parts_frames: int = Field(0, ge=0, le=256, description="Frames that must see a part in all; 0: the cameras alone.")
    parts_deadline_s: Seconds = Field(10.0, description="A part is decided so long after its first verdict at latest.")
    parts_remember_s: Seconds = Field(86_400.0, description="Decided parts are remembered so long: late frames.")
    parts_max_open: int = Field(10_000, ge=1, le=1_000_000, description="Parts that may be open at once.")

    # --- bridges -----------------------------------------------------------------------------------------------------
    bridge_url: str | None = Field(None, description="Receiver of a bridge: https://, mqtts:// or opc.tcp://….")
    bridge_name: str | None = Field(
        None, description="Name of a bridge, its durable cursor and its dead letters; none: webhook, mqtt or opcua."
    )
    bridge_topic: str = Field(
        "gaussline/{line}/{camera}", description="MQTT topic; {line}, {camera} (of a part verdict: parts), {decision}."
    )
    bridge_node: str | None = Field(
        None, description="OPC UA node that takes verdicts: a variable, an object or a method, such as ns=2;s=Verdict."
    )
    bridge_ack_node: str | None = Field(
        None, description="OPC UA variable in which the MES writes the id that it has taken; none: writing is enough."
    )
    bridge_token_file: Path | None = Field(None, description="File of a webhook's bearer token.")
    bridge_sign_key_file: Path | None = Field(None, description="File of the key that signs a webhook's requests.")
    bridge_user: str | None = Field(None, description="User at an MQTT broker or OPC UA server.")
    bridge_password_file: Path | None = Field(None, description="File of that user's password.")
    bridge_ca_file: Path | None = Field(
        None,
        description="Authorities that the receiver's certificate must come from; OPC UA: the server's certificate.",
    )
    bridge_cert_file: Path | None = Field(None, description="Certificate that a bridge shows.")
    bridge_key_file: Path | None = Field(None, description="Private key of that certificate.")
    bridge_timeout_s: Seconds = Field(10.0, description="Time after which a delivery without an answer has failed.")
    bridge_lanes: int = Field(8, ge=1, le=64, description="Deliveries at a time, each of another part or camera.")
    bridge_window: int = Field(
        256, ge=1, le=10_000, description="Verdicts in a bridge's hands; what a crash may repeat."
    )
    bridge_backoff_max_s: Seconds = Field(30.0, description="Longest pause between two tries of a verdict.")
    bridge_give_up_tries: int = Field(
        20, ge=0, description="Failures of one verdict, others being taken in between, until it is given up; 0: never."
    )
    bridge_give_up_s: Annotated[float, Field(ge=0)] = Field(
        3600.0, description="Time of answers that do not take a verdict, until it is given up all the same; 0: never."
    )
    bridge_lease_s: Annotated[float, Field(ge=1)] = Field(
        5.0, description="Time after which a spare takes over from a bridge that died."
    )
    bridge_dead_max_bytes: Bytes = Field(16 * 2**20, description="Bound of a bridge's dead letters in bytes.")

    # --- learning ----------------------------------------------------------------------------------------------------
    learn_block: int = Field(256, ge=1, le=65_536, description="Log entries of one cut of a learner.")
    learn_gate_p: float = Field(0.05, gt=0, lt=1, description="Passed frames teach only if their p-value is over this.")
    learn_quarantine_s: Annotated[float, Field(ge=0)] = Field(
        600.0, description="Working time a frame waits for an objection or an alarm before it teaches."
    )
    learn_half_life_frames: Annotated[float, Field(gt=0)] | None = Field(
        None, description="A frame counts half after so many more have taught; none forgets nothing."
    )
    learn_half_life_hours: Annotated[float, Field(gt=0)] | None = Field(
        None, description="A frame counts half after so many working hours; none forgets nothing."
    )
    learn_level_half_life_frames: str = Field(
        "", description="The same for single levels, such as features.1=5000,features.18=50000, beside the one for all."
    )
    learn_propose_frames: int | None = Field(5_000, ge=1, description="A version is proposed after so many frames.")
    learn_propose_minutes: Annotated[float, Field(gt=0)] | None = Field(
        None, description="A version is proposed after so many working minutes; none: by frames only."
    )
    learn_reservoir_frames: int = Field(2_000, ge=2, description="Newest reservoir frames held for calibration.")
    learn_reservoir_max_bytes: Bytes = Field(64 * 2**20, description="Bound of the same in bytes of their features.")
    learn_reservoir_max_age_s: Seconds = Field(
        7 * 86_400.0, description="Bound of the same in working time of the line; the oldest go first."
    )
    learn_watch_every_s: Annotated[float, Field(gt=0)] = Field(
        60.0, description="Least working time between two looks for sudden drift; the stated false alarms stay."
    )
    learn_checkpoint_s: Seconds = Field(30.0, description="Least time between two checkpoints of a learner.")
    learn_nice: int = Field(
        10, ge=0, le=19, description="Niceness of a learner: on the same cores it gives way to workers."
    )
    learn_freeze_on: str = Field(
        "scores,failures,new_camera",
        description="Kinds of alarms during which their camera teaches nothing: scores, failures, mean, image, "
        "new_camera, joined by commas.",
    )

    # --- telemetry ---------------------------------------------------------------------------------------------------
    http_host: str = Field("127.0.0.1", description="Address of /metrics, /healthz and /readyz.")
    http_port: int = Field(9108, ge=0, le=65_535, description="Port of the same; 0 takes a free one and logs it.")
    trace_endpoint: str | None = Field(
        None,
        description="OpenTelemetry collector, OTLP over HTTP: http://host:4318/v1/traces; none: no traces.",
    )
    trace_share: float = Field(0.01, ge=0, le=1, description="Share of the frames that a producer begins a trace for.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level of a log line.")
    log_format: Literal["json", "text"] = Field("json", description="One JSON object a line, or text for a person.")

    @field_validator("line")
    @classmethod
    def _line(cls, value: str) -> str:
        return _name("line", value)

    @field_validator("bridge_name")
    @classmethod
    def _bridge_name(cls, value: str | None) -> str | None:
        return None if value is None else _name("bridge", value)

    @field_validator("worker_set")
    @classmethod
    def _worker_set(cls, value: str) -> str:
        return _name("set", value)

    @field_validator("worker_name")
    @classmethod
    def _worker_name(cls, value: str | None) -> str | None:
        return None if value is None else _name("worker", value)

    @model_validator(mode="after")
    def _coherent(self) -> Settings:
        if self.camera_budget_bytes > self.line_budget_bytes:
            raise ValueError(
                f"camera_budget_bytes ({self.camera_budget_bytes}) is over line_budget_bytes ({self.line_budget_bytes})"
            )
        if self.message_max_bytes > self.camera_budget_bytes:
            raise ValueError(
                f"message_max_bytes ({self.message_max_bytes}) is over camera_budget_bytes "
                f"({self.camera_budget_bytes}): the largest message could never be admitted"
            )
        if self.wait_replicas and self.wait_timeout_s >= self.redis_timeout_s:
            raise ValueError(
                f"wait_timeout_s ({self.wait_timeout_s:g}) is not under redis_timeout_s ({self.redis_timeout_s:g}): "
                "the call would be given up before its replicas have answered"
            )
        if self.slow_claim_after_s < self.claim_after_s:
            raise ValueError("slow_claim_after_s is shorter than claim_after_s")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` hands over: the environment is read there, once, where misspelt names can be refused."""
        return (init_settings,)

    @classmethod
    def _read(cls, file: Path) -> tuple[dict[str, Any], list[str]]:
        """Values and mistakes of a TOML file. Raises SettingsError where it cannot be read at all."""
        try:
            read = tomllib.loads(file.read_text("utf-8"))
        except OSError as error:
            raise SettingsError(f"{PREFIX}CONFIG {file} cannot be read: {error.strerror or error}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{PREFIX}CONFIG {file} is no TOML: {error}") from None
        mistakes = []
        for name in [name for name in read if name not in cls.model_fields]:
            near = difflib.get_close_matches(name, cls.model_fields, n=1)
            mistakes.append(f"{file}: {name} is no setting" + (f": did you mean {near[0]}?" if near else ""))
            del read[name]
        # As in the environment, an empty text is a setting that is not set.
        return {name: value for name, value in read.items() if value != ""}, mistakes

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None, **options: Any) -> Settings:
        """Build the settings from an environment (default: the process's own) and options that are not None.

        A TOML file that GAUSSLINE_CONFIG names comes first, the environment over it, the options over both.

        Raises SettingsError with one line a mistake, each naming the setting and its value; secrets are not shown.
        """
        environment = os.environ if environment is None else environment
        names = {PREFIX + name.upper(): name for name in cls.model_fields}
        values: dict[str, Any] = {}
        mistakes: list[str] = []
        file = environment.get(PREFIX + "CONFIG", "")
        if file:
            values, mistakes = cls._read(Path(file))
        for key, value in environment.items():
            if not key.startswith(PREFIX) or key in _FOREIGN:
                continue
            if key in names:
                if value != "":
                    values[names[key]] = value
                continue
            near = difflib.get_close_matches(key, names, n=1)
            mistakes.append(f"{key} is no setting" + (f": did you mean {near[0]}?" if near else ""))
        values.update({name: value for name, value in options.items() if value is not None})
        try:
            made = cls(**values)
            if not mistakes:
                return made
        except ValidationError as error:
            for item in error.errors():
                name = ".".join(str(part) for part in item["loc"])
                shown = "" if name in ("", "redis_url") else f" = {str(item['input'])[:80]!r}"
                where = f"{PREFIX}{name.upper()}{shown}: " if name else ""
                mistakes.append(where + item["msg"].removeprefix("Value error, "))
        raise SettingsError("\n".join(mistakes))


_FOREIGN = frozenset({PREFIX + "TEST_DATA", PREFIX + "CONFIG"})


def _name(kind: str, value: str) -> str:
    try:
        return check_name(kind, value)
    except ContractError as error:
        raise ValueError(str(error)) from None
