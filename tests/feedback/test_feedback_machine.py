"""Model check of the commit rule: sender and receiver agree under any mix of lost, duplicated,
delayed and reordered messages, restarts of the sender, and loss of its disk."""

import copy

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flowerpress.compressors import Draw, add_to, decompress, make_compressor
from flowerpress.compressors.feedback import (
    Acceptance,
    EF14Sender,
    EF21Sender,
    PlainSender,
    Receiver,
    Settlement,
)

DIM = 3
VECTORS = st.lists(st.integers(-100, 100), min_size=DIM, max_size=DIM).map(
    lambda numbers: np.array(numbers, dtype=np.float64)
)
COMPRESSORS = st.sampled_from(["topk:k=1", "sign", "qsgd:2", "identity", "randk:k=1"])


class Link(RuleBasedStateMachine):
    """One sender, one receiver, and a network that does what it likes with copies of messages."""

    kind = EF21Sender

    def __init__(self):
        super().__init__()
        self.sender = self.kind()
        self.disk = copy.deepcopy(self.sender)
        self.receiver = Receiver()
        self.received = np.zeros(DIM)
        self.taken = np.zeros(DIM)  # what went into EF14's sender
        self.questions = []
        self.answers = []
        self.number = 0
        self.lost_disk = False

    @rule()
    def ask(self):
        self.number += 1
        applied = self.receiver.ask(self.number)
        self.questions.append((self.number, applied))

    @precondition(lambda self: self.questions)
    @rule(data=st.data(), x=VECTORS, spec=COMPRESSORS, keep=st.booleans())
    def hear(self, data, x, spec, keep):
        index = data.draw(st.integers(0, len(self.questions) - 1))
        number, applied = self.questions[index] if keep else self.questions.pop(index)
        outcome = self.sender.settle(applied, number)
        if outcome is Settlement.STALE:
            return
        if outcome is Settlement.MISMATCH:
            assert self.lost_disk, "only a lost disk may lead to a mismatch"
            self.answers.append((number, None, b"", 1.0))
        elif outcome is Settlement.REPEAT:
            if self.sender.pending == number:  # the same packet again
                packet = self.sender.packet, self.sender.scale
                self.answers.append((number, self.sender.settled, *packet))
        else:
            self.lost_disk &= outcome is not Settlement.RESET
            packet = self.sender.send(x, make_compressor(spec), number, Draw(round=number))
            self.taken += x
            self.answers.append((number, self.sender.settled, packet.data, self.sender.scale))
        self.disk = copy.deepcopy(self.sender)

    @precondition(lambda self: self.answers)
    @rule(data=st.data(), keep=st.booleans())
    def receive(self, data, keep):
        index = data.draw(st.integers(0, len(self.answers) - 1))
        number, base, packet, scale = self.answers[index] if keep else self.answers.pop(index)
        if base is None:  # "I do not know what you hold": the receiver starts over
            if number == self.receiver.asked and self.kind.shared:
                self.receiver.applied = 0
                self.received[:] = 0
            return
        verdict = self.receiver.judge(base, number, shared=self.kind.shared)
        if verdict is Acceptance.APPLY:
            add_to(packet, self.received, scale)
            self.receiver.apply(number)
        elif verdict is Acceptance.MISMATCH:
            assert self.lost_disk
            self.receiver.applied = 0
            self.received[:] = 0

    @precondition(lambda self: self.questions)
    @rule(data=st.data())
    def lose_question(self, data):
        self.questions.pop(data.draw(st.integers(0, len(self.questions) - 1)))

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def lose_answer(self, data):
        self.answers.pop(data.draw(st.integers(0, len(self.answers) - 1)))

    @rule()
    def restart_sender_from_disk(self):
        self.sender = copy.deepcopy(self.disk)

    def in_flight(self):
        """What the packet in flight stands for."""
        return self.sender.scale * decompress(self.sender.packet)


class EF21Link(Link):
    @precondition(lambda self: not self.lost_disk)
    @rule()
    def lose_disk(self):
        # Questions and answers under way die with the process: a worker that forgot them could
        # answer an old question again, which no receiver has open.
        self.sender, self.lost_disk = EF21Sender(), self.sender.heard > 0
        self.disk = copy.deepcopy(self.sender)

    @invariant()
    def both_hold_the_same_g(self):
        if self.lost_disk or self.receiver.applied == 0:
            return
        g = np.zeros(DIM) if self.sender.memory is None else self.sender.memory
        if self.receiver.applied == self.sender.pending:
            g = g + self.in_flight()
        else:
            assert self.receiver.applied == self.sender.settled
        # Additions in the same order on both sides, but the sender's memory starts as zeros and
        # the scaled packet is rounded once more here: a few units in the last place of 100.
        np.testing.assert_allclose(self.received, g, rtol=0, atol=1e-9)


class EF14Link(Link):
    kind = EF14Sender

    @invariant()
    def nothing_is_lost_but_what_is_owed(self):
        owed = np.zeros(DIM) if self.sender.memory is None else self.sender.memory
        if self.sender.pending and self.receiver.applied == self.sender.pending:
            owed = owed - self.in_flight()
        # Sums of up to 50 integers below 100 and their compressed parts: rounding stays below 1e-9.
        np.testing.assert_allclose(self.received + owed, self.taken, rtol=0, atol=1e-9)


class PlainLink(Link):
    kind = PlainSender

    @invariant()
    def nothing_is_remembered(self):
        assert self.sender.memory is None


MACHINE = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestEF21Link = EF21Link.TestCase
TestEF21Link.settings = MACHINE
TestEF14Link = EF14Link.TestCase
TestEF14Link.settings = MACHINE
TestPlainLink = PlainLink.TestCase
TestPlainLink.settings = MACHINE


def test_a_lost_packet_is_the_same_as_not_taking_part():
    x, y = np.array([3.0, 1.0, 0.0]), np.array([0.0, 5.0, 1.0])
    topk = make_compressor("topk:k=1")
    absent, lossy = EF21Sender(), EF21Sender()
    for sender in (absent, lossy):
        sender.settle(0, 1)
        sender.send(x, topk, 1)
    absent.settle(1, 2)
    lossy.settle(1, 2)
    lossy.send(y, topk, 2)  # never arrives
    absent.settle(1, 3)
    assert lossy.settle(1, 3) is Settlement.LOST
    assert absent.send(y, topk, 3).data == lossy.send(y, topk, 3).data


def test_nothing_changes_when_a_vector_is_not_finite():
    sender = EF14Sender()
    sender.settle(0, 1)
    sender.send(np.array([1.0, 2.0]), make_compressor("topk:k=1"), 1)
    sender.settle(1, 2)
    before = copy.deepcopy(sender)
    with pytest.raises(ValueError, match=r"x\[1\] is nan"):
        sender.send(np.array([0.0, np.nan]), make_compressor("topk:k=1"), 2)
    np.testing.assert_array_equal(sender.memory, before.memory)
    assert (sender.pending, sender.settled, sender.packet) == (0, 1, b"")


def test_an_older_memory_counts_nothing_twice():
    """EF14 restored from an old disk: the packet it had in flight was settled long ago."""
    topk = make_compressor("topk:k=1")
    sender = EF14Sender()
    sender.settle(0, 1)
    sender.send(np.array([3.0, 1.0]), topk, 1)
    assert sender.settle(5, 6) is Settlement.RESET
    np.testing.assert_array_equal(sender.memory, [0.0, 1.0])


def test_a_receiver_refuses_what_builds_on_another_version():
    receiver = Receiver()
    receiver.ask(1)
    receiver.apply(1)
    receiver.ask(2)
    assert receiver.judge(0, 2, shared=True) is Acceptance.MISMATCH
    assert receiver.judge(0, 2, shared=False) is Acceptance.APPLY
    assert receiver.judge(1, 2, shared=True) is Acceptance.APPLY
    assert receiver.judge(1, 1, shared=True) is Acceptance.STALE


def test_a_question_cannot_be_asked_twice():
    receiver = Receiver()
    receiver.ask(2)
    with pytest.raises(ValueError, match="question 2 does not follow 2"):
        receiver.ask(2)


def test_ef14_refuses_a_compressor_that_is_no_contraction():
    sender = EF14Sender()
    sender.settle(0, 1)
    with pytest.raises(ValueError, match="sign:scale=l1"):
        sender.send(np.ones(4), make_compressor("sign:scale=l2"), 1)


def test_an_unbiased_compressor_is_scaled_into_a_contraction():
    sender = EF21Sender()
    sender.settle(0, 1)
    sender.send(np.ones(4), make_compressor("randk:k=1"), 1)
    assert sender.scale == pytest.approx(1 / 4)  # omega = d/k - 1 = 3
