#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that the code in README.md is code that the tests build and run.

A block of code after a line `<!-- from FILE -->` must consist of pieces of that file, in order, parted by lines that
hold only `// ...`. Links to files must lead somewhere. Fails too when it finds no such block.
"""
import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parent.parent
readme = (root / "README.md").read_text()
errors = []


def squeeze(text):
    return " ".join(text.split())


blocks = re.findall(r"<!-- from (\S+) -->\n```\w+\n(.*?)```", readme, re.S)
for name, code in blocks:
    rest = squeeze((root / name).read_text())
    for piece in re.split(r"^\s*// \.\.\.\s*$", code, flags=re.M):
        piece = squeeze(piece)
        at = rest.find(piece)
        if at < 0:
            errors.append(f"README.md: {name} does not hold (or not in this order): {piece[:80]}")
            break
        rest = rest[at + len(piece):]
for target in re.findall(r"\]\(([^)#]+)\)", readme):
    if not target.startswith("http") and not (root / target).exists():
        errors.append(f"README.md: link to {target}, which is not there")
if not blocks:
    errors.append("README.md: no block of code names the file that it is from")
print("\n".join(errors) if errors else f"README.md: {len(blocks)} blocks of code are as built")
sys.exit(1 if errors else 0)
