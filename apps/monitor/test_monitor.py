#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs acceld and accelmm-monitor as a person would: test_monitor.py ACCELD MONITOR [unittest arguments]."""

import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import unittest

ACCELD = pathlib.Path(sys.argv.pop(1)).resolve()
MONITOR = pathlib.Path(sys.argv.pop(1)).resolve()
LINE = re.compile(r"accel(\d+) npu: memory 0 B of ([\d.]+ [KMGT]iB), host buffers 0 B, page tables 0 B, mappings 0, "
                  r"sessions 0, jobs 0, faults 0, busy (-|\d+ %)$")


class Programs(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="acceld")
        self.addCleanup(folder.cleanup)
        self.nodes = pathlib.Path(folder.name) / "nodes"

    def start(self, *arguments):
        """Starts acceld and waits until its nodes are there."""
        driver = subprocess.Popen([ACCELD, "--directory", self.nodes, *arguments], text=True, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE)
        self.addCleanup(driver.communicate)
        self.addCleanup(driver.kill)
        self.ready = driver.stdout.readline()
        self.assertIn("acceld: ready:", self.ready)
        return driver

    def end(self, driver, number=signal.SIGTERM):
        driver.send_signal(number)
        out, err = driver.communicate(timeout=60)
        self.assertEqual((0, "acceld: ended\n"), (driver.returncode, out))
        self.assertRegex(err, r"\Aacceld: shares by [^\n]+\n\Z")

    def run_monitor(self, *arguments, **options):
        return subprocess.run([MONITOR, "--directory", self.nodes, *arguments], text=True, capture_output=True,
                              timeout=60, **options)

    def test_hosts_devices_until_it_is_told_to_stop(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            driver = self.start("--devices", "3")
            self.assertEqual([f"{self.nodes}/accel{n}" for n in range(3)], self.ready.split()[2:])
            for n in range(3):
                self.assertTrue((self.nodes / f"accel{n}").is_socket())
                self.assertTrue((self.nodes / f"accel_controlD{n}").is_socket())
            self.end(driver, number)
            self.assertEqual([], [path for path in self.nodes.iterdir() if path.is_socket()])

    def test_prints_every_device_as_often_as_asked(self):
        driver = self.start("--devices", "2", "--memory", "1G")
        shown = self.run_monitor("--interval", "0.01", "--count", "3", stdin=subprocess.DEVNULL)
        self.assertEqual((0, ""), (shown.returncode, shown.stderr))
        lines = [LINE.match(line) for line in shown.stdout.splitlines()]
        self.assertTrue(all(lines), shown.stdout)
        self.assertEqual(["0", "1"] * 3, [line[1] for line in lines])
        self.assertEqual({"960.0 MiB"}, {line[2] for line in lines})
        self.assertEqual(["-", "-"] + ["0 %"] * 4, [line[3] for line in lines])
        self.end(driver)

    def test_prints_metrics_that_prometheus_reads(self):
        self.start("--devices", "2", "--memory", "1G")
        shown = self.run_monitor("--prometheus", "--count", "1")
        self.assertEqual((0, ""), (shown.returncode, shown.stderr))
        typed, samples = {}, {}
        for line in shown.stdout.splitlines():
            if line.startswith("#"):
                keyword, name, rest = line[2:].split(" ", 2)
                self.assertIn(keyword, ("HELP", "TYPE"))
                if keyword == "TYPE":
                    self.assertNotIn(name, typed)
                    self.assertEqual("counter" if name.endswith("_total") else "gauge", rest)
                    typed[name] = rest
                continue
            sample = re.fullmatch(r'([a-z_]+)\{device="(\d)",driver="npu"(,error="[A-Z]+")?\} ([\d.]+)', line)
            self.assertTrue(sample, line)
            self.assertEqual(sample[1], list(typed)[-1], "samples stand behind their type")
            samples[sample[1], sample[2], sample[3]] = float(sample[4])
        size = 960 << 20
        for device in "01":
            self.assertEqual(size, samples["accelmm_memory_bytes", device, None])
            self.assertEqual(size, samples["accelmm_memory_free_bytes", device, None])
            self.assertEqual(0, samples["accelmm_memory_pressure", device, None])
            self.assertEqual(size // 8, samples["accelmm_memory_pressure_low_bytes", device, None])
            self.assertEqual(0, samples["accelmm_memory_failures_total", device, ',error="ENOMEM"'])
            self.assertIn(("accelmm_memory_moved_bytes_total", device, None), samples)
            self.assertIn(("accelmm_engine_busy_seconds_total", device, None), samples)

    def test_says_who_holds_what_and_makes_room(self):
        self.start("--memory", "1G")
        shown = self.run_monitor("--shortage")
        self.assertEqual((0, ""), (shown.returncode, shown.stderr))
        self.assertTrue(shown.stdout.startswith("accel0 npu: device memory (bytes)\n"), shown.stdout)
        self.assertRegex(shown.stdout, rf"\n  longest free run +{960 << 20}\n")
        shown = self.run_monitor("--defragment", "16M", "--budget", "64K")
        self.assertEqual((0, "accel0 npu: moved 0 B in 0 pieces, free 960.0 MiB, longest free run 960.0 MiB\n", ""),
                         (shown.returncode, shown.stdout, shown.stderr))
        refused = self.run_monitor("--defragment", "16M", "--budget", "0")
        self.assertEqual((1, ""), (refused.returncode, refused.stdout))
        self.assertIn("accel0: malformed", refused.stderr)

    def test_prints_only_the_devices_that_are_named(self):
        self.start("--devices", "3")
        shown = self.run_monitor("--count", "1", "2", "1")
        self.assertEqual(["2", "1"], [LINE.match(line)[1] for line in shown.stdout.splitlines()])

    def test_prints_at_once_for_a_line_on_its_input(self):
        self.start()
        shown = self.run_monitor("--interval", "1000000", "--count", "2", input="\n")
        self.assertEqual(2, len(shown.stdout.splitlines()))

    def test_ends_with_the_last_device(self):
        driver = self.start("--devices", "2")
        monitor = subprocess.Popen([MONITOR, "--directory", self.nodes, "--interval", "0.01"], text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.assertRegex(monitor.stdout.readline(), LINE)
        driver.kill()
        out, _ = monitor.communicate(timeout=60)
        self.assertEqual(0, monitor.returncode)
        self.assertEqual(["accel0", "accel1"], sorted(line.split(":")[0] for line in out.splitlines()[-2:]))

    def test_explains_that_there_is_no_device(self):
        shown = self.run_monitor()
        self.assertEqual((1, f"accelmm-monitor: no device in {self.nodes}\n"), (shown.returncode, shown.stderr))
        self.start()
        shown = self.run_monitor("7")
        self.assertEqual(1, shown.returncode)
        self.assertIn(f"accel7 in {self.nodes}", shown.stderr)

    def test_refuses_arguments_that_make_no_sense(self):
        for arguments in (["--devices", "0"], ["--devices", "257"], ["--devices", "two"], ["--memory", "1X"],
                          ["--memory", "64M"], ["--memory", "99999999999999999999"], ["--memory", "999999999T"],
                          ["--drop-entry", "-1"], ["--burst-us", "1e3"], ["--directory", ""], ["--unknown"], ["extra"]):
            refused = subprocess.run([ACCELD, *arguments], text=True, capture_output=True, timeout=60)
            self.assertEqual((1, ""), (refused.returncode, refused.stdout), arguments)
            self.assertIn("usage: acceld", refused.stderr)
        for arguments in (["--interval", "0"], ["--interval", "nan"], ["--interval", "1s"], ["--count", "-1"], ["x"],
                          ["--defragment", "1X"], ["--defragment", ""], ["--budget", "-1"], ["--budget", "99999999T"],
                          ["--unknown"]):
            refused = self.run_monitor(*arguments)
            self.assertEqual((1, ""), (refused.returncode, refused.stdout), arguments)
            self.assertIn("usage: accelmm-monitor", refused.stderr)

    def test_explains_a_directory_that_cannot_be_made(self):
        refused = subprocess.run([ACCELD, "--directory", "/proc/none"], text=True, capture_output=True, timeout=60)
        self.assertEqual(1, refused.returncode)
        self.assertIn("acceld: cannot host devices", refused.stderr)


if __name__ == "__main__":
    unittest.main()
