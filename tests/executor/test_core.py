"""Contracts of one scheduling core: messages and ends of tasks go in by hand, effects come out."""

from __future__ import annotations

from typing import Any

import pytest
from snakemake_executor_plugin_worksteal.core import UNLIMITED, Capacity, Core
from snakemake_executor_plugin_worksteal.messages import (
    Acknowledge,
    Census,
    Done,
    Give,
    Held,
    Idle,
    Impossible,
    Nothing,
    Recall,
    Report,
    Room,
    Save,
    Send,
    Start,
    Status,
    Steal,
    Want,
    Withdraw,
    Withdrawn,
    Withdrew,
)
from snakemake_executor_plugin_worksteal.tasks import Task


def pool(*cores: int, rank: int = 0) -> Core:
    """One agent of a pool whose nodes have these cores."""
    return Core(rank, [Capacity(number) for number in cores])


def started(effects: list[Any]) -> list[int]:
    return [effect.task.id for effect in effects if isinstance(effect, Start)]


def sent(effects: list[Any], kind: type) -> list[Any]:
    """(to, message) of the messages of one kind."""
    return [
        (effect.to, effect.message) for effect in effects if isinstance(effect, Send) and type(effect.message) is kind
    ]


def give(core: Core, source: int, *tasks: Task, transfer: int = 1, epoch: int = 0) -> list[Any]:
    """What the core does when another agent gives it tasks."""
    core.message(0.0, source, Give(transfer, tasks, False, epoch))
    return core.drain()


# Starting


def test_begins_by_priority_then_longest_expected_then_first_submitted() -> None:
    core = pool(1)
    core.submit(
        0.0,
        [Task(0), Task(1), Task(2, expected=5.0), Task(3, expected=9.0), Task(4, priority=1), Task(5, expected=9.0)],
    )
    order = started(core.drain())
    while core.queued:
        core.finished(1.0, order[-1], "result")
        order += started(core.drain())
    assert order == [4, 3, 5, 2, 0, 1]


def test_what_goes_on_begins_after_all_others_of_its_priority_and_the_fewer_pieces_the_sooner() -> None:
    core = pool(1)
    tasks = [
        Task(0, priority=1, expected=9.0, pieces=2),
        Task(1, priority=1, expected=9.0, pieces=1),
        Task(2, priority=1, expected=9.0),
        Task(3, priority=1),
        Task(4, expected=20.0),
        Task(5, priority=2, pieces=5),
        Task(6, priority=1, pieces=1),
    ]
    core.submit(0.0, tasks)
    order = started(core.drain())
    while core.running:
        core.finished(1.0, order[-1], None)
        order += started(core.drain())
    assert order == [5, 2, 3, 1, 6, 0, 4]


def test_cores_and_devices_of_running_tasks_are_distinct_and_come_back() -> None:
    core = Core(0, [Capacity(4, devices=2)])
    core.submit(0.0, [Task(0, cores=2, devices=1), Task(1, cores=1, devices=1), Task(2, devices=1)])
    starts = [effect for effect in core.drain() if isinstance(effect, Start)]
    assert [effect.task.id for effect in starts] == [0, 1]
    assert len({*starts[0].cores, *starts[1].cores}) == 3
    assert len({*starts[0].devices, *starts[1].devices}) == 2
    core.finished(1.0, 0, "result")
    assert started(core.drain()) == [2]
    core.check()


def test_memory_is_kept_to() -> None:
    core = Core(0, [Capacity(4, mem_mb=1000)])
    core.submit(0.0, [Task(0, mem_mb=600), Task(1, mem_mb=600), Task(2, mem_mb=100)])
    assert started(core.drain()) == [0, 2]
    core.finished(1.0, 0, "result")
    assert started(core.drain()) == [1]
    core.check()


def test_a_gang_is_passed_no_more_often_than_the_node_has_cores() -> None:
    core = pool(3)
    core.submit(0.0, [Task(0), Task(1), Task(2)])
    running = started(core.drain())
    core.submit(0.0, [Task(3, cores=3, priority=1), *(Task(number) for number in range(4, 30))])
    passed = 0
    while 3 not in running:
        core.finished(1.0, running.pop(0), "result")
        new = started(core.drain())
        passed += len([number for number in new if number != 3])
        running += new
    assert passed == 3


def test_a_task_that_waits_for_a_device_keeps_its_cores_free_and_no_others() -> None:
    core = Core(0, [Capacity(4, devices=1)])
    core.submit(0.0, [Task(0, devices=1), Task(1, devices=1, priority=1)])
    assert started(core.drain()) == [1]
    core.submit(0.0, [Task(number) for number in range(2, 40)])
    running = started(core.drain())
    begun = list(running)
    for _ in range(20):
        core.finished(1.0, running.pop(0), "result")
        new = started(core.drain())
        running += new
        begun += new
    assert len(begun) >= 20, "cores stay idle although the task that waits needs a device"
    assert len(running) == 2, "one core is kept for the task that waits"
    core.finished(2.0, 1, "result")
    assert 0 in started(core.drain())


def test_a_large_task_that_waits_for_a_device_does_not_keep_its_cores() -> None:
    core = Core(0, [Capacity(8, devices=1)])
    core.submit(0.0, [Task(0, cores=8, devices=1, priority=1), Task(1, devices=1, priority=2)])
    assert started(core.drain()) == [1]
    core.submit(0.0, [Task(number) for number in range(2, 60)])
    running = started(core.drain())
    for _ in range(30):
        core.finished(1.0, running.pop(0), "result")
        running += started(core.drain())
    assert len(running) == 7, "cores stay idle although the task that waits needs a device"
    core.finished(2.0, 1, "result")
    core.drain()
    while running:  # now its cores are what it waits for, and nothing else begins
        core.finished(3.0, running.pop(0), "result")
        new = started(core.drain())
        assert new == ([] if running else [0])


def test_tasks_at_hand_begin_when_others_end_and_come_back_if_they_do_not() -> None:
    core = Core(0, [Capacity(2)])
    core.submit(0.0, [Task(number) for number in range(10)])
    assert started(core.drain()) == [0, 1]
    assert [task.id for task in core.take_ahead(0.0, lambda task: True, 3)] == [2, 3, 4]
    assert core.queued == 5
    assert core.holding == set(range(10))
    core.finished(1.0, 0, "result", 2)
    assert started(core.drain()) == [], "its core is in use"
    core.check()
    core.put_back(1.0, [3, 4])
    assert core.queued == 7
    core.finished(1.0, 1, "result")
    assert started(core.drain()) == [3]
    core.check()


def test_the_last_tasks_and_those_that_do_not_suit_are_not_taken_ahead() -> None:
    core = Core(0, [Capacity(2)] * 2)
    for number in (6, 0, 1, 2, 3, 4, 5, 7):  # a few at a time, which stay here
        core.submit(0.0, [Task(number, priority=number == 6)])
    assert started(core.drain()) == [6, 0]
    assert core.take_ahead(0.0, lambda task: task.id != 1, 5) == [], (
        "the first in line does not suit, and nothing passes it"
    )
    assert [task.id for task in core.take_ahead(0.0, lambda task: True, 9)] == [1, 2, 3, 4], "two are left for thieves"


def test_where_there_are_no_thieves_all_tasks_are_taken_ahead() -> None:
    core = Core(0, [Capacity(2)])
    core.submit(0.0, [Task(number) for number in range(5)])
    assert started(core.drain()) == [0, 1]
    assert [task.id for task in core.take_ahead(0.0, lambda task: True, 9)] == [2, 3, 4]
    assert core.queued == 0


def test_a_withdraw_calls_back_what_is_at_hand() -> None:
    core = Core(0, [Capacity(1)])
    core.submit(0.0, [Task(number) for number in range(4)])
    core.drain()
    core.take_ahead(0.0, lambda task: True, 1)
    core.withdraw(1.0)
    effects = core.drain()
    assert [effect.ids for effect in effects if isinstance(effect, Recall)] == [[1]]
    core.put_back(2.0, [1])
    assert [effect.ids for effect in core.drain() if isinstance(effect, Withdrawn)] == [[1]]
    assert core.unfinished == 1


def test_what_no_node_can_run_is_impossible_and_says_why() -> None:
    core = pool(2, 4)
    core.submit(0.0, [Task(0, cores=5)])
    [effect] = [effect for effect in core.drain() if isinstance(effect, Impossible)]
    assert effect == Impossible(0, "it needs 5 cores, 0 devices, the largest node has 4 cores, 0 devices")
    assert core.unfinished == 0
    core.check()


def test_what_the_root_cannot_run_goes_to_a_node_that_can() -> None:
    core = Core(0, [Capacity(2), Capacity(2), Capacity(2, devices=1)])
    core.submit(0.0, [Task(0, devices=1)])
    assert sent(core.drain(), Give) == [(2, Give(1, (Task(0, devices=1),), False, 0))]


def test_a_large_batch_is_dealt_so_that_all_have_the_same_mix() -> None:
    core = pool(2, 2, 4)
    tasks = [Task(number, expected=float(number)) for number in range(80)]
    core.submit(0.0, tasks)
    effects = core.drain()
    shares = {to: message.tasks for to, message in sent(effects, Give)}
    assert {to: len(share) for to, share in shares.items()} == {1: 20, 2: 40}
    assert core.queued + core.running == 20
    for share in shares.values():
        assert sum(task.expected for task in share) / len(share) == pytest.approx(39.5, abs=1.0)


# Stealing


def test_a_thief_gets_every_second_task_and_the_first() -> None:
    core = pool(1, 1, 1, 1, 1, 1, 1, 1)
    core.submit(0.0, [Task(number) for number in range(8)])
    core.drain()
    core.message(0.0, 3, Steal(Room(1), False))
    [(to, message)] = sent(core.drain(), Give)
    assert to == 3
    assert message.answer
    assert [task.id for task in message.tasks] == [1, 3, 5, 7]
    assert core.holding == set(range(8)), "until it is acknowledged a transfer is the giver's"
    core.message(0.0, 3, Acknowledge(message.transfer, 0))
    assert core.holding == {0, 2, 4, 6}


def test_a_thief_gets_only_what_fits_its_room() -> None:
    core = pool(1, 4, rank=1)
    give(core, 0, Task(0, cores=4), *(Task(number, mem_mb=600 + number) for number in range(1, 5)))
    core.message(0.0, 0, Steal(Room(1, 0, 602), False))
    [(_, message)] = sent(core.drain(), Give)
    assert [task.id for task in message.tasks] == [1]
    core.message(0.0, 0, Steal(Room(1, 0, 500), False))
    assert sent(core.drain(), Nothing) == [(0, Nothing())]


def test_two_refusals_then_a_lifeline_then_silence() -> None:
    core = pool(*[2] * 16, rank=5)
    core.tick(0.0)
    for _ in range(2):
        [(victim, message)] = sent(core.drain(), Steal)
        assert not message.lifeline
        core.message(0.0, victim, Nothing())
    assert core.drain() == [Send(0, Steal(Room(2, 0, UNLIMITED), True))]
    core.message(0.0, 9, Steal(Room(2), False))
    assert core.drain() == [Send(9, Nothing())]
    assert core.next_tick is None


def test_what_waits_at_the_root_is_shared_equally_among_lifelines() -> None:
    core = pool(*[3] * 8)
    for rank in (3, 2, 6):
        core.message(0.0, rank, Steal(Room(3), True))
    core.submit(0.0, [Task(number) for number in range(15)])
    assert [(to, len(message.tasks)) for to, message in sent(core.drain(), Give)] == [(3, 3), (2, 3), (6, 3)]
    assert core.queued == 3


def test_a_lifeline_that_crosses_work_for_the_same_agent_is_used_up_by_it() -> None:
    core = pool(1, 1)
    core.submit(0.0, [Task(number) for number in range(5)])
    [(_, message)] = sent(core.drain(), Give)
    core.message(0.0, 1, Steal(Room(1), True))
    assert not core.drain()
    core.message(0.0, 1, Acknowledge(message.transfer, 0))
    core.message(0.0, 1, Steal(Room(1), True))
    assert len(sent(core.drain(), Give)) == 1


def test_the_root_sends_a_lifeline_on_to_one_who_has_what_fits() -> None:
    core = pool(1, 4, 4, 4)
    core.message(0.0, 2, Steal(Room(1), True))
    core.message(0.0, 1, Status(4, (Room(2),)))
    assert not sent(core.drain(), Idle)
    core.message(0.0, 3, Steal(Room(2), True))
    assert sent(core.drain(), Idle) == [(1, Idle(3, Room(2)))]
    core.message(0.0, 2, Steal(Room(2), True))
    assert not core.drain(), "not before agent 1 has told what it has left"
    core.message(0.0, 1, Status(4, (Room(2),)))
    assert sent(core.drain(), Idle) == [(1, Idle(2, Room(2)))]


def test_who_gets_a_lifeline_gives_half_or_hands_it_back_and_tells_what_is_left() -> None:
    core = pool(1, 1, 1, rank=1)
    assert sent(give(core, 0, Task(0), Task(1), Task(2)), Status) == [(0, Status(1, (Room(1),)))]
    core.message(0.0, 0, Idle(2, Room(1)))
    effects = core.drain()
    assert [(to, message.tasks, message.answer) for to, message in sent(effects, Give)] == [(2, (Task(1),), False)]
    assert sent(effects, Status) == [(0, Status(1, (Room(1),)))]
    core.message(0.0, 0, Idle(2, Room(1)))
    assert not sent(core.drain(), Status)
    core.message(0.0, 0, Idle(2, Room(1)))
    assert core.drain() == [Send(0, Idle(2, Room(1)))]


def test_a_lifeline_whose_room_is_too_small_is_told_what_is_wanted() -> None:
    core = pool(4, 4, 4)
    core.message(0.0, 1, Steal(Room(1), True))
    core.submit(0.0, [Task(0, cores=4)])
    core.submit(0.0, [Task(1, cores=4)])
    assert sent(core.drain(), Want) == [(1, Want((Room(4),)))]
    core.submit(0.0, [Task(2, cores=4)])
    assert not core.drain(), "it knows"
    core.message(0.0, 2, Status(4, (Room(2),)))
    assert sent(core.drain(), Want) == [(1, Want((Room(4), Room(2))))]


def test_who_is_told_what_is_wanted_asks_when_it_has_the_room() -> None:
    core = pool(4, 4, rank=1)
    give(core, 0, Task(0, cores=3))
    for answer in (Nothing(), Nothing(), Want((Room(3), Room(4)))):
        core.message(0.0, 0, answer)
    assert sent(core.drain(), Steal)[-1] == (0, Steal(Room(1, 0, UNLIMITED), True))
    core.finished(1.0, 0, "result")
    assert sent(core.drain(), Steal) == [(0, Steal(Room(4, 0, UNLIMITED), True))]


# Affinity


def home_of(key: str, cores: list[int]) -> int:
    core = pool(*cores)
    core.submit(0.0, [Task(0, affinity=key)])
    effects = core.drain()
    return 0 if started(effects) else sent(effects, Give)[0][0]


def test_tasks_of_one_key_go_to_one_agent_and_keys_spread() -> None:
    homes = {key: home_of(key, [2] * 8) for key in map(str, range(64))}
    assert homes == {key: home_of(key, [2] * 8) for key in homes}
    assert set(homes.values()) == set(range(8))


def test_what_the_root_stole_stays_there_although_its_home_is_elsewhere() -> None:
    core = pool(1, 1)
    key = next(key for key in map(str, range(64)) if home_of(key, [1, 1]) == 1)
    core.submit(0.0, [Task(0, affinity=key), Task(1, affinity=key)])
    [(_, message)] = sent(core.drain(), Give)
    core.message(0.0, 1, Acknowledge(message.transfer, 0))
    assert started(give(core, 1, Task(1, affinity=key))) == [1]


def test_tasks_that_prefer_their_agent_are_given_away_last() -> None:
    core = pool(1, 1)
    key = next(key for key in map(str, range(64)) if home_of(key, [1, 1]) == 0)
    core.submit(0.0, [Task(0)])
    core.submit(0.0, [Task(1, affinity=key)])
    core.submit(0.0, [Task(2)])
    core.drain()
    for expected in ([2], [1]):
        core.message(0.0, 1, Steal(Room(1), False))
        [(_, message)] = sent(core.drain(), Give)
        assert [task.id for task in message.tasks] == expected


# Results and status


def test_results_between_two_drains_go_in_one_message() -> None:
    core = pool(1, 3, rank=1)
    give(core, 0, Task(0), Task(1), Task(2))
    core.finished(1.0, 0, "first")
    core.finished(1.0, 1, "second")
    assert sent(core.drain(), Done) == [(0, Done(((0, "first"), (1, "second")), 1, ()))]


def test_each_result_is_reported_once() -> None:
    core = pool(1, 1)
    core.submit(0.0, [Task(0)])
    core.drain()
    core.message(1.0, 1, Done(((0, "result"),), 0, ()))
    core.message(1.0, 1, Done(((0, "result"),), 0, ()))
    assert [effect for effect in core.drain() if isinstance(effect, Report)] == [Report([(0, 1, "result")])]


def test_status_is_told_after_a_while_once() -> None:
    core = pool(1, 3, rank=1)
    core.tick(0.0)
    give(core, 0, Task(0), Task(1))
    assert core.next_tick is not None
    core.tick(core.next_tick)
    assert sent(core.drain(), Status) == [(0, Status(2, ()))]
    assert core.next_tick is None
    root = pool(1, 3)
    root.message(0.0, 1, Status(2, ()))
    assert root.pool_running == 2


# Withdrawing


def test_withdraw_gives_up_what_has_not_begun_and_nothing_that_comes_later() -> None:
    core = pool(1)
    core.submit(0.0, [Task(0), Task(1), Task(2)])
    core.drain()
    core.withdraw(1.0)
    assert [sorted(effect.ids) for effect in core.drain() if isinstance(effect, Withdrawn)] == [[1, 2]]
    core.submit(2.0, [Task(3)])
    core.finished(3.0, 0, "result")
    effects = core.drain()
    assert started(effects) == [3]
    assert Report([(0, 0, "result")]) in effects
    core.check()


def test_what_arrives_after_the_withdrawal_is_withdrawn_too() -> None:
    core = pool(1, 1, rank=1)
    core.message(0.0, 0, Withdraw(5))
    assert sent(give(core, 0, Task(5), Task(6)), Withdrew) == [(0, Withdrew((5,)))]
    assert core.holding == {6}


def test_what_is_to_save_its_state_is_called_back_first_if_it_has_not_begun() -> None:
    core = pool(1, 1)
    core.submit(0.0, [Task(number) for number in range(6)])
    core.drain()
    (ahead,) = core.take_ahead(0.0, lambda task: True, 1)
    core.withdraw(1.0, save=True)
    effects = core.drain()
    assert effects.index(Recall([ahead.id])) < effects.index(Save())
    assert sent(effects, Withdraw) == [(1, Withdraw(5, True))]
    other = pool(1, 1, rank=1)
    other.message(0.0, 0, Withdraw(5, True))
    assert Save() in other.drain()
    core.withdraw(2.0)
    assert Save() not in core.drain()


# Deaths


def test_what_nobody_holds_after_a_death_begins_again() -> None:
    core = pool(1, 1, 1)
    core.submit(0.0, [Task(0)])
    core.drain()
    core.submit(0.0, [Task(1), Task(2)])
    core.message(0.0, 1, Steal(Room(1), False))
    [(_, message)] = sent(core.drain(), Give)
    core.message(0.0, 1, Acknowledge(message.transfer, 0))
    core.died(1.0, 1)
    assert sent(core.drain(), Census) == [(2, Census(1, (1,)))]
    assert core.queued == 1
    core.message(1.0, 2, Held(1, ()))
    assert core.queued + core.running + len(sent(core.drain(), Give)) == 3
    assert core.holding == {0, 1, 2}


def test_a_result_that_the_dead_had_sent_is_dropped_when_the_task_is_to_begin_again() -> None:
    core = pool(1, 1)
    core.submit(0.0, [Task(0), Task(1)])
    core.drain()
    core.message(0.0, 1, Steal(Room(1), False))
    core.drain()
    core.died(1.0, 1)
    core.message(1.0, 1, Done(((1, "late"),), 0, ()))
    assert not [effect for effect in core.drain() if isinstance(effect, Report)]
    assert core.unfinished == 2
    core.check()


def census_of_three() -> Core:
    """Agent 1 of four, which has given a task to 2 and keeps one."""
    core = pool(1, 1, 1, 1, rank=1)
    give(core, 0, Task(0), Task(1), Task(2))
    core.message(0.0, 2, Steal(Room(1), False))
    core.drain()
    return core


def test_a_census_is_answered_when_all_that_was_given_is_acknowledged() -> None:
    core = census_of_three()
    core.message(1.0, 0, Census(1, (3,)))
    core.message(1.0, 2, Steal(Room(1), False))
    effects = core.drain()
    assert not sent(effects, Held)
    assert sent(effects, Nothing) == [(2, Nothing())], "nothing is given away until then"
    core.message(1.0, 2, Acknowledge(1, 0))
    assert sent(core.drain(), Held) == [(0, Held(1, (0, 2)))]


def test_what_was_acknowledged_by_one_that_had_answered_is_named_by_the_giver() -> None:
    core = census_of_three()
    core.message(1.0, 2, Acknowledge(1, 1))
    core.message(1.0, 0, Census(1, (3,)))
    assert sent(core.drain(), Held) == [(0, Held(1, (0, 1, 2)))]


def test_what_was_on_its_way_to_the_dead_is_not_named() -> None:
    core = census_of_three()
    core.died(1.0, 2)
    assert core.holding == {0, 1, 2}, "only the census settles whose it is"
    core.message(1.0, 0, Census(1, (2,)))
    assert sent(core.drain(), Held) == [(0, Held(1, (0, 2)))]


def test_nothing_is_taken_from_the_dead() -> None:
    core = pool(1, 1, 1, rank=1)
    core.message(1.0, 0, Census(1, (2,)))
    core.drain()
    give(core, 2, Task(0))
    assert core.holding == set()


def test_who_hears_of_a_census_gives_nothing_away_until_it_comes() -> None:
    core = pool(1, 1, 1, rank=1)
    give(core, 2, Task(0), Task(1), epoch=1)
    core.message(0.0, 0, Steal(Room(1), False))
    assert sent(core.drain(), Nothing) == [(0, Nothing())]
    core.message(0.0, 0, Census(1, ()))
    core.message(0.0, 0, Steal(Room(1), False))
    assert [to for to, _ in sent(core.drain(), Give)] == [0]


def test_the_home_of_a_dead_agent_s_key_moves_and_no_other() -> None:
    core = pool(*[1] * 6)
    before = {key: core._home(key) for key in map(str, range(50))}
    core.died(0.0, 3)
    after = {key: core._home(key) for key in before}
    assert all(after[key] == home for key, home in before.items() if home != 3)
    assert 3 not in after.values()
