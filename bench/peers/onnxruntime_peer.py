"""ONNX Runtime on the network that pytorch_peer.py exported, with all graph optimisations."""

from __future__ import annotations

import numpy as np
import onnxruntime

from peer import POOL, Clock, job, memory_mb


def main() -> None:
    import_rss_mb = memory_mb("VmRSS")
    this = job()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = this.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_free_dimension_override_by_name("batch", this.batch)
    session = onnxruntime.InferenceSession(this.model_file, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    pictures = np.random.default_rng(1).random((POOL, this.batch, *this.network.input), dtype=np.float32)
    clock = Clock(this.seconds)
    going, i = True, 0
    while going:
        session.run(None, {name: pictures[i]})
        going, i = clock.tick(), (i + 1) % POOL
    clock.report(this, None, import_rss_mb)


if __name__ == "__main__":
    main()
