"""Models as in the paper; runs that repeat, stop, go on and are written down."""

import io
import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch.nn.functional import cross_entropy
from typer.testing import CliRunner

from clarke import InputError
from clarke.cli import make_app
from clarke.cli.progress import Pace, shown_progress, time_text
from clarke.experiments import train
from clarke.experiments.augment import normalise
from clarke.experiments.campaign import Campaign, tables
from clarke.experiments.data import Images, Source, load
from clarke.experiments.models import Activation, fnn, resnet18, vgg11, vgg11_bn
from clarke.experiments.plots import plot_all, plot_patches
from clarke.experiments.record import Place, RunRecord
from clarke.experiments.scenario import Network, Training, paper_layers, same_settings
from clarke.experiments.table import scenario_two, touched_steps
from clarke.experiments.tied_patches import TiedPatches, find_examples
from clarke.experiments.train import Run, first_model, total_steps


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


def test_a_step_that_is_not_proved_right_is_kept(tmp_path, monkeypatch):
    training = small(steps=3)
    add = RunRecord.add

    def undecided(record, step):
        add(record, step)
        if record.steps == 2:
            record.reasons.append((2, "UNDECIDED", "as if"))

    monkeypatch.setattr(RunRecord, "add", undecided)
    Run(training, images(), tmp_path / "a", keep=tmp_path / "kept").run()
    (path,) = (tmp_path / "kept").iterdir()
    assert path.name == "fnn-hardtanh-0-step2.pt"
    kept = torch.load(path, weights_only=True)

    # The same two steps by hand.
    model = first_model(training)
    optimizer = torch.optim.SGD(model.parameters(), training.rate, weight_decay=training.decay)
    generator = torch.Generator().manual_seed(training.seed)
    first, second, _ = torch.randperm(96, generator=generator).split(32)
    cross_entropy(model(normalise(images().pixels[first])), images().labels[first]).backward()
    optimizer.step()
    assert torch.equal(kept["inputs"], normalise(images().pixels[second]))
    assert torch.equal(kept["labels"], images().labels[second])
    for name, value in model.state_dict().items():
        assert torch.allclose(kept["model"][name], value, rtol=1e-4, atol=1e-6), name


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


def test_runs_from_before_a_setting_existed_are_read_and_go_on(tmp_path, monkeypatch):
    training = small(epochs=2)
    whole = Run(training, images(), tmp_path / "a").run()
    path = tmp_path / "a" / "run0.json"
    data = json.loads(path.read_text())
    for name in ("momentum", "sample"):
        del data["settings"][name]
    del data["numbers"]
    path.write_text(json.dumps(data))
    with monkeypatch.context() as patch:
        patch.setattr(train.Run, "_one_epoch", None)
        old = Run(training, images(), tmp_path / "a").run()
    assert old.losses == whole.losses
    assert old.judged == [1, 2, 3, 4, 5, 6]
    other = Run(small(epochs=2, momentum=0.9), images(), tmp_path / "a").run()
    assert other.settings["momentum"] == 0.9
    assert other.losses[0] != whole.losses[0]


def test_same_settings_fills_in_what_is_missing():
    assert same_settings({"network": "fnn"}, {"network": "fnn", "momentum": 0.0, "sample": None})
    assert not same_settings({"network": "fnn"}, {"network": "fnn", "momentum": 0.9})


@pytest.mark.parametrize("changes", [{"every": 2}, {"sample": 0.5}])
def test_what_was_not_looked_at_is_written_down(tmp_path, changes):
    record = Run(small(epochs=4, **changes), images(192), tmp_path / "a").run()
    again = Run(small(epochs=4, **changes), images(192), tmp_path / "b").run()
    assert record.steps == 24
    assert 0 < record.looked < 24
    assert record.looked == len(record.judged) == sum(record.verdicts.values())
    assert record.judged == sorted(set(record.judged))
    assert all(len(p.touched) == record.looked for p in record.places.values())
    assert record.judged == again.judged
    whole = Run(small(epochs=4), images(192), tmp_path / "c").run()
    assert record.losses == whole.losses  # the draw takes nothing from the training's generators
    if "sample" in changes:
        epochs = [{n - 6 * e for n in record.judged if 6 * e < n <= 6 * e + 6} for e in range(4)]
        assert any(e != epochs[0] for e in epochs)


def test_an_unfinished_run_can_be_shown(tmp_path):
    class InterruptError(Exception):
        pass

    def stop(done):
        if done == 5:
            raise InterruptError

    training = small(epochs=3, activation=Activation.RELU6)
    with pytest.raises(InterruptError):
        Run(training, images(), tmp_path / training.label, stop).run()
    arguments = ["reproduce", "fnn", "--runs", "1", "--no-train", "--no-plots"]
    found = CliRunner().invoke(make_app("reproduce"), [*arguments, "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert "3 (unfinished)" in found.output
    empty = CliRunner().invoke(make_app("reproduce"), [*arguments, "--out", str(tmp_path / "no")])
    assert "no run of fnn" in str(empty.exception)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(["--device", "nowhere"], "no device"), (["--sample", "1.5"], "above 0")],
)
def test_bad_options_are_explained(tmp_path, arguments, text):
    command = ["reproduce", "fnn", "--data", "digits", "--out", str(tmp_path), *arguments]
    found = CliRunner().invoke(make_app("reproduce"), command)
    assert found.exit_code != 0
    assert text in str(found.exception)


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_end(tmp_path):
    """Killed without warning in the middle of an epoch."""

    def command(out):
        return [
            *(sys.executable, "-m", "clarke", "reproduce", "fnn", "--data", "digits"),
            *("--runs", "1", "--epochs", "6", "--activation", "hardtanh", "--no-plots"),
            *("--out", str(out)),
        ]

    def results(out):
        record = RunRecord.load(out / "fnn-hardtanh" / "run0.json")
        return replace(record, seconds=0.0, audit_seconds=0.0)

    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True)
    checkpoint = tmp_path / "killed" / "fnn-hardtanh" / "run0.checkpoint.pt"
    process = subprocess.Popen(
        command(tmp_path / "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert checkpoint.exists()
    assert not (tmp_path / "killed" / "fnn-hardtanh" / "run0.json").exists()
    subprocess.run(command(tmp_path / "killed"), check=True, capture_output=True)
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


def test_examples_of_ties_are_what_they_say():
    training = Training(Network.VGG11, batch=4, steps=1)
    equal, different = find_examples(training, load(Source.CIFAR10, "digits"), 2)
    assert len(equal) == 2
    for example in (*equal, *different):
        assert example.value > 0
        assert example.equal == (example in equal)
        weight = first_model(training).features.conv1a.weight[example.channel]
        bias = first_model(training).features.conv1a.bias[example.channel]
        values = (example.patches * weight).sum((1, 2, 3)) + bias
        assert values.tolist() == pytest.approx([example.value] * 2, rel=1e-4, abs=1e-5)


def test_plots_are_drawn(tmp_path):
    record = RunRecord("vgg11", 0, "noise", {}, steps=4, looked=2, numbers=[1, 3])
    record.places["p"] = Place("max_pool2d_with_indices", "pool1", 10, [1, 2], [1, -1], [0, 1])
    record.places["r"] = Place("relu", "relu1", 10, [1, 0], [0, 0], [1, 0])
    image = torch.zeros(3, 32, 32)
    tie = TiedPatches(1, 2, 0.5, image, (3, 3), (3, 4), torch.zeros(2, 3, 3, 3))
    drawn = [*plot_all([record], tmp_path), plot_patches([tie], [], "x", tmp_path / "ties.png")]
    assert [p.name for p in drawn] == ["vgg11.svg", "ties.png"]
    assert all(p.stat().st_size > 1000 for p in drawn)


def test_remaining_time_counts_only_what_was_done_now():
    now = [0.0]
    pace = Pace(lambda: now[0])
    pace.reach(1000)  # restored from disk
    assert pace.remaining(2000) is None
    for done in range(1001, 1011):
        now[0] += 2.0
        pace.reach(done)
    assert pace.remaining(2000) == pytest.approx(2 * 990)
    pace.reach(1500)  # a finished run is skipped
    assert pace.remaining(2000) == pytest.approx(2 * 500)
    assert time_text(2 * 500) == "17 min left"
    assert time_text(7300) == "2 h 02 min left"


def test_a_log_gets_a_line_a_minute():
    now = [0.0]
    console = Console(file=io.StringIO(), force_terminal=False)
    with shown_progress(console, lambda: now[0]) as show:
        for done in range(1, 131):
            now[0] += 1.0
            show("net, seed 0", done, 130)
        show("net, seed 0", 130, 130)  # the end of a run is told twice
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[1] == "net, seed 0: 61 of 130 steps, 1 min left"


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["fnn", "--out", "taken"], "cannot be made the folder"),
        (["vgg11", "--activation", "relu6"], "--activation is for fnn"),
    ],
)
def test_bad_options_are_refused_before_anything_runs(tmp_path, monkeypatch, more, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match=text):
        CliRunner().invoke(
            make_app("reproduce"),
            ["reproduce", *more, "--data", "digits"],
            catch_exceptions=False,
        )
