/** What the client's core decides, one case at a time: when to connect, when to give up, what to keep. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Core } from "../../../../server/page/client/lib/core.js";

/** A core whose random numbers are all *drawn*, connected, and what it wants done. */
function connected({ drawn = 0.999, canRenew = false, state = null, maxUnsent = 3 } = {}) {
  let ids = 0;
  const core = new Core({
    state,
    session: null,
    maxUnsent,
    canRenew,
    canRun: () => false,
    random: () => drawn,
    newId: () => `id${++ids}`,
  });
  core.start(0);
  core.receive(created(), 0);
  core.effects();
  return core;
}

function created(unbroken = {}) {
  const session = { id: "s", model: "m", unbroken: { resume: "token", ...unbroken } };
  return { type: "session.created", event_id: "e0", session };
}

function say(core, text, now = 0) {
  return core.send([{ type: "input_text", text }], undefined, now);
}

/** What it is told of one kind, since the last time. */
function told(core, name) {
  return core
    .effects()
    .filter((effect) => effect.do === "tell" && effect.name === name)
    .map((effect) => effect.told);
}

function sent(core) {
  return core
    .effects()
    .filter((effect) => effect.do === "send")
    .map(({ event }) => event);
}

for (const code of [1001, 1005, 1006, 1011, 1012, 1013, 1014, 1015]) {
  test(`after ${code} it connects again, to the same place`, () => {
    const core = connected();
    core.receive({ type: "x", event_id: "e7" }, 100);
    core.closed(code, 100);
    const [{ phase, until, isPlanned }] = told(core, "status");
    assert.deepEqual([phase, until, isPlanned], ["waiting", 599.5, code === 1012]);
    assert.equal(core.wakeAt, 599.5);
    core.wake(599);
    assert.deepEqual(core.effects(), []);
    core.wake(600);
    const [, open] = core.effects();
    assert.deepEqual(open, { do: "open", query: { resume: "token", after: "e7", try: null }, isFresh: false });
  });
}

for (const code of [1000, 1002, 1003, 1007, 1008, 4000]) {
  test(`after ${code} it stays away`, () => {
    const core = connected();
    core.receive({ type: "error", event_id: "e1", error: { code: "why", message: "So." } }, 100);
    core.closed(code, 100);
    assert.deepEqual(told(core, "status"), [{ phase: "stopped", code: "why", reason: "So." }]);
    core.wake(1e9);
    assert.equal(core.wakeAt, Infinity);
    assert.deepEqual(core.effects(), []);
  });
}

test("closed for having been idle, it connects when there is something to say, and only then", () => {
  for (const [code, opens] of [[1000, 1], [1008, 0]]) {
    const core = connected();
    core.closed(code, 100);
    core.effects();
    say(core, "hi", 200);
    assert.equal(core.effects().filter((effect) => effect.do === "open").length, opens);
  }
});

test("what an error of before was about is no reason for a close", () => {
  const core = connected();
  core.receive({ type: "error", event_id: "e1", error: { code: "x", message: "Of an event.", event_id: "another" } }, 100);
  core.closed(1006, 100);
  assert.equal(told(core, "status")[0].reason, "");
});

test("each wait is longer, with full jitter, up to a bound", () => {
  for (const [drawn, waits] of [
    [0.5, [250, 500, 1000, 2000, 4000, 4000]],
    [0, [0, 0, 0, 0, 0, 0]],
  ]) {
    const core = connected({ drawn });
    const seen = [];
    for (let now = 0; seen.length < waits.length; ) {
      core.closed(1006, now);
      const { until } = told(core, "status").at(-1);
      seen.push(until - now);
      now = until;
      core.wake(now);
      core.effects();
    }
    assert.deepEqual(seen, waits);
  }
});

test("it waits no less than it is asked to, and not for ever", () => {
  for (const [asked, waited] of [[30, 30_250], [1e9, 300_250], [-5, 250], ["x", 250]]) {
    const core = connected({ drawn: 0.5 });
    core.closed(1013, 0, { code: "server_full", message: "Full.", unbroken: { retry_after: asked } });
    assert.equal(told(core, "status")[0].until, waited);
  }
});

test("attempts that come to nothing ask for another node", () => {
  const core = connected({ drawn: 0 });
  const tries = [];
  for (let count = 0; count < 3; count += 1) {
    core.closed(1006, count);
    core.wake(count);
    tries.push(core.effects().find((effect) => effect.do === "open").query.try);
  }
  assert.deepEqual(tries, [null, "1", "2"]);
});

test("a connection that opens and says nothing is given up", () => {
  const core = connected();
  core.reconnect(0);
  core.effects();
  core.wake(9_999);
  assert.deepEqual(core.effects(), []);
  core.wake(10_000);
  assert.equal(told(core, "status")[0].phase, "waiting");
});

test("a line that is dead is noticed while something is waited for", () => {
  const core = connected();
  say(core, "hi", 1_000);
  core.effects();
  core.wake(10_000);
  assert.deepEqual(sent(core).map(({ type }) => type), ["conversation.item.retrieve"]);
  core.wake(14_999);
  assert.deepEqual(core.effects(), []);
  core.wake(15_000);
  assert.equal(told(core, "status")[0].phase, "waiting");
});

test("a silent line is left alone while nothing is", () => {
  const core = connected();
  for (let now = 0; now < 100_000; now = core.wakeAt) {
    core.wake(now);
    assert.deepEqual(core.effects(), []);
    assert.ok(core.wakeAt > now);
  }
});

test("who hurries is told whether the line lives", () => {
  const core = connected();
  core.hurry(4_999);
  assert.deepEqual(core.effects(), []);
  core.hurry(5_000);
  assert.deepEqual(sent(core).map(({ type }) => type), ["conversation.item.retrieve"]);
});

test("another key is asked for once, where there may be one", () => {
  const core = connected({ canRenew: true });
  const refused = () => {
    core.receive({ type: "error", event_id: "x", error: { code: "credential_expired", message: "Expired." } }, 0);
    core.closed(1008, 0);
    return core.effects();
  };
  assert.deepEqual(refused().at(-1), { do: "open", query: { resume: "token", after: "x", try: null }, isFresh: true });
  assert.equal(refused().at(-1).told.phase, "stopped");
});

test("what is said is kept before it is sent", () => {
  const core = connected();
  say(core, "hi");
  const done = core.effects().map((effect) => effect.do);
  assert.ok(done.indexOf("save") < done.indexOf("send"));
  assert.equal(core.state.session, "token");
  assert.equal(core.state.unsent[0].sent, true);
});

test("a session in which nothing was said isn't kept", () => {
  assert.equal(connected().state.session, null);
});

test("the queue has an end", () => {
  const core = connected({ maxUnsent: 2 });
  say(core, "one");
  assert.equal(core.isFull, false);
  say(core, "two");
  assert.equal(core.isFull, true);
});

test("what is refused for the moment is sent again after growing waits, under a name of its own", () => {
  const core = connected();
  const turn = say(core, "hi");
  const waits = [];
  const names = new Set();
  let events = sent(core);
  for (let now = 0; waits.length < 6; ) {
    for (const { event_id } of events) {
      names.add(event_id);
      core.receive({ type: "error", event_id: "e1", error: { code: "store_unavailable", message: "Later.", event_id } }, now);
    }
    core.effects();
    const until = core.state.unsent.length === 1 ? core.wakeAt : Infinity;
    // The line is probed meanwhile; what it waits for is the second of the two.
    let at = now;
    do {
      at = core.wakeAt;
      core.wake(at);
      const all = sent(core);
      for (const { type, event_id } of all) {
        if (type !== "conversation.item.retrieve") continue;
        core.receive({ type: "error", event_id: "e1", error: { code: "item_not_found", message: "", event_id } }, at);
      }
      events = all.filter(({ type }) => type !== "conversation.item.retrieve");
    } while (events.length === 0);
    assert.ok(until <= at);
    waits.push(Math.round((at - now) / 1_000));
    now = at;
  }
  assert.deepEqual(waits, [2, 4, 8, 16, 30, 30]);
  assert.equal(names.size, 12);
  assert.equal(core.state.unsent[0].id, turn);
});

test("what is larger than may be is given up, and not what follows", () => {
  const core = connected();
  const turn = say(core, "large");
  say(core, "small");
  core.effects();
  core.closed(1009, 0);
  const refused = core.effects().find((effect) => effect.do === "refuse");
  assert.deepEqual([refused.turn, refused.error.code], [turn, "frame_too_large"]);
  assert.equal(core.state.unsent.length, 1);
});

test("an answer to what was refused is stopped", () => {
  const core = connected();
  say(core, "hi");
  const [item, response] = sent(core);
  const { event_id } = item;
  core.receive({ type: "error", event_id: "e1", error: { code: "store_unavailable", message: "Later.", event_id } }, 0);
  const begun = { id: "r", status: "in_progress", output: [], conversation_id: "c", metadata: response.response.metadata };
  core.receive({ type: "response.created", event_id: "e2", response: begun }, 0);
  const [{ type, response_id }, ...rest] = sent(core);
  assert.deepEqual([type, response_id, rest], ["response.cancel", "r", []]);
  assert.equal(core.state.unsent.length, 1);
});

test("what the server has lost is sent again, though it had it", () => {
  const core = connected();
  say(core, "hi");
  const [{ item }] = sent(core);
  core.receive({ type: "conversation.item.added", event_id: "e1", item }, 0);
  assert.deepEqual(core.state.unsent[0].taken, [item.id]);
  core.closed(1006, 0);
  core.wake(1_000);
  core.receive(created({ resumed: false }), 1_000);
  const [question] = sent(core);
  const error = { code: "item_not_found", message: "", event_id: question.event_id };
  core.receive({ type: "error", event_id: "e2", error }, 1_000);
  assert.deepEqual(sent(core).map(({ type }) => type), ["conversation.item.create", "response.create"]);
});

test("who has left stays away", () => {
  const core = connected();
  core.close();
  assert.deepEqual(told(core, "status"), [{ phase: "closed" }]);
  core.hurry(1);
  core.reconnect(2);
  core.useKey(3);
  core.closed(1006, 4);
  core.wake(1e9);
  assert.deepEqual(core.effects().filter((effect) => effect.do === "open"), []);
});
