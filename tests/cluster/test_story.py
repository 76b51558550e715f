"""The main job on a real cluster: SSH, Slurm, a container image, and nothing else touched."""

from __future__ import annotations

import hashlib
import json

import pytest
from cluster.service import Site

pytestmark = pytest.mark.timeout(900)  # the first run of a machine builds the cluster


def test_a_dropped_job_comes_back_from_its_container(site: Site) -> None:
    site.drop_count("thing", "hello\n")
    answer = site.until("thing")["thing"]
    assert (answer["status"], answer["rc"], answer["reason"]) == ("ok", 0, "completed")
    assert answer["stdout"] == "counted in my_container.sif\n"
    assert (site.out / "thing.txt").read_text() == "level 6, 6 bytes\n"
    counted = json.loads((site.out / "thing.json").read_text())
    assert counted["sha256"] == hashlib.sha256(b"hello\n").hexdigest()
    (pilot,) = site.pilots_listed()
    assert answer["node"] == pilot["node"] and pilot["node"] in ("n1", "n2")
