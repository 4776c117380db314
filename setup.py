"""ament_python package `hassod_ros`; also installable with `pip install .`.

`train/` and `export/` hold the scripts a person runs. They are the packages `hassod_ros.train` and `hassod_ros.export`,
so that `ros2 run hassod_ros NAME` finds them without two generic names in site-packages. Links in `hassod_ros/` lead
there, and not `package_dir`, which `colcon build --symlink-install` cannot follow.
"""

from glob import glob

from setuptools import find_packages, setup

NAME = "hassod_ros"

CORE = [
    "numpy>=1.22,<3",
    "opencv-python-headless>=4.5.4,<5",  # OpenCV 5 changed the type constants
    "onnxruntime>=1.17",
    "Pillow>=9.1",
    "PyYAML>=5.4",
]
TRAIN = [
    "torch>=2.4",
    "torchvision>=0.19",
    "timm>=1.0.9,<2",
    "transformers>=5,<6",  # Mask2Former; loaded only where it is used
    "lightly>=1.6,<2",
    "numba>=0.60",
    "safetensors>=0.4",
    "pycocotools>=2.0.8",
    "ijson>=3.2",
    "jsonargparse>=4.49",
    "docstring-parser>=0.15",  # help texts of jsonargparse
    "tensorboard>=2.14",
    "ray[data]>=2.40",
    "scipy>=1.10",
    "scikit-image>=0.24",
    "scikit-learn>=1.4",  # mini-batch k-means
    "tqdm>=4.60",
    "matplotlib>=3.8",  # charts of reports
    "onnx>=1.16",
    "onnxscript>=0.3",
    "gdown>=5.2",  # published weights on Google Drive
]
FOOTAGE = ["rosbags>=0.11.1,<0.12", "mcap>=1.2,<2"]  # bags of cameras; both are pure Python
TENSORRT = ["tensorrt>=10.3", "cuda-python>=12.6"]
DEV = [
    "pydensecrf2>=1.1",
    "pytest>=8,<10",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.5",
    "hypothesis>=6.100",
    "ruff>=0.9",
    "mypy>=1.13",
    "types-PyYAML",
    "psutil>=5.9",
]

setup(
    name=NAME,
    version="0.1.0",
    description="Self-supervised whole, part and subpart segmentation for robots",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed", "deploy/*.json", "models/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", glob("launch/*.launch.py")),
        (f"share/{NAME}/config", glob("config/*.*")),
        *((f"share/{NAME}/{folder[:-1]}", glob(f"{folder}*.*")) for folder in glob("config/*/")),
    ],
    install_requires=CORE,
    extras_require={"footage": FOOTAGE, "train": TRAIN, "tensorrt": TENSORRT, "dev": DEV},
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "hassod_ros = hassod_ros.cli:main",
            "predict = hassod_ros.train.predict:main",
            "extract = hassod_ros.train.extract:main",
            "retrain = hassod_ros.train.retrain:main",
            "pseudo_label = hassod_ros.train.pseudo_label:main",
            "shrink_photos = hassod_ros.train.shrink_photos:main",
            "default_model = hassod_ros.train.default_model:main",
            "pretrain_features = hassod_ros.train.pretrain_features:main",
            "average = hassod_ros.train.average:main",
            "fit_evidence = hassod_ros.train.fit_evidence:main",
            "relabel = hassod_ros.train.relabel:main",
            "convert = hassod_ros.train.convert:main",
            "visualise = hassod_ros.train.visualise:main",
            "detector = hassod_ros.train.detector:main",
            "mean_teacher = hassod_ros.train.mean_teacher:main",
            "prepare_data = hassod_ros.train.prepare_data:main",
            "evaluate = hassod_ros.train.evaluate:main",
            "heap = hassod_ros.train.heap:main",
            "fetch_model = hassod_ros.export.fetch_model:main",
            "features_to_onnx = hassod_ros.export.features_to_onnx:main",
            "gate = hassod_ros.export.gate:main",
            "registry = hassod_ros.export.registry:main",
            "rollout = hassod_ros.export.rollout:main",
            "rollback = hassod_ros.export.rollback:main",
            "learn_reference = hassod_ros.train.learn_reference:main",
            "inspect = hassod_ros.train.inspect_parts:main",
            "add_features = hassod_ros.export.add_features:main",
            "quantize = hassod_ros.export.quantize:main",
            "to_onnx = hassod_ros.export.to_onnx:main",
            "to_tensorrt = hassod_ros.export.to_tensorrt:main",
            "camera_player = hassod_ros.nodes.camera_player:main",
            "objects_3d_node = hassod_ros.nodes.objects_3d_node:main",
            "inspection_node = hassod_ros.nodes.inspection_node:main",
            "perception_node = hassod_ros.nodes.perception_node:main",
        ]
    },
)
