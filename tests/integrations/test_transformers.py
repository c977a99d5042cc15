"""The Trainer callback, and `clarke run`, on a tiny T5 (which has ReLU) trained by the Trainer."""

import warnings

import pytest
import torch

from clarke.report.runs import read_run

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

pytestmark = pytest.mark.filterwarnings("ignore")


class Pairs(torch.utils.data.Dataset):
    """Sequences of random tokens, to be reversed."""

    def __init__(self, count):
        generator = torch.Generator().manual_seed(0)
        self.rows = torch.randint(2, 30, (count, 6), generator=generator)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        if i < 0:
            raise RuntimeError("no such row")
        return {"input_ids": self.rows[i], "labels": self.rows[i].flip(0)}


def trainer(tmp_path, callback, steps=4, **options):
    config = transformers.T5Config(
        vocab_size=32, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0,
        decoder_start_token_id=0, feed_forward_proj="relu",
    )  # fmt: skip
    torch.manual_seed(0)
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=4,
        max_steps=steps,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    return transformers.Trainer(
        model=transformers.T5ForConditionalGeneration(config),
        args=arguments,
        train_dataset=Pairs(16),
        callbacks=[callback],
    )


@pytest.fixture
def callback(tmp_path):
    from clarke.integrations.transformers import ClarkeCallback

    return ClarkeCallback(folder=tmp_path / "run")


def test_a_tiny_t5(tmp_path, callback):
    own = trainer(tmp_path, callback)
    own.train()
    run = read_run(tmp_path / "run")
    assert len(run.steps) == 4
    assert {s.outcome.name for s in run.steps} <= {"SMOOTH", "BOULIGAND", "CLARKE"}
    assert run.finished
    logged = [row for row in own.state.log_history if "loss" in row]
    assert all(row["clarke/wrong"] == 0 for row in logged)
    assert "clarke/relevant" in logged[0]


def test_accumulation_by_the_trainer(tmp_path, callback):
    trainer(tmp_path, callback, steps=2, gradient_accumulation_steps=2).train()
    run = read_run(tmp_path / "run")
    assert [s.group for s in run.steps] == [1, 1, 3, 3]
    assert all(s.outcome.correct for s in run.steps)
    assert all(v.correct for v in run.sums())


def test_a_training_that_fails_leaves_nothing_open(tmp_path, callback):
    own = trainer(tmp_path, callback)
    own.train_dataset.rows = own.train_dataset.rows[:8]
    own.compute_loss = lambda *a, **k: (_ for _ in ()).throw(RuntimeError("no loss"))
    with pytest.raises(RuntimeError, match="no loss"), callback:
        own.train()
    assert read_run(tmp_path / "run").summary["ended"] == "RuntimeError"
    assert torch.autograd._engine_run_backward.__name__ == "_engine_run_backward"
