"""`hassod_ros VERB`: everything that can be run, under one name.

Each verb is also a program of its own (`ros2 run hassod_ros VERB`, or the file in train/ and export/), with the same
options. `hassod_ros VERB --help` explains them; docs/cli.md holds all of them.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

from hassod_ros.commands import WRONG_INPUT, describe
from hassod_ros.packages import missing


@dataclass(frozen=True)
class Verb:
    """Something that can be run.

    Attributes:
        module: That has its `main`, and its `build_parser` where `node` is False.
        about: What it does, in one line.
        node: It is a ROS 2 node: its options are ROS parameters.

    """

    module: str
    about: str
    node: bool = False


_TRAIN, _EXPORT, _NODES = "hassod_ros.train", "hassod_ros.export", "hassod_ros.nodes"
VERBS = {
    "predict": Verb(f"{_TRAIN}.predict", "find wholes, parts and subparts in photos, videos, recordings"),
    "extract": Verb(f"{_TRAIN}.extract", "select frames worth labelling from recordings and videos"),
    "retrain": Verb(f"{_TRAIN}.retrain", "last night's recordings in, a better model out"),
    "pseudo_label": Verb(f"{_TRAIN}.pseudo_label", "label photographs without supervision"),
    "heap": Verb(f"{_TRAIN}.heap", "train HEAP's head: what is foreground, which regions belong together"),
    "detector": Verb(f"{_TRAIN}.detector", "train a detector on labels (burn-in)"),
    "mean_teacher": Verb(f"{_TRAIN}.mean_teacher", "let it go on learning from itself"),
    "relabel": Verb(f"{_TRAIN}.relabel", "label photographs by a trained detector"),
    "default_model": Verb(f"{_TRAIN}.default_model", "all of that in one command, up to a model file"),
    "evaluate": Verb(f"{_TRAIN}.evaluate", "score predictions or a model on an annotated set"),
    "convert": Verb(f"{_TRAIN}.convert", "annotations between COCO, YOLO and LabelMe"),
    "visualise": Verb(f"{_TRAIN}.visualise", "draw labels beside their images"),
    "prepare_data": Verb(f"{_TRAIN}.prepare_data", "check a public set and list its pictures"),
    "shrink_photos": Verb(f"{_TRAIN}.shrink_photos", "shrink photographs to what training sees"),
    "pretrain_features": Verb(f"{_TRAIN}.pretrain_features", "train small features on photographs"),
    "average": Verb(f"{_TRAIN}.average", "average the weights of stages of one training"),
    "fit_evidence": Verb(f"{_TRAIN}.fit_evidence", "fit a model's scores, scene and parents to annotated pictures"),
    "fetch_model": Verb(f"{_EXPORT}.fetch_model", "fetch a published model by name and export it for robots"),
    "to_onnx": Verb(f"{_EXPORT}.to_onnx", "export a detector for robots"),
    "quantize": Verb(f"{_EXPORT}.quantize", "an exported detector as int8, for processors without a GPU"),
    "to_tensorrt": Verb(f"{_EXPORT}.to_tensorrt", "build its TensorRT engine on this machine"),
    "gate": Verb(f"{_EXPORT}.gate", "judge a new model against the running one, without labels"),
    "registry": Verb(f"{_EXPORT}.registry", "list, show, name and prune registered models"),
    "rollout": Verb(f"{_EXPORT}.rollout", "let running nodes load a registered model"),
    "rollback": Verb(f"{_EXPORT}.rollback", "let them load what they ran before"),
    "add_features": Verb(f"{_EXPORT}.add_features", "give an exported detector the features of inspection"),
    "features_to_onnx": Verb(f"{_EXPORT}.features_to_onnx", "export the features of discovery"),
    "learn_reference": Verb(f"{_TRAIN}.learn_reference", "teach a part by good pictures"),
    "inspect": Verb(f"{_TRAIN}.inspect_parts", "judge pictures by a taught part, with a report"),
    "perception_node": Verb(f"{_NODES}.perception_node", "segment a camera's images", node=True),
    "objects_3d_node": Verb(f"{_NODES}.objects_3d_node", "find things in space, and how to grasp them", node=True),
    "inspection_node": Verb(f"{_NODES}.inspection_node", "say of every part OK, NG and why", node=True),
    "camera_player": Verb(f"{_NODES}.camera_player", "show photos or a video as a camera", node=True),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one verb with the rest of the command line."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help"):
        print(f"usage: hassod_ros VERB ...\n\n{overview()}\n\nhassod_ros VERB --help explains a verb.")
        return 0 if given else WRONG_INPUT
    name, *rest = given
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, n=1, cutoff=0)[0]
        print(f"hassod_ros: there is no verb {name!r}; the nearest is {near}, all are in --help", file=sys.stderr)
        return WRONG_INPUT
    sys.argv = [name, *rest]  # nodes and their libraries read it
    try:
        return int(import_module(VERBS[name].module).main() or 0)
    except ModuleNotFoundError as error:
        if not (sentence := missing(error)):
            raise
        print(f"{name}: {sentence}", file=sys.stderr)
        return WRONG_INPUT


def overview() -> str:
    """One line for each verb."""
    width = max(map(len, VERBS))
    return "\n".join(f"  {name:{width}}  {verb.about}" for name, verb in VERBS.items())


def document() -> str:
    """docs/cli.md, from the parsers."""
    parts, tables = [_HEADING], dict[str, str]()
    for name, verb in VERBS.items():
        parts.append(f"## {name}\n")
        if verb.node:
            parts.append(f"{verb.about[0].upper()}{verb.about[1:]}. A ROS 2 node, see [ros_api.md](ros_api.md).\n")
            continue
        parser = import_module(verb.module).build_parser()
        table = "\n".join(_table(parser))
        parts += _introduction(parser)
        parts.append(f"The options are those of `{tables[table]}`.\n" if table in tables else f"{table}\n")
        tables.setdefault(table, name)
    return "\n".join(parts)


_HEADING = """# Command line

`hassod_ros VERB ...` after `pip install`, `ros2 run hassod_ros VERB ...` in a ROS 2 workspace, and
`python train/VERB.py ...` or `python export/VERB.py ...` in a checkout are the same. Scripts end with status 0, with 2
and one sentence where something given is wrong, and with 130 or 143 where Ctrl-C or SIGTERM stopped them.

This page is made from the parsers: `python -m hassod_ros.cli > docs/cli.md`.
"""


def _introduction(parser: argparse.ArgumentParser) -> Iterator[str]:
    text = (parser.description or "").strip()
    sentence, _, rest = text.partition("\n\n")
    yield f"{' '.join(sentence.split())}\n"
    if examples := re.findall(r"^ *((?:hassod_ros|python|torchrun) (?:.*\\\n)*.*)", rest, flags=re.MULTILINE):
        yield "```bash"
        yield from (re.sub(r"\n +", "\n    ", example) for example in examples)
        yield "```\n"
    if lists := re.findall(r"^  (\w+) {2,}(\S.*)$", text, flags=re.MULTILINE):
        yield from (f"* `{name}`: {what}" for name, what in lists)
        yield ""


def _table(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield "| option | meaning | default |\n|---|---|---|"
    for action in parser._actions:
        group = ".*" if any(other.dest.startswith(f"{action.dest}.") for other in parser._actions) else ""
        if not group and action.dest not in ("help", "print_config"):
            yield _row(action)


def _row(action: argparse.Action) -> str:
    names = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    takes = "" if action.nargs == 0 or not action.option_strings else f" {_value(action)}"
    meaning, _, default = describe(action).partition(" (default: ")
    default = default.removesuffix(")").replace("%(default)s", f"`{_plain(action.default)}`")
    if action.required or not action.option_strings:
        default = "required"
    meaning = " ".join(meaning.split()).replace("%%", "%").replace("|", "\\|").removesuffix(".")
    return f"| `{names}{takes}` | {meaning} | {default} |"


def _plain(value: object) -> str:
    """A default as it is written on the command line."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(action: argparse.Action) -> str:
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    if action.metavar:
        return action.metavar.replace("|", "\\|")
    if action.choices:
        return "\\|".join(map(str, action.choices))
    return action.dest.rpartition(".")[2].upper()


if __name__ == "__main__":
    print(document(), end="")
