"""Gradient-boosted trees on encrypted records: what a row costs the host, and how often its class is kept.

CPU time on one thread; 20 trees of depth 3 on breast cancer, a full batch of rows, amortised over them.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Bench, Measurement, NotMeasured
from benchmarks.peers.venvs import ask_python

_TREES, _DEPTH = 20, 3
_LEAST_AGREEMENT = 0.995


def encrypted_trees() -> dict[str, float]:
    """Milliseconds a row, agreement with the model in clear on all 569 records, peak memory.

    Raises:
        NotMeasured: fewer than 99.5 % of the classes were kept.
    """
    import numpy as np
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.model_selection import train_test_split

    from mibao.he.engine_seal import engine_for
    from mibao.he.forests import LEAF, Forest, Tree
    from mibao.he.leveled import Arithmetic, Leveled
    from mibao.he.trees import compile_trees

    records, labels = load_breast_cancer(return_X_y=True)
    train, _, given, _ = train_test_split(records, labels, test_size=0.3, random_state=0, stratify=labels)
    model = GradientBoostingClassifier(n_estimators=_TREES, max_depth=_DEPTH, random_state=0).fit(train, given)
    trees = []
    for member in model.estimators_[:, 0]:
        held = member.tree_
        inner = held.children_left >= 0
        trees.append(
            Tree(
                feature=np.where(inner, held.feature, LEAF).astype(np.int64),
                threshold=np.where(inner, held.threshold, 0.0),
                left=np.where(inner, held.children_left, 0).astype(np.int64),
                right=np.where(inner, held.children_right, 0).astype(np.int64),
                value=np.where(inner[:, None], 0.0, held.value[:, 0, :] * model.learning_rate),
            )
        )
    share = np.mean(given)
    forest = Forest(
        low=records.min(axis=0),
        high=records.max(axis=0),
        trees=tuple(trees),
        base=np.array([np.log(share / (1 - share))]),
    )
    circuit = compile_trees(forest, train)
    for line in circuit.explain():
        print(line, file=sys.stderr)
    engine = engine_for(circuit.parameters)
    secret = engine.generate_secret_key()
    arithmetic = Arithmetic(engine, relinearization=engine.generate_relinearization_key(secret))
    batch = np.resize(records, (circuit.parameters.slots, records.shape[1]))
    fresh = [
        Leveled(ciphertext=engine.encrypt(secret, engine.encode(-column, scale=arithmetic.scales[0])), level=0)
        for column in circuit.scale.apply(batch).T
    ]
    started = time.process_time()
    (answer,) = circuit.evaluate(fresh, arithmetic)
    seconds = time.process_time() - started
    scores = engine.decrypt(secret, answer.ciphertext)[: len(records)]
    agreement = float(np.mean((scores > 0) == (model.decision_function(records) > 0)))
    if agreement < _LEAST_AGREEMENT:
        raise NotMeasured(f"{agreement:.2%} of the classes were kept")
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"ms": 1000 * seconds / circuit.parameters.slots, "agreement": agreement, "memory_mb": memory_mb}


def measure() -> Iterator[Measurement]:
    """One batch in a fresh process."""
    found = ask_python(Path(sys.executable), "-m", "benchmarks.he_trees", one_thread=True)
    note = f"agreement {found['agreement']:.2%}, {found['memory_mb']:.0f} MB"
    yield Measurement(
        id="he_trees.boosted", ours=found["ms"], why="no peer for trees is measured in this run", note=note
    )


BENCHES = (Bench(rows=("he_trees.boosted",), measure=measure),)

if __name__ == "__main__":
    print(json.dumps(encrypted_trees()))
