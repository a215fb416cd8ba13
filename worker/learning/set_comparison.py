"""What a set of workers says of copied frames, beside the verdicts of the same frames.

The same measures and rules as for a trial between two versions: every frame that both judged is one pair.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.copies import SetResults
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.clock import from_text
from gaussline.worker.learning.trial_counts import TrialCounts

PAGE: Final = 1000


@dataclass(slots=True)
class Comparison:
    """One comparison.

    Attributes:
        counts: of the frames that both judged; `new` is the set.
        cameras: such frames by camera.
        models: the models and versions that judged, as `name:version`, of the verdicts and of the set.
        undecided: results that say not_judged, by reason.
        own: frames of which the verdict is the set's own too: their camera was moved to it meanwhile.
        unmatched: results without a judged verdict of the same frame: not settled yet, not judged, or trimmed.
    """

    counts: TrialCounts = field(default_factory=TrialCounts)
    cameras: Counter[str] = field(default_factory=Counter)
    models: tuple[Counter[str], Counter[str]] = field(default_factory=lambda: (Counter(), Counter()))
    undecided: Counter[str] = field(default_factory=Counter)
    own: int = 0
    unmatched: int = 0


def compare(client: Redis, line: str, worker_set: str, camera: str | None = None) -> Comparison:
    """Compare what is there now, of one camera or of all. Raises BrokerError."""
    found = Comparison()
    results: dict[str, Mapping[str, Any]] = {}
    for _, _, text in SetResults(client, line, worker_set).read():
        result = json.loads(text)
        if camera not in (None, result["camera"]):
            continue
        if result["decision"] == "not_judged":
            found.undecided[result["reason"]] += 1
        else:
            results[result["id"]] = result
    if not results:
        return found
    # No verdict is older than its frame's admission; entry ids are Redis's milliseconds.
    after = f"{min(from_text(each['admitted_at']) for each in results.values()) // 1000 - 1}-0"
    verdicts = Verdicts(client, line)
    while page := verdicts.read(after, count=PAGE):
        after = page[-1][0]
        for _, verdict in page:
            result = results.get(verdict["id"])
            if result is not None and verdict["decision"] != "not_judged":
                del results[verdict["id"]]
                if verdict["model"]["digest"] == result["model"]["digest"]:
                    found.own += 1
                else:
                    _count(found, verdict, result)
    found.unmatched = len(results)
    return found


def _count(found: Comparison, verdict: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    sides = (verdict, result)
    old, new = ((each["decision"] == "fail", float(each["p_value"])) for each in sides)
    found.counts.compare(*old, *new)
    found.cameras[verdict["camera"]] += 1
    for side, (each, models) in enumerate(zip(sides, found.models, strict=True)):
        models[f"{each['model']['name']}:{each['model']['version']}"] += 1
        found.counts.took((from_text(each["judged_at"]) - from_text(each["admitted_at"])) / 1e6, new=side == 1)
