import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from mibao.errors import InputError
from mibao.he.models import network_of
from mibao.he.network import Head, Square
from mibao.he.reference import evaluate, finish

IMAGES = np.random.default_rng(0).normal(size=(20, 2, 8, 6)).astype(np.float32)
FLAT = IMAGES.reshape(20, -1)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def _check(model, records, *, head=Head.IDENTITY):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    network = network_of(model, calibration=records)
    answers = finish(evaluate(network, records.reshape(len(records), -1)), head=network.head, flat=network.flat)
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(records)).numpy()
    assert network.head is head
    assert answers.shape == expected.shape
    assert np.allclose(answers, expected, rtol=0, atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    return network


class Calls(nn.Module):
    """Everything that a ``forward`` may call."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding="same", groups=2, bias=False)
        self.last = nn.Linear(4, 5)
        self.register_buffer("scale", torch.rand(4, 1, 1))

    def forward(self, x):
        x = F.gelu(self.first(x)) * self.scale
        y = x + torch.square(self.second(x)) - 0.5 * x
        y -= x.pow(2) / 3
        y = F.avg_pool2d(-y, 2) * torch.tanh(F.avg_pool2d(y, (2, 2), 2))
        y = F.dropout(F.silu(y), training=self.training).mean((2, 3))
        return F.softmax(self.last(1 - y.view(y.size(0), -1).sigmoid()), dim=-1)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(96, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3)),
        nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(24, 3)),
        nn.Sequential(nn.Conv2d(2, 3, (3, 5), padding=(1, 2)), nn.SiLU(), nn.AvgPool2d((2, 3)), nn.Flatten()),
        nn.Sequential(nn.Conv2d(2, 4, 1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
        nn.Sequential(nn.AdaptiveAvgPool2d((4, 3)), nn.Sigmoid(), nn.Flatten(), nn.Identity()),
        nn.Sequential(nn.Flatten(), nn.BatchNorm1d(96), nn.Sequential(nn.Linear(96, 1, bias=False))),
    ],
)
def test_a_sequential_model_gives_the_same_answers(model):
    _check(model, IMAGES)


def test_batch_statistics_and_scales_are_those_of_evaluation():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.BatchNorm1d(96, affine=False))
    for _ in range(5):
        model(torch.from_numpy(IMAGES))
    nn.init.normal_(model[1].weight)
    _check(model, IMAGES)


def test_a_forward_of_calls_gives_the_same_answers():
    network = _check(Calls(), IMAGES, head=Head.SOFTMAX)
    assert sum(isinstance(node.layer, Square) for node in network.nodes) == 2
    assert network.input_shape == (2, 8, 6)


@pytest.mark.parametrize(("last", "head"), [(nn.Softmax(dim=1), Head.SOFTMAX), (nn.Sigmoid(), Head.SIGMOID)])
def test_a_softmax_or_sigmoid_at_the_end_is_left_to_the_client(last, head):
    network = _check(nn.Sequential(nn.Linear(96, 3), last), FLAT, head=head)
    assert len(network.nodes) == 1 and network.input_shape == ()


def test_a_square_of_a_value_and_a_product_with_itself_are_one_layer():
    class Model(nn.Module):
        def forward(self, x):
            return x * x + x**2

    assert [type(node.layer).__name__ for node in _check(Model(), FLAT).nodes] == ["Square", "Square", "Add"]


def test_a_vector_of_answers_stays_a_vector():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(96, 1)

        def forward(self, x):
            return self.last(x).squeeze(1)

    assert _check(Model(), FLAT).flat


def test_a_single_layer_is_a_model():
    assert _check(nn.Linear(96, 3), FLAT).nodes[0].name == "0 (Linear)"


def _calling(function):
    class Model(nn.Module):
        def forward(self, x):
            return function(x)

    return Model()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.MaxPool2d(2), r"1 \(MaxPool2d\) cannot .* use AvgPool2d: a maximum compares"),
        (nn.LayerNorm(6), r"1 \(LayerNorm\) .* use BatchNorm"),
        (nn.Softmax(1), r"1 \(Softmax\) .* drop it: classes are the same without it"),
        (nn.LogSoftmax(1), r"1 \(LogSoftmax\) .* drop it"),
        (nn.LeakyReLU(), r"1 \(LeakyReLU\) .* use ReLU, GELU, SiLU or x \* x"),
        (nn.Upsample(scale_factor=2), r"1 \(Upsample\) .* use Linear, Conv2d, AvgPool2d"),
        (nn.GELU(approximate="tanh"), r"1 \(GELU\): expected approximate='none'"),
        (nn.Linear(6, 6), r"1 \(Linear\): expected flat records, got \(2, 8, 6\); put a Flatten before it"),
        (nn.Conv2d(2, 2, 3, dilation=2), r"1 \(Conv2d\): expected padding_mode='zeros' and dilation=1"),
        (nn.Conv2d(2, 2, 2, padding="same"), r"1 \(Conv2d\): expected an odd kernel with padding='same'"),
        (nn.AvgPool2d(2, padding=1), r"1 \(AvgPool2d\): expected no padding"),
        (nn.AdaptiveAvgPool2d(3), r"1 \(AdaptiveAvgPool2d\): expected sizes that divide 8 and 6, got 3 and 3"),
        (nn.BatchNorm2d(2, track_running_stats=False), r"1 \(BatchNorm2d\): expected track_running_stats=True"),
        (_calling(lambda x: F.max_pool2d(x, 2)), r"max_pool2d .* use AvgPool2d"),
        (_calling(lambda x: x**3), r"expected the power 2, got 3"),
        (_calling(lambda x: x.transpose(1, 2)), r"keep each record's numbers in their order"),
        (_calling(lambda x: 1 / x), r"expected a constant to divide by"),
        (_calling(lambda x: x + x[:1]), r"getitem .* cannot be computed"),
        (_calling(lambda x: x.mean(1)), r"expected a mean over the rows and columns of an image, dim=\(2, 3\)"),
        (_calling(lambda x: x.reshape(-1, 6)), r"expected it to keep the rows and every number of a record"),
        (_calling(lambda x: torch.add(x, x, alpha=2)), r"expected alpha=1; multiply by a constant instead"),
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_what_ciphertexts_cannot_do_is_refused_with_what_to_use_instead(layer, message):
    with pytest.raises(InputError, match=message):
        network_of(nn.Sequential(nn.Identity(), layer, nn.Flatten()), calibration=IMAGES)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_calling(lambda x: x if x.sum() > 0 else -x), "torch.fx cannot trace it; its forward must not branch"),
        (_calling(lambda x: (x, x)), "expected a forward that returns one tensor, got tuple"),
        (_calling(lambda x: x * 2), r"expected answers of shape \(rows, outputs\), got \(rows, 2, 8, 6\)"),
        (nn.Linear(5, 3), r"it does not take one tensor of records of shape \(2, 8, 6\), as in the calibration"),
        (nn.Bilinear(6, 6, 1), "it does not take one tensor"),
    ],
)
def test_a_model_of_another_form_is_refused(model, message):
    with pytest.raises(InputError, match=message):
        network_of(model, calibration=IMAGES)


def test_a_value_that_is_changed_in_place_after_it_was_read_is_noticed():
    class Model(nn.Module):
        def forward(self, x):
            x = torch.flatten(x, 1) * 1.0
            return F.relu_(x) + x

    with pytest.raises(InputError, match="avoid operations that change a value in place"):
        network_of(Model(), calibration=IMAGES)


def test_weights_that_are_not_finite_are_refused():
    model = nn.Linear(96, 3)
    nn.init.constant_(model.bias, float("inf"))
    with pytest.raises(InputError, match="expected finite weights"):
        network_of(model, calibration=FLAT)
