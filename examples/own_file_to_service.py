"""From a CSV file of your own to a model that answers over HTTP.

    python examples/own_file_to_service.py --file reviews.csv --text review --label stars

Without a file, the script writes one. It needs the extras `export` and `serve`.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from socket import create_server
from urllib.error import URLError
from urllib.request import Request, urlopen

import cyclopts

import offramp


def main(
    file: Path | None = None,
    *,
    text: str = "review",
    label: str = "verdict",
    backbone: str = "minilm-l3",
    output: Path = Path("runs/example-service"),
    max_steps: int = 100,
) -> None:
    """Train on the file, choose a threshold, export the model, serve it and ask it.

    Args:
        file: CSV file with a column of texts and a column of labels.
        text: name of the column of texts.
        label: name of the column of labels.
        backbone: the encoder.
        output: folder of the model and its export.
        max_steps: training steps.
    """
    data = offramp.load_data(file or write_example(output / "reviews.csv"), text=text, label=label)
    model = offramp.MultiExitForSequenceClassification.from_backbone(backbone, labels=data.labels)
    offramp.train(model, data, output_dir=output, max_steps=max_steps)

    policy = offramp.tune(model, data, max_accuracy_drop=0.02)
    model.save_pretrained(output / "served", policy=policy)
    offramp.export(output / "served", output / "exported", data=data)

    for answer in ask(output / "exported", data["validation"]["text"][:3]):
        print(json.dumps(answer))


def write_example(path: Path) -> Path:
    """A file as you may have one: packaged sentences under column names of one's own."""
    movies = offramp.load_data("movies").subsample(1000)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["review", "verdict"])
        rows.writerows((row["text"], movies.labels[row["label"]]) for row in movies["train"])
    return path


def ask(folder: Path, texts: list[str]) -> list[dict[str, object]]:
    """Start `offramp serve`, ask it as any client would, and end it."""
    with create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "offramp.cli.main", "serve", str(folder), "--port", str(port)]
    )
    try:
        request = Request(
            f"http://127.0.0.1:{port}/v1/classify",
            json.dumps({"texts": texts}).encode(),
            {"content-type": "application/json"},
        )
        for _ in range(600):
            try:
                with urlopen(request, timeout=30) as response:
                    return list(json.load(response)["answers"])
            except URLError:  # it is still loading
                time.sleep(0.1)
        raise TimeoutError("the service did not start within a minute")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    cyclopts.run(main)
