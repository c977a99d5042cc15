"""What TensorBoard reads back is what the audit found."""

import warnings

import pytest
import torch

import clarke

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("tensorboard")

pytestmark = pytest.mark.filterwarnings("ignore")


def test_scalars_figure_and_summary(tmp_path):
    pytest.importorskip("matplotlib")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    from clarke.integrations.tensorboard import TensorBoardLog

    model = torch.nn.Sequential(torch.nn.Linear(3, 4, bias=False), torch.nn.ReLU())
    torch.nn.init.ones_(model[0].weight)
    at_kinks = torch.tensor([[1.0, -1.0, 0.0], [1.0, 2.0, 3.0]])
    away = at_kinks + 0.5
    writer = SummaryWriter(tmp_path)
    with clarke.audit() as audit, TensorBoardLog(audit, writer):
        for x in (at_kinks, away, at_kinks):
            model(x).sum().backward()
            model.zero_grad()
    writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    touched = [(e.step, e.value) for e in events.Scalars("clarke/touched")]
    assert touched == [(s.number, float(sum(k.touched for k in s.kinks))) for s in audit.steps]
    assert touched[0] == (1, 4.0)
    assert touched[1] == (2, 0.0)
    assert [e.value for e in events.Scalars("clarke/wrong")] == [0, 0, 0]
    assert [(e.step, e.value) for e in events.Scalars("clarke_layers/1")] == [(1, 4.0), (3, 4.0)]
    assert "clarke/layers" in events.Tags()["images"]
    text = events.Tensors("clarke/summary/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "3 backward calls" in text


def test_an_audit_without_kinks_draws_nothing(tmp_path):
    from clarke.integrations.tensorboard import TensorBoardLog

    class Writer:
        def __init__(self):
            self.calls = []

        def __getattr__(self, name):
            return lambda *args: self.calls.append(name)

    writer = Writer()
    x = torch.ones(2, requires_grad=True)
    with clarke.audit(every=2) as audit, TensorBoardLog(audit, writer):
        x.exp().sum().backward()
        x.sin().sum().backward()
    assert writer.calls == ["add_scalar"] * 4 + ["add_text", "flush"]
