#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes a trace (docs/trace.md) of a PyTorch memory snapshot: import_pytorch_snapshot.py SNAPSHOT TRACE.

SNAPSHOT is what torch.cuda.memory._dump_snapshot() writes, a pickle, or the same as JSON. Of it only device_traces is
used: one list of events a device. Device n becomes pool n. `alloc` allocates, `free_completed` frees (the memory can be had
again only then), `oom` is a refused request; segments, requests to free, and all else are skipped. Frees of what was
allocated before the history began are left out and counted.

A pickle may come from anywhere: nothing is made of it but plain values, and no name in it is looked up.
"""
import argparse
import io
import json
import os
import pathlib
import pickle
import struct
import sys

UNIT_LOG2 = 9  # PyTorch rounds sizes up to 512 bytes
TICK_NS = 1000
MOST_POOLS = 16
ALLOCATE, FREE, REFUSED = 1, 2, 4  # include/accelmm/trace.hpp


class BadSnapshot(Exception):
    pass


class PlainUnpickler(pickle.Unpickler):
    """Knows no class and no function."""

    def find_class(self, module, name):
        raise BadSnapshot(f"the pickle wants {module}.{name}, which is no plain value")

    def persistent_load(self, pid):
        raise BadSnapshot("the pickle refers to something outside it")


def load(data):
    """The snapshot as plain values."""
    try:
        if data[:1] in (b"{", b"[", b" ", b"\n"):
            return json.loads(data)
        return PlainUnpickler(io.BytesIO(data)).load()
    except BadSnapshot:
        raise
    except RecursionError:
        raise BadSnapshot("the snapshot is nested too deep") from None
    except Exception as error:  # a pickle can fail in as many ways as there are opcodes
        raise BadSnapshot(f"this is neither a pickle nor JSON of a snapshot ({type(error).__name__})") from None


def number(event, name, most):
    value = event.get(name)
    if type(value) is not int or not 0 <= value <= most:
        raise BadSnapshot(f"{name} of an event is {value!r:.40}")
    return value


class Trace:
    def __init__(self):
        self.events = []
        self.unknown_frees = 0

    def add(self, op, size, subject, pool, time):
        if len(self.events) == 2**32 - 1:
            raise BadSnapshot("there are more events than a trace has ids")
        units = (size + (1 << UNIT_LOG2) - 1) >> UNIT_LOG2
        if not 0 < units < 2**32:
            raise BadSnapshot(f"an event has {size} bytes")
        self.events.append(struct.pack("<QQQ", min(time, 2**40 - 1) | op << 40 | pool << 44, units << 32 | subject, 0))
        return len(self.events) - 1

    def device(self, pool, events):
        live, gone = {}, set()
        start = None
        for event in events:
            if type(event) is not dict:
                raise BadSnapshot("an event is no dictionary")
            action = event.get("action")
            if action not in ("alloc", "free_completed", "oom"):
                if type(action) is not str:
                    raise BadSnapshot("an event has no action")
                continue
            # Snapshots of before 2023 have no times.
            time = number(event, "time_us", 2**63) if "time_us" in event else len(self.events)
            start = time if start is None else start
            since = max(0, time - start)
            size = number(event, "size", 2**41)
            if action == "oom":
                self.add(REFUSED, size, 0, pool, since)
                continue
            address = number(event, "addr", 2**64 - 1)
            if action == "alloc":
                if address in live:
                    raise BadSnapshot(f"{address:#x} is allocated that was not freed")
                live[address] = self.add(ALLOCATE, size, 0, pool, since), size
            elif address in live:
                subject, allocated = live.pop(address)
                if allocated != size:
                    raise BadSnapshot(f"{address:#x} is freed with {size} bytes and was allocated with {allocated}")
                self.add(FREE, size, subject, pool, since)
                gone.add(address)
            elif address in gone:
                raise BadSnapshot(f"{address:#x} is freed twice")
            else:
                self.unknown_frees += 1

    def file(self):
        header = struct.pack("<8sIIIIQQ24s", b"ACCELTRC", 1, 24, UNIT_LOG2, TICK_NS, len(self.events), 0, b"")
        return header + bytes(8 * MOST_POOLS) + b"".join(self.events)


def trace_of(snapshot):
    if type(snapshot) is not dict or type(snapshot.get("device_traces")) is not list:
        raise BadSnapshot("the snapshot has no device_traces")
    devices = snapshot["device_traces"]
    if len(devices) > MOST_POOLS and any(devices[MOST_POOLS:]):
        raise BadSnapshot(f"more than {MOST_POOLS} devices have events")
    trace = Trace()
    for pool, events in enumerate(devices[:MOST_POOLS]):
        if type(events) is not list:
            raise BadSnapshot("the events of a device are no list")
        trace.device(pool, events)
    if not trace.events:
        raise BadSnapshot("the snapshot has no history: _record_memory_history() was not called")
    return trace


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("snapshot", type=pathlib.Path)
    parser.add_argument("trace", type=pathlib.Path)
    arguments = parser.parse_args()
    try:
        trace = trace_of(load(arguments.snapshot.read_bytes()))
        with os.fdopen(os.open(arguments.trace, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
            file.write(trace.file())
    except (BadSnapshot, OSError) as error:
        sys.exit(f"import_pytorch_snapshot: {error}")
    print(f"{len(trace.events)} events; {trace.unknown_frees} frees of what was allocated before the history are left out")


if __name__ == "__main__":
    main()
