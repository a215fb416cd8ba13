"""What a server says that is no master (any more) is an outage, and never "Redis refused"."""

from __future__ import annotations

import pytest
import redis

from gaussline.worker.broker.client import translated
from gaussline.worker.errors import BrokerError, BrokerUnavailable

FOR_NOW = [
    redis.exceptions.ReadOnlyError("You can't write against a read only replica."),
    redis.exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."),
    redis.exceptions.ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed"),
    redis.exceptions.ClusterDownError("Hash slot not served"),
    redis.exceptions.TryAgainError("Multiple keys request during rehashing of slot"),
    redis.exceptions.AskError("6257 127.0.0.1:7001"),
    redis.exceptions.ResponseError("MISCONF Errors writing to the AOF file: No space left on device"),
    # Redis 6.2 puts the code of an error inside a script into the middle.
    redis.exceptions.ResponseError(
        "Error running script (call to f_be): @user_script:1: @user_script: 1: -READONLY You"
    ),
    redis.exceptions.ResponseError("@user_script: 1: -NOREPLICAS Not enough good replicas to write."),
]


@pytest.mark.parametrize("error", FOR_NOW, ids=str)
def test_a_refusal_that_ends_by_itself_is_an_outage(error: Exception) -> None:
    with pytest.raises(BrokerUnavailable), translated("x"):
        raise error


@pytest.mark.parametrize("text", ["WRONGTYPE Operation against a key", "NOPERM this user has no READONLY-like rights"])
def test_any_other_is_none(text: str) -> None:
    with pytest.raises(BrokerError) as told, translated("x"):
        raise redis.exceptions.ResponseError(text)
    assert not isinstance(told.value, BrokerUnavailable)
