"""Every error gaussline raises on purpose.

GausslineError
├── SettingsError          a setting is missing, unknown, or out of range
├── ContractError          bytes from outside that do not follow the contract
│   ├── UnknownVersion     a contract version this build does not speak
│   └── LimitExceeded      a size, count or depth over its limit, found before memory was spent
├── ImageError             an image that cannot be judged; `reason` is the verdict's reason
├── ModelError             a model, weights or backbone that does not fit
│   ├── ArtefactError      torn, tampered or malformed model artefact
│   ├── BackboneMismatch   weights, levels or shapes differ from the backbone spec
│   └── WeightsUnavailable pretrained weights cannot be had
├── DeviceFull             the device has no memory for a batch; a smaller one may do
├── FitError               statistics that cannot be estimated from what was given
├── BrokerError            Redis answered, but not with what was asked
│   ├── BrokerUnavailable  Redis cannot be reached
│   │   ├── Unreplicated   Redis has it, and too few of its replicas in time
│   │   └── AnotherRun     Redis was started again, or another server is the master
│   ├── Fenced             a newer producer epoch, or lease, holds this camera
│   ├── Backlogged         the backlog is over its budget in bytes
│   ├── Conflict           a pointer moved under a compare-and-set
│   └── Pinned             a pointer that somebody holds where it is
├── DeliveryError          a bridge's receiver did not take a verdict
│   ├── Undeliverable      and never will: it refuses this one
│   └── NotNow             and may take it later
├── NotFound               a named model, version, frame, camera or subscriber does not exist
└── SourceError            a folder, video or camera that cannot be read
"""

from __future__ import annotations


class GausslineError(Exception):
    """Root of the tree. Its text is fit to be shown to a user: it says what, where, and what to do."""

    advice = ""
    """What a person does about it, where every error of its kind wants the same."""


class SettingsError(GausslineError):
    """A setting is missing, unknown, contradictory or out of range; the text names the key and the value."""


class ContractError(GausslineError):
    """Bytes from outside that do not follow the contract."""


class UnknownVersion(ContractError):
    """A contract version this build does not speak."""


class LimitExceeded(ContractError):
    """A declared or real size, count or depth over its limit."""


class ImageError(GausslineError):
    """An image that cannot be judged.

    `reason` is the machine-readable reason of the `not_judged` verdict (a member of `contract.verdict.Reason`).
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ModelError(GausslineError):
    """A model, weights or backbone that does not fit."""


class ArtefactError(ModelError):
    """A torn, tampered or malformed model artefact."""


class BackboneMismatch(ModelError):
    """Weights, levels, channels or shapes differ from the backbone spec."""


class WeightsUnavailable(ModelError):
    """Pretrained weights cannot be had (no file, no network)."""


class DeviceFull(GausslineError):
    """The device has no memory left for a batch of this size; a smaller one may do."""


class FitError(GausslineError):
    """Statistics that cannot be estimated from what was given (too few frames, a constant channel, NaN)."""


class BrokerError(GausslineError):
    """Redis answered, but not with what was asked."""


class BrokerUnavailable(BrokerError):
    """Redis cannot be reached, or refused the login."""

    advice = "start Redis, or name another, or other credentials, with GAUSSLINE_REDIS_URL or --redis-url"


class Unreplicated(BrokerUnavailable):
    """Redis has it, and too few of its replicas in time: ask again, as after a lost answer."""

    advice = ""


class AnotherRun(BrokerUnavailable):
    """Redis was started again, or another server is the master: what was read before may be forgotten there."""

    advice = ""


class Fenced(BrokerError):
    """A newer epoch (producer) or lease (learner) holds this camera or model."""


class Backlogged(BrokerError):
    """The backlog of a camera or of the line is over its budget in bytes."""


class Conflict(BrokerError):
    """A pointer moved between the read and the compare-and-set."""


class Pinned(BrokerError):
    """A pointer that somebody holds where it is."""


class DeliveryError(GausslineError):
    """A bridge's receiver did not take a verdict."""


class Undeliverable(DeliveryError):
    """The receiver refuses this verdict, and would refuse it again."""


class NotNow(DeliveryError):
    """The receiver did not take a verdict now.

    `whole`: it takes none at present (away, overloaded, or it refuses the bridge itself), so others need not be tried;
    `least_s`: the pause that it asked for.
    """

    def __init__(self, text: str, *, whole: bool = False, least_s: float = 0.0) -> None:
        super().__init__(text)
        self.whole = whole
        self.least_s = least_s


class NotFound(GausslineError):
    """A named model, version, frame, camera or subscriber does not exist."""


class SourceError(GausslineError):
    """A folder, video or camera that cannot be read."""
