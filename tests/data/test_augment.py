import numpy as np
import pytest
import torch
from metal import metal

from toolkit.data import augment, loader
from toolkit.data.augment import POLICIES, Policy, draw, prepare

MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (8, 40, 30, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_without_a_policy_pixels_are_normalised_and_nothing_else(pixels):
    batch = prepare(pixels, MEAN, STD)
    expected = (pixels.permute(0, 3, 1, 2) / 255 - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)
    torch.testing.assert_close(batch, expected)
    assert batch.shape == (8, 3, 40, 30) and batch.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(prepare(pixels, MEAN, STD, POLICIES["none"], draw(0, 0, 8)), expected)


@pytest.mark.parametrize("name", ["flip", "light", "strong"])
def test_what_a_photograph_becomes_depends_on_seed_epoch_and_index_alone(pixels, name):
    draws = draw(seed=1, epoch=2, count=8)
    whole = prepare(pixels, MEAN, STD, POLICIES[name], draws)
    some = torch.tensor([6, 1])
    torch.testing.assert_close(prepare(pixels[some], MEAN, STD, POLICIES[name], draws[some]), whole[some])
    for other in (draw(2, 2, 8), draw(1, 3, 8)):
        assert not torch.equal(prepare(pixels, MEAN, STD, POLICIES[name], other), whole)


@pytest.mark.parametrize("name", ["none", "strong"])
def test_a_loader_that_plans_some_batches_at_once_gives_what_each_photograph_gets_alone(task, name, monkeypatch):
    monkeypatch.setattr(loader, "PLANNED_AT_ONCE", 12)
    batches, policy = loader.split_into_batches(np.arange(40), 7), POLICIES[name]
    draws, pixels = draw(0, 0, 40), task.loader.store.gather(torch.arange(40))
    found = torch.cat(list(task.loader.load(batches, policy, draws)))
    alone = [prepare(pixels[[i]], task.loader.mean, task.loader.std, policy, draws[[i]]) for i in range(40)]
    assert torch.equal(found, torch.cat(alone))


def test_each_photograph_of_a_batch_has_draws_of_its_own():
    same = torch.randint(0, 256, (1, 40, 30, 3), dtype=torch.uint8).expand(16, -1, -1, -1)
    batch = prepare(same, MEAN, STD, POLICIES["light"], draw(0, 0, 16))
    assert len({tuple(photograph.flatten().tolist()) for photograph in batch}) == 16


@pytest.mark.parametrize("name", POLICIES)
def test_apples_gpu_which_has_no_float64_augments_alike(pixels, name):
    given = pixels, MEAN, STD, POLICIES[name], draw(0, 0, 8)
    pixels, mean, std, policy, draws = given
    found = prepare(metal(pixels), metal(mean), metal(std), policy, metal(draws))
    torch.testing.assert_close(found.as_subclass(torch.Tensor), prepare(*given))


def centre_draws(**given: float) -> torch.Tensor:
    """Draws for one photograph that change nothing, but for those given."""
    neutral = dict.fromkeys(augment.DRAWS, 0.5) | {"flip": 1.0, "erase": 1.0}
    return torch.tensor([[(neutral | given)[name] for name in augment.DRAWS]])


def test_flip_shift_scale_and_light_do_what_they_say(pixels):
    one = pixels[:1]
    plain = prepare(one, MEAN, STD)

    def become(policy, **given):
        return prepare(one, MEAN, STD, policy, centre_draws(**given))

    assert torch.equal(become(POLICIES["strong"]), plain)
    torch.testing.assert_close(become(Policy(flip=0.5), flip=0.0), plain.flip(3))
    down = become(Policy(shift=0.1), down=1.0)  # 0.1 of 40 rows
    torch.testing.assert_close(down[:, :, :36], plain[:, :, 4:])
    torch.testing.assert_close(down[:, :, 36:], plain[:, :, -1:].expand(-1, -1, 4, -1))
    twice = become(Policy(scale=1.0), scale=1.0)
    torch.testing.assert_close(twice[:, :, 0::2], twice[:, :, 1::2])  # each row appears twice
    torch.testing.assert_close(become(Policy(brightness=0.5), brightness=1.0), plain + 0.5)
    torch.testing.assert_close(become(Policy(contrast=1.0), contrast=1.0), plain * 2)
    torch.testing.assert_close(become(Policy(contrast=1.0), contrast=0.0), plain / 2)


def test_erasing_blanks_one_rectangle_of_some_photographs():
    white = torch.full((400, 40, 30, 3), 255, dtype=torch.uint8)
    blank = prepare(white, MEAN, STD, Policy(erase=0.25), draw(0, 0, 400)) == 0
    erased = blank.flatten(1).any(1)
    assert 60 < erased.sum() < 140
    for rectangle in blank[erased][:, 0]:
        rows, columns = rectangle.any(1), rectangle.any(0)
        assert rectangle.sum() == rows.sum() * columns.sum()
        assert 3 <= rows.sum() <= 17 and 2 <= columns.sum() <= 13
