#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws what tools/bench measured, with gnuplot: the comparison with the peers, and how full and how fragmented regions
were over time. plot_bench.py ROWS.json SERIES.csv DIR writes DIR/*.svg; a picture without data is not drawn."""
import argparse
import collections
import csv
import json
import pathlib
import subprocess


def quoted(text):
    return '"' + text.replace("\\", "").replace('"', "").replace("_", "\\\\_") + '"'


def gnuplot(path, script, size):
    head = f'set terminal svg size {size[0]},{size[1]} background rgb "white" font "sans,11"\nset output "{path}"\n'
    subprocess.run(["gnuplot"], input=head + script, text=True, check=True)
    print(f"wrote {path}")


def comparison(rows, path):
    """One bar for each row: how many times as long as ours the peer takes. Logarithmic, 1 is a tie."""
    bars = [row for row in rows if "ratio" in row and row["ratio"] > 0]
    if not bars:
        return
    lines, labels, at = [], [], 0
    work = None
    for row in bars:
        if work not in (None, row["work"]):
            at += 1
        work = row["work"]
        labels.append(f"{quoted(row['work'] + '   ' + row['peer'])} {at}")
        colour = "0x2f7d4f" if row["ratio"] >= 1 else "0xb4483c"
        lines.append(f"{row['ratio']} {at} {colour}")
        at += 1
    low = min(0.1, min(row["ratio"] for row in bars) / 2)
    high = max(10, max(row["ratio"] for row in bars) * 2)
    script = f"""
$bars << END
{chr(10).join(lines)}
END
set title "Time of the peer over time of ours: to the right of 1, ours is faster"
unset key
set logscale x
set xlabel "time of the peer / time of ours"
set xrange [{low}:{high}]
set yrange [{at}:-1]
set lmargin 52
set grid xtics
set ytics scale 0 font "sans,9" ({", ".join(labels)})
set style fill solid
set arrow from 1,-1 to 1,{at} nohead linecolor rgb "black"
plot $bars using (1):2:($1 < 1 ? $1 : 1):($1 > 1 ? $1 : 1):($2 - 0.4):($2 + 0.4):3 with boxxyerror linecolor rgb variable
"""
    gnuplot(path, script, (1000, 80 + 15 * (at + 1)))


def over_time(series, column, title, path):
    """One panel for each workload, one line for each allocator."""
    works = collections.defaultdict(lambda: collections.defaultdict(list))
    for line in series:
        works[line["work"]][line["who"]].append((float(line["step"]), float(line[column])))
    if not works:
        return
    # An allocator has the same colour in every panel.
    names = sorted({who for lines in works.values() for who in lines}, key=lambda who: (who != "ours", who))
    script = [f"set multiplot layout {len(works)},1 title {quoted(title)}",
              "set yrange [0:105]", 'set ylabel "per cent"', 'set xlabel "step of the work"',
              "set key outside right", "set grid", 'set format x "%.0s%c"', "set rmargin 22"]
    for panel, (work, lines) in enumerate(sorted(works.items())):
        plots = []
        for number, (who, points) in enumerate(sorted(lines.items(), key=lambda line: (line[0] != "ours", line[0]))):
            script += [f"$p{panel}_{number} << END", *(f"{x} {y}" for x, y in sorted(points)), "END"]
            plots.append(f"$p{panel}_{number} using 1:2 with lines linewidth 2 linetype {names.index(who) + 1} "
                         f"title {quoted(who)}")
        script += [f"set title {quoted(work)}", "plot " + ", ".join(plots)]
    script.append("unset multiplot")
    gnuplot(path, "\n".join(script) + "\n", (1000, 60 + 300 * len(works)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=pathlib.Path)
    parser.add_argument("series", type=pathlib.Path)
    parser.add_argument("directory", type=pathlib.Path)
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.rows.read_text().splitlines() if line]
    with arguments.series.open() as file:
        series = list(csv.DictReader(file))
    comparison(rows, arguments.directory / "comparison.svg")
    over_time(series, "occupancy", "Allocated share of the region", arguments.directory / "occupancy.svg")
    over_time(series, "fragmentation", "Share of the free memory that lies in no whole free 2 MiB",
              arguments.directory / "fragmentation.svg")
    over_time(series, "scattered", "Share of the free memory outside the longest free run",
              arguments.directory / "scattered.svg")


if __name__ == "__main__":
    main()
