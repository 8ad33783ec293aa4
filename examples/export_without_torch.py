"""Export a model, and run it in a Python that has no torch.

python examples/export_without_torch.py --precision int8

It needs the extra `export`. What it exports needs `pip install 'offramp[onnx]'` alone.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import cyclopts

import offramp

# As if torch and transformers were not installed.
ANSWER = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
import offramp
for answer in offramp.Engine(sys.argv[1]).predict(sys.argv[2:]):
    print(f"{answer.label} ({answer.probability:.2f}) after layer {answer.exit_layer}, cost {answer.cost:.2f}")
"""


def main(
    data: str = "movies",
    *,
    backbone: str = "minilm-l3",
    output: Path = Path("runs/example-export"),
    train_size: int = 1000,
    precision: Literal["fp32", "int8"] = "fp32",
) -> None:
    """Train, tune and export a model, then answer two texts in a process without torch.

    Args:
        data: a data set, as for `offramp.load_data`.
        backbone: the encoder.
        output: folder of the model and its export.
        train_size: training examples.
        precision: of the exported weights.
    """
    texts = offramp.load_data(data).subsample(train_size)
    model = offramp.MultiExitForSequenceClassification.from_backbone(backbone, labels=texts.labels)
    offramp.train(model, texts, output_dir=output, epochs=1)
    model.policy = offramp.tune(model, texts, max_accuracy_drop=0.02)
    manifest = offramp.export(
        model, output / "exported", precision=precision, policy=model.policy, data=texts
    )
    print(f"compared with the model: {manifest.checks}")
    words = ["a gripping, funny film", "a dull and endless mess"]
    command = [sys.executable, "-c", ANSWER, str(output / "exported"), *words]
    print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="")


if __name__ == "__main__":
    cyclopts.run(main)
