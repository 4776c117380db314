r"""Find wholes, parts and subparts in photos, a video or a recording: pictures, a video and COCO JSON.

hassod_ros predict default photos --out found
hassod_ros predict runs/small/mean_teacher/model.pth clip.mp4 --out found --score 0.8
hassod_ros predict training_free recording.mcap --out found --max-rate 2

Needs neither ROS nor a GPU, and torch only for training_free and checkpoints. A photo that cannot be read is named and
passed over.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from hassod_ros.commands import number, run, script_parser
from hassod_ros.instances import Level
from hassod_ros.progress import say


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("predict", __doc__)
    parser.add_argument(
        "model",
        help="exported model (.onnx), the name of one (default, default-int8, training_free, or one that was fetched), "
        "or a checkpoint (.pth)",
    )
    parser.add_argument(
        "source", help="photo, folder, list of photos (.txt), video, or recording (rosbag2, MCAP, ROS 1)"
    )
    parser.add_argument("--out", required=True, help="folder for predictions.json, pictures/ and videos")
    parser.add_argument("--score", type=number(0, 1), help="least score in [0, 1] (default: what the model recommends)")
    parser.add_argument("--backend", default="auto", help="what runs the model, such as onnxruntime-cpu or tensorrt")
    parser.add_argument("--panels", action="store_true", help="draw wholes, parts and subparts side by side")
    parser.add_argument("--draw-scene", action="store_true", help="draw outlines of background and supports too")
    parser.add_argument("--no-pictures", action="store_true", help="write predictions.json alone")
    parser.add_argument(
        "--max-rate", type=number(0), default=0.0, help="of a video or recording: most frames per second, 0 = all"
    )
    parser.add_argument(
        "--save-frames", action="store_true", help="of a video or recording: write its frames too, to frames/"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the status is that of `commands.run`."""
    options = build_parser().parse_args(arguments)

    def work() -> None:
        from hassod_ros.prediction import predict
        from hassod_ros.runtime.segmenter import open_segmenter
        from hassod_ros.runtime.selection import Selection

        outcome = predict(
            open_segmenter(options.model, options.backend, report=say),
            options.source,
            options.out,
            model=options.model,
            selection=Selection(score_thresholds=(options.score,) * len(Level)),
            panels=options.panels,
            pictures=not options.no_pictures,
            draw_scene=options.draw_scene,
            max_rate=options.max_rate,
            save_frames=options.save_frames,
        )
        print(outcome)

    return run("predict", work, after_stop="what was found is kept")


if __name__ == "__main__":
    sys.exit(main())
