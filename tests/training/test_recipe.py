"""What training does beside plain steps: averaging, freezing, mixing, sampling, and the learning-rate finder."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, refused, run_here, run_script
from torch import nn

import dataset
import inference
import loss
import model
import train
from toolkit.config.settings import TrainSettings
from toolkit.data import augment
from toolkit.data.loader import Loader, split_into_batches
from toolkit.data.split import held_out_people, split_by_person, without_border_ages
from toolkit.data.store import Store
from toolkit.models import factored_head
from toolkit.models.batch_norm import recompute_batch_norm_statistics
from toolkit.models.predict import predict
from toolkit.runs import cross_validation as folds_module
from toolkit.system import device
from toolkit.training import loop, lr_finder
from toolkit.training.optimizer import make_optimizer
from toolkit.training.sampler import balanced_sampling_weights, epoch_order
from toolkit.training.step import EpochInputs, Recipe, train_one_epoch
from toolkit.training.train_state import EMA, TrainState


def net_with_norm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(512, 18))


def test_the_ema_spans_the_last_tenth_of_the_steps_and_takes_buffers_too():
    net = net_with_norm()
    ema, expected = EMA(net, 0.999), net[3].bias.detach().clone()
    for number in range(200):
        with torch.no_grad():
            net[3].bias.add_(1.0)
        net[1].num_batches_tracked += 1
        ema.update(net, number)
        decay = min(0.999, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * net[3].bias
    torch.testing.assert_close(ema.model[3].bias, expected)
    behind = (net[3].bias - ema.model[3].bias).mean().item()
    assert 15 < behind < 30 and ema.model[1].num_batches_tracked == 200
    assert torch.equal(net[3].weight, ema.model[3].weight)


def test_while_the_head_learns_alone_weights_and_statistics_of_the_rest_stay(task):
    net = net_with_norm()
    state = TrainState(net, list(net[3].parameters()), make_optimizer("adamw", net, 1e-2, 0.05), EMA(net, 0.999))
    recipe = Recipe(lambda step: 1e-2, 16, 1.0, 0, augment.POLICIES["light"])
    for frozen in (True, False):
        before = {name: value.clone() for name, value in net.state_dict().items()}
        state.freeze(frozen)
        train_one_epoch(net, state.optimizer, task, recipe, 0)
        recompute_batch_norm_statistics(net, task.loader, split_into_batches(task.train, 16))
        changed = {name.partition(".")[0] for name, value in net.state_dict().items() if not value.equal(before[name])}
        assert changed == ({"3"} if frozen else {"0", "1", "3"})


def test_pretrained_layers_learn_at_their_share_of_the_rate():
    net, _ = model.build("resnet18", (32, 32), pretrained=False)
    groups = make_optimizer("adamw", net, 1e-3, 0.05, model.head_weights(net), 0.1).param_groups
    factors = {id(weight): group["lr_factor"] for group in groups for weight in group["params"]}
    assert len(factors) == len(list(net.parameters()))
    assert {factors[id(weight)] for weight in model.head_weights(net)} == {1.0}
    assert [value for value in factors.values() if value != 0.1] == [1.0, 1.0]


@pytest.mark.parametrize("how", ["mixup", "cutmix"])
def test_photographs_are_mixed_as_their_targets_are(task, how):
    seen = []

    def criterion(outputs, targets):
        seen.append(targets)
        return loss.cross_entropy(outputs, targets)

    task = dataclasses.replace(task, targets=nn.functional.one_hot(task.labels, 18).float(), criterion=criterion)
    policy = augment.POLICIES["none"]
    epochs = [EpochInputs(task, 0, epoch, policy, how) for epoch in (0, 0, 1)]
    positions = np.arange(len(task.train))
    inputs = [
        torch.cat(list(epoch.load(split_into_batches(positions, size))))
        for epoch, size in zip(epochs, (16, 7, 16), strict=True)
    ]
    assert torch.equal(inputs[0], inputs[1]) and not torch.equal(inputs[0], inputs[2])  # whatever the batches are
    order, plain = epochs[0].order, next(task.loader.load([epochs[0].order]))
    for position in range(len(task.train)):
        lam, other = epochs[0].lam[position].item(), epochs[0].permutation[position]
        first, second = plain[position], plain[other]
        mixed = lam * first + (1 - lam) * second
        if how == "cutmix" and lam < 1:
            assert lam == 0.5
            mixed = torch.cat([first[:, :, :16], second[:, :, 16:]], 2)
        torch.testing.assert_close(inputs[0][position], mixed, rtol=1e-4, atol=1e-5)
        target = lam * task.targets[order[position]] + (1 - lam) * task.targets[order[other]]
        torch.testing.assert_close(epochs[0].targets[position], target)
    assert 0.3 < (epochs[0].lam < 1).float().mean() < 0.7
    net = net_with_norm()
    recipe = Recipe(lambda step: 1e-3, 16, 1.0, 0, policy, mix=how)
    train_one_epoch(net, make_optimizer("adamw", net, 1e-3, 0.0), task, recipe, 0)
    assert torch.equal(torch.cat(seen), epochs[0].targets)


def test_the_balanced_sampler_draws_classes_and_their_people_equally_often(task):
    labels, people = task.labels[task.train].numpy(), task.people.iloc[task.train].astype(str).to_numpy()
    weights = balanced_sampling_weights(labels, people)
    assert np.bincount(labels, weights, 18)[np.unique(labels)] == pytest.approx(1 / len(np.unique(labels)))
    for label in np.unique(labels):
        of_class = [weights[(labels == label) & (people == person)].sum() for person in set(people[labels == label])]
        assert of_class == pytest.approx([of_class[0]] * len(of_class))
    drawn = np.concatenate([epoch_order(task.train, 0, epoch, weights) for epoch in range(200)])
    sampled_priors = np.bincount(task.labels[drawn], minlength=18) / len(drawn)
    assert sampled_priors[np.unique(labels)] == pytest.approx(1 / len(np.unique(labels)), rel=0.15)


def test_the_learning_rate_finder_sees_where_training_gains_and_where_it_breaks(task):
    config = TrainSettings(lr=1e-3, weight_decay=0.0, batch_size=16)
    points = lr_finder.sweep(config, loop.make_train_state(config, net_with_norm(), []), task)
    rates, losses = zip(*points, strict=True)
    assert list(rates) == sorted(rates) and rates[0] == lr_finder.LOWEST
    best = int(np.argmin(losses))
    assert 1e-4 < rates[best] < 0.3 and losses[best] < 0.8 * losses[0] and losses[-1] > 1.2 * losses[best]
    assert lr_finder.suggestion(points) == pytest.approx(rates[best] / 10)
    assert (
        f"LR={rates[best] / 10:.1e}" in lr_finder.report(points)
        and lr_finder.report(points).count("*") <= lr_finder.ROWS + 1
    )


def test_the_finder_says_a_rate_and_leaves_no_run(drawn, tmp_path, capsys):
    given = {"sm_channel_train": drawn.train, "sm_model_dir": tmp_path, "name": "shufflenet_v2_x0_5", "batch_size": 8}
    flags = {**QUICK, **given, "find_lr": "true"}
    train.main([str(word) for key, value in flags.items() for word in (f"--{key}", value)])
    assert "suggestion" in capsys.readouterr().out and list(tmp_path.iterdir()) == []


def test_border_ages_are_left_out_of_training_only(drawn):
    table, _ = dataset.read_faces(drawn.train)
    table["years"] = np.where(np.arange(len(table)) % 3, 40.0, 58.0)
    sides = split_by_person(table, held_out_people(table, 0.5, 0, 0, seed=0))
    left = without_border_ages(table, sides)
    assert set(table["years"].iloc[left.train]) == {40.0} and left.validation is sides.validation
    assert len(left.train) == (table["years"].iloc[sides.train] == 40).sum()


def test_wrong_combinations_are_refused_before_any_work(drawn, trained, tmp_path):
    folders = {"SM_CHANNEL_TRAIN": drawn.train, "SM_MODEL_DIR": tmp_path}
    for mixing in ({"MIX": "mixup"}, {"BORDER_AGES": "soften"}):
        ((name, value),) = mixing.items()
        done = run_script("train.py", **folders, **QUICK, **mixing, LOSS="focal")
        refused(done, f"{name}={value}: LOSS=focal takes whole labels", "label_smoothing", f"leave {name} unset")
    eval_folders = {"SM_CHANNEL_EVAL": drawn.eval, "SM_CHANNEL_MODEL": trained, "SM_OUTPUT_DATA_DIR": tmp_path / "out"}
    done = run_script("inference.py", **eval_folders, OLD_FROM="58")
    refused(done, "OLD_FROM=58: expected runs of HEAD=factored", "found HEAD=flat in resnet18")
    refused(run_script("inference.py", **eval_folders, ENSEMBLE="vote"), "ENSEMBLE=vote: has no effect with one run")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture(scope="module")
def folds(drawn, tmp_path_factory):
    """A run of two folds with a factored head, all that is soft, and the average."""
    runs = tmp_path_factory.mktemp("folds")
    done = run_here(
        "train.py", SM_CHANNEL_TRAIN=drawn.train, SM_MODEL_DIR=runs, NAME="shufflenet_v2_x0_5", FOLDS="2",
        HEAD="factored", MIX="cutmix", BORDER_AGES="soften", EMA="true", SAMPLER="balanced", **QUICK,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "no report is written" not in done.stdout
    return runs


def test_folds_say_something_of_every_photograph_by_the_run_that_never_saw_it(drawn, folds):
    assert "never saw its person" in (folds / "shufflenet_v2_x0_5" / "report.html").read_text()
    group = folds / "shufflenet_v2_x0_5"
    table = pd.read_csv(group / "out_of_fold.csv", dtype={"person": str})
    faces, _ = dataset.read_faces(drawn.train)
    assert table["path"].tolist() == sorted(path.decode() for path in dataset.paths(faces))
    assert table.groupby("person")["fold"].nunique().eq(1).all() and set(table["fold"]) == {0, 1}
    for fold in (0, 1):
        validation = pd.read_csv(group / f"fold-{fold}" / "validation.csv")
        of_fold = table[table["fold"] == fold]
        assert of_fold["p7"].tolist() == validation.sort_values("path")["p7"].tolist()
    board = pd.read_csv(folds / "leaderboard.csv")
    assert board["run"].tolist() == ["shufflenet_v2_x0_5"]
    assert board["accuracy"].tolist() == pytest.approx([(table["label"] == table["predicted"]).mean()])
    assert not list(group.rglob("*.lock")) and not list(group.rglob("state-*"))


def test_folds_go_on_where_they_were_stopped(drawn, folds, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(folds, runs)
    group = runs / "shufflenet_v2_x0_5"
    (group / "result.json").unlink()
    (group / "fold-1" / "result.json").unlink()  # killed in this moment: there are weights, but no state
    (group / "fold-0" / "state-1.safetensors").write_bytes(b"left behind")
    before = (group / "fold-0" / "model.safetensors").stat().st_mtime_ns
    oof = (group / "out_of_fold.csv").read_bytes()
    checkpoints = tmp_path / "checkpoints"  # have come to be there: what is done is kept in them, and goes in the end
    done = run_here(
        "train.py", SM_CHANNEL_TRAIN=drawn.train, SM_MODEL_DIR=runs, NAME="shufflenet_v2_x0_5", FOLDS="2",
        HEAD="factored", MIX="cutmix", BORDER_AGES="soften", EMA="true", SAMPLER="balanced", **QUICK,
        SM_CHECKPOINT_DIR=checkpoints,
    )  # fmt: skip
    assert list(checkpoints.iterdir()) == []
    assert done.returncode == 0 and "fold 0 of 2: done before" in done.stdout, done.stderr
    assert (group / "fold-0" / "model.safetensors").stat().st_mtime_ns == before
    assert (group / "out_of_fold.csv").read_bytes() == oof
    assert sorted(path.name for path in runs.iterdir()) == ["leaderboard.csv", "shufflenet_v2_x0_5"]
    assert sorted(path.name for path in group.glob("fold-*")) == ["fold-0", "fold-1"]
    assert not list(group.rglob("state-*"))


def test_folds_that_are_done_outlive_the_machine_where_the_checkpoints_do(tmp_path):
    runs, checkpoints = tmp_path / "runs", tmp_path / "checkpoints"

    def started(photographs: str, **given):
        for folder in (runs, checkpoints):
            folder.mkdir(exist_ok=True)
        config = TrainSettings(sm_channel_train=tmp_path, sm_model_dir=runs, sm_checkpoint_dir=checkpoints, folds=2)
        config = config.model_copy(update=given)
        return config, folds_module.open_folds(config, {"settings": {}, "photographs": photographs, "code": {}})

    def folders_of(config):
        return config.sm_model_dir, config.sm_checkpoint_dir

    config, opening = started("a")
    with pytest.raises(KeyboardInterrupt), opening as (folder, done):
        assert done == []
        for fold, name in ((0, "result.json"), (1, "model.safetensors")):
            own = folds_module.fold_settings(config, folder, fold)
            (folder / own.name).mkdir()
            (folder / own.name / name).write_text("{}")
            (own.sm_checkpoint_dir / own.name).mkdir()
        (checkpoints / "resnet18" / "fold-1" / "state-1.safetensors").touch()
        folds_module.back_up(config, folder, 0)
        raise KeyboardInterrupt
    shutil.rmtree(runs)
    for other in (started("b")[1], started("a", resume="never")[1]):  # of something else: what is kept stays
        with other as (folder, done):
            assert folder.name != "resnet18" and done == []
        shutil.rmtree(checkpoints / folder.name)
    shutil.rmtree(runs)
    config, opening = started("a")
    with opening as (folder, done):
        assert (folder.name, done) == ("resnet18", [0])
        assert [path.name for path in folder.glob("fold-*/*")] == ["result.json"]
        assert (checkpoints / "resnet18" / "fold-1" / "state-1.safetensors").exists()
        folds_module.remove_backup(config, folder)
    assert list(checkpoints.iterdir()) == []
    # Begun without SM_CHECKPOINT_DIR, a fold goes on from the state that it has.
    config, opening = started("a", sm_checkpoint_dir=None)
    with opening as (folder, _):
        (folder / "fold-1").mkdir()
        (folder / "fold-1" / "state-1.safetensors").touch()
    config, opening = started("a")
    with opening as (folder, _):
        assert folders_of(folds_module.fold_settings(config, folder, 1)) == (folder, folder)
        assert folders_of(folds_module.fold_settings(config, folder, 0)) == (folder, checkpoints / folder.name)
        (folder / "result.json").write_text("{}")  # killed in this moment
    with started("a")[1] as (folder, _):
        assert folder.name == "resnet18-2" and not (checkpoints / "resnet18").exists()
    shutil.rmtree(checkpoints)
    # A single run of that name, of which only the state outlived the machine, is not taken for one of folds.
    (checkpoints / "resnet18").mkdir(parents=True)
    (checkpoints / "resnet18" / "state-1.safetensors").touch()
    shutil.rmtree(runs)
    with started("a")[1] as (folder, _):
        assert folder.name == "resnet18-2"


def test_several_runs_answer_together(drawn, trained, folds, tmp_path):
    shutil.copytree(folds, tmp_path / "runs")
    shutil.copytree(trained / "resnet18", tmp_path / "runs" / "resnet18")

    def infer(folder: str, **given) -> np.ndarray:
        folders = {"sm_channel_eval": drawn.eval, "sm_channel_model": tmp_path / "runs", "device": "cpu"}
        given = {**folders, "sm_output_data_dir": tmp_path / folder, "probabilities": "true", **given}
        inference.main([str(word) for key, value in given.items() for word in (f"--{key}", value)])
        return pd.read_csv(tmp_path / folder / "probabilities.csv").drop(columns=["ImageID", "ans"]).to_numpy()

    of_folds, of_resnet = infer("folds", name="shufflenet_v2_x0_5"), infer("resnet", name="resnet18")
    together = infer("all", name="resnet18, shufflenet_v2_x0_5")
    np.testing.assert_allclose(together, (of_resnet + 2 * of_folds) / 3, atol=2e-6)
    report = json.loads((tmp_path / "all" / "inference.json").read_text())
    names = [path.rpartition("/runs/")[2] for path in report["runs"]]
    assert names == ["resnet18", "shufflenet_v2_x0_5/fold-0", "shufflenet_v2_x0_5/fold-1"]
    of_years = infer(
        "of_years", sm_channel_model=tmp_path / "runs" / "shufflenet_v2_x0_5", name="fold-1", old_from="45"
    )
    net, header = model.load(folds / "shufflenet_v2_x0_5" / "fold-1" / "model.safetensors")
    correction = header.decision.prior_correction
    assert not np.allclose(correction.priors, correction.sampled_priors)  # of SAMPLER=balanced
    paths = dataset.read_eval(drawn.eval)[1]
    store = Store(np.array(paths, bytes), (32, 32))
    assert not store.fill()
    loader = Loader(store, device.choose("cpu", "fp32"), header.mean, header.std)
    outputs = factored_head.with_old_from(predict(net, loader, np.arange(len(paths))), 45)[:, :18].numpy()
    np.testing.assert_allclose(of_years, header.decision.with_old_from(45).probabilities(outputs), atol=2e-6)
    moved = infer("moved", name="shufflenet_v2_x0_5", old_from="45", tta="true", ensemble="vote")
    assert (moved[:, 2::3].sum(1) > of_folds[:, 2::3].sum(1)).all()  # the old band is wider
