"""Models as in the paper; runs that repeat, stop, go on and are written down."""

import json

import pytest
import torch
from typer.testing import CliRunner

from clarke.cli import make_app
from clarke.experiments import train
from clarke.experiments.campaign import Campaign, stored_records, tables
from clarke.experiments.data import Images
from clarke.experiments.models import Activation, fnn, resnet18, vgg11, vgg11_bn
from clarke.experiments.record import Place, RunRecord
from clarke.experiments.scenario import Network, Training, paper_layers
from clarke.experiments.table import scenario_two, touched_steps
from clarke.experiments.train import Run, total_steps


def images(n=96, shape=(1, 28, 28)):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, *shape), generator=generator).to(torch.uint8)
    return Images(pixels, torch.arange(n) % 10, "noise")


def small(**changes):
    settings = {"network": Network.FNN, "activation": Activation.HARDTANH, "batch": 32} | changes
    return Training(**settings)


@pytest.mark.parametrize("make", [vgg11, vgg11_bn, resnet18])
def test_pools_have_the_outputs_of_the_papers_table(make):
    network = {"vgg11": Network.VGG11, "vgg11_bn": Network.VGG11_BN}.get(
        make.__name__, Network.RESNET18
    )
    net, sizes = make(), []
    for module in net.modules():
        if isinstance(module, torch.nn.MaxPool2d):
            module.register_forward_hook(lambda _m, _i, out: sizes.append(out.numel()))
    with torch.no_grad():
        assert net(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    # The paper counts 2 095 140 outputs for ResNet18, a little less than 128 x 64 x 16 x 16.
    expected = [layer.outputs for layer in paper_layers(network)]
    assert [64 * s for s in sizes] == pytest.approx(expected, rel=1e-3)
    assert not any(m._forward_hooks for m in make().modules())


@pytest.mark.parametrize("activation", Activation)
def test_the_fully_connected_network_has_the_papers_sizes(activation):
    net = fnn(activation)
    shapes = [tuple(p.shape) for p in net.parameters() if p.dim() == 2]
    assert shapes == [(256, 784), (64, 256), (10, 64)]
    assert net(torch.rand(3, 1, 28, 28)).shape == (3, 10)


def test_the_paper_has_7820_steps_of_scenario_two():
    training = Training(Network.VGG11)
    data = Images(torch.zeros(50_000, 1, 1, 1), torch.zeros(50_000), "x")
    assert total_steps(training, data) == 7820


def test_an_interrupted_run_goes_on_to_the_same_end(tmp_path, monkeypatch):
    training = small(epochs=3)
    whole = Run(training, images(), tmp_path / "a").run()
    assert whole.finished
    assert whole.steps == whole.looked == 9
    assert sum(whole.verdicts.values()) == 9

    class InterruptError(Exception):
        pass

    def stop(done):
        if done == 5:
            raise InterruptError

    with pytest.raises(InterruptError):
        Run(training, images(), tmp_path / "b", stop).run()
    seen = []
    again = Run(training, images(), tmp_path / "b", seen.append).run()
    assert seen[0] == 4  # the first epoch was not repeated
    assert again.losses == whole.losses
    assert again.verdicts == whole.verdicts
    assert not list((tmp_path / "b").glob("*.pt"))

    monkeypatch.setattr(train.Run, "_one_epoch", None)
    assert Run(training, images(), tmp_path / "b").run().losses == whole.losses


def test_other_settings_do_not_reuse_a_run(tmp_path):
    Run(small(epochs=1), images(), tmp_path).run()
    assert Run(small(epochs=2), images(), tmp_path).run().steps == 6


def test_the_audit_does_not_change_the_training(tmp_path):
    often = Run(small(epochs=2), images(), tmp_path / "a").run()
    seldom = Run(small(epochs=2, every=5), images(), tmp_path / "b").run()
    assert seldom.looked < often.looked == seldom.steps
    assert seldom.losses == often.losses


def test_records_survive_the_disk(tmp_path):
    record = RunRecord("vgg11", 3, "noise", {"batch": 2}, steps=2, looked=2)
    record.places["p"] = Place("max_pool2d_with_indices", "pool1", 10, [1, 2], [0, -1], [0, 1])
    record.reasons.append((2, "UNDECIDED", "why"))
    record.save(tmp_path / "vgg11" / "run3.json")
    assert RunRecord.load(tmp_path / "vgg11" / "run3.json") == record
    assert stored_records(tmp_path, Network.VGG11) == [record]
    assert stored_records(tmp_path, Network.VGG11_BN) == []


def test_table_two_counts_what_was_recorded():
    record = RunRecord("resnet18", 0, "noise", {}, steps=4, looked=4)
    record.places["p"] = Place(
        "max_pool2d_with_indices", "maxpool", 100, [9, 9, 9, 9], [4, 6, -1, 2], [0, 2, 1, 0]
    )
    (row,) = scenario_two(Network.RESNET18, [record]).rows
    assert row[4] == "4"  # percent tied, where known: (4 + 6 + 2) / 3 of 100
    assert row[6] == "2.0 of 4"
    assert row[10] == "1.50"


def test_touched_steps_counts_steps_not_kinks():
    record = RunRecord("fnn-relu6", 0, "noise", {}, looked=3)
    record.places = {
        "a": Place("hardtanh", "act1", 5, [0, 2, 1], [0, 0, 0], [0, 2, 1]),
        "b": Place("hardtanh", "act2", 5, [0, 3, 0], [0, 0, 0], [0, 3, 0]),
    }
    assert touched_steps(record) == 2


def test_scenario_two_runs_and_is_judged(tmp_path):
    training = Training(Network.VGG11_BN, steps=2, batch=4)
    campaign = Campaign(training, 1, "digits", tmp_path)
    (record,) = campaign.run()
    assert record.finished
    assert record.looked == 2
    first, second = tables(Network.VGG11_BN, [record])
    assert len(first.rows) == 5
    assert second.rows[0][4] == "2"
    assert "| 1 | 1,048,576 |" in first.markdown()


def test_the_command_prints_the_table_and_writes_results(tmp_path):
    arguments = ["reproduce", "fnn", "--data", "digits", "--runs", "1", "--steps", "2"]
    arguments += ["--activation", "relu6", "--out", str(tmp_path)]
    found = CliRunner().invoke(make_app("reproduce"), arguments)
    assert found.exit_code == 0, found.output
    assert "| relu6 | 1 | 2 | 0.0 |" in found.output
    results = json.loads((tmp_path / "fnn.json").read_text())
    assert results["records"][0]["looked"] == 2
    assert (tmp_path / "fnn-relu6.svg").exists()


def test_the_command_says_what_is_missing(tmp_path):
    arguments = ["reproduce", "resnet18", "--data", str(tmp_path)]
    found = CliRunner().invoke(make_app("reproduce"), arguments)
    assert found.exit_code != 0
    assert "cifar-10-binary.tar.gz" in str(found.exception)
