import torch

from hassod_ros.detection.cascade.anchors import cell_anchors, grid_anchors


def test_cell_anchors_have_area_and_ratio():
    width, height = (cell_anchors(32, (0.5, 1, 2))[:, 2:] * 2).T
    torch.testing.assert_close(width * height, torch.full((3,), 1024.0))
    torch.testing.assert_close(height / width, torch.tensor([0.5, 1, 2]))


def test_grid_runs_row_by_row_with_a_cell_together():
    cells = torch.tensor([[-1.0, -1, 1, 1], [-2.0, -1, 2, 1]])
    anchors = grid_anchors((2, 3), 8, cells)
    assert anchors.shape == (12, 4)
    assert anchors[0].tolist() == [-1, -1, 1, 1]
    assert anchors[1].tolist() == [-2, -1, 2, 1]
    assert anchors[2].tolist() == [7, -1, 9, 1]  # next column
    assert anchors[6].tolist() == [-1, 7, 1, 9]  # next row
