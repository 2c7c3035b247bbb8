#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fails on an include that the table of layers in docs/architecture.md does not allow.

Private headers are included as "layer/header.hpp" and belong to that layer; public ones as <accelmm/header.hpp> and
belong to the layer that PUBLIC names. Drivers (src/devices/<driver>), examples, benchmarks and programs are users: they
see public headers and their own folder; programs also see the headers of the drivers they host, and the models of other
allocators that the benchmarks have.
"""

import argparse
import pathlib
import re

import source_tree

# Which layer a public header belongs to. A new header is an error until it stands here.
PUBLIC = {
    "base": ["access.hpp", "check.hpp", "completion.hpp", "enum_set.hpp", "error.hpp", "extent.hpp",
             "fault_injection.hpp", "fd.hpp", "node.hpp", "restartable.hpp", "transport.hpp", "uapi.h", "units.hpp"],
    "mm": ["account.hpp", "backing.hpp", "deferred_frees.hpp", "device_heap.hpp", "fragmentation.hpp",
           "handle_slot.hpp", "handle_slots.hpp", "handle_table.hpp", "heap.hpp", "heap_resource.hpp",
           "heap_source.hpp", "jemalloc_heap.hpp", "page_allocator.hpp", "slab.hpp", "slab_recent.hpp", "trace.hpp",
           "trace_recorder.hpp", "va_allocator.hpp"],
    "bus": ["bus.hpp", "pci_address.hpp", "vfio_device.hpp"],
    "dmabuf": ["buffer_sources.hpp", "constraints.hpp", "cpu_access.hpp", "dmabuf.hpp", "drm_display.hpp", "fence.hpp", "fence_watch.hpp", "huge_folio_trial.hpp", "import_needs.hpp",
               "negotiation.hpp",
               "sharing_device.hpp", "trial_import.hpp", "v4l2_camera.hpp"],
    "mmu": ["mmu/"],
    "devices": ["defragmentation.hpp", "device.hpp", "driver.hpp", "runtime.hpp", "session.hpp", "timeline.hpp",
                "timeline_fence.hpp"],
    "client": ["buffer.hpp", "client.hpp", "client_heap.hpp", "device_constraints.hpp"],
    "capi": ["accelmm.h"],
    "driver": ["sim/"],
}
USERS = ["examples", "bench", "apps"]


def read_table(architecture):
    """{layer: the layers it may include, and single headers by name}; "driver" stands for src/devices/<driver>."""
    rows = re.findall(r"^\|\s*`src/([^`]+)`\s*\|([^|]+)\|", architecture.read_text(), re.MULTILINE)
    if not rows:
        raise SystemExit(f"{architecture}: no table of layers")
    table = {}
    for folder, cell in rows:
        layer = "driver" if folder == "devices/<driver>" else folder
        allowed = set()
        for entry in (part.strip() for part in cell.split(",")):
            if entry == "all above":
                allowed |= table.keys()
            elif entry == "public headers only":
                allowed |= PUBLIC.keys()
            elif entry.strip("`") != entry or entry in table:
                allowed.add(entry.strip("`"))
            elif entry != "-":
                raise SystemExit(f"{architecture}: layer {layer} may include {entry!r}, which is no layer above it")
        table[layer] = allowed
    return table


def public_layer(header):
    for layer, headers in PUBLIC.items():
        if header in headers or any(name.endswith("/") and header.startswith(name) for name in headers):
            return layer
    return None


def owner(file, table):
    """The layer that a file belongs to, or None."""
    parts = file.parts
    if parts[0] in USERS:
        return parts[0]
    if parts[0] == "include":
        return public_layer("/".join(parts[2:]))
    if parts[1] == "devices" and len(parts) > 3:
        return "driver"
    return parts[1] if parts[1] in table else None


def private_layer(root, include, user, table):
    """The layer of a quoted include, or None where there is no such header."""
    folders = [include.file.parent, pathlib.Path("src"), *([pathlib.Path(user)] if user in USERS else [])]
    if user == "apps" and include.name.startswith("mm/models/"):
        folders.append(pathlib.Path("bench"))
    for folder in folders:
        if (root / folder / include.name).is_file():
            return owner(folder / include.name, table)
    return None


def verdict(root, include, user, table):
    """What is wrong with an include, or None."""
    if not include.name or ".." in pathlib.Path(include.name).parts:
        return "an include names its header, and not by way of .."
    allowed = table.get(user, PUBLIC.keys()) | {user}
    if include.name.startswith("accelmm/"):
        header = include.name.removeprefix("accelmm/")
        layer = public_layer(header)
        if include.quoted:
            return "public headers are included with <>"
        if layer is None or not (root / "include" / include.name).is_file():
            return "unknown public header (tools/check_layers.py says which layer each belongs to)"
        if layer == "driver" and user not in ["driver", *USERS]:
            return f"{user} may not include the model of a device"
        return None if layer in allowed or header in allowed else f"{user} may not include {layer}"
    if not include.quoted:
        return None
    layer = private_layer(root, include, user, table)
    if layer is None or include.file.parts[0] == "include":
        return "no such header here"
    if user == "driver" or user in USERS:
        allowed = {"driver", "apps", "bench"} if user == "apps" else {user}
    return None if layer in allowed else f"{user} may not include {layer}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    root = parser.parse_args().root
    table = read_table(root / "docs/architecture.md")
    errors = []
    seen = 0
    for file in source_tree.sources(root, "include", "src", *USERS):
        user = owner(file, table)
        if user is None:
            errors.append(f"{file}: belongs to no layer (tools/check_layers.py, docs/architecture.md)")
            continue
        for include in source_tree.includes(root, file):
            seen += 1
            if wrong := verdict(root, include, user, table):
                errors.append(f"{include}: {wrong}")
    source_tree.finish("layers", errors, seen and f"{seen} includes in {len(table)} layers")


if __name__ == "__main__":
    main()
