"""Photographs with pseudo-labels: which of them join training, and what they change there and nowhere else."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, from_scratch, run_here, succeeded

import dataset
import loss
import train
from toolkit.data.split import held_out_people, split_by_person
from toolkit.labels import CLASSES, PROBABILITY_COLUMNS
from toolkit.scoring import pseudo_labels
from toolkit.system import device
from toolkit.system.console import InputError
from toolkit.training.sampler import balanced_sampling_weights


def write_table(path, p: np.ndarray, names) -> None:
    pd.DataFrame(p, columns=list(PROBABILITY_COLUMNS)).assign(ImageID=names, ans=0).to_csv(path, index=False)


@pytest.fixture
def sure(tmp_path):
    """A folder of five photographs, and probabilities: three are sure, one is not, and one could not be read."""
    p = np.full((5, 18), 0.02 / 17)
    p[np.arange(5), [3, 3, 16, 5, 0]] = 0.98
    p[3] = 1 / 18
    p[4] = np.nan
    names = [f"{number}.jpg" for number in range(5)]
    for name in names:
        (tmp_path / name).touch()
    write_table(tmp_path / "probabilities.csv", p.round(6), names)
    return tmp_path


def test_the_sure_ones_join_with_all_their_probabilities(sure):
    found = pseudo_labels.read(sure, sure / "probabilities.csv", 0.9)
    assert found.names.tolist() == [b"0.jpg", b"1.jpg", b"2.jpg"] and found.paths[2].endswith(b"/2.jpg")
    assert found.classes.tolist() == [3, 3, 16]
    np.testing.assert_allclose(found.probabilities.sum(1), 1, rtol=1e-6)
    assert found.probabilities[0, 3] == pytest.approx(0.98, abs=1e-5)
    lines = str(found).splitlines()
    assert lines[0] == "pseudo-labels: 3 of 5 photographs are at least 0.9 sure" and lines[2 + 3].split()[-1] == "2"
    assert found.record["photographs"][3] == 2 and sum(found.record["photographs"]) == 3
    assert len(pseudo_labels.read(sure, sure / "probabilities.csv", 0.05)) == 4


def test_wrong_probabilities_and_photographs_are_refused(sure):
    table = sure / "probabilities.csv"
    expected = r"PSEUDO_FROM=0\.99: no photograph of .* is that sure; lower it: the surest has 0\.98"
    with pytest.raises(InputError, match=expected):
        pseudo_labels.read(sure, table, 0.99)
    with pytest.raises(InputError, match="expected .*none.csv, as inference.py writes it, found none"):
        pseudo_labels.read(sure, sure / "none.csv", 0.9)
    (sure / "1.jpg").unlink()
    with pytest.raises(InputError, match="found 1 of 3 missing: 1.jpg"):
        pseudo_labels.read(sure, table, 0.9)
    text = table.read_text()
    for wrong, words in (("0.88", "whose sum in every row is 1"), ("x", "expected numbers in p0")):
        table.write_text(text.replace("0.98", wrong, 1))
        with pytest.raises(InputError, match=words):
            pseudo_labels.read(sure, table, 0.9)
    with pytest.raises(InputError, match=r"1 of 3 photographs cannot be read.*2.jpg \(it is empty\)"):
        table.write_text(text)
        (sure / "1.jpg").touch()
        pseudo_labels.read(sure, table, 0.9).refuse_bad({4: "a photograph with a label", 7: "it is empty"}, 5)


def test_they_are_trained_on_and_nothing_else(sure, drawn):
    """Batches and the loss's class counts include them; people's priors and validation do not."""
    table, _ = dataset.read_faces(drawn.train)
    sides = split_by_person(table, held_out_people(table, 0.5, 0, 0, seed=0))
    loader = SimpleNamespace(machine=device.choose("cpu", "fp32"), store=SimpleNamespace(checksums=np.zeros(1)))
    found = pseudo_labels.read(sure, sure / "probabilities.csv", 0.9)
    for head, sampler in (("flat", "shuffle"), ("factored", "balanced")):
        config = from_scratch(head=head, sampler=sampler, class_weights="none" if head == "factored" else "sqrt")
        plain, task = (
            train.make_task(config, train.Data(table, pseudo_labels=some), sides, loader) for some in (None, found)
        )
        n, rows = len(table), slice(len(table), None)
        assert task.train.tolist() == [*sides.train, n, n + 1, n + 2] and task.labelled == n
        assert task.validation.tolist() == sides.validation.tolist() and plain.digest() != task.digest()
        torch.testing.assert_close(task.targets[rows, :18], torch.from_numpy(found.probabilities))
        assert task.targets[rows, 18:].sum() == 0  # no age is taught
        assert (task.targets[:n, :18].argmax(1) == task.labels[:n]).all()
        assert task.prior_correction.priors == plain.prior_correction.priors
        weights = task.sampling_weights
        sampled = np.average(task.targets[task.train, :18].numpy(), 0, weights)
        np.testing.assert_allclose(task.prior_correction.sampled_priors, sampled, rtol=1e-6)
        assert weights is None or weights.sum() == pytest.approx(1)
        counts = torch.bincount(torch.cat([plain.labels[sides.train], torch.tensor([3, 3, 16])]), minlength=18)
        np.testing.assert_allclose(task.loss_weights, loss.for_training(config, counts).loss_weights)


def test_with_a_balanced_sampler_they_do_not_outvote_photographs_with_labels():
    """Ten people with five photographs of class 0 and one of class 12, and as many photographs with pseudo-labels."""
    people, classes = pd.Series(np.repeat([f"{number}" for number in range(10)], 6)), np.tile([0] * 5 + [12], 10)
    p = np.eye(CLASSES, dtype=np.float32)[np.repeat([0, 12, 17], [50, 10, 3])]
    pseudo = pseudo_labels.PseudoLabels(np.array([b"a"] * 63), np.array([b"a"] * 63), p, {})
    _, together, labels, _ = pseudo.joined(np.array([b"b"] * 60), people, classes, pd.Series([20.0] * 60))
    weights = balanced_sampling_weights(labels, together)
    assert weights[:60][classes == 0].sum() == pytest.approx(weights[60:][pseudo.classes == 0].sum())
    assert weights[:60][classes == 12].sum() == pytest.approx(weights[60:][pseudo.classes == 12].sum())
    assert weights[60:][pseudo.classes == 17].sum() == pytest.approx(1 / 3)


def test_folds_and_the_final_net_take_them_and_tell_of_them(drawn, trained, tmp_path):
    folders = {"SM_CHANNEL_EVAL": drawn.eval, "SM_CHANNEL_MODEL": trained, "SM_OUTPUT_DATA_DIR": tmp_path / "out"}
    succeeded(run_here("inference.py", **folders, DEVICE="cpu"))
    before = {path: path.stat().st_mtime_ns for path in drawn.eval.rglob("*")}
    given = QUICK | {"NAME": "shufflenet_v2_x0_5", "FOLDS": 2, "FINAL": "true", "PSEUDO_FROM": 0.01}
    given |= {"SM_CHANNEL_TRAIN": drawn.train, "SM_MODEL_DIR": tmp_path / "runs", "SM_CHANNEL_PSEUDO": drawn.eval}
    done = run_here("train.py", **given, PSEUDO_PROBABILITIES=tmp_path / "out" / "probabilities.csv")
    succeeded(done, "pseudo-labels: 42 of 42 photographs")
    group = tmp_path / "runs" / "shufflenet_v2_x0_5"
    assert len(pd.read_csv(group / "out_of_fold.csv")) == 24 * 7
    for run in (group / "fold-0", group / "final", group):
        recorded = json.loads((run / "settings.json").read_text())["pseudo_labels"]
        assert sum(recorded["photographs"]) == recorded["of"] == 42
    assert '<th scope="col">pseudo-labels</th>' in (group / "final" / "report.html").read_text()
    assert before == {path: path.stat().st_mtime_ns for path in drawn.eval.rglob("*")}
