"""Several runs answer together."""

import json
import shutil

import numpy as np
import pandas as pd
from conftest import flags

import dataset
import inference
import model
from toolkit.data.framing import Framing
from toolkit.data.loader import Loader
from toolkit.data.store import Store
from toolkit.models import factored_head
from toolkit.models.predict import predict
from toolkit.runs.weights import Header
from toolkit.serving import ensemble
from toolkit.system import device


def test_a_size_in_the_environment_that_is_not_the_runs_is_told(monkeypatch, capsys, tmp_path):
    header = Header("a", "resnet18", "flat", Framing((128, 96)), (0.5,) * 3, (0.2,) * 3)
    for name, value in (("size", "128x96"), ("FIT", "squeeze"), ("CROP", "1")):
        monkeypatch.setenv(name, value)
    ensemble.note_framing({tmp_path: header})
    monkeypatch.setenv("CROP", "auto")
    ensemble.note_framing({tmp_path: header})
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("size", "'64x48'")
    ensemble.note_framing({tmp_path: header})
    assert capsys.readouterr().out == "note: SIZE=64x48 is for train.py: a was trained with 128x96, and keeps it\n"


def test_several_runs_answer_together(drawn, trained, folds, tmp_path):
    shutil.copytree(folds, tmp_path / "runs")
    shutil.copytree(trained / "resnet18", tmp_path / "runs" / "resnet18")

    def infer(folder: str, **given) -> np.ndarray:
        folders = {"sm_channel_eval": drawn.eval, "sm_channel_model": tmp_path / "runs"}
        folders |= {"sm_output_data_dir": tmp_path / folder}
        settings = {"device": "cpu", "precision": "fp32", "probabilities": "true", "adapt_priors": "false"}
        inference.main(flags(**folders | settings | given))
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
    store = Store(np.array(paths, bytes), header.framing)
    assert not store.fill()
    loader = Loader(store, device.choose("cpu", "fp32"), header.mean, header.std)
    outputs = factored_head.with_old_from(predict(net, loader, np.arange(len(paths))), 45)[:, :18].numpy()
    np.testing.assert_allclose(of_years, header.decision.with_old_from(45).probabilities(outputs), atol=2e-6)
    moved = infer("moved", name="shufflenet_v2_x0_5", old_from="45", tta="true", ensemble="vote")
    assert (moved[:, 2::3].sum(1) > of_folds[:, 2::3].sum(1)).all()  # the old band is wider
