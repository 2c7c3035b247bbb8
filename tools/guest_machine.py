# SPDX-License-Identifier: Apache-2.0
"""A guest: QEMU, emulated, with Debian's kernel and devices that the host lacks, the host's root as its own, read-only.

The guest runs share/command in there and leaves its exit status in share/status. While it runs, a file
share/photograph/NAME.wanted makes the host photograph what its display scans out, as NAME.ppm, and remove the request.
"""

import dataclasses
import pathlib
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time

DISPLAY = "display"


@dataclasses.dataclass(frozen=True)
class Guest:
    """What differs between guests."""

    name: str
    memory_mib: int = 2048
    kernel_arguments: str = ""
    qemu_arguments: tuple = ()


def node(number, mib):
    """QEMU's arguments for a NUMA node with one of the two processors."""
    return ("-object", f"memory-backend-ram,id=node{number},size={mib}M",
            "-numa", f"node,nodeid={number},cpus={number},memdev=node{number}")


# A page of 1 GiB must lie at a multiple of 1 GiB, where nothing else is yet, such as what the kernel puts at the end of a
# node: node 0 has two such places, above 4 GiB, and node 1 one; the kernel may not choose to lie there itself. Memory that
# nobody writes costs the host nothing.
_MEMORY = Guest(name="memory", memory_mib=7168, qemu_arguments=(*node(0, 5120), *node(1, 2048)),
                kernel_arguments="nokaslr default_hugepagesz=2M hugepagesz=1G hugepages=0:2,1:1 "
                                 "hugepagesz=2M hugepages=0:24,1:24")

# virtio-gpu is the driver with timelines.
_DEVICES = Guest(name="devices", qemu_arguments=("-device", "virtio-gpu-pci"))

# The bare one is for tests of the bench itself.
GUESTS = {guest.name: guest for guest in (_DEVICES, _MEMORY, Guest(name="bare", memory_mib=1024))}


class GuestError(Exception):
    """Why a guest gave no exit status."""


class Monitor:
    """QEMU's human monitor."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(30)
        self.socket.connect(str(path))
        self.answer()

    def answer(self):
        text = b""
        while not text.endswith(b"(qemu) "):
            piece = self.socket.recv(4096)
            if not piece:
                raise GuestError("QEMU closed its monitor")
            text += piece
        return text.decode(errors="replace")

    def command(self, line):
        self.socket.sendall(line.encode() + b"\n")
        return self.answer()


def qemu_command(guest, kernel, initramfs, share, monitor):
    shared = str(share).replace(",", ",,")
    machine = "q35,kernel-irqchip=split"
    # On a busy host the timer's interrupts come late, in which the kernel would see a timer that does not work.
    arguments = f"console=ttyS0 quiet intel_iommu=on no_timer_check panic=-1 {guest.kernel_arguments}"
    host = "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"
    return ["qemu-system-x86_64", "-machine", machine, "-accel", "tcg,thread=multi", "-cpu", "max",
            "-m", f"{guest.memory_mib}M", "-smp", "2", "-nodefaults", "-display", "none", "-no-reboot",
            "-device", "intel-iommu,intremap=on", "-device", "edu",
            "-vga", "none", "-device", f"cirrus-vga,id={DISPLAY}",
            "-virtfs", host, "-virtfs", f"local,path={shared},mount_tag=share,security_model=none",
            "-serial", f"file:{shared}/console.log", "-serial", "stdio", "-monitor", f"unix:{monitor},server=on,wait=off",
            "-kernel", str(kernel.image), "-initrd", str(initramfs), "-append", arguments.strip(), *guest.qemu_arguments]


def photograph(share, monitor):
    for wanted in (share / "photograph").glob("*.wanted"):
        picture = wanted.with_suffix(".ppm")
        Monitor(monitor).command(f"screendump {picture} {DISPLAY}")
        wanted.unlink()


def last_words(console):
    """What explains a guest's end, from its console; its lines hold the terminal's control sequences too."""
    if not console.exists():
        return "nothing on its console"
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\x1bc", "", console.read_text(errors="replace"))
    lines = text.strip().splitlines()
    panics = [line for line in lines[:-25] if "Kernel panic" in line]
    return "\n".join(panics + lines[-25:]) or "nothing on its console"


def run(guest, kernel, initramfs, request, share, seconds):
    """Boots, waits for the end, and returns the exit status of request's commands; GuestError if there is none."""
    (share / "photograph").mkdir()
    (share / "command").write_text(request["command"])
    places = {"name": guest.name, "share": share, "tree": request["tree"], "kernel": kernel.modules}
    (share / "places").write_text("".join(f"{name}={shlex.quote(str(path))}\n" for name, path in places.items()))
    with tempfile.TemporaryDirectory(prefix="accelmm-guest-") as scratch:
        monitor = pathlib.Path(scratch) / "monitor"
        command = qemu_command(guest, kernel, initramfs, share, monitor)
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=open(share / "qemu.log", "wb")) as machine:
            hung = False
            try:
                hung = watch(machine, share, monitor, seconds)
            finally:
                machine.kill()
    if hung:
        raise GuestError(f"killed after {seconds} s; its console ends with\n{last_words(share / 'console.log')}")
    status = share / "status"
    if not status.is_file() or not status.read_text().strip().isdigit():
        raise GuestError(f"ended without an exit status (QEMU {machine.returncode})\n{(share / 'qemu.log').read_text()}"
                         f"{last_words(share / 'console.log')}")
    return int(status.read_text())


def watch(machine, share, monitor, seconds):
    """Serves the guest until it ends or its time is up; whether it was the latter."""
    end = time.monotonic() + seconds
    while machine.poll() is None:
        if time.monotonic() > end:
            return True
        photograph(share, monitor)
        time.sleep(0.05)
    sys.stdout.flush()
    return False
