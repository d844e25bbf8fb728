"""Train the included network `digits` on scikit-learn's handwritten digits, about a minute.

python examples/train_digits.py digits.snn
"""

import sys
from dataclasses import replace

from spear_deploy.data import load_data
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.pipeline.demo import digits_network
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import train


def main(path: str = "digits.snn", seed: int = 0) -> None:
    data = load_data("digits", steps=8, seed=seed)
    network = train(digits_network(seed), data, seed=seed)
    test = evaluate(network, data.test)
    facts = {"title": "scikit-learn's digits, 1 x 8 x 8", "steps": data.steps, "test_accuracy": round(test.accuracy, 4)}
    write_snn(replace(network, metadata=facts), path)
    print(f"{path}: {test.accuracy:.2%} on the test split, {test.synops.total:,.0f} SynOps per inference")


if __name__ == "__main__":
    main(*sys.argv[1:2])
