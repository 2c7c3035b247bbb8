#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests tools/import_pytorch_snapshot.py, and plays what it makes: test_pytorch_snapshot.py REPLAY [unittest arguments]."""

import json
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import tempfile
import unittest

REPLAY = pathlib.Path(sys.argv.pop(1)).resolve()
ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "tests/data/traces/snapshot.pickle"


def event(action, addr=0x1000, size=512, time=100, **more):
    return {"action": action, "addr": addr, "size": size, "stream": 0, "time_us": time, "frames": [], **more}


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Snapshots(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="snapshot")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_import(self, data):
        (self.folder / "snapshot").write_bytes(data)
        (self.folder / "trace").unlink(missing_ok=True)
        return subprocess.run([sys.executable, ROOT / "tools/import_pytorch_snapshot.py", "snapshot", "trace"], cwd=self.folder,
                              text=True, capture_output=True, timeout=60)

    def imported(self, *devices):
        done = self.run_import(pickle.dumps({"segments": [], "device_traces": list(devices)}))
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        words = struct.iter_unpack("<QQQ", (self.folder / "trace").read_bytes()[192:])
        return done.stdout, [(w0 >> 40 & 15, w0 >> 44 & 15, w1 >> 32, w1 & 0xFFFFFFFF, w0 & (1 << 40) - 1) for w0, w1, _ in words]

    def flaw(self, data):
        done = self.run_import(data)
        self.assertEqual((1, ""), (done.returncode, done.stdout))
        self.assertFalse((self.folder / "trace").exists())
        self.assertNotIn("Traceback", done.stderr)
        return done.stderr.strip().removeprefix("import_pytorch_snapshot: ")

    def flaw_of(self, *events):
        return self.flaw(pickle.dumps({"device_traces": [list(events)]}))

    def test_become_allocations_and_frees(self):
        said, events = self.imported(
            [event("segment_alloc", 0x1000, 2 << 20), event("free_completed", 0x9000), event("alloc", 0x1000, 1024, 101),
             event("alloc", 0x2000, 513, 102), event("free_requested", 0x1000, 1024, 103), event("free_completed", 0x1000, 1024, 105),
             event("alloc", 0x1000, 512, 106), {"action": "oom", "size": 4096, "device_free": 0, "stream": 0, "time_us": 107}],
            [event("alloc", 0x1000, 512, 7)])
        self.assertEqual([(1, 0, 2, 0, 1), (1, 0, 2, 0, 2), (2, 0, 2, 0, 5), (1, 0, 1, 0, 6), (4, 0, 8, 0, 7), (1, 1, 1, 0, 0)], events)
        self.assertIn("1 frees of what was allocated before", said)

    def test_as_json_become_the_same(self):
        snapshot = pickle.loads(SAMPLE.read_bytes())  # ours, made by make_samples.py
        self.assertEqual(0, self.run_import(SAMPLE.read_bytes()).returncode)
        first = (self.folder / "trace").read_bytes()
        self.assertEqual(0, self.run_import(json.dumps(snapshot).encode()).returncode)
        self.assertEqual(first, (self.folder / "trace").read_bytes())

    def test_the_sample_plays(self):
        self.assertEqual(0, self.run_import(SAMPLE.read_bytes()).returncode)
        done = subprocess.run([REPLAY, "trace", "--pool-size", "1TiB", "--samples", "10", "--json", "out.json"], cwd=self.folder, timeout=120,
                              text=True, capture_output=True)
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        results = json.loads((self.folder / "out.json").read_text())
        self.assertEqual([(0, 78, 75, 0), (1, 78, 75, 0)],
                         [(r["pool"], r["allocations"], r["frees"], r["refused"]) for r in results])

    def test_a_pickle_cannot_run_anything(self):
        marker = self.folder / "ran"
        for call in (Call(os.system, f"touch {marker}"), Call(open, str(marker), "w"), Call(getattr, 1, "real"),
                     Call(eval, f"open({str(marker)!r}, 'w')"), Call(bytearray, 10)):
            for protocol in (0, 4):
                said = self.flaw(pickle.dumps({"device_traces": [[call]]}, protocol=protocol))
                self.assertRegex(said, "the pickle wants .*, which is no plain value")
        self.assertFalse(marker.exists())
        self.assertIn("outside", self.flaw(b"\x80\x04\x8c\x01x\x51."))  # a persistent id

    def test_that_are_none_are_refused(self):
        whole = SAMPLE.read_bytes()
        for size in (0, 1, 2, 100, len(whole) // 2, len(whole) - 1):
            self.assertIn("neither a pickle nor JSON", self.flaw(whole[:size]))
        self.assertIn("neither a pickle nor JSON", self.flaw(b"{\"device_traces\": [["))
        self.assertIn("nested too deep", self.flaw(b'{"a":' * 100_000))
        for value in (1, [], {}, {"device_traces": 7}, {"device_traces": {}}):
            self.assertEqual("the snapshot has no device_traces", self.flaw(pickle.dumps(value)))
        self.assertEqual("the events of a device are no list", self.flaw(pickle.dumps({"device_traces": [7]})))
        self.assertIn("no history", self.flaw(pickle.dumps({"device_traces": [[]]})))
        self.assertIn("more than 16 devices", self.flaw(pickle.dumps({"device_traces": [[event("alloc")]] * 17})))

    def test_with_events_that_cannot_be_are_refused(self):
        self.assertEqual("an event is no dictionary", self.flaw_of("alloc"))
        self.assertEqual("an event has no action", self.flaw_of({"addr": 1}))
        for name, bad in [("addr", -1), ("addr", "1"), ("addr", 2**64), ("size", None), ("size", 1.5), ("size", True), ("size", 2**60),
                          ("time_us", -1)]:
            self.assertIn(f"{name} of an event is {bad!r}", self.flaw_of({**event("alloc"), name: bad}))
        self.assertEqual("an event has 0 bytes", self.flaw_of(event("alloc", size=0)))
        self.assertIn("allocated that was not freed", self.flaw_of(event("alloc"), event("alloc")))
        self.assertIn("is freed twice", self.flaw_of(event("alloc"), event("free_completed"), event("free_completed")))
        self.assertIn("is freed with 1024 bytes and was allocated with 512", self.flaw_of(event("alloc"), event("free_completed", size=1024)))

    def test_do_not_overwrite_a_file(self):
        (self.folder / "snapshot").write_bytes(SAMPLE.read_bytes())
        (self.folder / "trace").write_text("mine")
        done = subprocess.run([sys.executable, ROOT / "tools/import_pytorch_snapshot.py", "snapshot", "trace"], cwd=self.folder, text=True,
                              capture_output=True, timeout=60)
        self.assertEqual(1, done.returncode)
        self.assertEqual("mine", (self.folder / "trace").read_text())


if __name__ == "__main__":
    unittest.main()
