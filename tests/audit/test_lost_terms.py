"""Audits in half precision, where kernels lose terms of the gradient: compared, and remembered."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it

import clarke
from clarke import Verdict

BF = torch.bfloat16


def parameter(*shape, dtype=BF):
    return torch.nn.Parameter(torch.ones(shape, dtype=dtype))


def audited(loss, weights, steps, seconds=20, **options):
    with clarke.audit(lambda _: None, seconds=seconds, **options) as audit:
        for step in range(steps):
            for w in weights:
                w.grad = None
            loss(step).backward()
    return audit.steps


def normed(rows, w, b, signs=None):
    x = torch.arange(8).to(w).expand(rows, 8).contiguous()
    y = F.layer_norm(x, (8,), w, b)
    return (y if signs is None else y * signs).sum()


def test_a_layer_that_keeps_a_sixteenth_is_no_smooth_one():
    w, b = parameter(8), parameter(8)
    steps = audited(lambda _: normed(4096, w, b), [w, b], 9)
    assert [s.verdict for s in steps] == [Verdict.UNDECIDED] * 9
    assert float(b.grad[0]) == 256  # for 4096
    first, second, eighth = steps[0].reason, steps[1].reason, steps[7].reason
    assert "native_layer_norm at" in first
    assert "of variable 0 is -512, and -6257 when its own pieces" in first
    assert second == first + " (measured at an earlier call)"
    assert eighth == first
    assert steps[0].culprits[0].operation == "native_layer_norm"


def test_where_the_terms_cancel_nothing_is_lost():
    w, b = parameter(8), parameter(8)
    signs = torch.ones(4096, 1, dtype=BF)
    signs[::2] = -1
    steps = audited(lambda _: normed(4096, w, b, signs), [w, b], 3)
    assert [s.verdict for s in steps] == [Verdict.SMOOTH] * 3


def test_what_is_lost_later_is_found_later_and_what_is_kept_again_too():
    """At the second step the signs agree; at the 8th time that is looked at they cancel again."""
    w, b = parameter(8), parameter(8)
    signs = torch.ones(4096, 1, dtype=BF)
    signs[::2] = -1
    ones = torch.ones(4096, 1, dtype=BF)
    told = audited(lambda s: normed(4096, w, b, ones if 1 <= s < 7 else signs), [w, b], 12)
    assert told[0].verdict is Verdict.SMOOTH
    assert [s.verdict for s in told[1:8]] == [Verdict.UNDECIDED] * 7
    assert told[-1].verdict is Verdict.SMOOTH


@pytest.mark.parametrize("rows", [1, 8, 16])
def test_few_terms_are_no_matter(rows):
    table = parameter(4, 3)
    index = torch.zeros(rows, dtype=torch.long)
    steps = audited(lambda _: (F.embedding(index, table) * 2).sum(), [table], 3)
    assert [s.verdict for s in steps] == [Verdict.SMOOTH] * 3


def test_only_those_that_meet_count():
    """4096 rows, of which no 16 are the same one: nothing is compared."""
    table = parameter(512, 3)
    index = torch.arange(4096) % 512
    steps = audited(lambda _: table[index].sum(), [table], 2)
    assert [s.verdict for s in steps] == [Verdict.SMOOTH] * 2
    index = torch.arange(4096) % 8
    steps = audited(lambda _: table[index].sum(), [table], 2)
    assert [s.verdict for s in steps] == [Verdict.UNDECIDED] * 2


def test_a_mixed_layer_with_float32_parameters_is_one_of_them():
    w, b = parameter(8, dtype=torch.float32), parameter(8, dtype=torch.float32)
    x = torch.arange(8).to(BF).expand(4096, 8).contiguous()
    steps = audited(lambda _: F.layer_norm(x, (8,), w, b).float().sum(), [w, b], 2)
    assert float(b.grad[0]) < 2048
    assert [s.verdict for s in steps] == [Verdict.UNDECIDED] * 2


def test_float32_keeps_its_terms():
    w, b = parameter(8, dtype=torch.float32), parameter(8, dtype=torch.float32)
    steps = audited(lambda _: normed(4096, w, b), [w, b], 2)
    assert [s.verdict for s in steps] == [Verdict.SMOOTH] * 2


def test_a_value_of_many_uses_is_added_up_use_by_use():
    """Each use's gradient is 1."""
    w = parameter(3)
    steps = audited(lambda _: torch.cat([w] * 600).float().sum(), [w], 2)
    assert float(w.grad[0]) == 256
    assert [s.verdict for s in steps] == [Verdict.UNDECIDED] * 2
    assert "used 600 times, first by cat at" in steps[0].reason


def test_of_a_value_that_is_read_part_by_part_nothing_is_lost():
    w = parameter(200)

    def loss(_):
        return torch.stack([w[i].float() for i in range(200)]).sum()

    assert [s.verdict for s in audited(loss, [w], 2)] == [Verdict.SMOOTH] * 2


def test_what_cannot_be_compared_in_time_is_not_smooth():
    w, b = parameter(8), parameter(8)
    steps = audited(lambda _: normed(4096, w, b), [w, b], 3, seconds=1e-9)
    assert all(s.verdict is Verdict.UNDECIDED for s in steps)


def test_a_network_in_bfloat16_is_decided():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Embedding(50, 16),
        torch.nn.Linear(16, 32),
        torch.nn.GELU(),
        torch.nn.LayerNorm(32),
        torch.nn.Linear(32, 4),
    ).to(BF)
    tokens, y = torch.randint(0, 50, (8, 16)), torch.randint(0, 4, (128,))
    weights = list(net.parameters())
    loss = lambda _: F.cross_entropy(net(tokens).reshape(-1, 4).float(), y)  # noqa: E731
    assert [s.verdict for s in audited(loss, weights, 3)] == [Verdict.SMOOTH] * 3


def test_what_many_calls_add_up_in_bfloat16_may_be_lost():
    """600 times 1 is 256 there; of 60 a sixth is lost at most, and nothing of one call."""
    w = parameter(3)
    optimizer = torch.optim.SGD([w], 0.1)
    with clarke.audit(lambda _: None) as audit:
        for _ in range(80):
            (w * 1).float().sum().backward()
        optimizer.step()
    assert {s.verdict for s in audit.steps} == {Verdict.SMOOTH}
    assert {s.joint for s in audit.steps[:64]} == {Verdict.SMOOTH}
    assert {s.joint for s in audit.steps[64:]} == {Verdict.UNDECIDED}
    assert "80 gradients, added up in bfloat16" in audit.steps[-1].joint_reason
