#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs accelmm-replay as a person would: test_replay.py REPLAY [unittest arguments]."""

import csv
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import unittest

REPLAY = pathlib.Path(sys.argv.pop(1)).resolve()
ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "tests/data/traces"
GIB = 1 << 30
HEADER = "Thread,Time,Action,Pointer,Size,Stream\n"


def event(op, size, subject=0, pool=0, time=0, word2=0):
    return struct.pack("<QQQ", time | op << 40 | pool << 44, size << 32 | subject, word2)


def trace(*events, unit=12, tick=1000, sizes=(GIB,)):
    header = struct.pack("<8sIIIIQQ24s", b"ACCELTRC", 1, 24, unit, tick, len(events), 0, b"")
    return header + struct.pack("<16Q", *sizes, *[0] * (16 - len(sizes))) + b"".join(events)


ALLOCATE, FREE, SPLIT, REFUSED, BAD_FREE = 1, 2, 3, 4, 5


class Replaying(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="replay")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_replay(self, *arguments):
        return subprocess.run([REPLAY, *map(str, arguments)], cwd=self.folder, text=True, capture_output=True, timeout=120)

    def results(self, *arguments):
        done = self.run_replay(*arguments, "--json", "out.json", "--series", "out.csv")
        self.assertEqual((0, ""), (done.returncode, done.stderr), done.stdout)
        with (self.folder / "out.csv").open() as file:
            return json.loads((self.folder / "out.json").read_text()), list(csv.DictReader(file))

    def written(self, data, name="a.trace"):
        (self.folder / name).write_bytes(data)
        return name

    def refused(self, *arguments):
        done = self.run_replay(*arguments)
        self.assertEqual((1, ""), (done.returncode, done.stdout))
        return done.stderr.strip().removeprefix("accelmm-replay: ")


class Traces(Replaying):
    def test_tells_what_a_small_trace_does(self):
        # 3 pages, then 1; the 3 are split and their last page freed: 3 pages of 8 stay.
        name = self.written(trace(event(ALLOCATE, 3), event(ALLOCATE, 1), event(SPLIT, 2, 0), event(FREE, 1, 2), sizes=(32768,)))
        [ours], series = self.results(name)
        self.assertEqual((2, 1, 4 * 4096), (ours["allocations"], ours["frees"], ours["peak_live"]))
        self.assertEqual("", ours["flaw"])
        self.assertEqual(["16384", "12288"], [series[1]["live"], series[-1]["live"]])
        self.assertEqual(5 * 4096, ours["final"]["free"])

    def test_frees_an_allocation_whole_where_parts_cannot_be_freed(self):
        events = [event(ALLOCATE, 4), event(SPLIT, 1, 0), event(FREE, 3, 1), event(FREE, 1, 0), event(ALLOCATE, 8)]
        results, series = self.results(self.written(trace(*events, sizes=(32768,))), "--allocator", "ours", "tlsf")
        live = {name: [row["live"] for row in series if row["allocator"] == name] for name in ("ours", "tlsf")}
        self.assertEqual(["16384", "16384", "4096", "0", "32768"], live["ours"])
        self.assertEqual(["16384", "16384", "16384", "0", "32768"], live["tlsf"])
        self.assertEqual([0, 0], [result["refused"] for result in results])

    def test_plays_a_pool_of_a_tebibyte_on_any_machine(self):
        events = [event(ALLOCATE, 1 << 27), event(ALLOCATE, 1 << 26), event(FREE, 1 << 27, 0)]
        [ours], _ = self.results(self.written(trace(*events, sizes=(0,))), "--pool-size", "1TiB")
        self.assertEqual((1 << 40, 3 << 38), (ours["size"], ours["peak_live"]))
        self.assertEqual((0, None), (ours["refused"], ours["first_1g_refused"]))

    def test_says_how_full_the_pool_was_when_a_request_first_failed(self):
        # 1 GiB, a page of each 2 MiB taken: at 512 pages nothing holds 2 MiB, with 0.2 % of the pool live.
        fill = [event(ALLOCATE, 1, word2=21) for _ in range(512)]
        [ours], _ = self.results(self.written(trace(*fill, event(ALLOCATE, 512))), "--samples", "1000")
        self.assertEqual((1, 512), (ours["refused"], ours["first_refused"]["event"]))
        self.assertAlmostEqual(1 / 512, ours["first_refused"]["occupancy"])
        self.assertEqual(511, ours["first_2m_refused"]["event"])
        self.assertEqual(0, ours["first_1g_refused"]["event"])
        self.assertEqual((1.0, 0.0), (ours["final"]["external_2m"], ours["final"]["whole_2m_share"]))
        self.assertEqual(4096, ours["final"]["compaction_debt_1"])

    def test_takes_in_pieces_what_it_has_nowhere_in_one(self):
        fill = [event(ALLOCATE, 1, word2=21) for _ in range(512)]
        [ours], _ = self.results(self.written(trace(*fill, event(ALLOCATE, 1022))), "--scattered")
        self.assertEqual((0, GIB - (512 + 1022) * 4096), (ours["refused"], ours["final"]["free"]))
        self.assertAlmostEqual((512 + 2) / 513, ours["extents_mean"])

    def test_counts_zeros_that_were_there(self):
        wants_zeros = 1 << 10
        events = [event(ALLOCATE, 1, word2=wants_zeros), event(FREE, 1, 0, word2=wants_zeros), event(ALLOCATE, 1, word2=wants_zeros)]
        [ours], _ = self.results(self.written(trace(*events)))
        self.assertEqual(0.5, ours["zero_hit_rate"])

    def test_plays_each_pool_of_a_trace(self):
        events = [event(ALLOCATE, 5, pool=0), event(ALLOCATE, 9, pool=3), event(FREE, 5, 0, pool=0)]
        results, _ = self.results(self.written(trace(*events, sizes=(GIB, 0, 0, 2 * GIB))))
        self.assertEqual([(0, GIB, 1), (3, 2 * GIB, 0)], [(r["pool"], r["size"], r["frees"]) for r in results])

    def test_what_is_recorded_plays_back_without_a_refusal(self):
        done = self.run_replay("record-sample", "s.trace", "--steps", "20000", "--pool-size", "1GiB", "--seed", "7")
        self.assertEqual((0, "", ""), (done.returncode, done.stdout, done.stderr))
        results, series = self.results("s.trace", "--allocator", "ours", "tlsf", "rmm-list", "--samples", "20")
        self.assertEqual(["ours", "tlsf", "rmm-list"], [result["allocator"] for result in results])
        for result in results:
            self.assertEqual("", result["flaw"])
            self.assertGreater(result["allocations"], 9000)
        self.assertGreater(results[0]["peak_live"], 0.85 * GIB)
        self.assertGreaterEqual(len(series), 3 * 20)

    def test_refuses_what_is_no_trace(self):
        good = trace(event(ALLOCATE, 1), event(FREE, 1, 0))
        self.assertEqual("a.trace, event 0: the trace is shorter than its header", self.refused(self.written(good[:100])))
        self.assertEqual("a.trace, event 0: the trace does not hold as many events as it says", self.refused(self.written(good[:-1])))
        self.assertEqual("a.trace, event 0: this is no trace, or one that was not finished", self.refused(self.written(bytes(500))))
        self.assertEqual("a.trace, event 2: the trace frees or splits what is not live",
                         self.refused(self.written(trace(event(ALLOCATE, 1), event(FREE, 1, 0), event(FREE, 1, 0)))))
        self.assertEqual("a.trace: nothing is allocated", self.refused(self.written(trace())))
        self.assertEqual("pool 0: the trace does not say its size: give --pool-size",
                         self.refused(self.written(trace(event(ALLOCATE, 1), sizes=(0,)))))
        self.assertEqual("pool 0: its size is below 4 KiB or above 16 TiB", self.refused(self.written(good), "--pool-size", "1KiB"))
        self.assertEqual("none.trace: cannot open the file (No such file or directory)", self.refused("none.trace"))

    def test_does_not_overwrite_a_file(self):
        self.written(b"mine")
        self.assertIn("File exists", self.refused("record-sample", "a.trace"))
        self.assertEqual(b"mine", (self.folder / "a.trace").read_bytes())


class RmmLogs(Replaying):
    def imported(self, text):
        (self.folder / "log.csv").write_text(text)
        done = self.run_replay("import-rmm", "log.csv", "log.trace")
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        data = (self.folder / "log.trace").read_bytes()
        words = list(struct.iter_unpack("<QQQ", data[192:]))
        return done.stdout, data, [(w0 >> 40 & 15, w1 >> 32, w1 & 0xFFFFFFFF, w0 & (1 << 40) - 1, w0 >> 48) for w0, w1, _ in words]

    def flaw(self, *lines, header=HEADER):
        (self.folder / "log.csv").write_text(header + "".join(f"{line}\n" for line in lines))
        error = self.refused("import-rmm", "log.csv", "log.trace")
        self.assertFalse((self.folder / "log.trace").exists())
        return error.removeprefix("log.csv, ")

    def test_become_allocations_and_frees_in_order(self):
        said, data, events = self.imported(
            HEADER + "77,10:00:00.000100,allocate,0x7f00,1000,0x2\n"
            "88,10:00:00.000200,allocate,0x8000,1,(nil)\n"
            "77,10:00:00:000300,free,0x7f00,1000,0x2\n"
            "77,10:00:00.000400,allocate failure,(nil),99,0x2\n"
            "77,10:00:00.000500,free,0x1234,7,0x2\n"
            "77,10:00:00.000600,allocate,0x7f00,3,0\n")
        self.assertEqual([(ALLOCATE, 1000, 0, 0, 0), (ALLOCATE, 1, 0, 100, 1), (FREE, 1000, 0, 200, 0), (REFUSED, 99, 0, 300, 0),
                          (ALLOCATE, 3, 0, 500, 0)], events)
        self.assertEqual((0, 1000), struct.unpack("<II", data[16:24]))  # bytes and microseconds
        self.assertEqual("5 events; 1 frees of what was allocated before the log are left out\n", said)

    def test_larger_than_4_gib_get_a_larger_unit(self):
        _, data, events = self.imported(HEADER + f"1,10:00:00.000100,allocate,0x10,{1 << 36},0\n1,10:00:00.000100,allocate,0x20,1,0\n")
        self.assertEqual(5, data[16])
        self.assertEqual([1 << 31, 1], [size for _, size, _, _, _ in events])

    def test_go_on_after_midnight(self):
        _, _, events = self.imported(HEADER + "1,23:59:59.999999,allocate,0x10,1,0\n1,00:00:00.000001,allocate,0x20,1,0\n")
        self.assertEqual([0, 2], [time for _, _, _, time, _ in events])

    def test_that_are_malformed_are_refused_with_the_line(self):
        good = "1,10:00:00.000100,allocate,0x10,8,0"
        self.assertEqual("line 1: the first line does not name RMM's columns", self.flaw(header="a,b\n"))
        for bad, what in [("1,10:00:00.000100,allocate,0x10,8", "a line has not six columns"),
                          (good + ",9", "a line has not six columns"),
                          ("x,10:00:00.000100,allocate,0x10,8,0", "a thread is no number"),
                          ("1,10:00:00,allocate,0x10,8,0", "a time is not HH:MM:SS.ffffff"),
                          ("1,24:00:00.000100,allocate,0x10,8,0", "a time is not HH:MM:SS.ffffff"),
                          ("1,10:00:00.000100,allocate,16,8,0", "a pointer is no address"),
                          ("1,10:00:00.000100,allocate,0xzz,8,0", "a pointer is no address"),
                          ("1,10:00:00.000100,allocate,0x10000000000000000,8,0", "a pointer is no address"),
                          ("1,10:00:00.000100,allocate,0x10,-8,0", "a size is no number"),
                          ("1,10:00:00.000100,allocate,0x30,18446744073709551615,0", "a size cannot be"),
                          ("1,10:00:00.000100,allocate,(nil),8,0", "an allocation is at address 0"),
                          ("1,10:00:00.000100,alloc,0x20,8,0", "an action is not known"),
                          ("1,10:00:00.000100,free,0x10,9,0", "another size is freed than was allocated"),
                          (good, "an address is allocated that was not freed")]:
            self.assertEqual(f"line 3: {what}", self.flaw(good, bad), bad)
        free = "1,10:00:00.000100,free,0x10,8,0"
        self.assertEqual("line 4: an address is freed twice", self.flaw(good, free, free))

    def test_the_sample_plays(self):
        said = self.run_replay("import-rmm", SAMPLES / "rmm.csv", "rmm.trace").stdout
        self.assertIn("1 frees of what was allocated before the log", said)
        results, _ = self.results("rmm.trace", "--pool-size", "1GiB", "--allocator", "ours", "rmm-list")
        for result in results:
            self.assertEqual((78, 75, 0, ""), (result["allocations"], result["frees"], result["refused"], result["flaw"]))
        self.assertLess(0, results[0]["internal"])  # pages of 4 KiB, where RMM asks for bytes


class Documentation(Replaying):
    def test_runs_what_docs_trace_says(self):
        text = (ROOT / "docs/trace.md").read_text()
        blocks = re.findall(r"<!-- run -->\n```sh\n(.*?)```", text, re.S)
        self.assertGreaterEqual(len(blocks), 3)
        path = os.pathsep.join([str(REPLAY.parent), os.environ["PATH"]])
        for name in ("tools", "tests"):
            (self.folder / name).symlink_to(ROOT / name)
        done = subprocess.run(["bash", "-euc", "".join(blocks)], cwd=self.folder, env={**os.environ, "PATH": path}, text=True,
                              capture_output=True, timeout=240)
        self.assertEqual((0, ""), (done.returncode, done.stderr), done.stdout)

    def test_shows_the_recorder_as_it_is_built(self):
        text = (ROOT / "docs/trace.md").read_text()
        source = (ROOT / "apps/replay/sample.cpp").read_text()
        shown = re.search(r"<!-- from apps/replay/sample.cpp -->\n```cpp\n(.*?)```", text, re.S)[1]
        built = re.search(r"// \[recording\]\n(.*?)// \[/recording\]", source, re.S)[1]
        self.assertEqual(built, shown)


if __name__ == "__main__":
    unittest.main()
