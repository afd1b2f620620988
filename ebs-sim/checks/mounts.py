"""Filesystems on a simulation's volumes, that no failed check can leave frozen.

In: a running ebs-sim. Out: mount points. Only these mounts are ever thawed or unmounted; a process of its own
thaws them after a while, whatever becomes of this one.
"""

import os
import signal
import subprocess

# No window is as long as this.
RESCUE = 240
SCRIPT = """
sleep "$1"; shift; touch "$1"; shift
for i in 1 2 3 4 5; do for m in "$@"; do fsfreeze --unfreeze "$m"; done; sleep 1; done
"""


class Mounts:
    """Each volume, by name, formatted and mounted."""

    def __init__(self, sim, **kinds):
        self.sim = sim
        self.mounted = []
        self.points = {name: sim.folder / f"mount-{name}" for name in kinds}
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.rescue = subprocess.Popen(
            [
                "sh",
                "-c",
                SCRIPT,
                "rescue",
                str(RESCUE),
                str(sim.folder / "rescued"),
                *map(str, self.points.values()),
            ],
            start_new_session=True,
            **quiet,
        )
        try:
            for name, kind in kinds.items():
                device = next(v["loop"] for v in sim.ready["volumes"] if v["name"] == name)
                force = "-F" if kind == "ext4" else "-f"
                subprocess.run([f"mkfs.{kind}", "-q", force, device], check=True, timeout=30)
                self.points[name].mkdir()
                subprocess.run(["mount", device, str(self.points[name])], check=True, timeout=30)
                self.mounted.append(self.points[name])
        except BaseException:
            self.stop()
            raise

    def frozen(self):
        """The mounts that stand still, as a thaw tells: it fails on what is not frozen."""
        return [point for point in self.mounted if _bounded("fsfreeze", "--unfreeze", str(point))]

    def rescued(self):
        return (self.sim.folder / "rescued").exists()

    def stop(self):
        self.frozen()
        for point in self.mounted:
            _bounded("umount", str(point)) or _bounded("umount", "--lazy", str(point))
        os.killpg(self.rescue.pid, signal.SIGKILL)
        self.rescue.wait()


def _bounded(*command):
    try:
        return (
            subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=10).returncode == 0
        )
    except subprocess.TimeoutExpired:
        return False
