"""How a backbone is run here: device, layout, batch size, lanes and compilation, chosen by a short measured probe.

None of these is the model's business, so none may change what a feature means: numerics stand in the backbone spec, and
compilation, which may reorder them, is taken only where the features stay within `COMPILE_TOLERANCE` of the plain ones.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Final

import torch

from gaussline.worker.errors import SettingsError
from gaussline.worker.vision.backbones import Backbone
from gaussline.worker.vision.numeric import check_runtime, layouts, numeric_mode

CPU_BATCHES: Final = (1, 2, 4, 8, 16, 32)
CUDA_BATCHES: Final = (1, 4, 8, 16, 32, 64, 128, 256)
KNEE: Final = 0.95
"""The smallest batch within this share of the best rate is taken: beyond it, frames only wait for each other."""
COMPILE_GAIN: Final = 1.1
COMPILE_TOLERANCE: Final = 1e-5
"""Largest distance of compiled from plain features, relative to the level's norm."""
Forward = Callable[[torch.Tensor], list[torch.Tensor]]

LONGEST_S: Final = 0.6
"""Longest measurement of one way to run: where little is left open, more time tells nothing more."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One probe: what was tried, and how many images a second it gave."""

    memory_format: str
    batch_size: int
    compiled: bool
    images_per_second: float
    lanes: int = 1

    @property
    def batch_seconds(self) -> float:
        """What one batch takes, its neighbours in the other lanes beside it."""
        return self.lanes * self.batch_size / max(self.images_per_second, 1e-9)


@dataclass(frozen=True, slots=True)
class RuntimeChoice:
    """How a backbone runs.

    Attributes:
        device: cpu, cuda or cuda:N.
        memory_format: contiguous or channels_last.
        batch_size: images of one pass.
        compiled: by torch.compile.
        threads: of one lane on a CPU; 0 leaves torch's own number.
        images_per_second: of the choice, all lanes together; None where nothing was measured.
        measured: every probe made.
        note: why compilation was not taken, and the like.
        lanes: batches that run side by side, each in a thread of its own that has called `use_threads`.
    """

    device: str = "cpu"
    memory_format: str = "channels_last"
    batch_size: int = 8
    compiled: bool = False
    threads: int = 0
    images_per_second: float | None = None
    measured: tuple[Measurement, ...] = ()
    note: str = ""
    lanes: int = 1

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields by name, for logs and reports."""
        return asdict(self)

    def __str__(self) -> str:
        rate = "" if self.images_per_second is None else f", {self.images_per_second:.0f} images/s"
        compiled = ", compiled" if self.compiled else ""
        lanes = f", {self.lanes} lanes of {self.threads} thread(s)" if self.lanes > 1 else ""
        return f"{self.device}, {self.memory_format}, batch {self.batch_size}{lanes}{compiled}{rate}"


def resolve_device(device: str) -> str:
    """`auto` as the first CUDA device where there is one, else the CPU. Raises SettingsError for what is not here."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError:
        raise SettingsError(f"device = {device!r} is none of auto, cpu, cuda, cuda:N") from None
    if found.type not in ("cpu", "cuda"):
        raise SettingsError(f"device = {device!r} is none of auto, cpu, cuda, cuda:N")
    if found.type == "cuda" and not (torch.cuda.is_available() and (found.index or 0) < torch.cuda.device_count()):
        raise SettingsError(f"device = {device!r}: torch sees {torch.cuda.device_count()} CUDA devices here")
    return device


@cache
def device_name(device: str) -> str:
    """What computes, as verdicts say it: `cpu AVX2`, or `cuda` and the name of the card."""
    if device.startswith("cuda"):
        return f"cuda {torch.cuda.get_device_name(torch.device(device))}"
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"


def choose_runtime(
    backbone: Backbone,
    *,
    device: str = "auto",
    memory_format: str = "auto",
    compile: str = "off",
    batch_size: int | None = None,
    threads: int | None = None,
    lanes: int | None = 1,
    budget_s: float = 6.0,
    clock: Callable[[], float] = time.perf_counter,
) -> RuntimeChoice:
    """Measure what is left open, and choose.

    Args:
        backbone: is run on noise of its input size, and left on `device`.
        memory_format: contiguous, channels_last, or auto to measure both.
        compile: on, off, or auto to take it where it gains a tenth and keeps the features.
        batch_size: None looks for the knee.
        threads: of the backbone on a CPU, all lanes together; None takes torch's own number.
        lanes: batches that will be run side by side on a CPU, sharing the threads; None measures. For a caller with one
            thread it is 1; a GPU and a compiled backbone have one lane.
        budget_s: about how long to measure, compilation aside.

    Raises:
        SettingsError: a device that is not here, or a word that is none of these.
    """
    device = resolve_device(device)
    if memory_format not in ("auto", "channels_last", "contiguous"):
        raise SettingsError(f"memory_format = {memory_format!r} is none of auto, contiguous, channels_last")
    formats = layouts(backbone.spec.numeric_mode) if memory_format == "auto" else (memory_format,)
    check_runtime(backbone.spec, device, formats[0])
    if compile not in ("on", "off", "auto"):
        raise SettingsError(f"compile = {compile!r} is none of auto, on, off")
    total = threads or torch.get_num_threads()
    one_lane = device.startswith("cuda") or compile == "on"
    plans = (1,) if one_lane else lane_plans(total) if lanes is None else (lanes,)
    ladder = (batch_size,) if batch_size is not None else CUDA_BATCHES if device.startswith("cuda") else CPU_BATCHES
    probe = _Probe(backbone, device, budget_s / (len(ladder) * (len(formats) + len(plans) - 1)), clock)
    use_threads(max(1, total // plans[0]))
    for name in formats:
        probe.climb(name, ladder, plans[0])
    layout = max(probe.measured, key=lambda found: found.images_per_second).memory_format
    for plan in plans[1:]:
        use_threads(max(1, total // plan))
        probe.climb(layout, ladder, plan)
    same = [found for found in probe.measured if found.memory_format == layout]
    best = max(found.images_per_second for found in same)
    # Beyond the knee frames only wait for each other, so the quickest batch is taken of those that are as good.
    chosen = min(
        (found for found in same if found.images_per_second >= KNEE * best),
        key=lambda found: (found.batch_seconds, found.batch_size),
    )
    # Said even where it is torch's own number: a thread that begins later would take what another has set since.
    own_threads = max(1, total // chosen.lanes)
    use_threads(own_threads)
    note = ""
    if compile != "off" and chosen.lanes == 1:
        chosen, note = probe.compiled(chosen, forced=compile == "on")
    return RuntimeChoice(
        device=device,
        memory_format=chosen.memory_format,
        batch_size=chosen.batch_size,
        compiled=chosen.compiled,
        threads=own_threads,
        images_per_second=chosen.images_per_second,
        measured=tuple(probe.measured),
        note=note,
        lanes=chosen.lanes,
    )


def lane_plans(threads: int) -> tuple[int, ...]:
    """Numbers of lanes worth measuring: one, one a thread, and the divisor of `threads` nearest to half way between."""
    divisors = [lanes for lanes in range(1, threads + 1) if threads % lanes == 0]
    middle = min(divisors, key=lambda lanes: abs(math.log(lanes * lanes / threads)))
    return tuple(sorted({1, middle, threads}))


def use_threads(threads: int) -> None:
    """Let torch use so many threads in the calling thread, and in those that begin later; 0 changes nothing."""
    if threads and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def prepared(backbone: Backbone, runtime: RuntimeChoice) -> tuple[Backbone, Forward]:
    """The backbone on its device and in its layout, and the function that runs it."""
    use_threads(runtime.threads)
    layout = torch.channels_last if runtime.memory_format == "channels_last" else torch.contiguous_format
    backbone = backbone.to(device=runtime.device, memory_format=layout)  # type: ignore[call-overload]
    return backbone, torch.compile(backbone, dynamic=False) if runtime.compiled else backbone


class _Probe:
    def __init__(self, backbone: Backbone, device: str, seconds: float, clock: Callable[[], float]) -> None:
        self._backbone = backbone
        self._device = device
        self._seconds = min(seconds, LONGEST_S)
        self._clock = clock
        self.measured: list[Measurement] = []

    def climb(self, memory_format: str, ladder: tuple[int, ...], lanes: int) -> None:
        """Measure growing batches until two in a row bring nothing, or memory ends."""
        best, worse = 0.0, 0
        for size in ladder:
            try:
                rate = self._rate(memory_format, size, False, lanes)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                if not self.measured:
                    raise
                return
            self.measured.append(Measurement(memory_format, size, False, rate, lanes))
            best, worse = (rate, 0) if rate > best else (best, worse + 1)
            if worse == 2:
                return

    def compiled(self, plain: Measurement, *, forced: bool) -> tuple[Measurement, str]:
        """The compiled measurement where it may be taken, else the plain one, and why."""
        try:
            moved = self._moved_by_compiling(plain)
            rate = self._rate(plain.memory_format, plain.batch_size, True)
        except Exception as error:  # the compiler needs a C++ compiler on the machine and fails in its own many ways
            first = (str(error).strip().splitlines() or [""])[0][:200]
            return plain, f"torch.compile failed: {type(error).__name__}: {first}"
        found = Measurement(plain.memory_format, plain.batch_size, True, rate)
        self.measured.append(found)
        if moved > COMPILE_TOLERANCE:
            return plain, f"torch.compile moves features by {moved:.1e}, over {COMPILE_TOLERANCE:.0e}: not taken"
        if rate < COMPILE_GAIN * plain.images_per_second and not forced:
            return plain, f"torch.compile gives {rate:.0f} images/s, plain {plain.images_per_second:.0f}: not taken"
        return found, ""

    def _moved_by_compiling(self, plain: Measurement) -> float:
        x = self._noise(plain.memory_format, plain.batch_size)
        with torch.inference_mode(), self._numerics():
            expected = prepared(self._backbone, self._choice(plain.memory_format, False))[1](x)
            found = prepared(self._backbone, self._choice(plain.memory_format, True))[1](x)
        return max(
            float(((one - two).norm(dim=1) / two.norm(dim=1)).max()) for one, two in zip(found, expected, strict=True)
        )

    def _rate(self, memory_format: str, size: int, compiled: bool, lanes: int = 1) -> float:
        run = prepared(self._backbone, self._choice(memory_format, compiled))[1]
        x = self._noise(memory_format, size)
        if lanes == 1:
            return size / self._fastest(run, x, lambda late: late)
        # Every lane runs until all of them have measured: a pass beside idle neighbours would be too fast.
        threads, measured = torch.get_num_threads(), [threading.Event() for _ in range(lanes)]

        def seconds(own: threading.Event) -> float:
            def over(late: bool) -> bool:
                if late:
                    own.set()
                return all(each.is_set() for each in measured)

            use_threads(threads)
            try:
                return self._fastest(run, x, over)
            finally:
                own.set()

        with ThreadPoolExecutor(lanes, "probe") as pool:
            return sum(size / each for each in pool.map(seconds, measured))

    def _fastest(self, run: Forward, x: torch.Tensor, over: Callable[[bool], bool]) -> float:
        """Seconds of the fastest pass: other work on the machine only ever adds time. `over` is asked after each."""
        with torch.inference_mode(), self._numerics():
            run(x)
            run(x)  # the second pass too is slower than the rest: memory is still being found
            self._finish()
            fastest = float("inf")
            end = self._clock() + self._seconds
            while True:
                start = self._clock()
                run(x)
                self._finish()
                now = self._clock()
                fastest = min(fastest, max(now - start, 1e-9))
                if over(now >= end):
                    return fastest

    def _numerics(self) -> AbstractContextManager[None]:
        return numeric_mode(self._backbone.spec.numeric_mode, torch.device(self._device))

    def _choice(self, memory_format: str, compiled: bool) -> RuntimeChoice:
        return RuntimeChoice(device=self._device, memory_format=memory_format, compiled=compiled)

    def _noise(self, memory_format: str, size: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(size, 3, *self._backbone.spec.input_size, generator=generator).to(self._device)
        layout = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
        return x.contiguous(memory_format=layout)

    def _finish(self) -> None:
        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)
