"""A package of AWS Systems Manager Distributor: a zip for each architecture with the deb and the rpm, and manifest.json.

In: the packages in the folder `out`. Out: stillpoint-VERSION-ARCH.zip beside them, and manifest.json. Must never: be
another file for the same packages (the times in a zip are fixed, and their order).
"""

import argparse
import hashlib
import json
import os
import time
import zipfile

# Distributor's names. What is named here and comes with neither dpkg nor rpm is refused by install.sh.
PLATFORMS = ["amazon", "redhat", "centos", "rocky", "almalinux", "oracle", "suse", "debian", "ubuntu"]
ARCHITECTURES = {"x86_64": ("amd64", "x86_64"), "aarch64": ("arm64", "arm64")}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def read(path):
    with open(path, "rb") as file:
        return file.read()


def pack(place, files, when):
    with zipfile.ZipFile(place, "w", zipfile.ZIP_STORED) as archive:
        for name, (mode, data) in sorted(files.items()):
            entry = zipfile.ZipInfo(name, when)
            entry.create_system = 3
            entry.external_attr = (0o100000 | mode) << 16
            # The packages are compressed already.
            archive.writestr(entry, data)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--version", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--scripts", required=True)
    parser.add_argument("arch", nargs="+")
    a = parser.parse_args()
    when = time.gmtime(int(os.environ["SOURCE_DATE_EPOCH"]))[:6]
    files, by_arch = {}, {}
    for arch in a.arch:
        debian, distributor = ARCHITECTURES[arch]
        packages = {
            "stillpoint.deb": read(f"{a.out}/stillpoint_{a.version}-1_{debian}.deb"),
            "stillpoint.rpm": read(f"{a.out}/stillpoint-{a.version}-1.{arch}.rpm"),
        }
        content = {name: (0o644, data) for name, data in packages.items()}
        sums = "".join(f"{sha256(data)}  {name}\n" for name, data in sorted(packages.items()))
        content["SHA256SUMS"] = (0o644, sums.encode())
        for script in ["install.sh", "update.sh", "uninstall.sh"]:
            content[script] = (0o755, read(f"{a.scripts}/{script}"))
        name = f"stillpoint-{a.version}-{arch}.zip"
        pack(f"{a.out}/{name}", content, when)
        files[name] = {"checksums": {"sha256": sha256(read(f"{a.out}/{name}"))}}
        by_arch[distributor] = {"file": name}
    manifest = {
        "schemaVersion": "2.0",
        "version": a.version,
        "publisher": "stillpoint",
        "packages": {platform: {"_any": by_arch} for platform in PLATFORMS},
        "files": files,
    }
    with open(f"{a.out}/manifest.json", "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=2, sort_keys=True)
        file.write("\n")


main()
