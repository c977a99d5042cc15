"""What notebooks, `print` and `dir` show."""

import torch

import clarke


def test_notebooks_get_escaped_text():
    x = torch.zeros(2, requires_grad=True)
    report = clarke.check(lambda x: (torch.relu(x) - torch.relu(-x)).sum(), (x,))
    report = type(report)(**{**vars(report), "notes": ("<script>",)})
    assert "&lt;script&gt;" in report._repr_html_()
    assert "<script>" not in report._repr_html_()
    with clarke.audit() as audit:
        torch.relu(x).sum().backward()
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    found = (
        report,
        audit.summary(),
        clarke.subdifferential(lambda x: x.abs().sum(), (x,)),
        clarke.explain(model, torch.zeros(1, 2)),
    )
    for shown in found:
        assert shown._repr_html_().startswith("<pre")
        assert shown._repr_html_().count("<") == 2


def test_a_set_says_its_size_and_what_is_inside():
    x = torch.zeros(2, requires_grad=True)
    square = clarke.subdifferential(lambda x: x.abs().sum(), (x,))
    square.vertices()
    said = "Subdifferential: 4 vertices in 2 variables, autograd's gradient inside, 0 inside"
    assert str(square) == said
    point = clarke.subdifferential(lambda x: (torch.relu(x) - torch.relu(-x))[0], (x,))
    point.vertices()
    said = "Subdifferential: 1 vertex in 2 variables, autograd's gradient outside, 0 outside"
    assert str(point) == said


def test_dir_lists_public_names_only():
    names = [n for n in dir(clarke) if not n.startswith("_")]
    assert sorted(names) == sorted(clarke.__all__)
    assert "check" in names
    assert "torch_private" not in names
