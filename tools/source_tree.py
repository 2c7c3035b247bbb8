# SPDX-License-Identifier: Apache-2.0
"""What the checks of the tree share: which sources there are, what they include, how a check ends."""

import dataclasses
import pathlib
import re
import sys

SUFFIXES = {".c", ".h", ".cpp", ".hpp"}
_INCLUDE = re.compile(r'^\s*#\s*include\b\s*(?:(?P<open>[<"])(?P<name>[^>"]+)[>"])?')


@dataclasses.dataclass(frozen=True)
class Include:
    file: pathlib.Path  # relative to the root
    line: int
    quoted: bool
    name: str  # "" where a macro names the header

    def __str__(self):
        shown = f'"{self.name}"' if self.quoted else f"<{self.name}>"
        return f"{self.file}:{self.line}: #include {shown}"


def sources(root, *folders):
    """The C and C++ files below the folders, relative to the root."""
    found = []
    for folder in folders:
        found += [path.relative_to(root) for path in (root / folder).rglob("*") if path.suffix in SUFFIXES]
    return sorted(found)


def includes(root, file):
    found = []
    for number, line in enumerate((root / file).read_text().splitlines(), 1):
        if match := _INCLUDE.match(line):
            found.append(Include(file, number, match["open"] == '"', match["name"] or ""))
    return found


def finish(check, errors, seen):
    """Prints the verdict and exits; a check that saw nothing has failed."""
    for error in errors:
        print(error)
    if not seen:
        print(f"{check}: nothing to check")
    print(f"{check}: {seen}, {len(errors)} errors" if seen else f"{check}: failed")
    sys.exit(1 if errors or not seen else 0)
