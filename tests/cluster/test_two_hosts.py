"""Two service hosts share one workspace of the real cluster, and its pilots."""

from __future__ import annotations

import time
from pathlib import Path

from cluster.service import Site


def test_two_service_hosts_share_one_pilot_and_get_their_own_answers(
    site: Site, tmp_path: Path
) -> None:
    other = Site(tmp_path / "other", site.cluster, site.user, Path(site.inside).name)
    both = (site, other)
    for here in both:
        here.change(pilot={"linger": 20})
        for number in range(8):
            here.drop_quick(f"job{number}")
    end = time.monotonic() + 120
    most = 0
    while any(here.records() or not here.finished("job7").exists() for here in both):
        for here in both:
            here.sweep()
        alive = [j for j in site.pilots_listed() if j["state"] in ("PENDING", "RUNNING")]
        most = max(most, len(alive))
        assert time.monotonic() < end, site.picture() + other.picture()
    assert most == 1
    instances = set()
    for here in both:
        for number in range(8):
            answer = here.answer(f"job{number}")
            assert answer["status"] == "ok"
            instances.add((here.root, answer["id"].split("-")[0]))
            assert (here.out / f"job{number}.out").read_text() == f"job{number}\n"
        assert len(list(here.dropbox.glob("*.finished"))) == 8
    assert len(instances) == 2
    assert len({here.answer("job0")["pilot"]["native_id"] for here in both}) == 1
