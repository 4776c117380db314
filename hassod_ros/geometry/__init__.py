"""Masks and depth to things in space: planes, oriented boxes, clouds and grasps; numpy and OpenCV only.

Points are metres in the camera's optical frame (x right, y down, z forward) unless a sentence says otherwise.
"""
