import pytest

from hassod_ros.errors import InputError
from hassod_ros.params_file import matches, require_section, sections

FILE = """
/**:
  ros__parameters: {use_sim_time: true}
  perception_node:
    ros__parameters: {max_rate: 5}
robot:
  camera:
    ros__parameters: {rate: 5}
/arm/wrist:
  ros__parameters: {}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "robot.yaml"
    path.write_text(FILE)
    return path


def test_sections_are_found_at_any_depth(file):
    assert sections(file) == ["/**", "/**/perception_node", "/robot/camera", "/arm/wrist"]


@pytest.mark.parametrize(
    ("section", "node", "expected"),
    [
        ("/**", "/a", True),
        ("/**", "/a/b/c", True),
        ("/**/node", "/node", True),
        ("/**/node", "/a/b/node", True),
        ("/**/node", "/a/other_node", False),
        ("/*/node", "/a/node", True),
        ("/*/node", "/node", False),
        ("/node", "/node", True),
        ("/node", "/a/node", False),
        ("/a.b/node", "/aXb/node", False),
    ],
)
def test_sections_match_as_ros_matches_them(section, node, expected):
    assert matches(section, node) is expected


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read .No such file"),
        ("a: [", "is not YAML"),
        ("perception_node:\n  max_rate: 5\n", "holds no parameters; write"),
        ("5", "holds no parameters; write"),
        ("", "holds no parameters; write"),
        (
            "perception_node:\n  ros__parameters: {}\n",
            "holds nothing for /robot/perception_node, only for /perception_node; write /\\*\\*/perception_node:",
        ),
    ],
)
def test_what_holds_nothing_for_the_node_is_refused(tmp_path, content, sentence):
    path = tmp_path / "robot.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=sentence):
        require_section(path, "/robot/perception_node")
