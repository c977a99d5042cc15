"""Which part of a line is underlined."""

import pytest

from clarke.report.runs.diagnosis import marked
from clarke.report.runs.source import spans


@pytest.mark.parametrize(
    ("source", "operation", "parts"),
    [
        ("h = torch.relu(h) - torch.relu(-h)", "relu", ["torch.relu(h)", "torch.relu(-h)"]),
        ("y = a / b + c", "div", ["a / b"]),
        ("y = (x ** 2).sum().sqrt()", "sqrt", ["(x ** 2).sum().sqrt()"]),
        ("y = x.clip(min=0)", "clamp", ["x.clip(min=0)"]),
        ("y = F.relu_(x)", "relu", ["F.relu_(x)"]),
        ("return torch.where(x > 0, x, 0)", "gt", ["x > 0"]),
        ("for y in torch.abs(x):", "abs", ["torch.abs(x)"]),
        ("loss = f(torch.abs(x),", "abs", ["torch.abs(x)"]),
        ("ä = 'ü' + str(torch.abs(x))", "abs", ["torch.abs(x)"]),
        ("y = Round.apply(x) + 1", "Round", ["Round.apply(x)"]),
        ("y = self.layers(x)", "relu", []),
        (") else torch.abs(x)", "abs", []),
        ("", "abs", []),
    ],
)
def test_operations_are_found_in_a_line(source, operation, parts):
    assert [source[a:b] for a, b in spans(source, [operation])] == parts


def test_a_line_without_them_is_underlined_whole():
    assert marked("y = net(x) < 3", ["relu"]) == "<u>y = net(x) &lt; 3</u>"
    assert marked("y = abs(x) < 3", ["abs"]) == "y = <u>abs(x)</u> &lt; 3"
