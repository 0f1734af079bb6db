import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from mibao.errors import InputError
from mibao.he.finetuning import finetune, with_polynomials
from mibao.he.models import network_of
from mibao.he.network import Basis, Function, Polynomial
from mibao.he.polynomial_activation import PolynomialActivation
from mibao.he.reference import evaluate, polynomial_values


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small models are fastest so
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def digits():
    records, target = load_digits(return_X_y=True)
    records, target = torch.tensor(records / 16, dtype=torch.float32), torch.tensor(target)
    return records[:1200], target[:1200], records[1200:], target[1200:]


def _batches(records, target):
    return list(zip(records.split(60), target.split(60), strict=True))


def _accuracy(model, records, target):
    with torch.no_grad():
        return float((model.eval()(records).argmax(1) == target).float().mean())


def test_a_model_on_digits_keeps_its_accuracy_with_polynomials_of_degree_two(digits):
    train, labels, test, test_labels = digits
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(15):
        for records, target in _batches(train, labels):
            optimizer.zero_grad()
            F.cross_entropy(model(records), target).backward()
            optimizer.step()
    plain = _accuracy(model, test, test_labels)
    tuned = with_polynomials(model, train, degree=2)
    losses = finetune(tuned, _batches(train, labels), loss=F.cross_entropy, epochs=4)
    assert losses[-1] < losses[0]
    assert plain > 0.9 and _accuracy(tuned, test, test_labels) >= plain - 0.01
    inside = [module for module in tuned.modules() if isinstance(module, PolynomialActivation)]
    tuned(train)
    assert len(inside) == 2 and all(float(module.excess.detach()) < 1e-3 for module in inside)
    network = network_of(tuned, calibration=train.numpy())
    with torch.no_grad():
        assert np.allclose(evaluate(network, test.numpy()), tuned(test).numpy(), atol=1e-4)


class Calls(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.shared, self.last = nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 1)

    def forward(self, x):
        x = self.shared(self.first(x))
        return torch.sigmoid(self.last(self.shared(x * 3) + torch.tanh(x)))


def test_each_call_of_an_activation_has_its_own_interval_and_the_last_sigmoid_stays():
    records = torch.randn(50, 4)
    model = Calls()
    tuned = with_polynomials(model, records, degree=7, margin=0.2)
    held = [module for module in tuned.modules() if isinstance(module, PolynomialActivation)]
    widths = [float(module.interval[1] - module.interval[0]) for module in held]
    assert len(held) == 3 and len({round(width, 3) for width in widths}) == 3
    with torch.no_grad():
        assert float((tuned.eval()(records) - model.eval()(records)).abs().max()) < 0.01
    assert not any(isinstance(module, PolynomialActivation) for module in model.modules())


@pytest.mark.parametrize("trainable", [True, False])
def test_coefficients_are_trained_only_where_they_may_be(trainable):
    records = torch.randn(40, 4)
    tuned = with_polynomials(Calls(), records, trainable=trainable)
    before = [m.coefficients.clone() for m in tuned.modules() if isinstance(m, PolynomialActivation)]
    finetune(tuned, [(records, torch.ones(40, 1))], loss=F.mse_loss, epochs=2)
    held = [module for module in tuned.modules() if isinstance(module, PolynomialActivation)]
    changed = [not torch.equal(one, module.coefficients) for one, module in zip(before, held, strict=True)]
    assert changed == [trainable] * 3
    layer = held[0].layer()
    assert (layer.error == 0.0) is trainable


def test_the_module_computes_the_polynomial_and_how_far_its_inputs_lie_outside():
    coefficients = np.array([0.5, -1.0, 0.25, 2.0])
    layer = Polynomial(coefficients=coefficients, basis=Basis.CHEBYSHEV, low=-1.0, high=3.0, error=0.1)
    module = PolynomialActivation(layer, trainable=False).double()
    values = np.linspace(-2.0, 4.0, 11)
    assert np.allclose(module(torch.tensor(values)).numpy(), polynomial_values(layer, values))
    assert float(module.excess) == pytest.approx(np.mean(np.maximum(np.abs(values - 1) / 2 - 1, 0) ** 2))
    assert np.allclose(module.layer().coefficients, coefficients)
    with pytest.raises(InputError, match="expected a polynomial in the Chebyshev basis"):
        PolynomialActivation(
            Polynomial(coefficients=coefficients, basis=Basis.POWER, low=-1.0, high=1.0), trainable=True
        )


@pytest.mark.parametrize("function", list(Function))
def test_every_activation_can_be_replaced(function):
    kind = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}[function.value]
    tuned = with_polynomials(nn.Sequential(kind(), nn.Linear(4, 1)), torch.randn(30, 4), degree=15)
    assert isinstance(tuned.get_submodule(f"polynomial_0_{function.value}"), PolynomialActivation)


def test_what_cannot_be_tuned_is_refused():
    with pytest.raises(InputError, match="expected an activation to replace"):
        with_polynomials(nn.Linear(4, 1), torch.randn(3, 4))
    with pytest.raises(InputError, match="does not take the calibration's records"):
        with_polynomials(nn.Sequential(nn.Linear(4, 1), nn.ReLU()), torch.randn(3, 5))
    with pytest.raises(InputError, match="call with_polynomials first"):
        finetune(nn.Linear(4, 1), [], loss=F.mse_loss)
    tuned = with_polynomials(Calls(), torch.randn(9, 4))
    with pytest.raises(InputError, match="expected at least one an epoch"):
        finetune(tuned, [], loss=F.mse_loss)
    with pytest.raises(InputError, match="the loss is not finite; lower the learning rate or the degree"):
        finetune(tuned, [(torch.full((2, 4), torch.inf), torch.zeros(2, 1))], loss=F.mse_loss)
