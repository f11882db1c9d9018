"""A world of simulated Memcached nodes and of clients that are stopped between any two questions, to model-check what is
kept in more than one copy. No sockets, no threads, no clock: all that happens is what somebody chose.

The clients run the package's own flows (`flows`), and a protocol answers their commands. Each question to a node is
carried out when it is chosen: `deliver` (and answered), `lose` (its answer gets lost, it is asked again), `stall` (it may
arrive much later, or never).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from elasticache_sessions import flows
from elasticache_sessions.clients.base import Command, Conflict, Replace
from elasticache_sessions.clients.memcached_asks import DOWN, RENEW, Answer, Ask, Flight, Noticed
from elasticache_sessions.clients.memcached_look import View
from elasticache_sessions.clients.memcached_nodes import Nodes, ranked
from elasticache_sessions.exceptions import SessionEnded, StoreUnavailable
from elasticache_sessions.record import Header, Kind, Record, pack
from elasticache_sessions.session import Rules, Session
from elasticache_sessions.settle import Event, Flow, Sleep
from tests.support.model_clients import Client, Operation, Promise
from tests.support.model_nodes import REVISIONS, Node, told

Protocol = Callable[[Command, View], Flight[Any]]
"""What answers a flow's command by asking nodes."""
Action = tuple[str, ...]
"""Something that happens: the name of a method of `World`, and its arguments."""

RULES = Rules("s:", 86_400, clock=lambda: 1_700_000_000.0, blind_touch=True)
NAMES = ("a", "b", "c", "d")
SETS = tuple(set_ for size in (2, 3) for set_ in itertools.combinations(NAMES, size))
CLIENTS = ("w0", "w1", "w2", "ender")
# An operation that nobody disturbs is over after a handful of flights.
MOST_FLIGHTS = 40


def ids() -> Iterator[str]:
    """Session ids whose keys rank the nodes a, b, c, d in this order, so that a trace can be read."""
    for number in itertools.count():
        session_id = f"{number:040}"
        if tuple(ranked(NAMES, RULES.key(session_id))) == NAMES:
            yield session_id


IDS = tuple(itertools.islice(ids(), 30))


class Broken(AssertionError):
    """A promise was broken."""


class World:
    """Nodes, clients, one session, and what it has been promised.

    With `single_faults`, a node gets into trouble only while every other one is well: reachable, known to be so by
    everybody, and its copy no poorer than the others'.
    """

    def __init__(
        self,
        protocol: Protocol,
        members: Sequence[str] = ("a", "b"),
        *,
        copies: int = 2,
        single_faults: bool = True,
        scales: bool = False,
        same_numbers: bool = False,
    ) -> None:
        self.protocol, self.copies, self.single_faults, self.scales = protocol, copies, single_faults, scales
        self.same_numbers = same_numbers
        self.news = Nodes(tuple(members))
        self.nodes = {name: Node() for name in (NAMES if scales else members)}
        self.clients = {name: Client(self.news) for name in CLIENTS}
        self.behind: set[str] = set()
        """The nodes that may lack what was acknowledged."""
        REVISIONS.begin()
        self.numbers = itertools.count(1)
        self.ids = iter(IDS)
        self.trace: list[str] = []
        self.renew()

    def renew(self) -> None:
        """A new session, for the next creation."""
        self.id, self.created = next(self.ids), False
        self.key = RULES.key(self.id)
        self.promise, self.ending, self.seen_ended = Promise(), False, False

    # What clients do.

    def begin(self, name: str, kind: str) -> None:
        """A client begins a request: create, load, save, apply, end or bury."""
        client = self.clients[name]
        if kind == "create":
            self.renew()
        before = replace(self.promise, fields=dict(self.promise.fields))
        operation = client.operation = Operation(kind, before)
        self.say(f"{name} begins: {kind}")
        operation.flow = getattr(self, f"_{kind}")(name, operation)
        self._go_on(name, operation, lambda: next(operation.flow))

    def _create(self, name: str, operation: Operation) -> Flow[None]:
        session = Session(next_id=self.id)
        session.fields["applied"] = []
        yield from flows.save(session, RULES)
        self.created = True

    def _load(self, name: str, operation: Operation, rules: Rules = RULES) -> Flow[Session | None]:
        began_ended = self.promise.ended or self.seen_ended
        session = yield from flows.load(self.id, rules)
        if session is None:
            self.check(self.ending, "a session is gone that nobody ended")
            self.seen_ended = True
            return None
        self.check(not began_ended, "an ended session is back")
        for field_name, value in operation.before.fields.items():
            found = session.fields.get(field_name)
            self.check(
                found is not None and found >= value, f"{field_name}={value} was acknowledged and lost"
            )
        applied = session.fields["applied"]
        self.check(len(applied) == len(set(applied)), f"applied twice: {applied}")
        lost = operation.before.applied - set(applied)
        self.check(not lost, f"applied, acknowledged and lost: {set(lost)}")
        return session

    def _save(self, name: str, operation: Operation) -> Flow[None]:
        session = yield from self._load(name, operation)
        if session is not None:
            value = session.fields[name] = next(self.numbers)
            yield from flows.save(session, RULES)
            self.check(not operation.before.ended, "a write to an ended session was acknowledged")
            self.promise.fields[name] = value

    def _apply(self, name: str, operation: Operation) -> Flow[None]:
        session = yield from self._load(name, operation)
        if session is not None:
            value = next(self.numbers)

            def change(fields: Any) -> None:
                fields["applied"] = [*fields["applied"], value]

            yield from flows.apply(session, change, RULES)
            self.check(not operation.before.ended, "a write to an ended session was acknowledged")
            self.promise.applied |= {value}

    def _end(self, name: str, operation: Operation) -> Flow[None]:
        session = yield from self._load(name, operation, replace(RULES, sliding=False))
        if session is not None:
            self.ending = True
            yield from flows.end(session, RULES)
        self.promise.ended = True

    def _bury(self, name: str, operation: Operation) -> Flow[None]:
        """As whoever ends a session by its handle alone, unread."""
        self.ending = True
        tombstone = Record(
            Header(Kind.TOMBSTONE, 1, (b"burial",), RULES.now(), expires_at=RULES.now() + 1000)
        )
        there = yield Replace(self.key, pack(tombstone), 1000)
        self.check(there, "what is to be buried is not there")
        self.promise.ended = True

    def _go_on(self, name: str, operation: Operation, resume: Callable[[], Any]) -> None:
        """Run a client's flow up to its next flight."""
        try:
            question = resume()
            while isinstance(question, Event | Sleep):
                question = operation.flow.send(None)
        except StopIteration:
            self._over(name, "done")
        except SessionEnded:
            self.check(self.ending, "a session has ended that nobody ended")
            self.seen_ended = True
            self._over(name, "refused: the session has ended")
        except StoreUnavailable as error:
            self._over(name, f"fails: {error}")
        else:
            operation.command, operation.sendings, operation.sent = question, 0, False
            self._take_off(name, operation)

    def _take_off(self, name: str, operation: Operation) -> None:
        if operation.nodes is None:
            operation.nodes = self.clients[name].nodes
        nodes = self.clients[name].nodes
        view = View(nodes, self.copies, is_recent=nodes.previous != ())
        operation.flight = self.protocol(operation.command, view)
        self._fly(name, operation, lambda: next(operation.flight))

    def _fly(self, name: str, operation: Operation, resume: Callable[[], Any]) -> None:
        """Run the protocol up to its next flight, as the manager would."""
        try:
            question = resume()
            while isinstance(question, Noticed):
                question = operation.flight.send(None)
            operation.renews = question is RENEW
            operation.asks = () if operation.renews else question
        except StopIteration as stop:
            reply = stop.value
            if isinstance(reply, Conflict):
                reply = replace(reply, resent=reply.resent or operation.sent)
            self._go_on(name, operation, lambda: operation.flow.send(reply))
        except StoreUnavailable as raised:
            error = raised
            operation.sendings += 1
            operation.sent = error.sent = operation.sent or error.sent
            if error.retry and operation.sendings <= 3:
                self._take_off(name, operation)
            else:
                self._go_on(name, operation, lambda: operation.flow.throw(error))
        else:
            operation.flights += 1
            operation.answers, operation.tried = {}, set()
            self.check(operation.flights <= MOST_FLIGHTS * len(CLIENTS), f"{name} goes on for ever")

    def _over(self, name: str, outcome: str) -> None:
        self.say(f"{name} {outcome}")
        self.behind |= self._running(name).troubled
        self.clients[name].operation = None

    # What becomes of questions.

    def deliver(self, name: str, node: str) -> None:
        """The node answers."""
        operation = self._running(name)
        if node in self.behind:
            operation.troubled.add(node)
        resent = operation.open()[node] in operation.tried

        def ask(ask: Ask) -> Answer:
            answer = self._carry_out(name, ask)
            return replace(answer, resent=True) if resent and isinstance(answer, Conflict) else answer

        self._answer(name, node, ask)

    def down(self, name: str, node: str) -> None:
        """It is not asked (any more): the client knows it to be down."""
        self.behind.add(node)
        operation = self._running(name)
        operation.troubled.add(node)
        self.say(f"{name} does without {node}")
        self._answer(name, node, lambda ask: DOWN)

    def _answer(self, name: str, node: str, answer: Callable[[Ask], Answer]) -> None:
        operation = self._running(name)
        number = operation.open()[node]
        operation.answers[number] = answer(operation.asks[number])
        if len(operation.answers) < len(operation.asks):
            return
        answers = [operation.answers[number] for number in range(len(operation.asks))]
        if all(each is DOWN for each in answers):
            error = StoreUnavailable("nobody answered", sent=bool(operation.tried))
            self._fly(name, operation, lambda: operation.flight.throw(error))
        else:
            self._fly(name, operation, lambda: operation.flight.send(answers))

    def lose(self, name: str, node: str) -> None:
        """The node does it, but the connection breaks: it will be asked again."""
        operation = self._running(name)
        number = operation.open()[node]
        self._carry_out(name, operation.asks[number], " (lost)")
        operation.tried.add(number)

    def stall(self, name: str, node: str) -> None:
        """No answer in time: it will be asked again, and the first question may still arrive."""
        operation = self._running(name)
        number = operation.open()[node]
        self.nodes[node].late.append(operation.asks[number].command)
        operation.tried.add(number)
        self.say(f"{name} {node} {told(operation.asks[number].command)}: under way")

    def arrive(self, node: str) -> None:
        """What was under way to a node for long arrives."""
        command = self.nodes[node].late.pop(0)
        self.say(f"late: {node} {told(command)} -> {told(self.nodes[node].answer(command))}")

    def fail(self, name: str, again: str) -> None:
        """The client's time is up, or a connection broke: what it did not hear of is still under way."""
        operation = self._running(name)
        self._leave_under_way(operation)
        self.say(f"{name} cannot go on")
        error = StoreUnavailable("no answer in time", retry=again == "again")
        self._fly(name, operation, lambda: operation.flight.throw(error))

    def die(self, name: str) -> None:
        """The process is gone, in the middle."""
        self._leave_under_way(self._running(name))
        self._over(name, "dies")
        if self.scales:
            self.clients[name].nodes = replace(self.news, previous=None, last=())

    def _leave_under_way(self, operation: Operation) -> None:
        for number, ask in enumerate(operation.asks):
            if number not in operation.answers and number not in operation.tried:
                self.nodes[ask.node].late.append(ask.command)

    def _carry_out(self, name: str, ask: Ask, remark: str = "") -> Answer:
        answer = self.nodes[ask.node].answer(ask.command)
        self.say(f"{name} {ask.node} {told(ask.command)} -> {told(answer)}{remark}")
        return answer

    def _running(self, name: str) -> Operation:
        operation = self.clients[name].operation
        assert operation is not None
        return operation

    def hear(self, name: str) -> None:
        """Discovery tells the client which nodes there are."""
        client = self.clients[name]
        client.nodes = self.news
        self.say(f"{name} hears of {client.nodes.current}, before {client.nodes.previous}")
        operation = client.operation
        if operation is not None and operation.renews:
            self._fly(name, operation, lambda: operation.flight.send(client.nodes))

    # What becomes of nodes.

    def change(self, *members: str) -> None:
        """There is another set of nodes; who knows of it is another matter."""
        previous = (self.news.current, *(self.news.previous or ()))
        self.news = Nodes(members, previous, self.news.version + 1, self.news.current)
        self.say(f"the nodes are {members}")

    def cut(self, node: str) -> None:
        """Nobody reaches the node any more; it keeps what it has."""
        self.nodes[node].reachable = False
        self.behind.add(node)
        self.say(f"{node} is cut off")

    def heal(self, node: str) -> None:
        self.nodes[node].reachable = True
        self.say(f"{node} is back")

    def restart(self, node: str) -> None:
        """The node begins anew, empty; what was under way to it is lost."""
        self.nodes[node] = Node(lives=0 if self.same_numbers else self.nodes[node].lives + 1)
        self.behind.add(node)
        for client in self.clients.values():
            if client.operation is not None:
                client.operation.troubled.add(node)
        self.say(f"{node} restarts empty")

    def trip(self, name: str, node: str) -> None:
        """The client has asked the node in vain too often."""
        self.clients[name].breakers.add(node)
        self.behind.add(node)
        self.say(f"{name} knows {node} to be down")

    def close(self, name: str, node: str) -> None:
        """The client finds the node up again."""
        self.clients[name].breakers.discard(node)
        self.say(f"{name} knows {node} to be up")

    def well(self, node: str) -> bool:
        """Whether a node is what others can rely on."""
        return (
            self.nodes[node].reachable
            and node not in self.behind
            and not any(node in client.breakers for client in self.clients.values())
            and not self._met_in_trouble(node)
        )

    def _met_in_trouble(self, node: str) -> bool:
        """Whether a request is under way that this node has failed: it does not begin anew twice within one."""
        return any(client.operation and node in client.operation.troubled for client in self.clients.values())

    def may_fail(self, node: str) -> bool:
        if not self.single_faults:
            return True
        # A change that not everybody has heard of counts as a fault itself.
        return self._all_have_heard() and all(self.well(other) for other in self.nodes if other != node)

    # What can happen, and what must hold.

    def do(self, action: Action) -> None:
        verb, *arguments = action
        getattr(self, verb)(*arguments)
        if self.created and all(self.nodes[node].reachable for node in self.owners()) and self.agreed():
            self.behind.clear()

    def possible(self) -> list[Action]:
        """All that can happen now."""
        actions: list[Action] = []
        for name, client in self.clients.items():
            operation = client.operation
            if operation is None:
                actions += [("begin", name, kind) for kind in self._kinds(name)]
            else:
                for node in operation.open():
                    actions += self._fates(name, client, node)
                actions += [("fail", name, "over"), ("fail", name, "again"), ("die", name)]
            if client.nodes != self.news or (operation and operation.renews):
                actions.append(("hear", name))
            for node in self.nodes:
                if node in client.breakers:
                    actions += [("close", name, node)] if self.nodes[node].reachable else []
                elif not self.nodes[node].reachable or self.may_fail(node):
                    actions.append(("trip", name, node))
        for node, state in self.nodes.items():
            if not state.reachable:
                actions.append(("heal", node))
            if state.late and state.reachable:
                actions.append(("arrive", node))
            if self.may_fail(node):
                if not self.single_faults or (self.copies > 1 and not self._met_in_trouble(node)):
                    actions.append(("restart", node))
                actions += [("cut", node)] if state.reachable else []
        if self.scales and (self._may_change() or not self.single_faults):
            actions += [("change", *members) for members in SETS if members != self.news.current]
        return actions

    def _may_change(self) -> bool:
        return self._all_have_heard() and all(map(self.well, self.nodes))

    def _all_have_heard(self) -> bool:
        return all(
            client.nodes == self.news and (client.operation is None or client.operation.nodes == self.news)
            for client in self.clients.values()
        )

    def _kinds(self, name: str) -> tuple[str, ...]:
        if not self.created:
            running = any(client.operation for client in self.clients.values())
            return () if running or name != "w0" else ("create",)
        return ("load", "end", "bury") if name == "ender" else ("load", "save", "apply")

    def _fates(self, name: str, client: Client, node: str) -> list[Action]:
        if node in client.breakers:
            return [("down", name, node)]
        if self.nodes[node].reachable:
            return [("deliver", name, node), ("lose", name, node), ("stall", name, node)]
        return [("stall", name, node)]

    def owners(self) -> tuple[str, ...]:
        return self.news.owners(self.key, self.copies)

    def copies_held(self) -> list[bytes | None]:
        held = (self.nodes[node].items.get(self.key) for node in self.owners())
        return [None if item is None else item[0] for item in held]

    def agreed(self) -> bool:
        """Whether every owner has the session, and all the same."""
        held = self.copies_held()
        return len(set(held)) == 1 and held[0] is not None

    def run(self, name: str, kind: str | None = None) -> str:
        """Run a client's request to its end while all others stand still. Returns what the end was."""
        if kind is not None:
            self.do(("begin", name, kind))
        client, flights = self.clients[name], 0
        while (operation := client.operation) is not None:
            flights += 1
            self.check(flights < MOST_FLIGHTS, f"{name} goes on for ever, alone")
            if operation.renews:
                self.do(("hear", name))
            for node in list(operation.open()):
                if node not in client.breakers and not self.nodes[node].reachable:
                    self.do(("trip", name, node))
                self.do(("down" if node in client.breakers else "deliver", name, node))
        return self.trace[-1]

    def settle(self) -> None:
        """Everything comes to rest and is well again: then one load makes the copies alike, and writing works."""
        for name, client in self.clients.items():
            if client.operation is not None:
                self.run(name)
        for node, state in self.nodes.items():
            if not state.reachable:
                self.do(("heal", node))
            while state.late:
                self.do(("arrive", node))
        for name, client in self.clients.items():
            client.nodes = self.news
            for node in sorted(client.breakers):
                self.do(("close", name, node))
        if not self.created:
            return
        for name, kind in (("w0", "load"), ("w1", "save"), ("w2", "apply"), ("w0", "load")):
            outcome = self.run(name, kind)
            self.check("fails" not in outcome, f"all is well, yet {outcome}")
            self.check(self.agreed() or not any(self.copies_held()), "after a quiet load the copies differ")

    def check(self, holds: object, otherwise: str) -> None:
        if not holds:
            raise Broken("\n".join([otherwise, *self.trace]))

    def say(self, event: str) -> None:
        self.trace.append(event)
