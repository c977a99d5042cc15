"""The Lightning callback under the real trainer."""

import warnings

import pytest
import torch

import clarke
from clarke.report.runs import read_run
from clarke.verdict import Verdict

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pl = pytest.importorskip("lightning.pytorch")

pytestmark = pytest.mark.filterwarnings("ignore")


class Net(pl.LightningModule):
    def __init__(self, *, wrong=False, fails=False):
        super().__init__()
        self.wrong, self.fails = wrong, fails
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)
        )
        self.shift = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, index):
        if self.fails and index == 2:
            raise RuntimeError("the data ran out")
        loss = self.net(batch[0]).pow(2).mean()
        if self.wrong:
            loss = loss + self.shift.relu().sum() - (-self.shift).relu().sum()
        return loss

    def validation_step(self, batch, index):
        self.net(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.01)


def fit(tmp_path, callback, model, **options):
    data = torch.utils.data.TensorDataset(torch.randn(16, 4))
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=pl.loggers.CSVLogger(tmp_path / "logs"),
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[callback],
        **options,
    )
    trainer.fit(model, loader, loader)
    return trainer


@pytest.fixture
def callback(tmp_path):
    from clarke.integrations.lightning import ClarkeCallback

    return lambda **options: ClarkeCallback(folder=tmp_path / "run", **options)


def test_every_batch_is_judged_and_logged(tmp_path, callback):
    own = callback()
    trainer = fit(tmp_path, own, Net())
    assert own.training.summary().calls == 4
    assert own.training.summary().correct is True
    run = read_run(tmp_path / "run")
    assert [s.outcome.correct for s in run.steps] == [True] * 4
    assert run.finished
    assert trainer.callback_metrics["clarke/wrong"] == 0
    rows = next((tmp_path / "logs").rglob("metrics.csv")).read_text()
    assert "clarke/relevant" in rows.splitlines()[0]


def test_accumulated_batches(tmp_path, callback):
    own = callback()
    fit(tmp_path, own, Net(), accumulate_grad_batches=2)
    steps = own.training.audit.steps
    assert [s.group for s in steps] == [1, 1, 3, 3]
    assert all(s.correct for s in steps)


def test_wrong_gradients_are_counted(tmp_path, callback):
    own = callback(on_wrong=lambda report: None)
    trainer = fit(tmp_path, own, Net(wrong=True))
    assert own.training.summary().verdicts == {Verdict.NOT_CLARKE: 4}
    assert trainer.callback_metrics["clarke/wrong"] == 4


def test_raise_stops_the_training_and_closes_the_audit(tmp_path, callback):
    with pytest.raises(clarke.WrongGradientError):
        fit(tmp_path, callback(on_wrong="raise"), Net(wrong=True))
    run = read_run(tmp_path / "run")
    assert run.summary["ended"].startswith("WrongGradientError")


def test_a_training_that_fails_closes_the_audit(tmp_path, callback):
    with pytest.raises(RuntimeError, match="the data ran out"):
        fit(tmp_path, callback(), Net(fails=True))
    run = read_run(tmp_path / "run")
    assert len(run.steps) == 2
    assert run.summary["ended"] == "RuntimeError: the data ran out"
