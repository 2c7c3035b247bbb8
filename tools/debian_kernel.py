# SPDX-License-Identifier: Apache-2.0
"""Debian's kernel for a guest: fetched, unpacked, never installed, and kept in a cache that works without a network."""

import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

META_PACKAGE = "linux-image-6.12-amd64"
# Where the kernel comes from if the machine's own apt does not know it.
SOURCE = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security bookworm-security main\n"
# What the guest needs before it sees the host's root; the others it loads from there.
BOOT_MODULES = ["virtio_pci", "9pnet_virtio", "9p", "overlay"]


class KernelError(Exception):
    """Why there is no kernel to boot."""


def run(*command, **options):
    """The output of a command that must succeed."""
    try:
        done = subprocess.run([str(part) for part in command], text=True, capture_output=True, **options)
    except FileNotFoundError as missing:
        raise KernelError(f"{missing.filename} is not installed (tools/setup kernel)") from missing
    if done.returncode != 0:
        raise KernelError(f"{' '.join(map(str, command))}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def cache_folder():
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "accelmm"


class Kernel:
    """One unpacked kernel package."""

    def __init__(self, folder):
        self.folder = folder
        self.version = folder.name.removeprefix("kernel-")

    @property
    def image(self):
        return self.folder / "boot" / f"vmlinuz-{self.version}"

    @property
    def modules(self):
        """The folder that holds lib/modules."""
        return self.folder

    def files_of(self, module):
        """The files of a module after those that it needs; none where the kernel has it built in."""
        lines = run("modprobe", "-C", "/dev/null", "-d", self.folder, "-S", self.version, "--show-depends", module)
        return [pathlib.Path(line.split()[1]) for line in lines.splitlines() if line.startswith("insmod")]


class Apt:
    """apt's view of the archive: the machine's own, or one of ours beside it that needs no rights."""

    def __init__(self, state=None):
        self.options = []
        if state is None:
            return
        lists = state / "lists"
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        (state / "sources.list").write_text(SOURCE)
        settings = {"Dir::Etc::SourceList": state / "sources.list", "Dir::Etc::SourceParts": "/dev/null",
                    "Dir::State::Lists": lists, "Dir::Cache::pkgcache": "", "Dir::Cache::srcpkgcache": ""}
        self.options = [f"-o{name}={value}" for name, value in settings.items()]
        run("apt-get", "-qq", *self.options, "update")

    def package(self):
        """The image package that the meta-package depends on now, or None if apt does not know it."""
        listed = run("apt-cache", *self.options, "depends", META_PACKAGE)
        named = re.search(r"Depends: (linux-image-(\S+))", listed)
        return named.groups() if named else None

    def download(self, package, folder):
        run("apt-get", "-qq", *self.options, "download", package, cwd=folder)
        return next(folder.glob(f"{package}_*.deb"))


def fetch(cache, folder, say):
    """(archive, version), with the machine's apt, or with ours where that does not know the kernel or is out of date."""
    reasons = []
    for state in [None, cache / "apt"]:
        try:
            apt = Apt(state)
            if named := apt.package():
                say(f"fetching {named[0]}")
                return apt.download(named[0], folder), named[1]
            reasons.append(f"no archive has {META_PACKAGE}")
        except KernelError as error:
            reasons.append(str(error))
    raise KernelError("; ".join(reasons))


def cached(cache):
    """The newest kernel that is there, or None."""
    folders = [folder for folder in cache.glob("kernel-*") if (folder / "complete").exists()]
    return Kernel(max(folders, key=lambda folder: folder.stat().st_mtime)) if folders else None


def unpack(cache, say):
    with tempfile.TemporaryDirectory(prefix="unpacking-", dir=cache) as scratch:
        scratch = pathlib.Path(scratch)
        archive, version = fetch(cache, scratch, say)
        folder = scratch / "root"
        run("dpkg", "-x", archive, folder)
        run("depmod", "-b", folder, version)
        (folder / "complete").touch()
        target = cache / f"kernel-{version}"
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
    return Kernel(target)


def kernel(cache, say):
    """The kernel to boot: what the cache holds, or else what the archive has."""
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one fetches, the others find it there
        found = cached(cache) or unpack(cache, say)
    if not found.image.is_file():
        raise KernelError(f"{found.folder} holds no {found.image.name}")
    return found


def initramfs(found, init, cache):
    """A file with busybox, our init and the modules that it loads; made again when one of them changes."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise KernelError("busybox is not installed (tools/setup kernel)")
    modules = list(dict.fromkeys(file for name in BOOT_MODULES for file in found.files_of(name)))
    digest = hashlib.sha256(found.version.encode())
    for file in [pathlib.Path(busybox), init, *modules]:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    target = cache / f"initramfs-{digest.hexdigest()[:16]}"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(prefix="initramfs-", dir=cache) as scratch:
        root = pathlib.Path(scratch) / "root"
        for folder in ["bin", "modules", "proc", "sys", "dev", "host", "writable", "guest", "share"]:
            (root / folder).mkdir(parents=True)
        shutil.copy(busybox, root / "bin/busybox")
        shutil.copy(init, root / "init")
        (root / "init").chmod(0o755)
        for number, file in enumerate(modules):
            write_plain(file, root / "modules" / f"{number:02}-{file.name.split('.')[0]}.ko")
        names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
        packed = subprocess.run(["cpio", "--quiet", "--create", "--format=newc", "--owner=0:0"], cwd=root,
                                input=names.encode(), capture_output=True, check=True)
        whole = pathlib.Path(scratch) / "initramfs"
        whole.write_bytes(packed.stdout)
        whole.rename(target)
    return target


def write_plain(module, target):
    """A module without its compression: the boot's insmod knows none."""
    unpackers = {".xz": "xz", ".zst": "zstd"}
    if module.suffix in unpackers:
        with open(target, "wb") as out:
            subprocess.run([unpackers[module.suffix], "--quiet", "--decompress", "--stdout", module], stdout=out, check=True)
    else:
        shutil.copy(module, target)
