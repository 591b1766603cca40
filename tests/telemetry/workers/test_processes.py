"""Workers in real processes: forks, exit, and what arrives at a receiver."""

import json


def statistics(receiver):
    return [record for record in receiver.logs if record["event"] == "worker.statistics"]


def audited(receiver):
    """(instance, sequence) of each audit record."""
    return [
        (record["attributes"]["order.worker.instance"], record["attributes"]["order.sequence"])
        for record in receiver.logs
        if "order.sequence" in record["attributes"]
    ]


def test_the_last_statistics_are_written_at_exit(run, receiver):
    """A process that just ends writes its last statistics, and they arrive, metrics too."""
    run(
        """
        from telemetry.workers import Worker
        worker = Worker("worker_open", group="provider")
        for number in range(130):
            with worker.order(f"ORDER-{number}"):
                pass
        """,
        endpoint=receiver.url,
        wrapped=True,
    )
    told = [
        (
            record["attributes"]["worker.report.reason"],
            record["attributes"]["worker.report.window"]["processed_count"],
            record["attributes"]["worker.report.total"]["processed_count"],
        )
        for record in statistics(receiver)
    ]
    assert told == [("count", 100, 100), ("shutdown", 30, 130)]
    labels = {"order.worker.role": "worker_open", "order.action": "open"}
    assert (
        "order.process.outcomes",
        {**labels, "order.outcome": "success"},
        130,
    ) in receiver.points
    assert (
        "order.worker.counts",
        {**labels, "order.worker.counter": "orders_opened"},
        130,
    ) in receiver.points
    assert [number for _, number in audited(receiver)] == list(range(1, 131))


def test_an_order_as_it_arrives(run, receiver):
    """O2, O6: span and audit record reach the collector with the same facts, under the worker's name."""
    run(
        """
        from telemetry.workers import Worker
        worker = Worker("worker_open", group="provider")
        headers = {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "x-order-id": "ORDER-1"}
        with worker.order(user_id=7, symbol="EURUSD", headers=headers, correlation_id="c-1") as order:
            with order.timing("margin_calculation"):
                pass
            order.add(margin=12.5)
        """,
        endpoint=receiver.url,
        wrapped=True,
    )
    (span,) = receiver.spans
    (record,) = [record for record in receiver.logs if record["event"] == "order.opened"]
    facts = span["attributes"]
    extra = {
        name: record["attributes"].pop(name) for name in set(record["attributes"]) - set(facts)
    }
    assert record == {
        "logger": "worker_open",
        "message": "order.opened",
        "severity": 9,
        "trace_id": "a" * 32,
        "span_id": span["span_id"],
        "event": "order.opened",
        "attributes": facts,
    }
    assert (span["trace_id"], span["parent_id"], span["kind"]) == ("a" * 32, "b" * 16, 5)
    assert facts.pop("order.timings")["margin_calculation_time_ms"] >= 0
    assert facts.pop("order.processing_time_ms") >= 0
    assert facts == {
        "order.worker.role": "worker_open",
        "order.action": "open",
        "order.worker.group": "provider",
        "order.symbol": "EURUSD",
        "order.outcome": "success",
        "order.id": "ORDER-1",
        "user.id": "7",
        "correlation.id": "c-1",
        "margin": 12.5,
    }
    assert set(extra) == {
        "order.worker.instance",
        "order.sequence",
        "audit.stream",
        "audit.sequence",
        "audit.monotonic_ns",
        "log.record.uid",
    }
    assert extra["log.record.uid"] == f"{extra['audit.stream']}-1"


def test_a_worker_of_the_parent_works_in_a_forked_child(run, receiver):
    """The child counts from zero as an instance of its own; the parent's numbers stay."""
    done = run(
        """
        import json, os, sys
        import telemetry
        from telemetry.workers import Worker
        worker = Worker("worker_open")
        for number in range(3):
            with worker.order(f"ORDER-{number}"):
                pass
        reader, writer = os.pipe()
        with worker.order("ORDER-both"):
            child = os.fork()
            if child == 0:
                with worker.order("ORDER-child"):
                    pass
        if child == 0:
            os.write(writer, json.dumps(worker.statistics()).encode())
            worker.close()
            telemetry.shutdown()
            os._exit(0)
        os.waitpid(child, 0)
        print(json.dumps([json.loads(os.read(reader, 65536)), worker.statistics()]))
        """,
        endpoint=receiver.url,
        wrapped=True,
    )
    child, parent = json.loads(done.stdout)
    for told, count in ((child, 1), (parent, 4)):
        assert told["worker.report.total"]["processed_count"] == count
        assert told["worker.report.counters"]["orders_opened"] == count
        assert told["worker.report.active"] == 0
    by_instance = {}
    for instance, sequence in audited(receiver):
        by_instance.setdefault(instance, []).append(sequence)
    assert sorted(map(sorted, by_instance.values())) == [[1], [1, 2, 3, 4]]
    both = [span for span in receiver.spans if span["attributes"]["order.id"] == "ORDER-both"]
    assert len(both) == 1
    totals = [
        record["attributes"]["worker.report.total"]["processed_count"]
        for record in statistics(receiver)
    ]
    assert sorted(totals) == [1, 4]


def test_children_of_multiprocessing_write_their_last_statistics(run, receiver):
    """A child of multiprocessing leaves without exit hooks; its statistics arrive all the same."""
    run(
        """
        import multiprocessing
        from telemetry.workers import Worker
        worker = Worker("worker_cancel")

        def work(orders):
            for number in range(orders):
                with worker.order(f"ORDER-{number}", order_type="sl"):
                    pass

        if __name__ == "__main__":
            context = multiprocessing.get_context("fork")
            children = [context.Process(target=work, args=(n,)) for n in (2, 5)]
            for child in children:
                child.start()
            for child in children:
                child.join()
        """,
        endpoint=receiver.url,
        wrapped=True,
    )
    counters = [
        record["attributes"]["worker.report.counters"]["sl_cancels"]
        for record in statistics(receiver)
    ]
    assert sorted(counters) == [2, 5]


def test_a_fork_while_orders_run_leaves_no_lock_behind(run, receiver):
    """Children forked while other threads count can process orders at once."""
    run(
        """
        import os, threading
        import telemetry
        from telemetry.workers import Worker
        worker = Worker("worker_open", every_orders=10)
        stop = threading.Event()

        def work():
            while not stop.is_set():
                with worker.order("ORDER-1") as order, order.timing("margin_calculation"):
                    pass

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                with worker.order("ORDER-2"):
                    pass
                worker.close()
                os._exit(0)
            _, status = os.waitpid(child, 0)
            assert status == 0, status
        stop.set()
        for thread in threads:
            thread.join()
        """,
        endpoint=receiver.url,
        wrapped=True,
    )


def test_a_worker_without_telemetry_just_works(run):
    """Without configure() nothing is sent, nothing is said, and the worker runs."""
    done = run(
        """
        from telemetry.workers import Worker
        worker = Worker("worker_open", every_orders=2)
        for number in range(5):
            with worker.order(f"ORDER-{number}") as order, order.timing("margin_calculation"):
                pass
        print(worker.statistics()["worker.report.counters"])
        """
    )
    told = {"orders_opened": 5, "margin_calculations": 5, "commission_calculations": 0}
    assert (done.stdout, done.stderr) == (f"{told}\n", "")
