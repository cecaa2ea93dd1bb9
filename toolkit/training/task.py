"""What one run learns from and is validated on."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from toolkit.labels import CLASSES
from toolkit.scoring.decision import Prior
from toolkit.system import distributed
from toolkit.system.console import InputError, listed
from toolkit.training import step


@dataclass(frozen=True)
class Data:
    """The faces: path (bytes) and person of each photograph, the rows of both sides, and all that the net needs.

    Rows are indices of photographs: int64, sorted. `chances` are those of each photograph of training to be drawn, the
    next time and again, shape (n,); None takes each once. `emphasis` says how much the loss makes of each class: (18,).
    """

    paths: np.ndarray
    people: pd.Series
    train: np.ndarray
    validation: np.ndarray
    faces: step.Faces
    chances: np.ndarray | None = None
    emphasis: np.ndarray | None = None

    def digest(self) -> str:
        """A checksum over all of it but the pixels. Raises InputError where another process has another one."""
        digest = hashlib.sha256()
        for array in (self.paths, self.faces.targets.cpu().numpy(), self.train, self.validation):
            digest.update(repr(array.dtype).encode() + array.tobytes())
        found = distributed.all_gather_object(digest.hexdigest()[:16])
        if len(set(found)) > 1:
            raise InputError(f"expected the same photographs and labels in all processes, found {listed(set(found))}")
        return found[0]

    @cached_property
    def prior(self) -> Prior:
        """How common the classes are among all people but those of validation, and among what the net learns from."""
        labels, targets = self.faces.labels.cpu().numpy(), self.faces.targets
        people = np.delete(labels, self.validation)  # also those whom BORDER_AGES leaves out
        if targets.is_floating_point():  # softened ones count for both classes
            shown = np.average(targets[self.train, :CLASSES].cpu().double().numpy(), 0, self.chances)
        else:
            shown = np.bincount(labels[self.train], self.chances, CLASSES)
        emphasis = np.ones(CLASSES) if self.emphasis is None else self.emphasis
        shares = np.bincount(people, minlength=CLASSES) / len(people)
        return Prior(*(tuple(map(float, values)) for values in (shares, shown / shown.sum(), emphasis)))

    @cached_property
    def year_shares(self) -> tuple[float, ...]:
        """The shares of the ages that the factored head is shown, from 0."""
        years = self.faces.targets[self.train, CLASSES:].cpu().double().numpy()
        return tuple(np.average(years, 0, self.chances).tolist())
