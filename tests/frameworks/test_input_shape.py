"""Input shapes of models that state none."""

import norse.torch as norse
import pytest
from torch import nn
from torch.nn import functional

from spear_deploy.data import load_data
from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.models import fit_input_shape, read_model
from spear_deploy.pipeline.inputs import load_for
from tests.frameworks.test_norse_importer import State, User, box


class Functional(nn.Module):
    """Convolutions and pools of functions, a skip, and a view that states the number of values."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.skip = nn.Conv2d(2, 4, 5), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.lif1, self.lif2, self.fc = box(), box(), nn.Linear(4 * 49, 3)

    def forward(self, x, state=None):
        first, second = (None, None) if state is None else state
        z, first = self.lif1(functional.avg_pool2d(self.conv1(x), 2), first)
        z, second = self.lif2(self.conv2(z) + self.skip(z), second)
        return self.fc(functional.max_pool2d(z, 2).view(-1, 4 * 49)), (first, second)


def deep():
    return State(
        nn.Conv2d(1, 6, 5), nn.AvgPool2d(2), box(), nn.Conv2d(6, 8, 5), nn.BatchNorm2d(8), box(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(8 * 16, 10), box(),
    )  # fmt: skip


def valid():
    return State(
        nn.Conv2d(1, 4, 3),
        box(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 3),
        box(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(150, 4),
        box(),
    )


@pytest.mark.parametrize(
    ("make", "shape", "why"),
    [
        (deep, (1, 28, 28), "as MNIST has them, of 1 x 28 x 28 to 1 x 31 x 31 that fit its layers"),
        (valid, (1, 28, 28), "as MNIST has them, of 1 x 26 x 26 to 1 x 29 x 29 that fit its layers"),
        (Functional, (2, 34, 34), "as N-MNIST has them, of 2 x 32 x 32 to 2 x 35 x 35 that fit its layers"),
        (lambda: State(nn.Conv1d(3, 4, 5), box(), nn.Flatten(), nn.Linear(4 * 10, 2), box()), (3, 14),
         "the only length of which the first linear layer gets its 40 values"),
        (lambda: State(nn.Conv2d(3, 2, 3, padding=1), box(), nn.Flatten(), nn.Linear(2 * 144, 2), box()), (3, 12, 12),
         "the only square of which the first linear layer gets its 288 values"),
    ],
)  # fmt: skip
def test_the_first_linear_layer_decides(make, shape, why):
    graph, shown = read_model(make()), " x ".join(map(str, shape))
    assert graph.input_shape == shape
    assert graph.metadata["assumptions"] == [
        f"no input shape is given: inputs of {shown} are taken, {why}; --input-shape overrules"
    ]
    assert "assumptions" not in read_model(make(), shape).metadata


def test_a_linear_layer_in_front_states_its_width():
    model = State(nn.Flatten(), nn.Linear(12, 3), box())
    assert read_model(model).input_shape == (12,) and "assumptions" not in read_model(model).metadata
    assert read_model(model, (3, 2, 2)).input_shape == (3, 2, 2)
    bare = State(nn.Linear(12, 3), box())
    assert fit_input_shape(bare, (3, 2, 2)) == (12,) and fit_input_shape(bare, (3, 2, 3)) == (3, 2, 3)


@pytest.mark.parametrize("first", [norse.LIFRecurrentCell, norse.LILinearCell])
def test_a_cell_with_weights_of_its_own_in_front_states_its_width(first):
    model = norse.SequentialState(first(12, 6), nn.Linear(6, 3), norse.LICell())
    assert read_model(model).input_shape == (12,) and "assumptions" not in read_model(model).metadata


def test_a_norm_of_one_axis_in_front_of_a_linear_layer_leaves_its_width():
    assert read_model(State(nn.BatchNorm1d(12), nn.Linear(12, 3), box())).input_shape == (12,)
    over_positions = State(nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(12, 3), box())
    with pytest.raises(UnsupportedError, match="it begins with neither a linear layer nor a convolution"):
        read_model(over_positions)
    assert read_model(over_positions, (3, 4)).input_shape == (3, 4)


def test_neurons_declared_before_their_weights_and_computed_weights_state_it():
    class Late(nn.Module):
        def __init__(self, fc):
            super().__init__()
            self.lif, self.fc = box(), fc

        def forward(self, x, state=None):
            return self.lif(self.fc(x), state)

    assert read_model(Late(nn.Linear(12, 3))).input_shape == (12,)
    assert read_model(Late(nn.utils.parametrizations.weight_norm(nn.Linear(7, 3)))).input_shape == (7,)
    assert read_model(nn.Linear(5, 2)).input_shape == (5,)


def test_data_meet_a_linear_layer_as_one_axis():
    digits = load_data("digits", steps=2)
    assert load_for(State(nn.Linear(64, 3), box()), digits).input_shape == (64,)
    assert load_for(State(nn.Flatten(), nn.Linear(64, 3), box()), digits).input_shape == (1, 8, 8)


def strided():
    return State(nn.Conv2d(2, 4, 3, stride=2, padding=1), box(), nn.Flatten(), nn.Linear(4 * 64, 2), box())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            strided(),
            "the model states no input shape: inputs of 2 x 15 x 15 to 2 x 16 x 16 fit its layers; return .model, input_sh",
        ),
        (
            State(nn.Conv2d(2, 4, 9, stride=9), box(), nn.Flatten(), nn.Linear(4, 2), box()),
            "inputs of 2 x 9 x 9 to 2 x 17 x 17 fit its layers",
        ),
        (
            State(nn.Conv2d(2, 4, 3), box(), nn.Flatten(), nn.Linear(31, 2), box()),
            "no square of an input gives the 31 values that its",
        ),
        (
            State(nn.Conv2d(2, 4, 3), box(), nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(4 * 49, 2)),
            "states no input shape: module '2' pools 95 x 95 to 7 x 7 by uneven windows for an input of 2 x 97 x 97; return",
        ),
        (State(nn.Conv2d(2, 4, 3), box()), "its layers take any size; return .model, input_shape., or give --input-shape"),
        (
            State(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(3), box()),
            "layer '1': BatchNorm has 3 channels, .* for an input of 2 x 97 x 97",
        ),
        (State(nn.ReLU()), "it begins with neither a linear layer nor a convolution"),
        (User(lambda s, x, state: s.lif(s.conv(x).tanh(), state), conv=nn.Conv2d(1, 2, 3), lif=box()), "the model calls 'tanh'"),
    ],
)
def test_a_model_that_does_not_determine_it_is_refused(model, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(model)
