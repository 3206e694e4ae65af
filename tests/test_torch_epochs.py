from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolog.callbacks.torch.epochs import NOBODY, Tracker, Trained, Validated

if TYPE_CHECKING:
    from autolog.callbacks.torch.passes import Pass

NODES = itertools.count()
"""What computes values, a number each."""


class Numbers(list[float]):
    """The simplest `Values`."""

    @property
    def known(self) -> int:
        return len(self)


class SequentialSampler:
    """Goes by its name, as torch's own does."""


class LoaderIterator:
    """Something that can be referred to weakly."""


class Dataset:
    """Something that can be referred to weakly."""


class Loader:
    def __init__(self, dataset: object = None, sampler: object = None) -> None:
        self.dataset = Dataset() if dataset is None else dataset
        self.sampler = sampler or SequentialSampler()


class Loop:
    """What torch's hooks would tell of a training loop."""

    def __init__(self) -> None:
        self.now = 0.0
        self.tracker = Tracker(Numbers, self.clock)

    def clock(self) -> float:
        """A second passes each time that somebody looks."""
        self.now += 1
        return self.now

    def batches(self, loader: Loader, sizes: Sequence[int]) -> Iterator[int]:
        """Begin to iterate a loader; dropping the result drops the loader's iterator."""
        iterator = LoaderIterator()
        return self._rest(self.tracker.begin(loader, iterator), sizes, loader, iterator)

    def endless(self, loader: Loader, sizes: Sequence[int]) -> Iterator[int]:
        """As `batches`, as the hooks tell it of an iterator that outlives an epoch."""
        iterator = LoaderIterator()
        begun = self.tracker.begin(loader, iterator)
        for size in sizes:
            begun = begun.successor or begun
            self.tracker.advance(begun, size)
            yield size

    def _rest(self, begun: Pass, sizes: Sequence[int], *_kept: object) -> Iterator[int]:
        for size in sizes:
            self.tracker.advance(begun, size)
            yield size
        self.tracker.exhaust(begun)

    def step(self, owner: int = 0) -> None:
        self.tracker.enter_step()
        assert self.tracker.leave_step()
        self.tracker.step(owner)

    def train(self, loss: float, divisor: int = 1, owner: int = 0) -> None:
        self.tracker.loss(loss, divisor)
        self.step(owner)

    def take(self) -> list[Any]:
        """The finished epochs: number and mean losses of trainings, validations as they are."""
        finished, self.tracker.finished = self.tracker.finished, []
        return [(e.number, means(e)) if isinstance(e, Trained) else e for e in finished]

    def losses(self) -> list[float]:
        """The finished training epochs of one optimizer."""
        return [epoch[1][0] for epoch in self.take() if isinstance(epoch, tuple)]


def means(epoch: Trained) -> dict[int, float]:
    """The mean loss of each optimizer."""
    return {owner: total / weight for owner, (total, weight) in epoch.sums.items()}


@pytest.fixture
def loop() -> Loop:
    """A loop of a thread of its own."""
    return Loop()


def mean(losses: Sequence[float], sizes: Sequence[int]) -> float:
    """What a person would compute."""
    return sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)


def test_an_epoch_is_weighted_by_samples(loop: Loop) -> None:
    """The mean of an epoch counts each batch by its samples, the short last one too."""
    for _, loss in zip(loop.batches(Loader(), [16, 16, 4]), (3.0, 2.0, 1.0), strict=False):
        loop.train(loss)
    loop.tracker.finish()
    assert loop.losses() == [mean([3, 2, 1], [16, 16, 4])]


def test_an_epoch_ends_with_its_loader(loop: Loop) -> None:
    """The epoch is there as soon as the loader has no more batches, and the next one counts on."""
    loader = Loader()
    for number in range(3):
        for _ in loop.batches(loader, [2, 2]):
            loop.train(1.0)
        assert [number for number, _ in loop.take()] == [number]


def test_losses_of_one_batch_are_parts(loop: Loop) -> None:
    """What is propagated back in parts before a step adds up to the loss of the batch."""
    for _ in loop.batches(Loader(), [3, 1]):
        loop.tracker.loss(1.5)
        loop.train(0.5)
    assert loop.losses() == [2.0]


def test_steps_on_one_batch_are_repetitions(loop: Loop) -> None:
    """Several steps on one batch, each with its loss, are averaged and not added."""
    for _ in loop.batches(Loader(), [3, 1]):
        loop.train(3.0)
        loop.train(1.0)
    assert loop.losses() == [2.0]


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=12),
    accumulated=st.integers(1, 5),
    data=st.data(),
)
def test_accumulated_losses_are_multiplied_back(
    sizes: list[int], accumulated: int, data: st.DataObject
) -> None:
    """With ``loss / k`` and a step every k batches the epoch is the mean of the whole losses."""
    numbers = st.floats(-100, 100)
    losses = data.draw(st.lists(numbers, min_size=len(sizes), max_size=len(sizes)))
    accumulated = min(accumulated, len(sizes))
    loop = Loop()
    for index, _ in enumerate(loop.batches(Loader(), sizes)):
        loop.tracker.loss(losses[index] / accumulated, accumulated)
        if (index + 1) % accumulated == 0 or index + 1 == len(sizes):
            loop.step()
    assert loop.losses() == [pytest.approx(mean(losses, sizes), abs=1e-9)]


def test_another_divisor_belongs_to_the_loss(loop: Loop) -> None:
    """A loss divided by a number that is not the number of accumulated batches stays as it is."""
    for index, _ in enumerate(loop.batches(Loader(), [8, 8, 8, 8])):
        loop.tracker.loss(2.0, 8)
        if index % 2:
            loop.step()
    assert loop.losses() == [2.0]


def test_a_last_group_without_step_counts(loop: Loop) -> None:
    """Batches whose gradients are never stepped on are batches of the epoch all the same."""
    for index, _ in enumerate(loop.batches(Loader(), [1, 1, 1])):
        loop.tracker.loss([1.0, 2.0, 6.0][index])
        if index == 1:
            loop.step()
    assert loop.losses() == [3.0]


def test_one_step_after_the_loop(loop: Loop) -> None:
    """Gradients of the whole loader with one step behind the loop are one epoch."""
    for size in loop.batches(Loader(), [3, 1]):
        loop.tracker.loss(float(size))
    assert loop.take() == []
    loop.step()
    assert loop.losses() == [(3 * 3 + 1) / 4]


def test_gradients_without_a_step_are_no_epoch(loop: Loop) -> None:
    """A pass in which losses are propagated back and nothing steps is not a training."""
    for _ in loop.batches(Loader(), [1, 1]):
        loop.tracker.loss(1.0)
    loop.tracker.finish()
    assert loop.take() == []


def test_each_optimizer_has_its_mean(loop: Loop) -> None:
    """Two optimizers in one pass get a mean each, over the batches that they stepped on."""
    for index, _ in enumerate(loop.batches(Loader(), [2, 2, 1])):
        loop.train(float(index), owner=0)
        if index != 1:
            loop.train(10.0 * index, owner=1)
    assert loop.take() == [(0, {0: 4 / 5, 1: 20 / 3})]


def test_a_closure_counts_once(loop: Loop) -> None:
    """An optimizer that evaluates its closure several times in a step gives its first loss."""
    for _ in loop.batches(Loader(), [4]):
        loop.tracker.enter_step()
        for loss in (5.0, 4.0, 3.0):
            loop.tracker.loss(loss)
        assert loop.tracker.leave_step()
        loop.tracker.step(0)
    assert loop.losses() == [5.0]


def test_only_the_outermost_step_is_one(loop: Loop) -> None:
    """The step of an optimizer within the step of one that wraps it is not another step."""
    loop.tracker.enter_step()
    loop.tracker.enter_step()
    assert not loop.tracker.leave_step()
    assert loop.tracker.leave_step()


def test_an_exception_in_a_step_costs_one_batch(loop: Loop) -> None:
    """After a step that raised, the next batch counts again."""
    batches = loop.batches(Loader(), [1, 1])
    next(batches)
    loop.tracker.loss(1.0)
    loop.tracker.enter_step()
    next(batches)
    loop.train(3.0)
    loop.tracker.finish()
    assert loop.losses() == [2.0]


def test_break_ends_the_epoch_at_the_next_pass(loop: Loop) -> None:
    """A loop left by ``break`` is an epoch of the batches it had, also with a loader made anew."""
    for number in range(2):
        for index, _ in enumerate(loop.batches(Loader(), [1] * 10)):
            loop.train(float(index + number))
            if index == 2:
                break
    assert loop.losses() == [1.0]
    loop.tracker.finish()
    assert loop.losses() == [2.0]


def test_break_with_an_iterator_that_is_kept(loop: Loop) -> None:
    """Iterating the same loader again ends the pass that somebody still holds."""
    loader, kept = Loader(), []
    for _ in range(2):
        batches = loop.batches(loader, [1] * 10)
        kept.append(batches)
        next(batches)
        loop.train(1.0)
    assert loop.losses() == [1.0]


def test_a_wrapper_that_looks_ahead(loop: Loop) -> None:
    """Where the loader ends before its last batch is used, each loss still meets its own batch."""
    losses, sizes = [4.0, 3.0, 2.0, 1.0], [5, 5, 5, 1]
    for _ in range(2):
        batches = loop.batches(Loader(), sizes)
        next(batches)
        for loss in losses:
            next(batches, None)
            loop.train(loss)
        assert loop.losses() == [mean(losses, sizes)]


def test_two_optimizers_behind_a_wrapper_that_looks_ahead(loop: Loop) -> None:
    """The epoch waits until both optimizers have had the last batch."""
    batches = loop.batches(Loader(), [2, 1])
    next(batches)
    for loss in (3.0, 6.0):
        next(batches, None)
        loop.train(loss, owner=0)
        loop.train(-loss, owner=1)
    assert loop.take() == [(0, {0: 4.0, 1: -4.0})]


def test_loaders_zipped(loop: Loop) -> None:
    """Of two loaders that are zipped the one that moved last owns the losses, until both end."""
    first, second = loop.batches(Loader(), [9, 9]), loop.batches(Loader(), [3, 1])
    for loss, _ in enumerate(zip(first, second, strict=False)):
        loop.train(float(loss))
    assert loop.losses() == [1 / 4]


def test_loaders_in_turn(loop: Loop) -> None:
    """Two loaders that are drawn from in turn stay two passes, one epoch each."""
    first, second = loop.batches(Loader(), [1, 1]), loop.batches(Loader(), [1, 1])
    for loss in (1.0, 2.0):
        next(first)
        loop.train(loss)
        next(second)
        loop.train(10 * loss)
    assert next(first, None) is next(second, None) is None
    assert loop.losses() == [1.5, 15.0]


def test_a_batch_looked_at_before(loop: Loop) -> None:
    """A batch drawn to look at its shape is no epoch."""
    loader = Loader()
    next(loop.batches(loader, [4, 4]))
    for _ in loop.batches(loader, [4, 4]):
        loop.train(1.0)
    assert loop.take() == [(0, {0: 1.0})]


def test_one_batch_trained_on_for_ever(loop: Loop) -> None:
    """Steps on a batch whose loader is gone are not gathered into one endless epoch."""
    next(loop.batches(Loader(), [4, 4]))
    for loss in (3.0, 2.0, 1.0):
        loop.train(loss)
    assert loop.losses() == [3.0]
    assert loop.tracker.current.source is None


def test_without_a_loader_each_step_stands_alone(loop: Loop) -> None:
    """A loop without a loader has step losses and no epochs."""
    stepped = loop.tracker.current
    loop.tracker.loss(2.0)
    loop.train(1.0)
    assert stepped.step_loss(0) == 3.0
    assert loop.tracker.current is not stepped
    loop.tracker.finish()
    assert loop.take() == []


def test_losses_that_nobody_steps_on_are_forgotten(loop: Loop) -> None:
    """Without loader and optimizer, losses do not gather for ever."""
    for number in range(2500):
        loop.tracker.loss(float(number))
    assert len(loop.tracker.current.losses.values) <= 1000


def test_a_step_knows_its_mean(loop: Loop) -> None:
    """The loss of one step is the mean over the samples of the batches it accumulated."""
    batches = loop.batches(Loader(), [3, 1, 9])
    for loss in (1.0, 5.0):
        next(batches)
        loop.tracker.loss(loss / 2, 2)
    loop.step()
    assert loop.tracker.current.step_loss(0) == 2.0


# -- validation ------------------------------------------------------------------------------------


def trained(loop: Loop, loader: Loader) -> None:
    """Train one epoch and forget it."""
    for _ in loop.batches(loader, [2, 2]):
        loop.train(1.0)
    loop.take()


def validated(loop: Loop, loader: Loader, scores: Sequence[float], *, graph: bool = False) -> None:
    """Give a criterion's value for each of two batches."""
    for _, score in zip(loop.batches(loader, [3, 1]), scores, strict=False):
        assert loop.tracker.wants_score()
        loop.tracker.score(score, next(NODES) if graph else None)


def test_a_validation_is_weighted_by_samples(loop: Loop) -> None:
    """A pass with values of a criterion and no loss is a validation of the newest epoch."""
    for number in range(2):
        trained(loop, Loader())
        validated(loop, Loader(), [1.0, 5.0])
        assert loop.take() == [Validated(number, 2.0)]


def test_a_validation_with_gradients_on(loop: Loop) -> None:
    """Values that could still be propagated back are a validation once the next pass begins."""
    trained(loop, Loader())
    validated(loop, Loader(), [1.0, 5.0], graph=True)
    assert loop.take() == []
    loop.tracker.begin(Loader(), LoaderIterator())
    assert loop.take() == [Validated(0, 2.0)]


def test_criterion_of_a_training_is_no_validation(loop: Loop) -> None:
    """The criterion's value of a batch whose loss is propagated back is forgotten."""
    for _ in loop.batches(Loader(), [1, 1]):
        if loop.tracker.wants_score():
            loop.tracker.score(7.0, next(NODES))
        loop.train(1.0)
    assert loop.take() == [(0, {0: 1.0})]


def test_a_validation_within_an_epoch(loop: Loop) -> None:
    """A validation in the middle of an epoch carries that epoch's number; the epoch goes on."""
    trained(loop, Loader())
    for index, _ in enumerate(loop.batches(Loader(), [1, 1])):
        loop.train(float(index))
        if index == 0:
            validated(loop, Loader(), [4.0, 4.0])
    assert loop.take() == [Validated(1, 4.0), (1, {0: 0.5})]


def test_training_data_is_no_validation(loop: Loop) -> None:
    """Going over the training data again without stepping is not taken for a validation."""
    loader = Loader()
    trained(loop, loader)
    validated(loop, loader, [1.0, 1.0])
    validated(loop, Loader(loader.dataset), [1.0, 1.0])
    assert loop.take() == []


def test_another_part_of_the_training_dataset_is(loop: Loop) -> None:
    """The same dataset under a sampler of the user's is another part of it."""
    dataset = Dataset()
    trained(loop, Loader(dataset, sampler=object()))
    validated(loop, Loader(dataset, sampler=object()), [1.0, 1.0])
    assert loop.take() == [Validated(0, 1.0)]


def test_datasets_validated_in_one_epoch_are_told_apart(loop: Loop) -> None:
    """A second dataset in the same epoch gets a number of its own, the same one a second time."""
    validation, test = Loader(), Loader()
    trained(loop, Loader())
    for loader in (validation, test, validation):
        validated(loop, loader, [1.0, 1.0])
    assert [epoch.dataset for epoch in loop.take()] == [0, 1, 0]


def test_loaders_made_for_one_pass_are_told_by_their_dataset(loop: Loop) -> None:
    """Neither training nor validation data is mistaken when each pass has a loader of its own."""
    data, validation = Dataset(), Dataset()
    trained(loop, Loader(data))
    for dataset in (data, validation, data, validation):
        validated(loop, Loader(dataset), [1.0, 1.0])
    assert loop.take() == [Validated(0, 1.0)] * 2


def test_criteria_that_add_up_somehow_give_no_score(loop: Loop) -> None:
    """With several values a batch nobody knows the sum that the user means."""
    trained(loop, Loader())
    for _ in loop.batches(Loader(), [1]):
        loop.tracker.score(1.0)
        loop.tracker.score(2.0)
    assert loop.take() == [Validated(0, None)]


def scored(loop: Loop, loss: float, node: int, *, divisor: int = 1, is_sum: bool = False) -> None:
    """Train on what a criterion gives, or on what another node makes of it."""
    if loop.tracker.wants_score():
        loop.tracker.score(loss, 1, is_sum=is_sum)
    loop.tracker.loss(loss / divisor, divisor, node)
    loop.step()


@pytest.mark.parametrize("node", [1, 2])
def test_a_loss_that_is_more_than_its_criterion(loop: Loop, node: int) -> None:
    """Where what is propagated back is not the criterion's value, validations are of a part."""
    for _ in loop.batches(Loader(), [2, 2]):
        scored(loop, 1.0, node)
        validated(loop, Loader(), [1.0, 5.0])
    validated(loop, Loader(), [1.0, 5.0])
    validations = [each for each in loop.take() if isinstance(each, Validated)]
    assert [each.is_partial for each in validations] == [node == 2] * 3


def test_a_loss_that_is_propagated_back_in_parts(loop: Loop) -> None:
    """A criterion whose value is one of several losses of a batch gives but a part of them."""
    for _ in loop.batches(Loader(), [2, 2]):
        if loop.tracker.wants_score():
            loop.tracker.score(1.0, 1)
        loop.tracker.loss(1.0, 1, 1)
        loop.train(0.5)
    validated(loop, Loader(), [1.0, 5.0])
    assert loop.take() == [(0, {0: 1.5}), Validated(0, 2.0, is_partial=True)]


def test_another_training_has_another_loss(loop: Loop) -> None:
    """That a training's loss was more than its criterion says nothing of the next training."""
    for node in (2, 1):
        batches = loop.batches(Loader(), [1])
        next(batches)
        loop.tracker.score(1.0, 1)
        loop.tracker.loss(1.0, 1, node)
        loop.tracker.restart()
        loop.step()
        assert next(batches, None) is None
        loop.take()
        validated(loop, Loader(), [1.0, 5.0])
        assert loop.take() == [Validated(0, 2.0, is_partial=node == 2)]


@pytest.mark.parametrize("divisor", [1, 2, 4])
def test_sums_over_a_batch(loop: Loop, divisor: int) -> None:
    """Sums count once a batch, a sum divided by the samples is a mean, another one is neither."""
    for _ in loop.batches(Loader(), [2, 2]):
        scored(loop, 6.0, 1, divisor=divisor, is_sum=True)
    for _ in loop.batches(Loader(), [3, 1]):
        loop.tracker.score(6.0, is_sum=True)
    epoch, validation = loop.take()
    assert validation == Validated(0, 3.0, is_partial=divisor == 4)
    assert epoch == (0, {0: {1: 3.0, 2: 3.0, 4: 1.5}[divisor]})


# -- a new training --------------------------------------------------------------------------------


def test_another_training_starts_at_epoch_0(loop: Loop) -> None:
    """What the old training left open ends with it; the new one counts its own epochs."""
    kept = loop.batches(Loader(), [1, 1])
    next(kept)
    loop.train(1.0)
    fresh = loop.batches(Loader(), [1])
    next(fresh)
    loop.tracker.loss(5.0)
    loop.tracker.restart()
    assert loop.take() == [(0, {0: 1.0})]
    loop.step()
    next(fresh, None)
    assert loop.take() == [(0, {0: 5.0})]


@pytest.mark.parametrize("late", [Tracker.advance, lambda tracker, over, _: tracker.exhaust(over)])
def test_a_pass_that_is_over_stays_over(
    loop: Loop, late: Callable[[Tracker, Pass, int], None]
) -> None:
    """Events of a pass that has been closed change nothing."""
    loader = Loader()
    over = loop.tracker.begin(loader, LoaderIterator())
    for _ in loop.batches(loader, [1]):
        loop.train(1.0)
    late(loop.tracker, over, 3)
    assert loop.take() == [(0, {0: 1.0})]


# -- loops whose turns are epochs ------------------------------------------------------------------


class Turns:
    """What ``autolog.epochs`` tells the tracker."""

    def __init__(self, loop: Loop, count: int) -> None:
        self._tracker, self._count = loop.tracker, count

    def __iter__(self) -> Iterator[int]:
        holder = LoaderIterator()
        for index in range(self._count):
            self._tracker.enter_turn(index, holder)
            yield index
            self._tracker.leave_turn()


def test_a_turn_is_an_epoch_of_its_steps(loop: Loop) -> None:
    """Without a loader each step of a turn counts alike; parts of a step add up."""
    for turn in Turns(loop, 2):
        loop.train(1.0 + turn)
        loop.tracker.loss(2.0)
        loop.train(3.0)
    assert loop.take() == [(0, {0: 3.0}), (1, {0: 3.5})]


def test_a_turn_gathers_the_passes_in_it(loop: Loop) -> None:
    """Loaders trained on in one turn are one epoch, weighted by samples; a validation is its."""
    first, second, validation = Loader(), Loader(), Loader()
    for _ in Turns(loop, 2):
        for _ in loop.batches(first, [4, 4]):
            loop.train(1.0)
        for _ in loop.batches(second, [2]):
            loop.train(6.0)
        validated(loop, validation, [1.0, 5.0])
    expected = {0: (8 * 1 + 2 * 6) / 10}
    assert loop.take() == [Validated(0, 2.0), (0, expected), Validated(1, 2.0), (1, expected)]


def test_a_loader_without_end_is_cut_by_turns(loop: Loop) -> None:
    """An iterator that is drawn from in several turns gives each its own batches."""
    batches = loop.endless(Loader(), [4, 2, 1, 1, 8])
    for turn in Turns(loop, 2):
        for loss in (1.0, 4.0):
            next(batches)
            loop.train(loss * (turn + 1))
    next(batches)
    loop.train(7.0)
    loop.tracker.finish()
    assert loop.take() == [(0, {0: 2.0}), (1, {0: 5.0}), (2, {0: 7.0})]


def test_turns_left_by_break(loop: Loop) -> None:
    """The turn that ``break`` left ends with the next loop, which counts on."""
    for turn in Turns(loop, 5):
        loop.train(float(turn))
        if turn == 1:
            break
    for _ in Turns(loop, 1):
        loop.train(9.0)
    assert loop.take() == [(0, {0: 0.0}), (1, {0: 1.0}), (2, {0: 9.0})]


def test_losses_after_a_break_are_not_of_the_turn(loop: Loop) -> None:
    """What trains behind a loop of epochs, with no mark of its own, is no epoch."""
    for _ in Turns(loop, 5):
        loop.train(1.0)
        break
    loop.train(5.0)
    loop.tracker.finish()
    assert loop.take() == [(0, {0: 1.0})]


def test_a_turn_without_training_keeps_the_numbers(loop: Loop) -> None:
    """Epochs bear the numbers that the loop gives them; those without a step leave a gap."""
    for turn in Turns(loop, 3):
        if turn != 1:
            loop.train(float(turn))
    assert loop.take() == [(0, {0: 0.0}), (2, {0: 2.0})]


def test_another_training_in_the_middle_of_a_turn(loop: Loop) -> None:
    """What trained before in the turn ends with the old training; numbers are those of the loop."""
    for turn in Turns(loop, 2):
        for _ in loop.batches(Loader(), [1]):
            loop.train(1.0)
        next(fresh := loop.batches(Loader(), [1]))
        loop.tracker.loss(5.0)
        if turn == 1:
            loop.tracker.restart()
        loop.step()
        next(fresh, None)
    assert loop.take() == [(0, {0: 3.0}), (1, {0: 1.0}), (1, {0: 5.0})]


# -- what is told beside the losses ----------------------------------------------------------------


def test_seconds_and_steps_of_an_epoch(loop: Loop) -> None:
    """An epoch lasts from its begin to its last step, whatever comes before it is closed."""
    batches = loop.batches(Loader(), [1, 1])  # begins at 1
    next(batches)
    loop.train(1.0)  # 2
    loop.train(1.0, owner=1)  # 3
    loop.now = 10.0
    next(batches)
    loop.train(1.0)  # 11
    loop.now = 100.0
    assert next(batches, None) is None
    (epoch,) = loop.tracker.finished
    assert isinstance(epoch, Trained)
    assert (epoch.seconds, epoch.steps) == (10.0, {0: 2, 1: 1})


def test_losses_of_nobody(loop: Loop) -> None:
    """What an optimizer steps on that is not to be logged is no part of the others' losses."""
    for _ in loop.batches(Loader(), [3, 1]):
        loop.train(50.0, owner=NOBODY)
        loop.train(2.0)
    for _ in loop.batches(Loader(), [1]):
        loop.train(50.0, owner=NOBODY)
    assert loop.take() == [(0, {0: 2.0})]
    assert loop.tracker.epochs == 1
