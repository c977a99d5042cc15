"""What the first screen of `clarke run` says, and its page: line, right value, cure, status.

Ten scripts with one fault each; with what the screen says to write instead they are right.
"""

import warnings

import pytest

from clarke.report.runs import read_run
from clarke.report.runs.page import run_page

HEAD = """import torch

w = torch.nn.Parameter(torch.tensor({point}))
optimizer = torch.optim.SGD([w], lr=0.0)
for step in range(3):
    optimizer.zero_grad()
    loss = {loss}
    loss.backward()
    optimizer.step()
"""
# Point, loss, what screen and page say of values and of the cure, and the loss as it says.
WRONG = {
    "relus": (
        "[0.0]",
        "(torch.relu(w) - torch.relu(-w)).sum()",
        "returned 0, right 1",
        "torch.maximum(x, torch.zeros_like(x)) in place of both relus",
        "(torch.maximum(w, 0 * w) - torch.maximum(-w, 0 * w)).sum()",
    ),
    "abs": (
        "[0.0]",
        "(w.abs() + w - 2 * torch.relu(w)).sum()",
        "returned 1, right 0",
        "torch.where(x > 0, x, -x) in place of abs",
        "(torch.where(w > 0, w, -w) + w - 2 * torch.relu(w)).sum()",
    ),
    "clamps": (
        "[0.0, 2.0]",
        "(w.clamp(min=0) - (-w).clamp(min=0)).sum()",
        "right 1 for entry [0]",
        "torch.maximum(x, low) in place of both clamps",
        "(torch.maximum(w, 0 * w) - torch.maximum(-w, 0 * w)).sum()",
    ),
    "cross entropy": (
        "[0.0]",
        "(w.clamp(min=0) - 0 * w + torch.log1p(torch.exp(-w.abs()))).sum()",
        "right 0.5",
        "torch.nn.functional.softplus(x)",
        "torch.nn.functional.softplus(w).sum()",
    ),
    "maximum": (
        "[0.0, 1.0]",
        "(torch.maximum(w, -w) - 2 * torch.relu(w)).sum()",
        "returned 0, right -1 for entry [0]",
        "torch.where(a > b, a, b) in place of maximum",
        "(torch.where(w > -w, w, -w) - 2 * torch.relu(w)).sum()",
    ),
}
NONFINITE = {
    "root": (
        "[0.0, 0.0]",
        "(w**2).sum().sqrt()",
        "returned NaN, right",
        "torch.linalg.vector_norm(x, dim=...)",
        "torch.linalg.vector_norm(w, dim=0)",
    ),
    "root of a mean": (
        "[0.0, 0.0]",
        "(w * w).mean() ** 0.5",
        "returned NaN, right",
        "torch.linalg.vector_norm(x) / x.numel() ** 0.5",
        "torch.linalg.vector_norm(w) / w.numel() ** 0.5",
    ),
    "branch": (
        "[0.0, 1.0]",
        "torch.where(w != 0, torch.sin(w) / w, 1 + 0 * w).sum()",
        "returned NaN, right 0 for entry [0]",
        "Give div a harmless argument",
        "torch.where(w != 0, torch.sin(w) / torch.where(w != 0, w, 1), 1 + 0 * w).sum()",
    ),
    "log of softmax": (
        "[0.0, -1000.0]",
        "torch.log(torch.softmax(w, 0))[1]",
        "NaN or infinity",
        "torch.log_softmax(x, dim)",
        "torch.log_softmax(w, 0)[1]",
    ),
    "overflow": (
        "[1000.0, 0.0]",
        "torch.log(torch.exp(w).sum())",
        "NaN or infinity",
        "torch.logsumexp(x, dim), which is finite. Tried here",
        "torch.logsumexp(w, 0)",
    ),
}
PLANTED = {**WRONG, **NONFINITE}


@pytest.fixture
def ran(clarke_command, tmp_path):
    """Run a script; gives what the command did, the screen in one line, and the page."""

    def run(script, *options, name="out"):
        (tmp_path / "train.py").write_text(script)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            done = clarke_command("run", "--out", name, *options, "train.py")
        return done, flat(done.err), run_page(read_run(tmp_path / name))

    return run


def flat(text):
    return " ".join(text.split())


def escaped(text):
    return text.replace("&", "&amp;").replace(">", "&gt;").replace("'", "&#x27;")


@pytest.mark.parametrize("name", PLANTED)
def test_screen_and_page_name_line_value_and_cure(ran, name):
    point, loss, value, cure, right = PLANTED[name]
    done, screen, page = ran(HEAD.format(point=point, loss=loss), "--seconds", "20")
    assert done.status == (1 if name in WRONG else 3)
    first = screen.split("Kinks by place")[0]
    assert "train.py:7" in first
    for words in (value, cure):
        assert words in first
        code = words.partition(" in place of ")[0]
        assert escaped(code) in page or escaped(code[0].upper() + code[1:]) in page
    assert page.index("<b>Instead</b>") < page.index("backward calls")  # it leads
    done, _, _ = ran(HEAD.format(point=point, loss=right), "--strict", name="again")
    assert done.status == 0


def test_a_layer_in_a_network_is_named_with_its_parameter(ran):
    script = """import torch

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Identity(), torch.nn.Linear(8, 1))
torch.nn.init.zeros_(net[0].weight)
torch.nn.init.zeros_(net[0].bias)
net[1].forward = lambda h: torch.relu(h) - torch.relu(-h)
net(torch.randn(16, 4)).square().mean().backward()
"""
    done, screen, _ = ran(script, "--seconds", "20")
    assert done.status == 1
    assert "both relus in 1: 128 touched kinks that must agree, at each" in screen
    assert "for 0." in screen
    assert "the whole gradient is off by" in screen
    assert "torch.maximum(x, torch.zeros_like(x)) in place of both relus" in screen


def test_an_infinite_slope_counts_as_not_finite(ran):
    done, screen, _ = ran(HEAD.format(point="[0.0]", loss="torch.sqrt(w).sum()"))
    assert done.status == 3
    assert "torch.sqrt(x.clamp_min(eps))" in screen


def test_nan_that_is_ignored_or_repaired_does_not_count(ran):
    point, loss, *_ = PLANTED["root"]
    script = HEAD.format(point=point, loss=loss)
    done, _, _ = ran(script, "--on-nonfinite", "ignore", "--seconds", "20", name="a")
    assert done.status == 0
    done, screen, page = ran(script, "--on-nonfinite", "repair", "--seconds", "20", name="b")
    assert done.status == 0
    assert "Repaired: 3; right gradients were put in their place." in screen
    assert "A right gradient was put in its place." in page


def test_a_run_that_was_interrupted_says_so(ran):
    script = HEAD.format(point="[1.0]", loss="w.sum()") + "    raise KeyboardInterrupt\n"
    done, screen, page = ran(script)
    assert done.status == 130
    assert "The program ended early: KeyboardInterrupt." in screen
    assert "The program ended early: KeyboardInterrupt." in page


def test_a_run_that_ended_at_its_gradient_says_so_in_one_sentence(ran):
    point, loss, *_ = PLANTED["root"]
    _, screen, page = ran(HEAD.format(point=point, loss=loss), "--on-nonfinite", "raise")
    told = screen.partition("The program ended early: WrongGradientError: ")[2]
    assert told
    assert "NONFINITE: " not in told  # the report stands in the traceback above
    assert ".. " not in told
    assert "NONFINITE: " not in page.partition("The program ended early: ")[2].partition("<")[0]
