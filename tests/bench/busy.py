"""What in the broker is busy: which of its processes always has work, and so is the limit whoever forwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.rig.node import Node

_SAMPLES = 300
_INTERVAL_MS = 3

# A process that is running, or could, is busy; one that waits for messages is not. Those of a group are looked at
# together and the busiest counts. A quorum queue's process is known by name, and all of them share one log (`ra`).
_LOOK = """
    Of = fun(Queue) ->
        {{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, Queue)),
        case amqqueue:get_pid(Q) of {{Name, _}} -> [whereis(Name)]; Pid -> [Pid] end
    end,
    Began = fun(Modules) ->
        [P || P <- processes(), {{dictionary, D}} <- [process_info(P, dictionary)],
            {{M, init, _}} <- [proplists:get_value('$initial_call', D)], lists:member(M, Modules)]
    end,
    Groups = [Of(<<"{source}">>), Of(<<"{destination}">>), Began([rabbit_msg_store, ra_log_wal]),
        Began([rabbit_channel]), Began([rabbit_reader, rabbit_writer])],
    IsBusy = fun(P) ->
        case process_info(P, status) of {{status, S}} when S =/= waiting, S =/= suspended -> 1; _ -> 0 end
    end,
    erlang:system_flag(scheduler_wall_time, true),
    Walls = fun() ->
        lists:sublist(lists:sort(erlang:statistics(scheduler_wall_time)), erlang:system_info(schedulers))
    end,
    Before = Walls(),
    Look = fun(_, Counts) ->
        timer:sleep({interval_ms}),
        [[N + IsBusy(P) || {{N, P}} <- lists:zip(Ns, Ps)] || {{Ns, Ps}} <- lists:zip(Counts, Groups)]
    end,
    Counts = lists:foldl(Look, [[0 || _ <- Ps] || Ps <- Groups], lists:seq(1, {samples})),
    Active = [(A2 - A1) / (W2 - W1) || {{{{_, A1, W1}}, {{_, A2, W2}}}} <- lists:zip(Before, Walls())],
    erlang:system_flag(scheduler_wall_time, false),
    Mean = lists:sum(Active) / length(Active),
    list_to_tuple([round(100 * lists:max([0 | Ns]) / {samples}) || Ns <- Counts] ++ [round(100 * Mean)])"""


def busy_percent(node: Node, source: str, destination: str) -> dict[str, float]:
    """Look for a second: for how much of it each was busy, in %, and the mean of the Erlang machine's schedulers."""
    script = _LOOK.format(source=source, destination=destination, samples=_SAMPLES, interval_ms=_INTERVAL_MS)
    percents = map(float, node.eval(script).strip("{}").split(","))
    names = ("source queue %", "destination queue %", "store or log %", "channels %", "sockets %", "schedulers %")
    return dict(zip(names, percents, strict=True))
