#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the samples beside it: rmm.csv and snapshot.pickle.

They are made up, in the shape that RMM's logging_resource_adaptor and PyTorch's _dump_snapshot() are documented to write;
no RMM and no PyTorch was at hand to record any. Each holds a few steps of a training loop on one or two devices.
"""
import pathlib
import pickle
import random

HERE = pathlib.Path(__file__).parent
MIB = 1 << 20


def steps(seed):
    """(allocate?, number, bytes) of a loop that keeps weights, and takes and frees activations in reverse."""
    dice = random.Random(seed)
    number, weights = 0, []
    for _ in range(6):
        size = dice.choice([2, 8, 20]) * MIB
        yield True, number, size
        weights.append((number, size))
        number += 1
    for _ in range(12):
        activations = []
        for _ in range(6):
            size = dice.randrange(512, 6 * MIB)
            yield True, number, size
            activations.append((number, size))
            number += 1
        for which, size in reversed(activations):
            yield False, which, size
    for which, size in weights[:3]:
        yield False, which, size


def addresses(sequence, granule, first):
    """The same with addresses: freed ones of the same size are used again, as a caching allocator does."""
    spare, live, top = {}, {}, first
    for allocate, number, size in sequence:
        rounded = -(-size // granule) * granule
        if allocate:
            if not spare.get(rounded):
                spare[rounded] = [top]
                top += rounded
            live[number] = spare[rounded].pop()
            yield True, live[number], size
        else:
            spare[rounded].append(live[number])
            yield False, live[number], size


def rmm():
    lines = ["Thread,Time,Action,Pointer,Size,Stream"]
    micro = (23 * 3600 + 59 * 60 + 59) * 1_000_000 + 990_000  # the log goes on into the next day
    for i, (allocate, address, size) in enumerate(addresses(steps(1), 256, 0x7F3A40000000)):
        micro += 137
        second, fraction = divmod(micro % (86400 * 1_000_000), 1_000_000)
        clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.{fraction:06}"
        lines.append(f"{2342727 + i % 2},{clock},{'allocate' if allocate else 'free'},{address:#x},{size},{'0x2' if i % 3 else '0'}")
    lines.insert(40, f"2342727,{clock},free,0x7f3000000000,4096,0x2")  # of before the log
    lines.append(f"2342727,{clock},allocate failure,(nil),{1 << 40},0x2")
    return "\n".join(lines) + "\n"


def snapshot():
    traces = []
    for device in range(2):
        events = []
        frames = [{"filename": "train.py", "line": 12, "name": "forward"}]

        def note(action, addr, size, time):
            events.append({"action": action, "addr": addr, "size": size, "stream": 0, "time_us": time, "frames": frames})

        time = 1_700_000_000_000_000
        base = 0x7F0000000000 + device * (1 << 36)
        note("free_requested", base - 4096, 1024, time)
        note("free_completed", base - 4096, 1024, time)  # of before the history
        note("segment_alloc", base, 256 * MIB, time)
        for allocate, address, size in addresses(steps(2 + device), 512, base):
            time += 41
            rounded = -(-size // 512) * 512
            if allocate:
                note("alloc", address, rounded, time)
            else:
                note("free_requested", address, rounded, time)
                note("free_completed", address, rounded, time + 7)
        events.append({"action": "oom", "device_free": 5 * MIB, "size": 80 << 30, "stream": 0, "time_us": time,
                       "frames": frames})
        note("snapshot", 0, 0, time)
        traces.append(events)
    return {"segments": [], "device_traces": traces, "allocator_settings": {"PYTORCH_CUDA_ALLOC_CONF": ""}}


if __name__ == "__main__":
    (HERE / "rmm.csv").write_text(rmm())
    (HERE / "snapshot.pickle").write_bytes(pickle.dumps(snapshot(), protocol=4))
