"""Packaging of voices-apart. Ranges stand here, exact versions in constraints.txt."""

import pathlib
import runpy

import setuptools

HERE = pathlib.Path(__file__).resolve().parent
VERSION = runpy.run_path(str(HERE / "pipeline" / "version.py"))["VERSION"]

ROOMS = ("pipeline", "models", "trainer", "export")

EXTRAS = {
    # tensorflow-io 0.37.1, the newest there is, works with TensorFlow 2.17 and no later one.
    "io": ["tensorflow-io>=0.37.1", "tensorflow>=2.17,<2.18"],
    "gpu": ["tensorflow[and-cuda]"],
    # eSpeak NG speaks the embedded corpus; the library is GPL-3.0, so it is asked for by name.
    "demo": ["espeakng-loader"],
    # FFmpeg's libraries inside: what libsndfile cannot decode (m4a, mp4, WebM, …).
    "av": ["av>=16"],
    # Browsers record WebM or m4a, which PyAV decodes.
    "serve": ["av>=16", "starlette>=0.46", "uvicorn>=0.30"],
    # Shells ask it for commands and flags: eval "$(register-python-argcomplete voices-apart)".
    "completion": ["argcomplete>=3"],
    # LiteRT runs .tflite files; TensorFlow writes them.
    "lite": ["ai-edge-litert>=2"],
    # onnx 1.19 and later need ml-dtypes that TensorFlow 2.17 excludes, and do not say so.
    "onnx": ["onnx<1.19", "onnxruntime>=1.20", "tf2onnx>=1.17"],
    # Praat, which makes virtual speakers; GPL-3.0.
    "virtual": ["praat-parselmouth>=0.4.5"],
    "aws": ["apache-beam[aws]"],
    # What Beam's file system for gs:// needs; all of apache-beam[gcp] excludes TensorFlow 2.17.
    "gcp": ["google-cloud-storage", "google-apitools", "google-auth-httplib2"],
    # Intelligibility; PESQ has no wheel and needs a compiler.
    "stoi": ["pystoi"],
    "evaluate": ["pystoi", "pesq", "scikit-learn"],
}
EXTRAS["test"] = [
    *EXTRAS["completion"],
    *EXTRAS["lite"],
    *EXTRAS["onnx"],
    *EXTRAS["virtual"],
    "build",
    # pytest-xdist 3.8 groups tests through what pytest 9.2 has no more, and says nothing.
    "pytest<9.2",
    "pytest-cov",
    "pytest-timeout",
    "pytest-xdist",
    "jax[cpu]",
    "librosa",
    "mir_eval",
    # NIST's diarisation error, for tests of who speaks when.
    "pyannote.metrics>=3",
    # A server of S3 on this machine: moto[server] brings ten times as much, for other services.
    "moto[s3]>=5",
    "nbclient",
    "nbformat",
    "ipykernel",
    "flask",
    "flask-cors",
    "pystoi",
    "scikit-learn",
    "selenium",
]
EXTRAS["fuzz"] = ["atheris"]
EXTRAS["lint"] = ["ruff", "mypy", "codespell"]
EXTRAS["docs"] = ["mkdocs-material", "mkdocstrings[python]"]

setuptools.setup(
    name="voices-apart",
    version=VERSION,
    description="Two people talk at once; each voice is given back alone.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=setuptools.find_packages(
        include=[f"{room}{below}" for room in ROOMS for below in ("", ".*")]
    ),
    package_data={
        **{room: ["py.typed"] for room in ROOMS},
        "pipeline.corpora": ["*.txt"],
        "export": [
            "py.typed",
            "templates/*",
            "pretrained/*/*",
            "pretrained/*/variables/*",
            "conversations/*.npz",
        ],
    },
    entry_points={
        "console_scripts": [
            "voices-apart = export.main:main",
            "voices-apart-worker = pipeline.beam.worker:main",
        ]
    },
    install_requires=[
        "absl-py",
        "apache-beam>=2.60",
        "cachetools",
        "fast-bss-eval",
        "google-crc32c",
        "grpcio",
        "jinja2",
        # Before 3.15, Dense used tf.matmul, which corrupts memory where a batch dimension is 1
        # (oneDNN, up to TensorFlow 2.21). Python 3.10 has no later one than 3.12.
        'keras>=3.15; python_version >= "3.11"',
        'keras>=3.7; python_version < "3.11"',
        "matplotlib",
        "msgspec>=0.19",
        "numpy",
        "protobuf",
        "pyarrow>=16",
        "requests",
        "scipy>=1.15",
        "soundfile>=0.12",
        "soxr",
        "tensorboard",
        "tensorflow>=2.17",
        "tqdm",
    ],
    extras_require=EXTRAS,
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12, 13)),
        "Typing :: Typed",
        "Topic :: Multimedia :: Sound/Audio :: Analysis",
    ],
)
