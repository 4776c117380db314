"""The library that defines the figures is the judge: equal to 1e-6 wherever it can compute them."""

import contextlib
import io
import json

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hassod_ros.evaluation.annotations import load_annotations, load_predictions
from hassod_ros.evaluation.evaluate import evaluate

COORDINATES = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(1, 40), st.integers(1, 40))


def reference(truth: dict, predictions: list[dict], kind: str) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = COCO()
        annotated.dataset = truth
        annotated.createIndex()
        drop = "bbox" if kind == "mask" else "segmentation"  # with a box given it would measure masks by their boxes
        entries = [{key: value for key, value in entry.items() if key != drop} for entry in predictions]
        scorer = COCOeval(annotated, annotated.loadRes(entries), "segm" if kind == "mask" else "bbox")
        scorer.params.useCats = 0
        scorer.params.maxDets = [1, 10, 100, 1000]
        scorer.evaluate()
        scorer.accumulate()
    precision, recall = scorer.eval["precision"][:, :, 0], scorer.eval["recall"][:, 0]
    row = {"AP": precision[:, :, 0, 3], "AP50": precision[0, :, 0, 3], "AP75": precision[5, :, 0, 3]}
    row |= {f"AR@{n}": recall[:, 0, m] for m, n in enumerate((1, 10, 100, 1000))}
    for a, size in enumerate(("small", "medium", "large"), start=1):
        row |= {f"AP_{size}": precision[:, :, a, 3], f"AR_{size}": recall[:, a, 3]}
    return {name: np.nan if (values == -1).all() else float(values.mean()) for name, values in row.items()}


def check(truth: dict, predictions: list[dict], folder) -> dict:
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "predictions.json").write_text(json.dumps(predictions))
    annotated = load_annotations(folder / "truth.json")
    found = evaluate(annotated, load_predictions(folder / "predictions.json", annotated))
    for kind in ("mask", "box"):
        expected = reference(truth, predictions, kind)
        actual = {name: found[kind][name] for name in expected}
        np.testing.assert_allclose(list(actual.values()), list(expected.values()), atol=1e-6, err_msg=str(expected))
    return found


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    truths=st.lists(st.tuples(st.integers(1, 3), COORDINATES, st.booleans()), min_size=1, max_size=12),
    guesses=st.lists(st.tuples(st.integers(1, 3), COORDINATES, st.integers(0, 5)), min_size=1, max_size=25),
    copies=st.booleans(),
)
def test_random_rectangles(tmp_path, entry, truths, guesses, copies):
    size = (80, 80)
    rectangle = lambda c: (c[0], c[1], c[0] + c[2], c[1] + c[3])  # noqa: E731
    annotations = [
        entry(rectangle(c), image, size, id=i, iscrowd=int(crowd)) for i, (image, c, crowd) in enumerate(truths, 1)
    ]
    if copies:  # exact hits, ties in score and overlap
        guesses = guesses + [(image, c, 3) for image, c, _ in truths]
    predictions = [entry(rectangle(c), image, size, score=score / 5) for image, c, score in guesses]
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 80, "width": 80} for i in (1, 2, 3)]
    check({"images": images, "annotations": annotations, "categories": [{"id": 1}]}, predictions, tmp_path)


def test_real_annotations(shared, tmp_path):
    truth = json.loads((shared / "data/coco_subset/instances_dev.json").read_text())
    truth["images"] = truth["images"][::4]
    chosen = {image["id"] for image in truth["images"]}
    truth["annotations"] = [entry for entry in truth["annotations"] if entry["image_id"] in chosen]
    assert any(entry["iscrowd"] for entry in truth["annotations"])
    rng = np.random.default_rng(0)
    predictions = []
    for entry in truth["annotations"]:
        mask = rle.decode(entry["segmentation"])
        for _ in range(3):
            kernel = np.ones((rng.integers(1, 12),) * 2, np.uint8)
            guess = np.roll(mask, tuple(rng.integers(-5, 6, 2)), (0, 1))
            guess = cv2.dilate(guess, kernel) if rng.random() < 0.5 else cv2.erode(guess, kernel)
            if guess.any():
                code = rle.encode(np.asfortranarray(guess))
                predictions.append(
                    {
                        "image_id": entry["image_id"],
                        "category_id": 1,
                        "segmentation": {"size": code["size"], "counts": code["counts"].decode()},
                        "bbox": rle.toBbox(code).tolist(),
                        "score": round(rng.random(), 2),
                    }
                )
    found = check(truth, predictions, tmp_path)
    assert 0.1 < found["mask"]["AP"] < found["mask"]["AR@1000"] < 0.9


@pytest.mark.parametrize("predictions", [[], None])
def test_no_predictions_at_all_score_zero(tmp_path, entry, predictions):
    truth = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}],
        "annotations": [entry((0, 0, 9, 9), id=1)],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    annotated = load_annotations(tmp_path / "truth.json")
    if predictions is not None:
        (tmp_path / "none.json").write_text("[]")
    found = evaluate(annotated, load_predictions(tmp_path / "none.json", annotated) if predictions is not None else {})
    assert found["mask"]["AR@100"] == 0
    assert found["mask"]["AP"] == 0
    assert np.isnan(found["mask"]["AR_large"])
    assert found["counts"]["images_without_predictions"] == 1
