"""Writes the small Parquet files beside this script, as other programs write them.

    python make_parquet.py        (made with pyarrow 26.0.1, Pillow 13.0.0, numpy)

- test-00000-of-00001.parquet: the image layout of Hugging Face's `datasets`: `image` as a struct of bytes and path,
  `label` as a number, class names in the metadata; zstd. Rows: grey 10 "angry", grey 20 "surprise", bytes null,
  bytes that are no picture, label -1.
- brotli.parquet: our layout in a compression that the reader does not have.
"""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def png(value):
    out = io.BytesIO()
    Image.new("L", (48, 48), value).save(out, "PNG")
    return out.getvalue()


names = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
schema = pa.schema(
    [("image", image), ("label", pa.int64())],
    metadata={"huggingface": json.dumps({"info": {"features": features}})},
)
rows = [
    {"image": {"bytes": png(10), "path": None}, "label": 0},
    {"image": {"bytes": png(20), "path": "b.png"}, "label": 5},
    {"image": {"bytes": None, "path": "elsewhere/c.png"}, "label": 5},
    {"image": {"bytes": b"no picture at all", "path": "d.png"}, "label": 5},
    {"image": {"bytes": png(30), "path": "e.png"}, "label": -1},
]
pq.write_table(pa.Table.from_pylist(rows, schema), "test-00000-of-00001.parquet", compression="zstd")

ours = pa.table({"split": ["train"], "label": ["happy"], "image": pa.array([png(1)], pa.binary())})
pq.write_table(ours, "brotli.parquet", compression="brotli")
