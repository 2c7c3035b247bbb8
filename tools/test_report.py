#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts what a ctest run ran: prints "passed failed skipped", then a line for each skipped test with its reason.

Each case of a gtest executable counts (they write one XML file per ctest, see tests/CMakeLists.txt); any other ctest
counts as one. An executable that failed without a failed case (a crash, a timeout, a leak) adds one failure.
"""

import pathlib
import re
import sys
import xml.etree.ElementTree as xml


def reason_of(skipped):
    """The text given to GTEST_SKIP, on one line, without the place that stands before it."""
    return re.sub(r"^\S+:\d+ ", "", " ".join((skipped.get("message") or "").split()))


def gtest_cases(results, name):
    """[(case, outcome, reason)] as the executable of a ctest wrote them, or [] if it wrote none."""
    try:
        suites = xml.parse(results / f"{name}.xml").getroot()
    except (FileNotFoundError, xml.ParseError):
        return []
    cases = []
    for case in suites.iter("testcase"):
        title = f"{name} {case.get('classname')}.{case.get('name')}"
        skipped = case.find("skipped")
        if case.find("failure") is not None:
            cases.append((title, "failed", ""))
        elif skipped is not None:
            cases.append((title, "skipped", reason_of(skipped)))
        elif case.get("status") == "notrun":
            cases.append((title, "skipped", "disabled"))
        else:
            cases.append((title, "passed", ""))
    return cases


def ctest_cases(test, results):
    name, status = test.get("name"), test.get("status")
    cases = gtest_cases(results, name)
    if status == "fail" and not any(outcome == "failed" for _, outcome, _ in cases):
        cases.append((name, "failed", ""))
    if status in ("notrun", "disabled"):
        skipped = test.find("skipped")
        reason = skipped.get("message") if skipped is not None else None
        # A test that could not start, or whose fixture failed, is no skip that someone chose.
        chosen = status == "disabled" or "SKIP_" in (reason or "")
        return [(name, "skipped" if chosen else "failed", reason or status)]
    return cases or [(name, "passed", "")]


def cases_of(junit, results):
    """[(case, outcome, reason)] of a whole run; none where ctest recorded nothing."""
    if not junit.is_file():
        return []
    tests = xml.parse(junit).getroot().iter("testcase")
    return [case for test in tests for case in ctest_cases(test, results)]


def main():
    cases = cases_of(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
    counts = [sum(outcome == kind for _, outcome, _ in cases) for kind in ("passed", "failed", "skipped")]
    print(*counts)
    for title, outcome, reason in cases:
        if outcome == "skipped":
            print(f"{title}: {reason or 'no reason given'}")


if __name__ == "__main__":
    main()
