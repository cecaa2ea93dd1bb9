"""The task of one run: what it learns from, what it is validated on, and its loss."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
import pandas as pd
import torch

from toolkit.config.settings import TrainSettings
from toolkit.data.loader import Loader
from toolkit.data.split import Split
from toolkit.labels import CLASSES
from toolkit.scoring.decision import Decision
from toolkit.scoring.prior_correction import PriorCorrection
from toolkit.scoring.pseudo_labels import PseudoLabels
from toolkit.system import distributed
from toolkit.system.console import InputError, listed
from toolkit.training.sampler import balanced_sampling_weights
from toolkit.training.targets import make_targets


class Labelled(NamedTuple):
    """The photographs with labels: columns of their table, in its order, which is that of the loader; shape (n,)."""

    names: np.ndarray  # bytes: the path below the image folder
    people: pd.Series  # ids
    classes: np.ndarray  # int64
    years: pd.Series  # of age; NaN if unknown


@dataclass(frozen=True)
class Task:
    """Arrays have a row for each photograph of the loader; `train` and `validation` are row numbers, int64, sorted."""

    loader: Loader
    names: np.ndarray  # bytes: the path below the image folder
    people: pd.Series  # ids
    labels: torch.Tensor  # int64, on the device: classes
    targets: torch.Tensor  # what the loss learns: the labels, or shares of classes and years (training/targets.py)
    train: np.ndarray
    validation: np.ndarray  # may be empty: then `decision` is given
    criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # outputs and targets (b, ...) -> loss
    sampling_weights: np.ndarray | None = None  # for the rows of `train`; None: each once an epoch
    loss_weights: np.ndarray = field(default_factory=lambda: np.ones(CLASSES))  # how much the loss counts each class
    smoothing: float = 0.0  # share of each label that the loss spreads over all classes
    pseudo_labels: PseudoLabels | None = None  # of the last photographs, which have no label of their own
    decision: Decision | None = None  # None: fitted on the validation photographs after each epoch
    decided_by: str = "validation people"

    @classmethod
    def of(
        cls,
        config: TrainSettings,
        loader: Loader,
        labelled: Labelled,
        pseudo: PseudoLabels | None,
        sides: Split,
        loss_for: Callable[[torch.Tensor], NamedTuple],
    ) -> Self:
        """The task of the split `sides` of the photographs with labels.

        Those with pseudo-labels follow them in the loader, and are trained on. `loss_for` gives the TrainingLoss of
        loss.py from the number of training photographs of each class.
        """
        device, count, train = loader.machine.device, len(labelled.names), sides.train
        names, people, classes, years = labelled
        if pseudo:
            names, people, classes, years = pseudo.joined(*labelled)
            train = np.concatenate([train, np.arange(count, len(names))])
        labels = torch.from_numpy(classes).to(device)
        years = torch.from_numpy(years.to_numpy("float32", copy=True)).to(device)
        soft, soften = config.mix != "none" or bool(pseudo), config.border_ages == "soften"
        targets = make_targets(labels, years, soft=soft, soften=soften, with_years=config.head == "factored")
        if pseudo:
            targets[count:, :CLASSES] = torch.from_numpy(pseudo.probabilities).to(device)
        loss = loss_for(torch.bincount(labels[train], minlength=CLASSES))
        is_balanced = config.sampler == "balanced"
        return cls(
            loader=loader,
            names=names,
            people=people,
            labels=labels,
            targets=targets,
            pseudo_labels=pseudo,
            train=train,
            validation=sides.validation,
            criterion=loss.criterion,
            sampling_weights=balanced_sampling_weights(classes[train], people.iloc[train]) if is_balanced else None,
            loss_weights=loss.loss_weights.cpu().numpy(),
            smoothing=loss.smoothing,
        )

    def digest(self) -> str:
        """A checksum of names and contents of the files, targets, sides and decision.

        Raises InputError if the processes have different ones.
        """
        of_labels = (self.targets.cpu().numpy(), self.train, self.validation, np.array(repr(self.decision)))
        digest = _sha256(*self._files(), *of_labels)
        digests = distributed.all_gather_object(digest)
        if len(set(digests)) > 1:
            raise InputError(f"expected the same photographs and labels in all processes, found {listed(set(digests))}")
        return digests[0]

    def record(self, fingerprint: dict, started: str) -> dict:
        """For settings.json: what the run learns from, its fingerprint without the settings, and when it began.

        `data` is a checksum of files and labels only: runs with other splits or targets of the same data share it.
        """
        of_data = {"data": _sha256(*self._files(), self.labels.cpu().numpy())}
        of_pseudo_labels = {"pseudo_labels": self.pseudo_labels.record} if self.pseudo_labels else {}
        of_fingerprint = {key: fingerprint[key] for key in ("photographs", "weights", "code")}
        return of_data | of_pseudo_labels | of_fingerprint | {"started": started}

    def _files(self) -> tuple[np.ndarray, np.ndarray]:
        """Names and checksums: other photographs may get the same names."""
        return self.names, self.loader.store.checksums

    @property
    def labelled(self) -> int:
        """How many photographs have labels: the first ones."""
        return len(self.labels) - len(self.pseudo_labels or ())

    @cached_property
    def prior_correction(self) -> PriorCorrection:
        """From the priors (all people who are not held out, also those whom BORDER_AGES leaves out) and sampled priors.

        Pseudo-labels are no facts about people, so they count in the sampled priors only.
        """
        labels = self.labels.cpu().numpy()
        people = np.delete(labels[: self.labelled], self.validation)
        if self.targets.is_floating_point():  # a softened label counts for both classes
            targets = self.targets[self.train, :CLASSES].cpu().double().numpy()
            sampled = np.average(targets, 0, self.sampling_weights)
        else:
            sampled = np.bincount(labels[self.train], self.sampling_weights, CLASSES)
        priors = np.bincount(people, minlength=CLASSES) / len(people)
        of_classes = (tuple(map(float, each)) for each in (priors, sampled / sampled.sum(), self.loss_weights))
        return PriorCorrection(*of_classes, self.smoothing)

    @cached_property
    def year_priors(self) -> tuple[float, ...]:
        """How common each year of age is in training, from 0; empty unless the targets have years (factored head)."""
        if not self.targets.is_floating_point() or self.targets.shape[1] == CLASSES:
            return ()
        years = self.targets[self.train, CLASSES:].cpu().double().numpy()
        return tuple(np.average(years, 0, self.sampling_weights).tolist())


def _sha256(*arrays: np.ndarray) -> str:
    """16 hexadecimal digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr(array.dtype).encode() + array.tobytes())
    return digest.hexdigest()[:16]
