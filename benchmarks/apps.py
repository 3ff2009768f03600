"""The little programs the peers run: the same jobs for all, and each peer's own way to take them.

Each application has ``fill(kind, count)``, which enqueues, and those of RQ and Celery also have
``roundtrip(count, pause)``, which enqueues one job at a time and waits for its result, and
``crowd(count, callers)``, where many callers do; RQ's has ``unaided(count, pause)``, which does
what its client does where the result is there at once. Arguments and results are pickled
everywhere, which is the default of RQ and Huey.
"""

from __future__ import annotations

#: the module bench_jobs: what is to be done
JOBS = """
import math, os, random, time
from pathlib import Path

def mark():
    # where each job has a process of its own, the worker is its parent
    pid = os.getppid() if os.environ.get("BENCH_FORKS") else os.getpid()
    Path(os.environ["BENCH_MARKS"], str(pid)).touch()
    time.sleep(0.02)
    return 0

def noop():
    return 0

def nap():
    time.sleep(0.01)
    return 0

def large(data):
    return 0

def spin(seconds):
    # CPU time, so that a job is the same work however many share the machine
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(1000))

def burn():
    spin(5)

def duty():
    # eight rounds of 0.3 s at work and 0.7 s asleep
    for _ in range(8):
        spin(0.3)
        time.sleep(0.7)

def wave():
    time.sleep(15)
    spin(10)

def brief():
    spin(1)

def grow(size):
    # to so many bytes in five seconds, then gone
    held = []
    for _ in range(50):
        held.append(b"x" * (size // 50))
        time.sleep(0.1)
    return len(held)

def ramp():
    return grow(300 << 20)

def heavy():
    return grow(min(int(random.lognormvariate(math.log(150 << 20), 0.6)), 800 << 20))

FUNCTIONS = {
    "mark": mark, "noop": noop, "nap": nap, "large": large,
    "burn": burn, "duty": duty, "wave": wave, "brief": brief, "ramp": ramp, "heavy": heavy,
}
# bytes that cannot be compressed
ARGUMENTS = {"large": (os.urandom(65536),)}
URL, RESULTS = os.environ["BENCH_URL"], os.environ["BENCH_RESULTS"]
"""

#: a client in the peer's own environment: answers each line of JSON, [function, *arguments]
FEEDER = """
import json, sys
from importlib import metadata
print(json.dumps({name: metadata.version(name) for name in sys.argv[1:]}), flush=True)
import bench_app
for line in sys.stdin:
    name, *arguments = json.loads(line)
    print(json.dumps(getattr(bench_app, name)(*arguments)), flush=True)
"""

#: The jobs are copies, made by the server, of one that RQ itself has enqueued.
#: many callers at once, each waiting for one job after the other
CROWD = """
def crowd(count, callers):
    from concurrent.futures import ThreadPoolExecutor
    roundtrip(2, 0)
    began = time.perf_counter()
    with ThreadPoolExecutor(callers) as threads:
        parts = list(threads.map(lambda _: roundtrip(count // callers, 0), range(callers)))
    return time.perf_counter() - began, [each for part in parts for each in part]
"""

RQ = (
    """
import time, uuid
from redis import Redis
from rq import Queue
from bench_jobs import ARGUMENTS, FUNCTIONS, URL

redis = Redis.from_url(URL, max_connections=1024)
copy = redis.register_script('''
for i = 2, #ARGV do
  local key = 'rq:job:' .. ARGV[i]
  redis.call('COPY', ARGV[1], key)
  redis.call('HSET', key, 'origin', 'default')
  redis.call('RPUSH', 'rq:queue:default', ARGV[i])
end
''')

def fill(kind, count):
    redis.sadd("rq:queues", "rq:queue:default")
    model = Queue("model", connection=redis).enqueue(FUNCTIONS[kind], *ARGUMENTS.get(kind, ()))
    while count > 0:
        copy(args=[model.key, *(str(uuid.uuid4()) for _ in range(min(count, 500)))])
        count -= 500
    Queue("model", connection=redis).delete()

def roundtrip(count, pause):
    queue, times = Queue(connection=redis), []
    for _ in range(count):
        time.sleep(pause)
        begin = time.perf_counter()
        result = queue.enqueue(FUNCTIONS["noop"]).latest_result(timeout=10)
        times.append(time.perf_counter() - begin)
        assert result is not None and result.return_value == 0
    return times

def unaided(count, pause):
    # the same with nobody at work: the result is there before
    queue, times = Queue(connection=redis), []
    done = queue.enqueue(FUNCTIONS["noop"])
    done.latest_result(timeout=10)
    ((_, words),) = redis.xrange(f"rq:results:{done.id}")
    idle = Queue("nobody", connection=redis)
    for _ in range(count):
        time.sleep(pause)
        name = uuid.uuid4().hex
        redis.xadd(f"rq:results:{name}", words)
        begin = time.perf_counter()
        result = idle.enqueue(FUNCTIONS["noop"], job_id=name).latest_result(timeout=10)
        times.append(time.perf_counter() - begin)
        assert result is not None and result.return_value == 0
    idle.delete()
    return times
"""
    + CROWD
)

CELERY = (
    """
import time
from celery import Celery
from bench_jobs import ARGUMENTS, FUNCTIONS, RESULTS, URL

PICKLE = dict(
    task_serializer="pickle",
    result_serializer="pickle",
    accept_content=["pickle"],
    broker_connection_retry_on_startup=True,
)
app = Celery("bench", broker=URL, backend=RESULTS)
app.conf.update(PICKLE)
TASKS = {name: app.task(name=name)(function) for name, function in FUNCTIONS.items()}
# who only enqueues need not listen for results
sender = Celery("sender", broker=URL, set_as_current=False)
sender.conf.update(PICKLE)

def fill(kind, count):
    with sender.producer_pool.acquire(block=True) as producer:
        for _ in range(count):
            sender.send_task(kind, ARGUMENTS.get(kind, ()), producer=producer)

def roundtrip(count, pause):
    times = []
    for _ in range(count):
        time.sleep(pause)
        begin = time.perf_counter()
        assert TASKS["noop"].delay().get(timeout=10) == 0
        times.append(time.perf_counter() - begin)
    return times
"""
    + CROWD
)

DRAMATIQ = """
import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from bench_jobs import ARGUMENTS, FUNCTIONS, RESULTS, URL

dramatiq.set_encoder(dramatiq.PickleEncoder())
broker = RedisBroker(url=URL)
broker.add_middleware(Results(backend=RedisBackend(url=RESULTS)))
dramatiq.set_broker(broker)
ACTORS = {
    name: dramatiq.actor(function, actor_name=name, store_results=True)
    for name, function in FUNCTIONS.items()
}

def fill(kind, count):
    for _ in range(count):
        ACTORS[kind].send(*ARGUMENTS.get(kind, ()))
"""

HUEY = """
from huey import RedisHuey
from bench_jobs import ARGUMENTS, FUNCTIONS, URL

huey = RedisHuey("bench", url=URL)
TASKS = {name: huey.task(name=name)(function) for name, function in FUNCTIONS.items()}

def fill(kind, count):
    for _ in range(count):
        TASKS[kind](*ARGUMENTS.get(kind, ()))
"""

#: Jobs are coroutines that do not let go of the loop: one at a time, and no thread to hand them to.
#: Whatever the serializer, arguments must be fit for JSON: bytes travel in base64.
TASKIQ = """
import asyncio, base64
from taskiq.serializers import PickleSerializer
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend
from bench_jobs import ARGUMENTS, FUNCTIONS, RESULTS, URL

broker = ListQueueBroker(url=URL).with_result_backend(RedisAsyncResultBackend(redis_url=RESULTS))
broker = broker.with_serializer(PickleSerializer())

def task(name, function):
    async def run(*arguments):
        return function(*map(base64.b64decode, arguments))
    return broker.task(task_name=name)(run)

TASKS = {name: task(name, function) for name, function in FUNCTIONS.items()}
loop = None

def fill(kind, count):
    global loop
    if loop is None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(broker.startup())
    loop.run_until_complete(send(kind, count))

async def send(kind, count):
    arguments = [base64.b64encode(data).decode() for data in ARGUMENTS.get(kind, ())]
    for _ in range(count):
        await TASKS[kind].kiq(*arguments)
"""

#: Trees of jobs, for what has a ``spread(function, items)`` that runs a job an item and waits.
TREES = """
def fib(item):
    n, seconds = item
    time.sleep(seconds)
    return n if n < 2 else sum(spread(fib, [(n - 1, seconds), (n - 2, seconds)]))

def child(seconds):
    time.sleep(seconds)
    return 1

def flat(item):
    width, seconds = item
    time.sleep(seconds)
    return sum(spread(child, [seconds] * width))
"""

#: What a client does with them: enqueue some roots, look at their answers.
ROOTS = """
roots = []

def plant(kind, items):
    queue = Queue(connection=redis)
    path = "bench_app." + kind
    roots[:] = [queue.enqueue(path, tuple(item), job_timeout=3600) for item in items]

def answers():
    return [root.return_value(refresh=True) for root in roots]
"""

#: RQ's own way to wait: one blocking read of a result after the other.
NESTED_RQ = (
    RQ
    + TREES
    + ROOTS
    + """
from rq import get_current_job

def spread(function, items):
    job = get_current_job()
    queue = Queue(job.origin, connection=job.connection)
    jobs = [queue.enqueue(function, item, at_front=True, job_timeout=3600) for item in items]
    return [child.latest_result(timeout=3600).return_value for child in jobs]
"""
)

#: ``crowd`` fills a second queue, ``helped`` says how many of its jobs ran before the roots' end,
#: ``wake`` how many seconds after the last result it woke and how often it asked the server.
NESTED_PYSPLASH = (
    RQ
    + TREES
    + ROOTS
    + """
import pysplash
from redis.connection import AbstractConnection
from rq.job import Job
from rq.results import Result

spread = pysplash.map_jobs
crowded = redis.register_script('''
for number = ARGV[2], ARGV[3] do
  local key = 'rq:job:foreign-' .. number
  redis.call('COPY', ARGV[1], key)
  redis.call('HSET', key, 'origin', 'foreign')
  redis.call('RPUSH', 'rq:queue:foreign', 'foreign-' .. number)
end
''')
sent = 0

def crowd(count):
    model = Queue("model", connection=redis).enqueue(FUNCTIONS["noop"])
    for first in range(0, count, 1000):
        crowded(args=[model.key, first, min(first + 1000, count) - 1])

def helped():
    for root in roots:
        root.refresh()
    end = max(root.ended_at for root in roots)
    ids = [name.decode() for name in redis.zrange("rq:finished:foreign", 0, -1)]
    return sum(job.started_at < end for job in Job.fetch_many(ids, connection=redis) if job)

def counting(send):
    def count(self, *arguments, **options):
        global sent
        sent += 1
        return send(self, *arguments, **options)
    return count

AbstractConnection.send_packed_command = counting(AbstractConnection.send_packed_command)

def wake(width):
    queue = Queue(connection=redis)
    jobs = queue.enqueue_many([Queue.prepare_data(FUNCTIONS["noop"]) for _ in range(width)])
    before = sent
    pysplash.wait_jobs(jobs, progress=False)
    woken, trips = time.time(), sent - before
    with redis.pipeline(transaction=False) as pipe:
        for job in jobs:
            pipe.xrevrange(Result.get_key(job.id), count=1)
        last = max(int(entries[0][0].split(b"-")[0]) for entries in pipe.execute())
    return woken - last / 1e3, trips
"""
)

#: What Celery's documentation warns of, done all the same.
NESTED_CELERY = (
    CELERY
    + TREES
    + """
from celery.result import allow_join_result

TASKS |= {each.__name__: app.task(name=each.__name__)(each) for each in (fib, child, flat)}
roots = []

def spread(function, items):
    results = [TASKS[function.__name__].delay(item) for item in items]
    with allow_join_result():
        return [result.get() for result in results]

def plant(kind, items):
    roots[:] = [TASKS[kind].delay(tuple(item)) for item in items]

def answers():
    return [root.get(timeout=10) for root in roots]
"""
)
