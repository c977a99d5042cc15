"""What cannot be answered is refused, and the message says what to do instead."""

import pytest
import torch
from torch import nn

import clarke
from clarke import CaptureError, InputError, Verdict
from reference.leaves import leaf


def test_nothing_requires_a_gradient():
    with pytest.raises(InputError, match=r"does not require a gradient.*requires_grad_\(\)"):
        clarke.check(lambda x: x.sum(), (torch.ones(2),))


def test_a_branch_that_returned_a_constant():
    zero = torch.zeros((), dtype=torch.float64)
    with pytest.raises(InputError, match="a branch of Python returned a constant"):
        clarke.check(lambda x: max(zero, 1 - x), leaf(1.0).sum().detach().requires_grad_())


def test_a_value_in_place_of_the_function():
    x = leaf(1.0)
    with pytest.raises(InputError, match=r"A function is needed, not its value \(Tensor\)"):
        clarke.check(x.sum(), (x,))


def test_under_no_grad_inside():
    def program(x):
        with torch.no_grad():
            return torch.relu(x).sum()

    with pytest.raises(InputError, match=r"torch\.no_grad.*leave the no-grad block"):
        clarke.check(program, (leaf(0.0),))


def test_the_call_stands_under_no_grad():
    with torch.no_grad():
        assert clarke.check(lambda x: torch.relu(x).sum(), (leaf(0.0),)).correct


def test_not_a_scalar():
    with pytest.raises(InputError, match=r"shape \(2,\).*Reduce it, for example with \.sum\(\)"):
        clarke.check(torch.relu, (leaf(0.0, 1.0),))


def test_one_element_is_a_scalar():
    assert clarke.check(torch.relu, (leaf(0.0),)).verdict is Verdict.BOULIGAND


def test_complex_result():
    with pytest.raises(InputError, match="complex number; a Clarke gradient needs a real"):
        clarke.check(lambda x: (x * 1j).sum(), (leaf(0.0),))


def test_complex_variable():
    z = torch.tensor([1 + 1j], requires_grad=True)
    with pytest.raises(InputError, match="variable is complex"):
        clarke.check(lambda z: z.abs().sum(), (z,))


@pytest.mark.parametrize("result", [3.0, None, {"loss": 1}, [torch.ones(())]])
def test_not_a_tensor(result):
    with pytest.raises(InputError, match=rf"returned {type(result).__name__}, not a tensor.*alone"):
        clarke.check(lambda x: result, (leaf(0.0),))


def test_no_kinks_at_all():
    report = clarke.check(lambda x: (x * x).exp().sum(), (leaf(0.0, 1.0),))
    assert report.verdict is Verdict.SMOOTH
    assert report.kinks == ()
    assert report.certificate.verify()
    assert "No relevant kink is touched" in str(report)


def test_empty_batch():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    report = clarke.check(lambda: model(torch.zeros(0, 3)).sum())
    assert report.verdict is Verdict.SMOOTH
    assert all(bool((g == 0).all()) for g in report.gradient)


def test_mean_of_an_empty_batch():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    report = clarke.check(lambda: model(torch.zeros(0, 3)).mean())
    assert report.correct is not False
    assert report.verdict in (Verdict.UNDECIDED, Verdict.NONFINITE)  # its value is NaN


def test_nan_in_the_data():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    data = torch.tensor([[1.0, float("nan")], [0.0, 1.0]], dtype=torch.float64)
    report = clarke.check(lambda: model(data).sum())
    assert report.verdict is Verdict.NONFINITE
    assert "NaN" in str(report)
    assert "own value is not finite" in report.reason


def test_infinite_data():
    report = clarke.check(lambda x: (x * float("inf")).sum(), (leaf(1.0),))
    assert report.verdict is Verdict.NONFINITE


def test_the_graph_was_freed_inside():
    def program(x):
        loss = torch.relu(x).exp().sum()
        loss.backward()
        return loss

    with pytest.raises(InputError, match=r"already been freed.*without calling backward there"):
        clarke.check(program, (leaf(0.0),))


def test_a_result_from_outside():
    x = leaf(0.0)
    loss = torch.relu(x).sum()
    with pytest.raises(CaptureError, match="did not see how this tensor was computed"):
        clarke.check(lambda: loss)
    loss.backward()
    assert x.grad is not None


def test_features_from_outside():
    x = leaf(0.0)
    features = torch.relu(x)
    report = clarke.check(lambda: torch.exp(features).sum())
    assert report.verdict is Verdict.UNDECIDED
    assert "out of clarke's sight (ReluBackward0)" in report.reason
    assert "test_inputs.py" in report.reason


def test_inference_mode_around():
    x = leaf(0.0)
    with (
        torch.inference_mode(),
        pytest.raises(CaptureError, match=r"inference_mode.*Leave the inference mode"),
    ):
        clarke.check(lambda x: torch.relu(x).sum(), (x,))


def test_inference_mode_inside():
    def program(x):
        with torch.inference_mode():
            return torch.relu(x).sum()

    with pytest.raises(InputError, match=r"it ran under torch\.inference_mode"):
        clarke.check(program, (leaf(0.0),))


def test_wrt_is_not_reached():
    x, y = leaf(0.0), leaf(1.0)
    with pytest.raises(InputError, match="Tensor 1 of `wrt` is not a leaf that the result depends"):
        clarke.check(lambda: torch.relu(x).sum(), wrt=(x, y))


def test_wrt_names_the_variables():
    x, y = leaf(0.0), leaf(1.0)

    def program():
        return (torch.relu(y) * x.exp() + torch.relu(x)).sum()

    assert len(clarke.check(program).gradient) == 2
    only = clarke.check(program, wrt=(y,))
    assert [g.tolist() for g in only.gradient] == [[1.0]]
    # The kink in x is not one in y.
    assert only.verdict is Verdict.SMOOTH


def test_inputs_come_first_and_in_their_order():
    x, y, hidden = leaf(0.0), leaf(1.0), leaf(2.0)
    report = clarke.check(lambda x, y: (3 * hidden + 2 * y + x).sum(), (x, y))
    assert [g.item() for g in report.gradient] == [1, 2, 3]


def test_input_that_is_no_leaf():
    x = leaf(0.0)
    with pytest.raises(InputError, match=r"Input 0 was computed from other tensors.*detach\(\)"):
        clarke.check(lambda y: torch.relu(y).sum(), (x * 2,))


def test_errors_have_a_common_base():
    assert issubclass(InputError, clarke.ClarkeError)
    assert issubclass(InputError, ValueError)
    assert issubclass(CaptureError, clarke.ClarkeError)


def test_a_parameter_changed_by_the_program():
    w = leaf(1.0)

    def program():
        loss = torch.relu(w).sum()
        with torch.no_grad():
            w.mul_(2)
        return loss

    report = clarke.check(program)
    assert report.correct is not False
    assert report.verdict is not Verdict.NOT_CLARKE
