"""Measures vultus and other libraries on the same networks and writes docs/performance.md: see README.md."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from networks import NETWORKS, OWN, count

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OURS = "vultus"
TIME_LIMIT = 900
PACKAGES = ["torch", "tensorflow_cpu", "keras", "onnxruntime", "onnx", "numpy"]


class Peer(NamedTuple):
    script: str
    variant: str
    modes: tuple[str, ...]
    only_when_named: bool = False


PEERS: dict[str, Peer] = {
    "pytorch": Peer("pytorch_peer.py", "contiguous", ("train", "infer")),
    "pytorch-channels-last": Peer("pytorch_peer.py", "channels-last", ("train", "infer")),
    "pytorch-compile": Peer("pytorch_peer.py", "compile", ("train", "infer")),
    "keras-fit": Peer("keras_peer.py", "fit", ("train",)),
    "keras-train-on-batch": Peer("keras_peer.py", "train-on-batch", ("train",)),
    "keras-fit-xla": Peer("keras_peer.py", "fit-xla", ("train",), only_when_named=True),
    "onnxruntime": Peer("onnxruntime_peer.py", "", ("infer",)),
}


class Case(NamedTuple):
    network: str
    mode: str
    batch: int
    threads: int


# The headline cases; all with two threads.
QUICK = [
    Case("S", "train", 128, 2),
    Case("S", "train", 32, 2),
    Case("R", "train", 64, 2),
    *(Case(name, "train", 128, 2) for name in OWN),
    *(Case(name, "infer", batch, 2) for batch in (32, 1) for name in ("R", "S", *OWN)),
]
# Batch norm over a dense layer has nothing to average in a batch of one, so that is for inference only.
BATCHES = {"train": [32, 64, 128], "infer": [1, 32, 64, 128]}

Result = dict[str, Any]
Results = dict[Case, dict[str, list[Result]]]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/peers/run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only the headline cases; ours with one thread as well")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement, without its warm-up")
    parser.add_argument("--only", type=lambda s: s.split(","), help=f"of {OURS},{','.join(PEERS)}")
    parser.add_argument("--networks", type=lambda s: s.split(","), default=list(NETWORKS))
    parser.add_argument("--skip-ours", action="store_true", help="neither build nor measure vultus")
    out = ROOT / "docs/performance.md"
    parser.add_argument("--out", type=Path, default=out, help="raw results go beside it as .json")
    options = parser.parse_args()
    if unknown := {*(options.only or [])} - {OURS, *PEERS}:
        parser.error(f"unknown in --only: {', '.join(sorted(unknown))}")
    if unknown := {*options.networks} - {*NETWORKS}:
        parser.error(f"unknown in --networks: {', '.join(sorted(unknown))}")
    return options


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def environment(threads: int, cache: Path) -> dict[str, str]:
    """The caller's, without two settings that make a library slower than it is by itself, and with one that makes PyTorch faster."""
    kept = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    ours = {
        "OMP_NUM_THREADS": str(threads),
        "CUDA_VISIBLE_DEVICES": "",
        # Large pages, as mimalloc takes them for Vultus.
        "THP_MEM_ALLOC_ENABLE": "1",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "PEER_STARTED": repr(time.time()),
    }
    return kept | ours


def last_json(command: list[str], env: dict[str, str]) -> Result:
    try:
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        return {"error": f"more than {TIME_LIMIT} s"}
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    if done.returncode != 0:
        return {"error": lines[-1] if lines else f"exit code {done.returncode}", "stderr": lines[-30:]}
    return json.loads(done.stdout[done.stdout.index("{") :])


def measure(name: str, case: Case, seconds: float, cache: Path) -> Result:
    what = ["--mode", case.mode, "--batch", str(case.batch)]
    what += ["--threads", str(case.threads), "--seconds", str(seconds)]
    if name == OURS:
        network = NETWORKS[case.network].ours
        command = [str(ROOT / "target/release/vultus"), "bench", "--network", *network, *what, "--json"]
        return last_json(command, environment(case.threads, cache))
    peer = PEERS[name]
    command = [sys.executable, str(HERE / peer.script), "--network", case.network, *what, "--variant", peer.variant]
    command += ["--model-file", str(cache / f"{case.network}.onnx")]
    result = last_json(command, environment(case.threads, cache))
    parameters = result.get("parameters")
    if parameters not in (None, count(NETWORKS[case.network]).parameters):
        raise SystemExit(f"{name} built another network {case.network}: {parameters} parameters")
    return result


def export(network: str, cache: Path) -> None:
    command = [sys.executable, str(HERE / "pytorch_peer.py"), "--network", network, "--mode", "export"]
    command += ["--model-file", str(cache / f"{network}.onnx")]
    subprocess.run(command, env=environment(1, cache), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def build_ours() -> bool:
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True)
    command = [str(ROOT / "target/release/vultus"), "bench", "--help"]
    if subprocess.run(command, capture_output=True).returncode == 0:
        return True
    note("!!! THIS vultus HAS NO `bench` COMMAND: ONLY THE PEERS ARE MEASURED !!!")
    return False


def plan(options: argparse.Namespace, with_ours: bool) -> list[tuple[Case, list[str]]]:
    """The cases, each with the names that take turns."""

    def names(mode: str) -> list[str]:
        peers = [n for n, p in PEERS.items() if mode in p.modes and not (p.only_when_named and not options.only)]
        return [n for n in [*([OURS] if with_ours else []), *peers] if not options.only or n in options.only]

    if options.quick:
        cases = [case for case in QUICK if case.network in options.networks]
    else:
        modes = product(options.networks, BATCHES)
        cases = [Case(n, mode, batch, t) for n, mode in modes for batch in BATCHES[mode] for t in (1, 2)]
    planned = [(case, names(case.mode)) for case in cases]
    if options.quick and OURS in names("train"):
        planned += [(case._replace(threads=1), [OURS]) for case in cases]
    return [(case, who) for case, who in planned if who]


def run(options: argparse.Namespace, with_ours: bool) -> Iterator[Results]:
    """The results so far, after every case."""
    results: Results = {}
    planned = plan(options, with_ours)
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        cache = Path(folder)
        for network in {case.network for case, who in planned if "onnxruntime" in who}:
            export(network, cache)
        for i, (case, who) in enumerate(planned, 1):
            results[case] = {name: [] for name in who}
            for turn, name in product(range(1, options.rounds + 1), who):
                result = measure(name, case, options.seconds, cache)
                results[case][name].append(result)
                rate = result.get("images_per_second")
                said = result["error"] if "error" in result else f"{rate:.1f} images/s" if rate else "one step"
                label = f"{case.network} {case.mode} batch {case.batch} threads {case.threads}"
                note(f"[{i}/{len(planned)}] {label}, round {turn}: {name}: {said}")
            yield results


def values(runs: list[Result], key: str) -> list[float]:
    return [r[key] for r in runs if r.get(key) is not None]


def median(runs: list[Result], key: str) -> float | None:
    found = values(runs, key)
    return statistics.median(found) if found else None


def number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value < 1 else f"{value:.1f}"


Cell = Callable[[Case, list[Result]], str]


def table(results: Results, mode: str, cell: Cell, batches: list[int] | None = None, ratio: str = "") -> list[str]:
    """One row a case, one column a library. `ratio` is the key that ours over the best peer is taken of."""
    rows = {c: r for c, r in results.items() if c.mode == mode and (batches is None or c.batch in batches)}
    names = [n for n in [OURS, *PEERS] if any(n in row for row in rows.values())]
    if not names:
        return ["Not measured.", ""]
    heads = ["network", "batch", "threads", *names, *(["ours / best"] if ratio else [])]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "--:|" * (len(heads) - 1)]
    for case, row in rows.items():
        cells = [case.network, str(case.batch), str(case.threads)]
        cells += [cell(case, row[n]) if n in row else "–" for n in names]
        if ratio:
            peers = [m for n in row if n != OURS and (m := median(row[n], ratio))]
            ours = median(row.get(OURS, []), ratio)
            cells.append(f"{ours / max(peers):.2f}" if ours and peers else "–")
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo").read_text()
    fields = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in info.splitlines())}
    flags = [f for f in fields.get("flags", "").split() if f in ("fma", "avx2") or f.startswith("avx512")]

    def git(*command: str) -> str:
        return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = " with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return {
        "processor": fields.get("model name", "unknown"),
        "cores": os.cpu_count(),
        "flags": flags,
        "python": sys.version.split()[0],
        "packages": {name: version(name) for name in PACKAGES},
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "revision": git("rev-parse", "--short=12", "HEAD") + changed,
        "command": shlex.join(["bench/peers/run", *sys.argv[1:]]),
        "load_before": round(os.getloadavg()[0], 2),
    }


def report(about: dict[str, Any], results: Results, options: argparse.Namespace) -> str:
    def rate(case: Case, runs: list[Result]) -> str:
        value = median(runs, "images_per_second")
        counts = count(NETWORKS[case.network])
        flop = counts.training_flop if case.mode == "train" else counts.forward_flop
        if value is None:
            return "failed" if any("error" in r for r in runs) else "–"
        return f"{number(value)} ({number(value * flop / 1e9)})"

    def plain(key: str) -> Cell:
        return lambda _, runs: number(median(runs, key))

    def start(_: Case, runs: list[Result]) -> str:
        found = values(runs, "first_step_seconds")
        return f"{statistics.median(found):.2f} ({max(found):.2f})" if found else "–"

    def memory(_: Case, runs: list[Result]) -> str:
        peak, imported = median(runs, "peak_rss_mb"), median(runs, "import_rss_mb")
        return number(peak) + (f" ({number(imported)})" if imported else "")

    each = [r for row in results.values() for r in row.values()]
    spreads = [max(v) / min(v) - 1 for runs in each if (v := values(runs, "images_per_second"))]
    errors = {f"- `{n}`: {r['error']}" for row in results.values() for n in row for r in row[n] if "error" in r}
    packages = ", ".join(f"{name} {v}" for name, v in about["packages"].items())
    shares = [
        f"{c.network} {c.mode} batch {c.batch} threads {c.threads}: {share:.0%}"
        for c, row in results.items()
        if (share := median(row.get(OURS, []), "peak_fraction"))
    ]
    lines = [
        "# Performance",
        "",
        "Written by `bench/peers/run`; `bench/peers/README.md` says what is measured and what is not. The networks:",
        "",
        "| network | parameters | MFLOP forward | MFLOP forward and backward |",
        "|---|--:|--:|--:|",
        *(
            f"| {n} | {c.parameters:,} | {c.forward_flop / 1e6:.0f} | {c.training_flop / 1e6:.0f} |"
            for n in options.networks
            for c in [count(NETWORKS[n])]
        ),
        "",
        f"- processor: {about['processor']}, {about['cores']} cores, {', '.join(about['flags'])}",
        f"- versions: Python {about['python']}, {packages}",
        f"- revision: {about['revision']}",
        f"- date: {about['date']}; load average before: {about['load_before']}",
        f"- command: `{about['command']}`",
        f"- every figure: median of {options.rounds} rounds in turn, {options.seconds:g} s each; "
        f"the rounds of one figure differ by at most {max(spreads, default=0):.0%}, "
        f"at the median by {statistics.median(spreads) if spreads else 0:.1%}",
        "",
        "## Training",
        "",
        "Images a second, in brackets GFLOP a second.",
        "",
        *table(results, "train", rate, ratio="images_per_second"),
        "## Inference",
        "",
        "Images a second, in brackets GFLOP a second.",
        "",
        *table(results, "infer", rate, ratio="images_per_second"),
        "Milliseconds for one image (batch 1).",
        "",
        *table(results, "infer", plain("ms_median"), batches=[1]),
        "## Peak memory",
        "",
        "Megabytes resident at the peak, in brackets right after the imports.",
        "",
        *(line for mode in BATCHES for line in table(results, mode, memory)),
        "## Start-up",
        "",
        "Seconds from the start of the process to the end of the first step, in brackets the slowest round. The "
        "slowest of `pytorch-compile` has the compiler's cache cold.",
        "",
        *(line for mode in BATCHES for line in table(results, mode, start)),
        *(["## Share of the processor's peak", "", *(f"- {share}" for share in shares), ""] if shares else []),
        *(["## Failures", "", *sorted(errors), ""] if errors else []),
    ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    options = parse()
    about = machine()
    with_ours = not options.skip_ours and (not options.only or OURS in options.only) and build_ours()
    if options.skip_ours:
        note("!!! vultus IS NOT MEASURED (--skip-ours) !!!")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for results in run(options, with_ours):
        raw = [case._asdict() | {"library": n, "rounds": r} for case, row in results.items() for n, r in row.items()]
        options.out.with_suffix(".json").write_text(json.dumps({"about": about, "results": raw}, indent=1) + "\n")
        options.out.write_text(report(about, results, options))
    note(f"wrote {options.out}")


if __name__ == "__main__":
    main()
