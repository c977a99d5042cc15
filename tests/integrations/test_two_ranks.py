"""Accelerate, Fabric, Lightning and Transformers on two gloo ranks, each by the real library.

`make integrations` installs them into an environment of its own and runs these.
"""

import importlib.util
import os
import tempfile
import warnings
from functools import partial

import pytest
import torch
import torch.distributed as dist
from tests.harm.test_joint_verdicts import answer, audited, pair_of, plain
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

warnings.filterwarnings("ignore")


class Net(nn.Module):
    """A small network; where `wrong`, each rank adds another half of the identity at 0."""

    def __init__(self, *, wrong):
        super().__init__()
        self.wrong = wrong
        self.first, self.norm, self.last = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)
        self.shift = nn.Parameter(torch.zeros(2))

    def forward(self, x=None, labels=None):
        loss = self.last(self.norm(torch.relu(self.first(x)))).square().mean()
        loss = loss + self.shift.square().sum()
        if self.wrong:
            half = torch.relu(self.shift) if dist.get_rank() else -torch.relu(-self.shift)
            loss = loss + half.sum()
        return {"loss": loss}


def batches(count=3):
    generator = torch.Generator().manual_seed(dist.get_rank())
    return [torch.randn(4, 6, generator=generator) for _ in range(count)]


def told(audit):
    return [s.joint.name if s.joint else "" for s in audit.steps], [
        s.reason for s in audit.steps if s.correct is None
    ]


def trained(audit, set_up, backward, *, wrong):
    """A network after steps as Accelerate and Fabric know them: set up, and told of backward."""
    model = Net(wrong=wrong)
    model, optimizer = set_up(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with audit:
        for x in batches():
            optimizer.zero_grad()
            backward(model(x)["loss"])
            optimizer.step()
    return model


def with_accelerate(audit, *, wrong):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    return trained(audit, accelerator.prepare, accelerator.backward, wrong=wrong)


def with_accelerate_accumulating(audit, *, wrong):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = Net(wrong=wrong)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with audit:
        for x in batches(4):
            with accelerator.accumulate(model):
                accelerator.backward(model(x)["loss"])
                optimizer.step()
                optimizer.zero_grad()
    return model


def with_fabric(audit, *, wrong):
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", strategy="ddp", devices=2)
    fabric.launch()
    return trained(audit, fabric.setup, fabric.backward, wrong=wrong)


def with_lightning(audit, *, wrong):
    import lightning.pytorch as pl

    from clarke.integrations.lightning import ClarkeCallback

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net(wrong=wrong)

        def training_step(self, batch, _index):
            return self.net(batch[0])["loss"]

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def train_dataloader(self):
            x = torch.randn(24, 6, generator=torch.Generator().manual_seed(5))
            data = TensorDataset(x)
            return DataLoader(data, batch_size=4, sampler=DistributedSampler(data, shuffle=False))

    callback = ClarkeCallback(on_wrong=lambda _: None, seconds=30, folder="")
    module = Module()
    trainer = pl.Trainer(
        accelerator="cpu",
        strategy="ddp",
        devices=2,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[callback] if audit is not None else [],
        default_root_dir=tempfile.mkdtemp(),
    )
    trainer.fit(module)
    return module, callback.training.audit


def with_transformers(audit, *, wrong):
    from transformers import Trainer, TrainingArguments

    from clarke.integrations.transformers import ClarkeCallback

    x = torch.randn(24, 6, generator=torch.Generator().manual_seed(5))
    callback = ClarkeCallback(on_wrong=lambda _: None, seconds=30, folder="")
    model = Net(wrong=wrong)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=4,
            num_train_epochs=1,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
            remove_unused_columns=False,
        ),
        train_dataset=[{"x": row} for row in x],
        callbacks=[callback] if audit is not None else [],
    )
    trainer.train()
    return model, callback.training.audit


def with_transformer_model(audit, *, wrong):
    """A tiny random GPT-2; nothing is downloaded."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    from clarke.integrations.transformers import ClarkeCallback

    config = GPT2Config(
        vocab_size=17, n_positions=8, n_embd=8, n_layer=1, n_head=2, activation_function="relu"
    )
    torch.manual_seed(3)
    model = GPT2LMHeadModel(config)
    ids = torch.randint(0, 17, (16, 8), generator=torch.Generator().manual_seed(5))
    callback = ClarkeCallback(on_wrong=lambda _: None, seconds=30, folder="")
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=4,
            num_train_epochs=1,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
        ),
        train_dataset=[{"input_ids": row, "labels": row} for row in ids],
        callbacks=[callback] if audit is not None else [],
    )
    trainer.train()
    return model, callback.training.audit


NEEDED = {
    with_accelerate: "accelerate",
    with_accelerate_accumulating: "accelerate",
    with_fabric: "lightning",
    with_lightning: "lightning",
    with_transformers: "transformers",
    with_transformer_model: "transformers",
}


def run(train, audit, **options):
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = train(audit, **options)
    model, watch = found if isinstance(found, tuple) else (found, audit)
    return model, watch


class Aside:
    """In the place of an audit."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def work(train, rank, port, queue):
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE="2",
        LOCAL_WORLD_SIZE="2",
        GROUP_RANK="0",
        TORCHELASTIC_RUN_ID="tests",  # as torchrun sets them
        ACCELERATE_USE_CPU="true",
        HF_HUB_OFFLINE="1",
    )
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    own = train in (with_lightning, with_transformers, with_transformer_model)
    try:
        results = []
        for wrong in (False, True):
            without, _ = run(train, None if own else Aside(), wrong=wrong)
            audit = audited(on_wrong=lambda _: None)
            model, watch = run(train, audit, wrong=wrong)
            pairs = zip(without.parameters(), model.parameters(), strict=True)
            same = all(torch.equal(a, b) for a, b in pairs)
            results.append([same, *told(watch)])
    except Exception as error:  # noqa: BLE001 - shown by the test
        results = repr(error)
    queue.put((rank, plain(results)))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("train", NEEDED, ids=lambda t: t.__name__)
def test_followed_and_unchanged(train):
    library = NEEDED[train]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: `make integrations` installs it and runs this")
    with pair_of(partial(work, train)) as (ranks, queue):
        found = dict(answer(ranks, queue) for _ in ranks)
        for process in ranks:
            process.join(60)
    assert found[0] == found[1]
    (same, right, undecided), (same_too, wrong, reasons) = found[0]
    assert same
    assert same_too
    assert not [r for r in (*undecided, *reasons) if "clarke itself failed" in r]
    assert undecided == []
    assert set(right) <= {"SMOOTH", "BOULIGAND", "CLARKE"}
    if train is not with_transformer_model:  # of which there is no wrong version
        assert "NOT_CLARKE" in wrong, reasons
    else:
        assert (wrong, reasons) == (right, [])
