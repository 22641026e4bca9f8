"""The graph decider: nodes become ready as what they depend on ends; a completion costs its dependants, no more.

Shape of keys: a node's step is known by the node's name; a mapped node's elements by "name[0]", "name[1]", …
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

import msgspec

from perdure.errors import BadArgument, PerdureError, TooLarge
from perdure.kernel.arguments import NULL, Values
from perdure.kernel.decider import Catalogue, Decider, Intent, Trouble
from perdure.kernel.failures import failure_of
from perdure.kernel.flow import Limits
from perdure.kernel.plan import plan_of
from perdure.kernel.snapshot import restore, take
from perdure.kernel.steps import FAILED, OPEN, SKIPPED, SUCCEEDED, WAITING, Child, Fan, NodeStep
from perdure.model import fact as f
from perdure.model.command import StartChild
from perdure.model.failure import Failure
from perdure.model.graph import Node
from perdure.model.ids import child_id
from perdure.model.workflow import WorkflowSpec


class Graph(Decider):
    """One generation of a graph run.

    Shape: by node index: `states`, `results` (encoded), `left` dependencies that have not ended, `good` that succeeded.
    """

    shape: ClassVar[str] = "graph"

    def __init__(self, run_id: str, spec: WorkflowSpec, catalogue: Catalogue, limits: Limits) -> None:
        super().__init__(run_id, spec, catalogue)
        self.limits = limits
        self.plan = plan = plan_of(spec)
        count = len(plan.nodes)
        self.states = bytearray(count)
        self.results: list[bytes | None] = [None] * count
        self.left = [len(needs) for needs in plan.needs]
        self.good = [0] * count
        self.unended = count
        self.failures: dict[int, Failure] = {}
        self.fans: dict[int, Fan] = {}
        self.inputs: dict[str, bytes] = {}
        self.values = Values(plan.index, self.results, self.inputs)
        self.journal: dict[str, int] | None = None
        self._ended: deque[int] = deque()
        self._undone_keys: set[str] = set()
        self._kept_fans: dict[int, Fan] = {}

    # --- facts -------------------------------------------------------------------------------------

    def _on_started(self, fact: f.RunStarted) -> None:
        self.seed, self.depth = fact.seed, fact.depth
        self._take_input(fact.input)
        for i, needs in enumerate(self.plan.needs):
            if not needs:
                self._ready(i)
        self._after()

    def _take_input(self, raw: msgspec.Raw) -> None:
        parts = msgspec.json.decode(raw, type=list[msgspec.Raw])
        self.inputs.update((name, bytes(part)) for name, part in zip(self.spec.signature.names, parts, strict=True))

    def _on_completed(self, fact: f.StepCompleted) -> None:
        Decider._on_completed(self, fact)
        self._after()

    def _on_failed(self, fact: f.AttemptFailed) -> None:
        Decider._on_failed(self, fact)
        if fact.retry_at is None:
            self._after()

    def _on_resolved(self, fact: f.StepResolved) -> None:
        Decider._on_resolved(self, fact)
        self._after()

    def _on_child_ended(self, fact: f.ChildEnded) -> None:
        if self.intent is not None and fact.status == "completed":
            i = self.children[fact.key].target  # nothing follows from it but that a retry keeps it
            self.states[i], self.results[i] = SUCCEEDED, bytes(fact.result)
        Decider._on_child_ended(self, fact)
        self._after()

    def _on_cancel(self, fact: f.CancelRequested) -> None:
        if self.cancelled is None and not self.ended:
            self.cancelled = fact.reason
            self.settle(Intent("cancelled", reason=fact.reason))

    def _on_skipped(self, fact: f.StepSkipped) -> None:
        """A decision of its own; it follows on replay."""

    def _on_retried(self, fact: f.RunRetried) -> None:
        """The next generation keeps the uncompensated successes (S21); everything else is made again."""
        undone = self._undone_keys
        kept = {
            i: self.results[i] for i, state in enumerate(self.states) if state == SUCCEEDED and self._kept(i, undone)
        }
        fans = {i: fan for i, fan in self.fans.items() if i not in kept}
        self.steps_generation = self.generation = fact.generation
        self._reset()
        for i, result in kept.items():
            self.states[i] = SUCCEEDED
            self.results[i] = result
            self.unended -= 1
            for k in self.plan.feeds[i]:
                self.left[k] -= 1
                self.good[k] += 1
        self._kept_fans = {i: fan.without(self.plan.nodes[i].name, undone) for i, fan in fans.items()}
        for i, state in enumerate(self.states):
            if state == WAITING and self._may_run(i):
                self._ready(i)
        self._after()

    def _kept(self, i: int, undone: set[str]) -> bool:
        name = self.plan.nodes[i].name
        if i in self.fans:
            return not any(f"{name}[{k}]" in undone for k in range(len(self.fans[i].results)))
        return name not in undone

    def _reset(self) -> None:
        plan = self.plan
        self.states = bytearray(len(plan.nodes))
        self.results[:] = [None] * len(plan.nodes)
        self.left = [len(needs) for needs in plan.needs]
        self.good = [0] * len(plan.nodes)
        self.unended = len(plan.nodes)
        self.failures.clear()
        self.fans.clear()
        self.open.clear()
        self.fresh.clear()
        self.retries.clear()
        self.children.clear()
        self.owed = [entry for entry in self.owed if entry[0].key not in self._undone_keys]
        self.intent = self.undoing = self.cancelled = None
        self.ended = False
        self._undone_keys = set()

    # --- readiness -----------------------------------------------------------------------------------

    def _may_run(self, i: int) -> bool:
        """Whether the node's join lets it run now."""
        join, good = self.plan.joins[i], self.good[i]
        if join == "any":
            return good >= 1 or not self.plan.needs[i]
        if isinstance(join, int):
            return good >= join
        if self.left[i]:
            return False
        return join == "done" or good == len(self.plan.needs[i])

    def _spread(self) -> None:
        """Tell the dependants of the nodes that have ended, and theirs."""
        ended, states, left, good = self._ended, self.states, self.left, self.good
        while ended:
            i = ended.popleft()
            succeeded = states[i] == SUCCEEDED
            for k in self.plan.feeds[i]:
                left[k] -= 1
                if succeeded:
                    good[k] += 1
                if states[k] != WAITING:
                    continue
                if self._may_run(k):
                    self._ready(k)
                elif not left[k]:
                    failed = any(states[need] == FAILED for need in self.plan.needs[k])
                    self._skip(k, "failed" if failed else "dependency")

    def _close(self, i: int, state: int, result: bytes | None = None) -> None:
        self.states[i] = state
        self.results[i] = result
        self.unended -= 1
        self._ended.append(i)

    def _skip(self, i: int, reason: Any) -> None:
        self._close(i, SKIPPED)
        self.decisions.append(f.StepSkipped(self.now, self.asked_n, self.asked_h, self.plan.nodes[i].name, reason))

    def _ready(self, i: int) -> None:
        """All that the node waits for is there: judge its condition, then ask for its step."""
        node = self.plan.nodes[i]
        if node.when is not None and not self._holds(node):
            if self.trouble is None:
                self._skip(i, "condition")
            return
        self.states[i] = OPEN
        try:
            if node.map is not None:
                self._fan_out(i, node)
            elif node.child:
                self._start_child(i, node)
            else:
                self._ask(i, node.name, self._made(node, {}), -1)
        except PerdureError as error:
            self._node_failed(i, failure_of(error))

    def _holds(self, node: Node) -> bool:
        assert node.when is not None
        condition = self.spec.conditions.get(node.name)
        if condition is None:
            self.trouble = Trouble(
                "refused",
                f"the condition of {node.name} is not known here: {node.when.call or node.when.cel}",
                node.name,
            )
            return False
        try:
            return bool(condition({name: self._decoded(name) for name in node.when.names}))
        except Exception as error:  # noqa: BLE001 - a condition is user code; what it raises is said, and never the node's
            self.trouble = Trouble(
                "refused", f"the condition of {node.name} raised {type(error).__name__}: {error}", node.name
            )
            return False

    def _decoded(self, name: str) -> Any:
        """A name in a condition: the decoded result of a step, or a parameter of the graph."""
        i = self.plan.index.get(name)
        if i is None:
            signature = self.spec.signature
            return signature.shapes[signature.names.index(name)].decode(self.inputs[name])
        raw = self.results[i]
        if raw is None:
            return None
        node = self.plan.nodes[i]
        shape = self.spec.workflows[node.task].result if node.child else self.spec.tasks[node.name].result
        if node.map is not None:
            return [shape.decode(one) for one in msgspec.json.decode(raw, type=list[msgspec.Raw])]
        return shape.decode(raw)

    # --- asking ----------------------------------------------------------------------------------------

    def _made(self, node: Node, given: dict[str, bytes]) -> tuple[bytes, tuple[Any, ...]]:
        """The arguments of a node's step, encoded and decoded. Raises: `BadArgument`, `TooLarge`."""
        raw = self._packed(node, given)
        return raw, self.spec.tasks[node.name].signature.unpack(raw)

    def _packed(self, node: Node, given: dict[str, bytes]) -> bytes:
        """The encoded arguments of a node, in the order of its task's parameters. Raises: `BadArgument`, `TooLarge`."""
        raw = self._spliced(node, given)
        if len(raw) > self.limits.payload:
            raise TooLarge(f"arguments of {node.name}", len(raw), self.limits.payload)
        return raw

    def _spliced(self, node: Node, given: dict[str, bytes]) -> bytes:
        spec: Any = self.spec.workflows[node.task] if node.child else self.spec.tasks[node.name]
        names, args, values = spec.signature.names, node.args, self.values
        if len(args) == len(names):
            try:
                return b"[%b]" % b",".join([given[name] if name in given else values.raw(args[name]) for name in names])
            except KeyError:
                pass
        named = {
            name: msgspec.json.decode(given[name] if name in given else values.raw(one)) for name, one in args.items()
        }
        packed: bytes = spec.signature.from_names(named, self.limits.payload)
        return packed

    def _ask(self, i: int, key: str, made: tuple[bytes, tuple[Any, ...]], item: int) -> None:
        raw, values = made
        step = NodeStep(key, self.spec.tasks[self.plan.nodes[i].name], raw, values, node=i, item=item)
        step.ask = self._asked(b"task", key, raw)
        step.asked_seq, step.asked_at, step.generation = self.seq, self.now, self.steps_generation
        if self.journal is not None:
            self.journal[key] = self.seq
        self.open[key] = step
        self.fresh[key] = step

    def _fan_out(self, i: int, node: Node) -> None:
        assert node.map is not None
        listed = self.values.raw(node.args[node.map])
        try:
            items = msgspec.json.decode(listed, type=list[msgspec.Raw])
        except msgspec.DecodeError:
            raise BadArgument(f"{node.name} maps over {node.map!r}, which is no list: {listed[:60]!r}") from None
        old = self._kept_fans.pop(i, None)
        kept = old.results if old is not None and len(old.results) == len(items) else [None] * len(items)
        # All are made before any is asked for: where one cannot be, none is.
        made = [
            self._made(node, {node.map: bytes(item)}) if result is None else None
            for item, result in zip(items, kept, strict=True)
        ]
        fan = self.fans[i] = Fan(len(items))
        for k, one in enumerate(made):
            if one is None:
                fan.results[k] = kept[k]
                fan.left -= 1
            else:
                self._ask(i, f"{node.name}[{k}]", one, k)
        self._fan_ended(i, fan)

    def _start_child(self, i: int, node: Node) -> None:
        workflow = self.spec.workflows[node.task]
        raw = self._packed(node, {})
        workflow.signature.unpack(raw)
        if self.depth >= self.limits.depth:
            raise BadArgument(
                f"{node.name}: runs within runs are {self.limits.depth} deep already (setting children_depth_max)"
            )
        key = node.name
        ask = self._asked(b"child", key, raw)
        if self.journal is not None:
            self.journal[key] = self.seq
        child = Child(
            key,
            child_id(self.run_id, self.steps_generation, key, workflow.name),
            workflow,
            raw,
            ask=ask,
            asked_seq=self.seq,
        )
        child.target = i
        self.children[key] = child
        self.commands.append(StartChild(key, child.id, workflow, raw))

    # --- what becomes of steps -----------------------------------------------------------------------

    def _deliver(self, step: NodeStep, result: msgspec.Raw) -> None:
        i = step.node
        if step.item < 0:
            self._close(i, SUCCEEDED, bytes(result))
            return
        fan = self.fans[i]
        fan.results[step.item] = bytes(result)
        fan.left -= 1
        self._fan_ended(i, fan)

    def _fan_ended(self, i: int, fan: Fan) -> None:
        if fan.left:
            return
        if fan.failure is not None:
            self._node_failed(i, fan.failure)
        else:
            self._close(i, SUCCEEDED, b"[%b]" % b",".join([NULL if raw is None else raw for raw in fan.results]))

    def _deliver_failure(self, step: NodeStep, failure: Failure) -> None:
        if step.item < 0:
            self._node_failed(step.node, failure)
            return
        fan = self.fans[step.node]
        fan.left -= 1
        fan.failure = fan.failure or failure
        self._fan_ended(step.node, fan)

    def _deliver_child(self, child: Child, fact: f.ChildEnded) -> None:
        if fact.status == "completed":
            self._close(child.target, SUCCEEDED, bytes(fact.result))
        else:
            self._node_failed(
                child.target,
                fact.failure or Failure("perdure.RunCancelled", "the child run was cancelled", "cancelled"),
            )

    def unmade(self) -> frozenset[str]:
        """The nodes that failed without an attempt, since their arguments could not be made."""
        asked = {key.partition("[")[0] for key in self.journal or ()}
        names = (self.plan.nodes[i].name for i in self.failures)
        return frozenset(name for name in names if name not in asked)

    def _node_failed(self, i: int, failure: Failure) -> None:
        self.failures[i] = failure
        self._close(i, FAILED)

    # --- the end -----------------------------------------------------------------------------------------

    def _after(self) -> None:
        """Spread what has ended; end the run when nothing can run any more."""
        if self.intent is not None or self.ended:
            return
        self._spread()
        if self.unended or self.open or self.children or self.trouble is not None:
            return
        for i in sorted(self.failures):
            if not self.plan.lenient[i]:
                self.settle(Intent("failed", self.failures[i]))
                return
        try:
            output = self._output()
        except PerdureError as error:
            self.settle(Intent("failed", failure_of(error)))
        else:
            self.finish(f.RunCompleted(self.now, self.asked_n, self.asked_h, msgspec.Raw(output)))

    def _output(self) -> bytes:
        """The run's result. Raises: `BadArgument` for a path that leads nowhere, `TooLarge`."""
        raw = self._result()
        if len(raw) > self.limits.payload:
            raise TooLarge(f"the result of run {self.run_id}", len(raw), self.limits.payload)
        return raw

    def _result(self) -> bytes:
        assert self.spec.graph is not None
        output = self.spec.graph.output
        if output is not None:
            return self.values.raw(output)
        leaves = [i for i, feeds in enumerate(self.plan.feeds) if not feeds]
        pairs = [b"%b:%b" % (msgspec.json.encode(self.plan.nodes[i].name), self.results[i] or NULL) for i in leaves]
        return b"{%b}" % b",".join(pairs)

    def _undone(self) -> None:
        assert self.undoing is not None
        self._undone_keys.add(self.undoing.owed.key)
        Decider._undone(self)

    # --- snapshots -----------------------------------------------------------------------------------------

    def snapshot(self, size_max: int) -> bytes | None:
        """The fold as bytes; None in a later generation, while it settles, or where it would be too large."""
        if self.intent is not None or self.ended or self.steps_generation != 1:
            return None
        return take(self, size_max)

    def restore(self, body: bytes) -> None:
        """Take up a snapshot in place of the facts that it stands for."""
        restore(self, body)

    _fold: ClassVar[dict[type[f.Fact], Callable[[Any, Any], None]]] = {
        **Decider._fold,
        f.RunStarted: _on_started,
        f.RunRetried: _on_retried,
        f.StepCompleted: _on_completed,
        f.AttemptFailed: _on_failed,
        f.StepResolved: _on_resolved,
        f.StepSkipped: _on_skipped,
        f.ChildEnded: _on_child_ended,
        f.CancelRequested: _on_cancel,
        f.SignalReceived: Decider._on_note,
        **dict.fromkeys(f.ENDS, Decider._on_note),
    }
