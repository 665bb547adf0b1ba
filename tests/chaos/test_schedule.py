"""The schedule: the same for the same seed, and everything that is hurt is mended."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.schedule import CHURN, Step, schedule
from tests.chaos.test_chaos import SECONDS, SEED

NODES = ("node-1", "node-2", "node-3")
ENDS = {"pause": "resume", "cut": "heal", "kill": "start"}
RESTARTED = ("agent", "operator")  # by the kubelet

seeds, lengths = st.integers(0, 2**64), st.integers(1, 700)


@given(seeds, lengths)
def test_the_same_seed_gives_the_same_list(seed: int, seconds: int) -> None:
    assert schedule(seed, seconds, NODES) == schedule(seed, seconds, NODES)


def test_each_seed_gives_another() -> None:
    assert len({tuple(schedule(seed, 100, NODES)) for seed in range(100)}) == 100


@given(seeds, lengths)
def test_what_is_hurt_is_mended_before_anything_else_is_done_to_it(seed: int, seconds: int) -> None:
    steps = schedule(seed, seconds, NODES)
    assert steps == sorted(steps, key=lambda step: step.at)
    assert all(0 <= step.at <= seconds for step in steps)
    by_target = defaultdict[str, list[Step]](list)
    for step in steps:
        if step.action not in CHURN:
            by_target[step.target].append(step)
    for target, done in by_target.items():
        hurt = iter(done)
        for begin in hurt:
            if begin.action != "kill" or not target.startswith(RESTARTED):
                assert next(hurt).action == ENDS[begin.action]


def test_the_short_form_does_everything_to_everything() -> None:
    steps = schedule(SEED, SECONDS, NODES[:2])
    done = {(step.action, step.target.partition("/")[0] if step.action not in CHURN else "") for step in steps}
    killed = ("agent", "operator", "kubelet", "kube-apiserver", "etcd")
    assert done >= {(action, target) for target in killed for action in ("kill", "pause")}
    assert done >= {("cut", "link"), *((action, "") for action in CHURN)}
