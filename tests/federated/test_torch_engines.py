import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everybody calls it

from federated_cases import byte_source
from mibao.errors import InputError
from mibao.federated import FedAvg, FedProx, FedSGD, Privacy, Records, Task, Unit
from mibao.federated.local_training import LocalOptimiser, LocalTraining, LocalWork, plan_visits
from mibao.federated.models_torch import TorchEngine, TorchModel


class Pictures(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Conv2d(4, 6, 3)
        self.out, self.last = nn.Linear(54, 10), nn.LayerNorm(10)

    def forward(self, x):
        x = F.relu(self.norm(self.first(x)))
        x = F.max_pool2d(F.gelu(self.second(x)), 2)
        return self.last(self.out(x.view(x.size(0), -1)))


class Letters(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.query, self.key, self.value = nn.Linear(8, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 8)
        self.out = nn.Linear(8, 11)

    def forward(self, x):
        x = self.embed(x)
        x = x + F.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))
        return self.out(x).transpose(1, 2)


class Twice(nn.Module):
    """One layer called twice, and a low-rank adapter beside a frozen one."""

    def __init__(self):
        super().__init__()
        self.frozen, self.down, self.up = nn.Linear(6, 6), nn.Linear(6, 2, bias=False), nn.Linear(2, 6, bias=False)
        self.frozen.requires_grad_(False)
        self.twice = nn.Linear(6, 6)

    def forward(self, x):
        x = torch.tanh(self.twice(self.frozen(x) + self.up(self.down(x))))
        return self.twice(x)


class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(6, 6)

    def forward(self, x):
        return self.out(x - x.mean(0))


def mlp(*, dropout=0.0):
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(dropout), nn.Linear(12, 6))


RNG = np.random.default_rng(0)
SHAPES = {
    "pictures": (
        Pictures,
        lambda n: RNG.normal(size=(n, 1, 8, 8)).astype(np.float32),
        lambda n: RNG.integers(0, 10, n),
    ),
    "letters": (Letters, lambda n: RNG.integers(0, 11, (n, 5)), lambda n: RNG.integers(0, 11, (n, 5))),
    "twice": (Twice, lambda n: RNG.normal(size=(n, 6)).astype(np.float32), lambda n: RNG.integers(0, 6, n)),
    "mlp": (mlp, lambda n: RNG.normal(size=(n, 6)).astype(np.float32), lambda n: RNG.integers(0, 6, n)),
}
CLIENTS = ((30, 1), (7, 2), (16, 3), (20, 1))  # records, epochs
RULES = (
    LocalTraining(lr=0.1),
    LocalTraining(lr=0.05, momentum=0.9, weight_decay=0.01),
    LocalTraining(lr=0.1, proximal=0.3),
    LocalTraining(lr=1e-3, optimiser=LocalOptimiser.ADAM),
)


def works_on(kind, *, corrected=False):
    _, features, targets = SHAPES[kind]
    size = TorchModel(SHAPES[kind][0](), loss=F.cross_entropy).size
    return [
        LocalWork(
            client=client,
            records=Records(features=features(count), targets=targets(count)),
            visits=plan_visits(count, epochs=epochs, batch=8, shuffled=np.random.default_rng(client)),
            correction=RNG.normal(size=size) if corrected else None,
            seed=client,
        )
        for client, (count, epochs) in enumerate(CLIENTS)
    ]


def trained(module, works, local, engine, loss=F.cross_entropy):
    model = TorchModel(module, loss=loss, engine=engine)
    assert model.engine is engine
    rows = np.zeros((len(works), model.size))
    for part in model.train(model.initial(), works, local):
        rows[list(part.places)] = part.moved
    return rows


@pytest.mark.parametrize("local", RULES, ids=["sgd", "momentum", "proximal", "adam"])
@pytest.mark.parametrize("kind", SHAPES)
def test_the_three_engines_give_the_same_for_ragged_clients_and_epochs(kind, local):
    torch.manual_seed(0)
    module, works = SHAPES[kind][0](), works_on(kind)
    loop = trained(module, works, local, TorchEngine.LOOP)
    # Where a gradient is nothing but rounding, as of a bias before a norm, Adam takes whole steps of either sign.
    close = 1e-3 if local.optimiser is LocalOptimiser.ADAM else 1e-5
    for engine in (TorchEngine.FUNCTIONAL, TorchEngine.WRITTEN_OUT):
        assert np.abs(trained(module, works, local, engine) - loop).max() < close
    assert np.abs(loop).max() > 5e-3


def test_corrections_and_starts_of_ones_own_reach_every_engine():
    torch.manual_seed(0)
    module, works = mlp(), works_on("mlp", corrected=True)
    loop, *others = [trained(module, works, RULES[0], each) for each in list(TorchEngine)[:0:-1]]
    assert all(np.abs(other - loop).max() < 1e-5 for other in others)
    plain = trained(module, [*works_on("mlp")], RULES[0], TorchEngine.LOOP)
    assert np.abs(plain - loop).max() > 0.1


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (F.mse_loss, lambda n: RNG.normal(size=(n, 6)).astype(np.float32)),
        (nn.BCEWithLogitsLoss(), lambda n: RNG.integers(0, 2, (n, 6)).astype(np.float32)),
        (nn.CrossEntropyLoss(), lambda n: RNG.integers(0, 6, n)),
    ],
)
def test_every_written_loss_gives_autograds_slope(loss, targets):
    works = [
        LocalWork(
            client=client,
            records=Records(features=RNG.normal(size=(count, 6)).astype(np.float32), targets=targets(count)),
            visits=plan_visits(count, epochs=1, batch=4, shuffled=None),
        )
        for client, count in enumerate((10, 8, 3))
    ]
    torch.manual_seed(0)
    module = mlp()
    loop, written = (trained(module, works, RULES[0], e, loss) for e in (TorchEngine.LOOP, TorchEngine.WRITTEN_OUT))
    assert np.abs(written - loop).max() < 1e-6


def test_dropout_draws_the_same_masks_for_a_client_alone_and_in_a_group():
    torch.manual_seed(0)
    module, works = mlp(dropout=0.4), works_on("mlp")
    loop = trained(module, works, RULES[0], TorchEngine.LOOP)
    assert np.abs(trained(module, works, RULES[0], TorchEngine.WRITTEN_OUT) - loop).max() < 1e-6
    other = trained(module, [LocalWork(client=0, records=w.records, visits=w.visits, seed=9) for w in works], RULES[0],
                    TorchEngine.LOOP)  # fmt: skip
    assert np.abs(other - loop).max() > 1e-3


def test_a_module_that_mixes_records_is_noticed_and_trained_one_client_at_a_time():
    model = TorchModel(Mixing(), loss=F.cross_entropy)
    assert model.engine is TorchEngine.WRITTEN_OUT
    works = works_on("mlp")
    list(model.train(model.initial(), works, RULES[0]))
    assert model.engine is TorchEngine.LOOP


def test_what_cannot_be_written_out_is_done_another_way():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(6, 6)

        def forward(self, x):
            return self.out(x) if x.sum() > 0 else self.out(-x)

    def own_loss(outputs, targets):
        return F.cross_entropy(outputs, targets) * 2.0

    assert TorchModel(mlp(), loss=own_loss).engine is TorchEngine.FUNCTIONAL
    assert TorchModel(mlp(dropout=0.5), loss=own_loss).engine is TorchEngine.LOOP
    with pytest.raises(InputError, match="'written-out' cannot take this module: the loss own_loss"):
        TorchModel(mlp(), loss=own_loss, engine=TorchEngine.WRITTEN_OUT)
    with pytest.raises(InputError, match="its forward cannot be traced"):
        TorchModel(Branching(), loss=F.cross_entropy, engine=TorchEngine.WRITTEN_OUT)


def test_a_records_gradient_is_autograds_and_moves_by_no_bit_beside_others():
    torch.manual_seed(0)
    module = Pictures()
    model = TorchModel(module, loss=F.cross_entropy)
    records = Records(features=RNG.normal(size=(40, 1, 8, 8)).astype(np.float32), targets=RNG.integers(0, 10, 40))
    rows = model.gradients(model.initial(), records)
    for place in (0, 33, 39):
        module.zero_grad()
        one = slice(place, place + 1)
        F.cross_entropy(module(torch.tensor(records.features[one])), torch.tensor(records.targets[one])).backward()
        expected = torch.cat([each.grad.reshape(-1) for each in module.parameters()]).numpy()
        assert np.abs(rows[place] - expected).max() < 1e-5
    chosen = [3, 17, 39]
    some = Records(features=records.features[chosen], targets=records.targets[chosen])
    assert np.array_equal(model.gradients(model.initial(), some), rows[chosen])


def classified(clients=12, seed=0):
    rng = np.random.default_rng(seed)
    pull = rng.normal(size=(6, 6))
    parts = []
    for _ in range(clients):
        features = rng.normal(size=(int(rng.integers(10, 40)), 6)).astype(np.float32)
        parts.append((features, (features @ pull).argmax(axis=1)))
    return parts


def test_twenty_lines_train_a_module_of_ones_own():
    parts = classified()
    pooled = Records(features=np.concatenate([x for x, _ in parts]), targets=np.concatenate([y for _, y in parts]))
    task = Task(
        model=mlp, loss=F.cross_entropy, data=parts.__getitem__, strategy=FedAvg(lr=0.5, local_epochs=2, batch=8)
    )
    result = task.simulate(clients=12, cohort=6, rounds=15, evaluate=pooled)
    assert result.metrics["accuracy"] > 0.85
    assert result.reports[0].metrics["loss"] > result.metrics["loss"]
    assert isinstance(result.model, nn.Sequential)
    with torch.no_grad():
        right = result.model(torch.tensor(pooled.features)).argmax(1).numpy() == pooled.targets
    assert right.mean() == pytest.approx(result.metrics["accuracy"])


def test_messages_between_nodes_and_sums_of_a_cohort_give_the_same_model():
    parts = [(torch.tensor(x), torch.tensor(y)) for x, y in classified(clients=5)]
    torch.manual_seed(1)
    task = Task(model=mlp, loss=F.cross_entropy, data=parts.__getitem__, strategy=FedProx(lr=0.2, batch=8, mu=0.1))
    sent, summed = (
        task.simulate(clients=5, rounds=3, engine=engine, randomness=byte_source(1)) for engine in ("messages", "sums")
    )
    assert sent.sum_exact is True
    assert summed.sum_exact is None
    # Kernels round a client differently alone and in a group, on either side of the grid's half.
    assert np.abs(sent.weights - summed.weights).max() < 1e-6


def test_records_of_a_module_have_their_own_privacy():
    parts = classified(clients=3)
    privacy = Privacy(clip=0.5, noise_multiplier=1.0, delta=1e-5, unit=Unit.RECORD)
    task = Task(
        model=mlp, loss=F.cross_entropy, data=parts.__getitem__, strategy=FedSGD(lr=0.5, divisor=60.0), privacy=privacy
    )
    result = task.simulate(clients=3, rounds=2, randomness=byte_source(1))
    assert result.epsilon > 0.0
    assert result.sum_exact is True


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TorchModel(nn.ReLU(), loss=F.cross_entropy), "a module with parameters to train"),
        (lambda: TorchModel(lambda: 3, loss=F.cross_entropy), "expected a PyTorch module and a loss, got int"),
        (lambda: TorchModel(mlp().double(), loss=F.cross_entropy), "expected 32-bit floats as parameters"),
        (
            lambda: TorchModel(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)), loss=F.cross_entropy),
            "1 keeps running statistics of its batches",
        ),
    ],
)
def test_a_module_that_cannot_be_trained_together_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("features", "targets", "message"),
    [
        (np.zeros((2, 6)), np.zeros(2, dtype=np.int64), "expected features as 32-bit floats"),
        (np.zeros((2, 5), dtype=np.float32), np.zeros(2, dtype=np.int64), r"cannot take records of shape \(5,\)"),
        (np.zeros((2, 6), dtype=np.float32), np.array([0, 6]), "expected classes of 0 to 5"),
        (np.zeros((2, 6), dtype=np.float32), np.array([0, -1]), "expected classes of 0 to 5"),
        (np.zeros((2, 6), dtype=np.float32), np.zeros((2, 4), dtype=np.float32), r"\(RuntimeError\)"),
    ],
)
def test_records_that_a_module_cannot_take_are_refused_before_training(features, targets, message):
    model = TorchModel(mlp(), loss=F.cross_entropy)
    with pytest.raises(InputError, match=message):
        model.check(Records(features=features, targets=targets))
