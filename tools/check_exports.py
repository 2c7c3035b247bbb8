#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fails unless libaccelmm.so shows exactly the symbols of cmake/exports.txt, each with a version, and unless linking any
of our libraries leaves the program's malloc and operator new alone."""

import argparse
import pathlib
import re
import subprocess

import source_tree

ALLOCATION = re.compile(r"(m|c|re|v|pv)alloc|free|cfree|posix_memalign|aligned_alloc|memalign|reallocarray|"
                        r"malloc_usable_size|_Zn[wa].*|_Zd[la].*")
# The forms that only construct in place: every object has copies, and they replace nothing.
PLACEMENT = {"_ZnwmPv", "_ZnamPv", "_ZdlPvS_", "_ZdaPvS_"}
VERSION = "ACCELMM_0"


def defined(library, *options):
    """[(type, name)] of the symbols that a library defines."""
    run = subprocess.run(["nm", "--defined-only", *options, library], text=True, capture_output=True, check=True)
    return re.findall(r"^[0-9a-f]* ?([A-Za-z]) (\S+)$", run.stdout, re.MULTILINE)


def check_present(*files):
    return [f"{file.name}: not built" for file in files if not file.is_file()]


def check_dynamic(library, listed):
    shown = {name for kind, name in defined(library, "-D", "--with-symbol-versions") if kind != "A"}
    expected = {f"{name}@@{VERSION}" for name in listed}
    errors = [f"{library.name}: shows {name}, which the list does not name" for name in sorted(shown - expected)]
    return errors + [f"{library.name}: does not show {name}" for name in sorted(expected - shown)]


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", type=pathlib.Path, default=root / "cmake/exports.txt")
    parser.add_argument("--library", type=pathlib.Path, default=root / "build/dev/src/capi/libaccelmm.so")
    parser.add_argument("--archive", type=pathlib.Path, default=root / "build/dev/src/libaccelmm_core.a")
    options = parser.parse_args()
    lines = [line for line in options.list.read_text().splitlines() if line and not line.startswith("#")]
    if errors := check_present(options.library, options.archive):
        source_tree.finish("exports", errors, "")
    errors = check_dynamic(options.library, lines)
    if lines != sorted(set(lines)):
        errors.append(f"{options.list.name}: not sorted, or a name twice")
    statics = defined(options.archive)
    if not statics:
        errors.append(f"{options.archive.name}: defines nothing")
    errors += [f"{options.archive.name}: defines {name}, which replaces the program's own"
               for kind, name in statics if kind in "TWiBDV" and ALLOCATION.fullmatch(name) and name not in PLACEMENT]
    source_tree.finish("exports", errors, lines and f"{len(lines)} symbols")


if __name__ == "__main__":
    main()
