"""Logistic regression fitted on encrypted records: what an iteration costs the host, and what the model is worth.

CPU time on one thread; WDBC (569 rows, 30 features), a quarter of it held back.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Bench, Measurement, NotMeasured
from benchmarks.peers.venvs import ask_python

_ITERATIONS = 12
_POINT = 0.01


def encrypted_training() -> dict[str, float]:
    """Mean seconds an iteration, accuracy on ciphertexts and in clear, peak memory.

    Raises:
        NotMeasured: the encrypted fit lost more than a point of accuracy.
    """
    import numpy as np
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from mibao.he import training
    from mibao.he.engine_seal import engine_for

    records, labels = load_breast_cancer(return_X_y=True)
    train, test, given, expected = train_test_split(
        records, labels == 1, test_size=0.25, random_state=0, stratify=labels
    )
    peer = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train, given)
    plan = training.TrainingPlan(
        rows=len(train), features=train.shape[1], iterations=_ITERATIONS, step=training.suggested_step(train)
    )
    engine = engine_for(training.PARAMETERS)
    holder = training.TrainingKeyHolder(train, given, plan=plan, engine=engine, secret=engine.generate_secret_key())
    host = training.TrainingHost(holder.encrypt_records(), holder.evaluation_keys(), plan=plan, engine=engine)
    state, seconds = holder.start(), []
    for iteration in range(plan.iterations):
        if iteration and iteration % training.ITERATIONS_A_REFRESH == 0:
            state = holder.refresh(state, iteration=iteration)
        started = time.process_time()
        state = host.iterate(state, iteration=iteration)
        seconds.append(time.process_time() - started)
    accuracy = float(np.mean((holder.finish(state).decision(test) > 0) == expected))
    clear = float(peer.score(test, expected))
    if accuracy < clear - _POINT:
        raise NotMeasured(f"accuracy {accuracy:.3f} on ciphertexts, {clear:.3f} in clear")
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"s": statistics.fmean(seconds), "accuracy": accuracy, "clear": clear, "memory_mb": memory_mb}


def measure() -> Iterator[Measurement]:
    """One fit in a fresh process."""
    found = ask_python(Path(sys.executable), "-m", "benchmarks.he_training", one_thread=True)
    note = (
        f"accuracy {found['accuracy']:.3f}, scikit-learn in clear {found['clear']:.3f}; "
        f"{found['memory_mb']:.0f} MB for both sides"
    )
    yield Measurement(id="he_training.iteration", ours=found["s"], why="no peer fits on ciphertexts here", note=note)


BENCHES = (Bench(rows=("he_training.iteration",), measure=measure),)

if __name__ == "__main__":
    print(json.dumps(encrypted_training()))
