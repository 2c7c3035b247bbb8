#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fails where code outside SYSTEM calls the system.

Three looks: no source includes a header of system calls; no object imports a C function that is not known to be free of
them, nor a part of the C++ library that hides them; no object holds the instruction itself. Threads, mutexes and
condition variables are the language's and are allowed.
"""

import argparse
import json
import pathlib
import re
import subprocess

import source_tree

# Who may call the system.
SYSTEM = ("src/base/", "src/loop/", "src/bus/", "src/dmabuf/", "src/mm/backing/", "src/mm/heap/")

# Headers whose point is system calls. (<sys/types.h> and <linux/ioctl.h> only name types and numbers,
# <sys/auxv.h> reads what the kernel left in the process.)
HEADERS = re.compile(r"sys/(?!types\.h$|auxv\.h$).*|unistd\.h|fcntl\.h|poll\.h|sched\.h|spawn\.h|dirent\.h|signal\.h|"
                     r"csignal|liburing.*|linux/(memfd|udmabuf|dma-buf|dma-heap|sync_file|videodev2|io_uring|vfio|futex)\.h|xf86drm.*|filesystem|"
                     r"fstream|base/system(_call|_dmabuf)?\.hpp")

# C functions that do their work in the process, or are the program's allocator. Anything else is refused until someone has
# looked at it.
HARMLESS = re.compile(r"mem(cpy|move|set|cmp|chr)|bcmp|str[a-z]+|__(mem|str)[a-z]+_chk|v?snprintf|__v?snprintf_chk|getenv|"
                      r"pthread_[a-z_]+|__errno_location|__cxa_[a-z_]+|_Unwind_Resume|__gxx_personality_v0|__dso_handle|"
                      r"__stack_chk_fail|__cpu_(indicator_init|model)|_GLOBAL_OFFSET_TABLE_|__tls_get_addr|__[a-z]+[sdt]i[234]|__libc_single_threaded|"
                      r"abort|calloc|free|__assert_fail|__once_proxy|getauxval|atexit|qsort|bsearch|(l?l?r?int|round|floor|ceil|sqrt|pow|exp|log|fmod)f?")

# Parts of the C++ library that call the system.
HIDDEN = re.compile(r"std::filesystem::|std::basic_[io]?f(stream|ilebuf)|std::random_device|std::this_thread::")


def objects(root, build):
    """{source: its object} of everything below src/, from the build's own list."""
    found = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        source = pathlib.Path(entry["file"])
        if source.is_relative_to(root / "src"):
            # CMake names the object in "output" only from 3.30 on; before, it stands in the command.
            output = entry.get("output") or re.search(r" -o (\S+)", entry["command"])[1]
            found[source.relative_to(root).as_posix()] = pathlib.Path(entry["directory"]) / output
    return found


def symbols(kind, files):
    """The demangled names that nm prints for the files."""
    run = subprocess.run(["nm", "-C", "--no-sort", "--format=bsd", kind, *files], text=True, capture_output=True, check=True)
    return {match[1] for match in re.finditer(r"^[0-9a-f ]* [A-Za-z] (.+)$", run.stdout, re.MULTILINE)}


def check_object(source, path, ours):
    errors = []
    for name in sorted(symbols("--undefined-only", [path])):
        plain = re.fullmatch(r"[A-Za-z_]\w*", name)
        if plain and name not in ours and not HARMLESS.fullmatch(name):
            errors.append(f"{source}: imports {name}, which is not known to be free of system calls")
        elif not plain and HIDDEN.search(name):
            errors.append(f"{source}: imports {name}, which calls the system")
    code = subprocess.run(["objdump", "-d", "--no-show-raw-insn", path], text=True, capture_output=True, check=True).stdout
    if re.search(r"\t(syscall|sysenter|int +\$0x80)\b", code):
        errors.append(f"{source}: holds a system call instruction")
    return errors


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    parser.add_argument("--build", type=pathlib.Path, help="a finished build (default: build/dev)")
    options = parser.parse_args()
    root = options.root.resolve()
    errors = []
    for file in source_tree.sources(root, "include", "src"):
        if not file.as_posix().startswith(SYSTEM):
            errors += [f"{include}: a header of system calls" for include in source_tree.includes(root, file)
                       if HEADERS.fullmatch(include.name)]
    built = objects(root, options.build or root / "build/dev")
    missing = [source for source, path in built.items() if not path.is_file()]
    errors += [f"{source}: not built" for source in missing]
    present = {source: path for source, path in built.items() if source not in missing}
    ours = symbols("--defined-only", list(present.values())) if present else set()
    seen = 0
    for source, path in sorted(present.items()):
        if not source.startswith(SYSTEM):
            errors += check_object(source, path, ours)
            seen += 1
    source_tree.finish("syscalls", errors, seen and f"{seen} objects")


if __name__ == "__main__":
    main()
