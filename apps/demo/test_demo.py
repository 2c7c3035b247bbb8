#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the demo as a person would and judges what it leaves: test_demo.py PROGRAM [unittest arguments].

The PNGs are read, and the filters computed, by code that shares nothing with the demo.
"""

import os
import pathlib
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib

PROGRAM = pathlib.Path(sys.argv.pop(1)).resolve()
PICTURES = ["1-input.png", "2-edges.png", "3-drawing.png", "side-by-side.png"]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(path, width, height, colour_type, samples, rows):
    """Writes 8-bit rows (bytes of width * samples each) without filters."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    assert all(len(row) == width * samples for row in rows) and len(rows) == height
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def unfilter(kind, row, above, step):
    out = bytearray(row)
    for i in range(len(out)):
        left = out[i - step] if i >= step else 0
        up = above[i]
        corner = above[i - step] if i >= step else 0
        if kind == 1:
            add = left
        elif kind == 2:
            add = up
        elif kind == 3:
            add = (left + up) // 2
        elif kind == 4:
            estimate = left + up - corner
            add = min((abs(estimate - left), 0, left), (abs(estimate - up), 1, up), (abs(estimate - corner), 2, corner))[2]
        else:
            add = 0
        out[i] = (out[i] + add) & 255
    return bytes(out)


def read_png(path):
    """Returns (width, height, samples per pixel, rows) of an 8-bit PNG that is not interlaced."""
    data = path.read_bytes()
    at, packed = 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", data[at + 8:at + 8 + size])
            assert depth == 8 and interlace == 0
            samples = {0: 1, 2: 3}[colour]
        if kind == b"IDAT":
            packed += data[at + 8:at + 8 + size]
        at += size + 12
    raw, length = zlib.decompress(packed), width * samples
    rows, above = [], bytes(length)
    for y in range(height):
        start = y * (length + 1)
        above = unfilter(raw[start], raw[start + 1:start + 1 + length], above, samples)
        rows.append(above)
    return width, height, samples, rows


def neighbours(rows, x, y):
    """The nine pixels around one, row by row; beyond a border those of the border."""
    last_x, last_y = len(rows[0]) - 1, len(rows) - 1
    return [rows[min(max(y + dy, 0), last_y)][min(max(x + dx, 0), last_x)] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


def edge_at(rows, x, y):
    a, b, c, d, _, f, g, h, i = neighbours(rows, x, y)
    across = min(abs((c + 2 * f + i - a - 2 * d - g) // 2), 255)
    down = abs((g + 2 * h + i - a - 2 * b - c) // 2)
    return min(across + down, 255)


def drawing_at(rows, x, y):
    a, b, c, d, e, f, g, h, i = neighbours(rows, x, y)
    return 255 + (-(a + c + g + i) - 2 * (b + d + f + h) - 4 * e) // 16


class Demo(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="demo")
        self.addCleanup(self.folder.cleanup)
        self.here = pathlib.Path(self.folder.name)
        self.temporary = self.here / "tmp"
        self.temporary.mkdir()
        # An interrupted demo leaves by _exit(), and takes its threads with it: no leak of threads.
        sanitizer = os.environ.get("TSAN_OPTIONS", "") + ":report_thread_leaks=0"
        self.environment = dict(os.environ, TMPDIR=str(self.temporary), TSAN_OPTIONS=sanitizer)

    def start(self, *arguments):
        return subprocess.Popen([PROGRAM, *map(str, arguments)], cwd=self.here, env=self.environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run_demo(self, *arguments):
        demo = self.start(*arguments)
        self.out, self.err = demo.communicate(timeout=240)
        return demo.returncode

    def assert_left_nothing(self):
        self.assertEqual([], list(self.temporary.iterdir()), self.err)

    def assert_drawn(self, folder, columns=None):
        """Judges the PNGs of a run, at the given columns or everywhere."""
        self.assertEqual(PICTURES, sorted(path.name for path in folder.iterdir()))
        width, height, _, grey = read_png(folder / PICTURES[0])
        for picture, expected, source in ((PICTURES[1], edge_at, grey), (PICTURES[2], drawing_at, None)):
            size_and_rows = read_png(folder / picture)
            self.assertEqual((width, height, 1), size_and_rows[:3])
            rows = size_and_rows[3]
            for y in range(height):
                for x in columns or range(width):
                    self.assertEqual(expected(source or previous, x, y), rows[y][x], (picture, x, y))
            previous = rows
        return width, height, grey

    def test_draws_its_own_picture_into_demo_out(self):
        self.assertEqual(0, self.run_demo(), self.err)
        width, height, _ = self.assert_drawn(self.here / "demo-out", columns=[0, 1, 7, 225, 449, 450])
        self.assertEqual((451, 300), (width, height))
        self.assertIn("5 run, 0 faulted", self.out)
        here, there = re.search(r"inode (\d+) here, inode (\d+) in the second", self.out).groups()
        self.assertEqual(here, there)
        self.assertIn("maps them for both NPUs at once (mappings: 1)", self.out)
        self.assertRegex(self.out, r"accel0 npu: memory 272.0 KiB of .*sessions 1, jobs 4")
        self.assert_left_nothing()

    def test_draws_a_colour_picture_where_it_is_told(self):
        generator = random.Random(7)
        rows = [generator.randbytes(3 * 33) for _ in range(21)]
        write_png(self.here / "noise.png", 33, 21, 2, 3, rows)
        self.assertEqual(0, self.run_demo("noise.png", "--out", "a/b"), self.err)
        _, _, grey = self.assert_drawn(self.here / "a/b")
        luma = [bytes((299 * r + 587 * g + 114 * b + 500) // 1000 for r, g, b in zip(*[iter(row)] * 3)) for row in rows]
        self.assertEqual(luma, grey)

    def test_draws_the_smallest_picture(self):
        write_png(self.here / "dot.png", 1, 1, 0, 1, [b"\x80"])
        self.assertEqual(0, self.run_demo("dot.png"), self.err)
        self.assert_drawn(self.here / "demo-out")

    def test_draws_a_picture_that_is_wider_than_a_row_of_the_npu(self):
        generator = random.Random(8)
        width, strip = 140000, 65534
        write_png(self.here / "wide.png", width, 2, 0, 1, [generator.randbytes(width) for _ in range(2)])
        self.assertEqual(0, self.run_demo("wide.png"), self.err)
        borders = [x for at in (0, strip, 2 * strip, width) for x in range(max(at - 3, 0), min(at + 3, width))]
        self.assert_drawn(self.here / "demo-out", columns=borders)

    def test_faults_instead_of_drawing_when_a_table_entry_is_dropped(self):
        self.assertNotEqual(0, self.run_demo("--drop-entry", "1"))
        self.assertRegex(self.err, r"faulted: job 1 could not read device address 0x[0-9a-f]+ .*ended at level 4")
        self.assertEqual([], list((self.here / "demo-out").iterdir()))
        self.assert_left_nothing()

    def test_faults_at_every_job_of_the_first_npu(self):
        for job in range(2, 5):
            self.assertNotEqual(0, self.run_demo("--drop-entry", job))
            self.assertIn("faulted", self.err)
            self.assertEqual([], list((self.here / "demo-out").iterdir()))

    def test_explains_what_is_no_png(self):
        (self.here / "text.png").write_text("not a picture")
        self.assertNotEqual(0, self.run_demo("text.png"))
        self.assertIn("text.png cannot be read as a PNG", self.err)

    def test_explains_a_png_that_ends_too_early(self):
        write_png(self.here / "cut.png", 64, 64, 0, 1, [random.Random(9).randbytes(64)] * 64)
        whole = (self.here / "cut.png").read_bytes()
        (self.here / "cut.png").write_bytes(whole[:len(whole) // 2])
        self.assertNotEqual(0, self.run_demo("cut.png"))
        self.assertIn("cut.png cannot be read as a PNG", self.err)

    def test_explains_a_missing_picture(self):
        self.assertNotEqual(0, self.run_demo("missing.png"))
        self.assertIn("cannot open missing.png: No such file or directory", self.err)

    def test_explains_a_folder_that_cannot_be_made(self):
        (self.here / "file").touch()
        self.assertNotEqual(0, self.run_demo("--out", "file/out"))
        self.assertIn("cannot make the folder file/out: Not a directory", self.err)

    def test_leaves_nothing_behind_when_interrupted(self):
        for line_to_see in ("[1]", "[4]"):
            demo = self.start()
            seen = ""
            while line_to_see not in seen:
                line = demo.stdout.readline()
                self.assertNotEqual("", line)
                seen += line
            demo.send_signal(signal.SIGINT)
            rest, self.err = demo.communicate(timeout=60)
            if demo.returncode == 0:
                self.assertIn("What was done", rest)
            else:
                self.assertEqual(-signal.SIGINT, demo.returncode)
            self.assert_left_nothing()


if __name__ == "__main__":
    unittest.main()
