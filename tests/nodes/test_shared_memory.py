import fcntl
import os

from hassod_ros.nodes.shared_memory import remove_orphans


def test_only_old_segments_that_nobody_holds_are_removed(tmp_path):
    kept = ("fastdds_a11e", "fastdds_bead", "fastdds_port7001", "fastrtps_port7001", "other_dead")
    for name in (*kept, "fastdds_dead", "fastrtps_dead0"):
        for file in (tmp_path / name, tmp_path / f"{name}_el"):
            file.touch()
            os.utime(file, (0, 0))
    os.utime(tmp_path / "fastdds_bead_el")  # young
    with open(tmp_path / "fastdds_a11e_el", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert remove_orphans(tmp_path) == [tmp_path / "fastdds_dead", tmp_path / "fastrtps_dead0"]
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {f"{name}{end}" for name in kept for end in ("", "_el")}
