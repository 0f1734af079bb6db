import numpy as np
import pytest
from benchmarks.peers.venvs import ask_python, interpreter
from hypothesis import given
from hypothesis import strategies as st

from mibao.errors import InputError
from mibao.federated import Records, partition

LABELS = np.random.default_rng(0).integers(0, 10, 2000)


@given(st.integers(1, 40), st.integers(0, 50))
def test_every_partition_gives_each_record_to_exactly_one_site(sites, seed):
    for parts in (
        partition.iid(2000, sites=sites, seed=seed),
        partition.dirichlet(LABELS, sites=sites, alpha=0.5, seed=seed),
        partition.shards(LABELS, sites=sites, per_site=2, seed=seed),
        partition.by_column(LABELS * 1.5, sites=sites),
        partition.by_id(LABELS % sites),
    ):
        assert len(parts) in (sites, min(sites, 10))
        assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(2000))


def skew(parts):
    """How far sites' classes are from everybody's, on average."""
    whole = np.bincount(LABELS, minlength=10) / len(LABELS)
    return np.mean([np.abs(np.bincount(LABELS[p], minlength=10) / len(p) - whole).sum() for p in parts])


def test_a_smaller_alpha_is_more_uneven_and_shards_hold_few_classes():
    spread = [skew(partition.dirichlet(LABELS, sites=10, alpha=alpha, seed=1)) for alpha in (100.0, 1.0, 0.1)]
    assert spread == sorted(spread)
    assert skew(partition.iid(2000, sites=10, seed=1)) < spread[2] / 4
    assert max(len(set(LABELS[p])) for p in partition.shards(LABELS, sites=50, per_site=2, seed=1)) <= 4


def test_by_column_keeps_the_order_and_by_id_the_holders():
    ages = np.array([70.0, 20.0, 50.0, 30.0])
    assert [part.tolist() for part in partition.by_column(ages, sites=2)] == [[1, 3], [0, 2]]
    assert [part.tolist() for part in partition.by_id(np.array(["b", "a", "b", "c"]))] == [[1], [0, 2], [3]]


def test_equal_seeds_give_equal_parts_and_a_site_gets_its_records():
    parts = partition.dirichlet(LABELS, sites=5, alpha=0.3, seed=4)
    again = partition.dirichlet(LABELS, sites=5, alpha=0.3, seed=4)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    load = partition.sites_of(Records(features=LABELS[:, None] * 1.0, targets=LABELS), parts)
    assert np.array_equal(load(3).targets, LABELS[parts[3]])
    with pytest.raises(InputError, match="expected a site of 0 to 4, got 5"):
        load(5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: partition.iid(3, sites=4, seed=0), "expected 1 to 3 parts of 3 records, got 4"),
        (lambda: partition.iid(3, sites=0, seed=0), "got 0"),
        (lambda: partition.dirichlet(LABELS, sites=2, alpha=0.0, seed=0), "expected a positive alpha"),
        (lambda: partition.dirichlet(LABELS, sites=900, alpha=0.001, seed=0, least=2), "raise alpha"),
    ],
)
def test_a_partition_that_cannot_be_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


class ByRemainder:
    """A partitioner as flwr-datasets has them, over columns."""

    num_partitions = 3

    def load_partition(self, partition_id):
        places = np.arange(partition_id, 30, 3)
        return {
            "age": places,
            "income": places * 10.0,
            "image": np.ones((10, 4, 4)) * partition_id,
            "label": places % 2,
        }


def test_a_partitioner_of_another_library_is_taken():
    load = partition.from_partitioner(ByRemainder(), features=("age", "income"), targets="label")
    features, targets = load(1)
    assert np.array_equal(features[:2], [[1.0, 10.0], [4.0, 40.0]])
    assert np.array_equal(targets, np.arange(1, 30, 3) % 2)
    assert partition.from_partitioner(ByRemainder(), features="image", targets="label")(2)[0].shape == (10, 4, 4)
    assert partition.from_partitioner(ByRemainder(), features="age", targets="label")(2)[0].shape == (10, 1)


def test_what_is_no_partitioner_or_no_part_of_one_is_refused():
    with pytest.raises(InputError, match="expected a partitioner with 'load_partition' and 'num_partitions', got list"):
        partition.from_partitioner([], features="age", targets="label")
    with pytest.raises(InputError, match="expected a site of 0 to 2, got 3"):
        partition.from_partitioner(ByRemainder(), features="age", targets="label")(3)
    with pytest.raises(InputError, match="expected the columns age, income, image, label, got 'name'"):
        partition.from_partitioner(ByRemainder(), features="name", targets="label")(0)


FLWR_DATASETS = """
import json, sys
sys.path.insert(0, "src")
import numpy as np
from datasets import Dataset
from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner, NaturalIdPartitioner, ShardPartitioner
from mibao.federated import FedAvg, LogisticRegression, Task, partition
rng = np.random.default_rng(0)
age, income = rng.normal(size=(2, 400))
rows = Dataset.from_dict({"age": age, "income": income, "label": (age > 0) * 1.0, "bank": np.arange(400) % 5})
kinds = (
    IidPartitioner(num_partitions=5),
    DirichletPartitioner(num_partitions=5, partition_by="label", alpha=0.5, seed=1),
    ShardPartitioner(num_partitions=5, partition_by="label", num_shards_per_partition=2),
    NaturalIdPartitioner(partition_by="bank"),
)
found = {}
for kind in kinds:
    kind.dataset = rows
    load = partition.from_partitioner(kind, features=("age", "income"), targets="label")
    task = Task(model=LogisticRegression(features=2), data=load, strategy=FedAvg(lr=0.5, batch=8))
    every = np.concatenate([load(site)[0] for site in range(kind.num_partitions)])
    same = np.array_equal(np.sort(every[:, 0]), np.sort(age.astype(np.float32)))
    result = task.simulate(clients=kind.num_partitions, rounds=5)
    found[type(kind).__name__] = [bool(same), task.model.accuracy(result.weights, task.records(0)) > 0.8]
print(json.dumps(found))
"""


@pytest.mark.long
def test_partitioners_of_flwr_datasets_are_taken_as_they_are():
    found = ask_python(interpreter("flwr_datasets"), "-c", FLWR_DATASETS)
    assert list(found.values()) == [[True, True]] * 4
