"""The worker that people write first: read one frame, decode with PIL, a forward pass of batch 1, XADD, XACK.

It keeps no promise: no admission, no claim of what a dead worker left, no guard against a second verdict.
"""

from __future__ import annotations

import io
import json
import time
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.line import Usage
from gaussline.worker.broker.client import connect
from gaussline.worker.contract.frame import Frame, decode_batch
from gaussline.worker.contract.model import Model
from gaussline.worker.vision.backbones import load_backbone

STREAM, GROUP, VERDICTS = "plain:frames", "plain", "plain:verdicts"


def plain_main(url: str, setup: Any, model: Model, total: int, ready: Any, told: Any) -> None:
    """Body of the process: judge `total` frames, one at a time."""
    client = connect(url)
    backbone = load_backbone(setup.backbone, setup.source(), numeric_mode=setup.mode)
    backbone = (
        backbone.to(memory_format=torch.channels_last) if setup.runtime.memory_format != "contiguous" else backbone
    )
    mean = torch.tensor(model.spec.mean).view(3, 1, 1)
    std = torch.tensor(model.spec.std).view(3, 1, 1)
    height, width = model.spec.input_size
    gaussians = [
        (torch.tensor(g.mean, dtype=torch.float32), torch.tensor(g.whitening, dtype=torch.float32))
        for g in model.gaussians
    ]
    layout = torch.contiguous_format if setup.runtime.memory_format == "contiguous" else torch.channels_last
    with torch.no_grad():
        backbone(torch.zeros(1, 3, height, width).contiguous(memory_format=layout))
    before = Usage.now()
    ready.set()
    judged = 0
    while judged < total and not told.is_set():
        reply = client.xreadgroup(GROUP, "plain-1", {STREAM: ">"}, count=1, block=1000)
        for _, entries in reply or []:
            for entry_id, fields in entries:
                frame = decode_batch(fields[b"d"]).frames[0]
                assert isinstance(frame, Frame)
                image = (
                    Image.open(io.BytesIO(frame.data)).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
                )
                x = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float().div(255).sub(mean).div(std)
                with torch.no_grad():
                    features = backbone(x[None].contiguous(memory_format=layout))
                    score = sum(
                        float(torch.linalg.vector_norm((level[0].float() - m) @ w.T))
                        for level, (m, w) in zip(features, gaussians, strict=True)
                    )
                verdict = {"id": entry_id.decode(), "score": score, "fail": score > model.working_point.threshold}
                client.xadd(VERDICTS, {"json": json.dumps(verdict)})
                client.xack(STREAM, GROUP, entry_id)
                judged += 1
    after = Usage.now()
    client.set("bench:usage", f"{after.cpu_s - before.cpu_s} {after.peak_bytes}")
    client.set("bench:done", time.time())
