"""What the systems could do out of which the doors have grown, and the test that shows it here.

Each line is one thing one of them could do: a master with specialised workers, a daemon around
one function, a chain of queues, remote calls by name, and the first pool of this name. The tests
are read, not run: a line is true as long as its test is there and passes.
"""

from __future__ import annotations

import ast
import functools
import pathlib

import pytest

TESTS = pathlib.Path(__file__).parents[1]
ASYNC_CLIENT = "integration/test_async_client.py"
BAD_INPUT = "acceptance/test_bad_input.py"
CLIENT = "integration/test_client.py"
COPROCESS = "integration/test_coprocess.py"
CRASHES = "acceptance/test_crashes.py"
DOORS = "acceptance/test_doors.py"
EXAMPLES = "acceptance/test_examples.py"
FRAMED_DOOR = "integration/test_framed_door.py"
GATEWAY = "acceptance/test_gateway.py"
NESTED = "acceptance/test_nested.py"
PIPELINE = "acceptance/test_pipeline.py"
REGISTRY = "unit/test_registry.py"
SCALING = "acceptance/test_scaling.py"
SETUP = "integration/test_setup.py"
STAGE = "integration/test_stage.py"
START_ORDER = "acceptance/test_start_order.py"
THROTTLE = "acceptance/test_throttle.py"
FRAMES = "unit/test_frames.py"
ZMQ_DOOR = "integration/test_zmq_door.py"
#: by system and by what it could do: the file and the name of the test
SHOWN: dict[str, dict[str, tuple[str, str]]] = {
    "the first pool": {
        "keeps the CPU at a target": (THROTTLE, "test_jobs_are_kept_at_the_limit"),
        "keeps memory under a limit": (THROTTLE, "test_what_is_killed_for_memory_is_put_back"),
        "spawns and retires": (SCALING, "test_grows_with_waiting_jobs_and_shrinks_to_the_minimum"),
        "ends zombies": (CRASHES, "test_zombie_is_stopped_killed_and_replaced"),
        "wait_jobs": (NESTED, "test_a_tree_ends_in_a_pool_of_any_size"),
        "a launcher script": (EXAMPLES, "test_examples_say_what_they_should"),
    },
    "a master with specialised workers": {
        "one call runs a job on a specialised worker": (DOORS, "test_a_shell_calls_tasks"),
        "router and workers start apart, in any order": (CLIENT, "test_patience_waits_for_a_pool"),
        "callers and doors before workers": (
            START_ORDER,
            "test_caller_gateway_and_pool_start_in_any_order",
        ),
        "a worker that finds no master says so": (BAD_INPUT, "test_server_that_refuses"),
        "and one without a pool": (STAGE, "test_without_redis"),
        "ping": (CLIENT, "test_without_a_pool_nothing_is_enqueued"),
        "timeouts": (CLIENT, "test_a_timeout_cancels_or_leaves"),
        "timeouts with overflow": (CLIENT, "test_calls_overflow_a_few_times"),
        "a pool of clients": (CLIENT, "test_many_threads_share_few_connections"),
        "worker parameters": (DOORS, "test_setup_runs_once_per_worker"),
        "max_age": (SCALING, "test_worn_out_workers_are_replaced"),
        "max_age with delta": (SETUP, "test_ages_differ_by_the_delta"),
        "stacks dumped on timeout": (DOORS, "test_a_shell_calls_tasks"),
        "a check for a running master": (DOORS, "test_what_can_be_seen_from_outside"),
        "ghosts purged": (DOORS, "test_the_ghost_of_a_killed_pool"),
        "workers in C++": (COPROCESS, "test_a_program_in_any_language"),
        "a hung worker is killed with its job": (COPROCESS, "test_a_hung_child_goes_with_its_job"),
    },
    "a daemon around one function": {
        "a small TCP daemon, nothing else to run": (GATEWAY, "test_a_daemon_of_three_lines"),
        "frames with a length of 4 bytes": (FRAMES, "test_the_form_is_exact"),
        "a raw answer, then the end": (FRAMED_DOOR, "test_foreign_peers_are_answered"),
        "one process per core": (START_ORDER, "test_a_daemon_has_as_many_processes_as_wanted"),
        "request()": (FRAMED_DOOR, "test_foreign_peers_are_answered"),
        "pack()": (FRAMES, "test_what_is_packed_comes_out"),
        "green sockets": (FRAMED_DOOR, "test_the_caller_uses_whatever_sockets_there_are"),
        "from a program of its own": (EXAMPLES, "test_examples_say_what_they_should"),
    },
    "a chain of queues": {
        "from a queue to none, one or many": (STAGE, "test_where_an_item_goes"),
        "as dict, list of pairs, generator": (STAGE, "test_where_an_item_goes"),
        "a generator's as they come": (STAGE, "test_a_generator_forwards_as_it_goes"),
        "a sink": (STAGE, "test_where_an_item_goes"),
        "a failure goes back to the head": (
            STAGE,
            "test_a_failure_goes_to_the_head_and_then_aside",
        ),
        "push": (STAGE, "test_items_keep_their_order_and_their_bytes"),
        "push from anywhere": (STAGE, "test_pushing_inside_and_beside"),
        "many processes": (PIPELINE, "test_a_pipeline_under_fire"),
        "many machines": (START_ORDER, "test_two_pools_serve_one_pipeline"),
        "run() in one process": (STAGE, "test_a_stop_ends_a_stage_between_items"),
        "bytes only": (STAGE, "test_what_cannot_be_pushed"),
    },
    "remote calls by name": {
        "@task": (REGISTRY, "test_a_task_stays_the_function_it_was"),
        "@task with a name": (REGISTRY, "test_names_that_are_usable"),
        "a broker with nodes that fetch work": (DOORS, "test_a_shell_calls_tasks"),
        "a blocking client: client.add(5, 6)": (CLIENT, "test_calls_are_answered"),
        "an asynchronous one": (ASYNC_CLIENT, "test_calls_are_answered"),
        "status() and result()": (CLIENT, "test_a_handle_tells_where_its_call_is"),
        "JSON-RPC over ZeroMQ": (ZMQ_DOOR, "test_req_and_dealer_peers"),
        "a sample node to play with": (DOORS, "test_sample_tasks_to_play_with"),
    },
}
CELLS = [
    pytest.param(*place, id=f"{system}: {could}")
    for system, cells in SHOWN.items()
    for could, place in cells.items()
]


@functools.cache
def functions(file: str) -> dict[str, str]:
    """Return the tests of a file, with what each claims."""
    tree = ast.parse((TESTS / file).read_text())
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {node.name: ast.get_docstring(node) or "" for node in found}


@pytest.mark.parametrize(("file", "name"), CELLS)
def test_each_thing_they_could_do_is_shown_by_a_test(file: str, name: str) -> None:
    """The test that is named exists, is one, and says what it claims."""
    assert name.startswith("test_")
    assert functions(file).get(name)
