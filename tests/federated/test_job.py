import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from command_line import mibao
from mibao.errors import InputError
from mibao.federated import AdaptiveClipping, Compression, FedAvg, FedYogi, Krum, LogisticRegression, NoiseSource, Unit
from mibao.federated.job import read_job

SITES = """
import numpy as np
from mibao.federated import Records

def load_site(number):
    rng = np.random.default_rng(number)
    features = rng.normal(size=(30, 3))
    if number == 2:
        features = features[:, :2]
    return Records(features=features, targets=(features[:, 0] > 0.0).astype(float))

def held_out():
    return load_site(1000)
"""
JOB = """
model = "logistic"
features = 3
data = "sites.py:load_site"
evaluate = "sites.py:held_out"
aggregation = "plain"

[strategy]
name = "fedavg"
lr = 1
batch = 8

[run]
clients = 8
rounds = 4
"""


@pytest.fixture
def job(tmp_path):
    (tmp_path / "sites.py").write_text(SITES)
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    return path


def test_a_job_says_the_whole_task(job):
    read = read_job(job)
    assert read.task.model == LogisticRegression(features=3)
    assert read.task.strategy == FedAvg(lr=1.0, batch=8)
    assert (read.plan.clients, read.plan.rounds, read.plan.cohort) == (8, 4, None)
    assert len(read.evaluate) == 30


def test_records_that_sites_set_aside_are_measured_at_the_sites(job):
    job.write_text(
        JOB.replace('aggregation = "plain"', 'aggregation = "plain"\nheld_out = "sites.py:load_site"')
        + "before = true\n"
    )
    done = mibao("train", job, folder=job.parent)
    assert done.returncode == 0, done.stderr
    assert "client_accuracy" in done.stdout
    assert done.stdout.startswith("before  ")
    lines = (job.with_suffix(".result") / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [-1, 0, 1, 2, 3]
    for line in (lines[0], lines[-1]):
        assert {"accuracy", "client_accuracy", "client_loss"} <= set(json.loads(line))


def test_strategies_rules_and_promises_are_read(job):
    job.write_text(JOB.replace('name = "fedavg"', 'name = "fedavg"\nrule = {name = "krum", byzantine = 1}'))
    assert read_job(job).task.strategy.rule == Krum(byzantine=1)
    job.write_text(JOB.replace('name = "fedavg"', 'name = "fedyogi"\nlocal_epochs = [1, 2, 1, 1, 1, 1, 1, 1]'))
    assert read_job(job).task.strategy == FedYogi(lr=1.0, batch=8, local_epochs=(1, 2, 1, 1, 1, 1, 1, 1))
    promise = (
        '[privacy]\nclip = 1\nnoise_multiplier = 2\ndelta = 1e-5\nnoise = "central"\nadaptive = {quantile = 0.3}\n'
    )
    privacy = read_job_with(job, promise).task.privacy
    assert (privacy.unit, privacy.noise, privacy.adaptive) == (
        Unit.CLIENT, NoiseSource.CENTRAL, AdaptiveClipping(quantile=0.3),
    )  # fmt: skip


def test_a_compression_is_read(job):
    wanted = Compression(keep=0.5, bits=8)
    assert read_job_with(job, "[compression]\nkeep = 0.5\nbits = 8\n").task.compression == wanted
    with pytest.raises(InputError, match="compression: expected the settings keep, places, bits; got 'level'"):
        read_job_with(job, "[compression]\nlevel = 3\n")


def read_job_with(job, more):
    job.write_text(JOB + more)
    return read_job(job)


def test_a_module_and_its_loss_are_taken_from_beside_the_job(job):
    (job.parent / "net.py").write_text(
        "import numpy as np\nfrom torch import nn\n\nclass Net(nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__(nn.Linear(3, 2))\n\ndef load_site(number):\n"
        "    rng = np.random.default_rng(number)\n    x = rng.normal(size=(20, 3)).astype('float32')\n"
        "    return x, (x[:, 0] > 0).astype('int64')\n"
    )
    job.write_text(
        JOB.replace('model = "logistic"\nfeatures = 3', 'model = "net.py:Net"\nloss = "cross_entropy"')
        .replace("sites.py:load_site", "net.py:load_site")
        .replace('evaluate = "sites.py:held_out"\n', "")
    )
    assert read_job(job).task.model.size == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("features = 3", "features = 3\ncolour = 1"), "got 'colour'"),
        (('[strategy]\nname = "fedavg"\nlr = 1\nbatch = 8\n', ""), "expected 'strategy'"),
        (("features = 3", ""), "expected 'features'"),
        (('"logistic"', '"sites.py:absent"'), "'features' goes with the models"),
        (("sites.py:load_site", "sites.py:absent"), "sites.py has no 'absent'"),
        (("sites.py:load_site", "elsewhere.py:load"), "elsewhere.py is not beside the job"),
        (("sites.py:load_site", "sites.py"), "expected 'file.py:name'"),
        (("sites.py:load_site", "no_such_module:load"), "no module 'no_such_module'"),
        (('name = "fedavg"', 'name = "fedbest"'), "strategy.name: expected one of fedsgd, fedavg"),
        (("lr = 1", 'lr = "much"'), "strategy.lr: expected float, got str"),
        (("lr = 1\n", ""), "strategy: expected 'lr'"),
        (("lr = 1", "lr = -1"), "expected a positive lr"),
        (("lr = 1", "lr = 1\nspeed = 2"), "got 'speed'"),
        (("clients = 8", "clients = 0"), "expected 1 client or more"),
        (("clients = 8", "clients = true"), "run.clients: expected int, got bool"),
        (("clients = 8", "clients = 8\ncommittee = 3"), "expected a committee of 4 to 64 members, got 3"),
        (("clients = 8", 'clients = 8\nengine = "sums"\ncommittee = 4'), "a committee opens sums where every message"),
        (("clients = 8", "clients = 20\ncommittee = 4"), "a committee opens sums where every message"),
        (('aggregation = "plain"', 'aggregation = "clear"'), "expected the aggregation"),
        (("[run]", "[run"), "not TOML"),
        (("[run]", '[privacy]\nclip = 1\nnoise_multiplier = 1\ndelta = 1e-5\nunit = "person"\n[run]'),
         "privacy.unit: expected record or client, got 'person'"),
    ],
)  # fmt: skip
def test_a_job_that_is_wrong_is_refused_with_what_was_expected(job, change, message):
    job.write_text(JOB.replace(*change))
    with pytest.raises(InputError, match=message):
        read_job(job)


def test_train_leaves_model_metrics_and_a_ledger_and_names_the_site_it_went_without(job):
    done = mibao("train", job, "--json", folder=job.parent)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["rounds"], summary["refused"], summary["epsilon"]) == (4, 4, None)
    folder = job.with_suffix(".result")
    assert sorted(load_file(folder / "model.safetensors")) == ["coefficients", "intercept"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [0, 1, 2, 3]
    assert lines[0]["refused"] == [{"site": 2, "why": "site 2: expected records of 3 features, got 2"}]
    assert lines[3]["accuracy"] > 0.8
    assert mibao("ledger", "verify", "ledger.db", "--key", "ledger.pub", folder=folder).returncode == 0


def test_a_committee_in_a_job_opens_its_sums_and_the_sites_send_one_message(job):
    secure = JOB.replace('aggregation = "plain"', 'aggregation = "secagg"')
    sent = []
    for more in ("", "committee = 4\n"):
        job.write_text(secure + more)
        done = mibao("train", job, "--json", "-o", f"result{len(sent)}", folder=job.parent)
        assert done.returncode == 0, done.stderr
        sent.append(json.loads(done.stdout)["upload_bytes"])
    models = [load_file(job.parent / f"result{place}" / "model.safetensors") for place in (0, 1)]
    assert sent[0] != sent[1]
    for name, held in models[0].items():
        np.testing.assert_allclose(models[1][name], held, atol=1e-4)
    refused = mibao("train", job, "--engine", "sums", "-o", "none", folder=job.parent)
    assert (refused.returncode, "a committee opens sums where every message" in refused.stderr) == (2, True)
    assert not (job.parent / "none").exists()


def test_train_keeps_what_is_there_and_resumes_only_its_own(job):
    assert mibao("train", job, "--json", folder=job.parent).returncode == 0
    again = mibao("train", job, folder=job.parent)
    assert (again.returncode, "expected a new or empty folder" in again.stderr) == (2, True)
    job.write_text(JOB.replace("lr = 1", "lr = 2"))
    other = mibao("train", job, "--resume", folder=job.parent)
    assert (other.returncode, "of another task or plan" in other.stderr) == (2, True)
    job.write_text(JOB.replace("rounds = 4", "rounds = 6"))
    assert mibao("train", job, "--resume", folder=job.parent).returncode == 0
    nothing = mibao("train", job, "--resume", "-o", "absent", folder=job.parent)
    assert (nothing.returncode, "nothing to resume" in nothing.stderr) == (2, True)
