"""How rivals are timed: one call of each per round, in random order, many rounds."""

from __future__ import annotations

import gc
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark import Measurement
from torch.utils.benchmark.utils.common import TaskSpec

Call = Callable[[], Any]
Clock = Callable[[Call], float]  # seconds of one call

WARM_UP_ROUNDS = 3
MIN_ROUNDS = 11


def cpu_clock(call: Call) -> float:
    """Wall clock. What the call returns is dropped after the clock stopped."""
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    del result
    return seconds


def cuda_clock(device: torch.device) -> Clock:
    """A clock of CUDA events, which finds nothing of the previous call in the L2 cache.

    The flush also keeps the device busy while the host launches, so that the time is the
    device's wherever the host is faster than that.
    """
    flush = flush_of(device)
    start = torch.cuda.Event(enable_timing=True)
    stop = torch.cuda.Event(enable_timing=True)

    def clock(call: Call) -> float:
        flush()
        start.record()
        result = call()
        stop.record()
        stop.synchronize()
        del result
        return float(start.elapsed_time(stop)) / 1e3

    return clock


def flush_of(device: torch.device) -> Call:
    """What empties the L2 cache: a write of twice its size."""
    cache_bytes = torch.cuda.get_device_properties(device).L2_cache_size
    return torch.empty(2 * cache_bytes, dtype=torch.uint8, device=device).zero_


def clock_for(device: torch.device) -> Clock:
    return cuda_clock(device) if device.type == "cuda" else cpu_clock


def interleave(calls: Mapping[str, Call], clock: Clock, min_time: float) -> dict[str, Measurement]:
    """Time several calls against each other.

    Every round times each call once, in an order drawn anew: what disturbs the machine for a
    while hits all alike, and none always finds the same predecessor's data in the cache.

    Args:
        calls: by name; all must return what they computed, so that all drop it alike.
        clock: seconds of one call.
        min_time: seconds per call, on average; there are at least ``MIN_ROUNDS`` rounds.

    Returns:
        One time per round for each name.
    """
    order = list(calls)
    shuffle = random.Random(0).shuffle
    times: dict[str, list[float]] = {name: [] for name in order}
    for _ in range(WARM_UP_ROUNDS):
        for name in order:
            clock(calls[name])
    collecting = gc.isenabled()
    gc.disable()
    try:
        rounds, spent = 0, 0.0
        while rounds < MIN_ROUNDS or spent < min_time * len(order):
            shuffle(order)
            for name in order:
                seconds = clock(calls[name])
                times[name].append(seconds)
                spent += seconds
            rounds += 1
    finally:
        if collecting:
            gc.enable()
    threads = torch.get_num_threads()
    return {
        name: Measurement(1, values, TaskSpec(name, "", num_threads=threads))
        for name, values in times.items()
    }


def saved_bytes(forward: Call, parameters: Iterable[Tensor]) -> int:
    """Bytes that ``forward`` keeps for its backward, each storage once, parameters apart."""
    known = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = forward()  # its graph keeps what was saved alive, so no address comes twice
    del outputs
    return sum(saved.values())


def peak_bytes(call: Call, device: torch.device) -> int:
    """Most bytes in PyTorch's allocator at once during a call, beyond those before it.

    Scratch memory that a library allocates by itself (oneDNN's, for example) is not in it.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    # acc_events changes nothing in a single cycle; torch 2.10 warns without it.
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profiler:
        call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    memory = [event for event in events if event["name"] == "[memory]"]
    held = peak = 0
    for event in sorted(memory, key=lambda event: event["args"]["Ev Idx"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak
