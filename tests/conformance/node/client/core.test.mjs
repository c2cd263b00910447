/** The client's core under whatever a network may do: drawn from seeds, with no socket and no clock. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { World } from "./world.mjs";

const SEEDS = Number(process.env.SEEDS ?? 400);
const FIRST = Number(process.env.FIRST ?? 1);
const STEPS = 300;

/** One thing that happens, as drawn. */
function step(world, { faults }) {
  const { random, server } = world;
  const sessions = [...server.sessions.values()];
  const drawn = random();
  if (drawn < 0.3) world.down();
  else if (drawn < 0.5) world.up();
  else if (drawn < 0.62) for (const session of sessions) session.goOn();
  else if (drawn < 0.7) world.open();
  else if (drawn < 0.8) world.pass(random() < 0.1 ? 20_000 : 300);
  else if (drawn < 0.815) world.late();
  else if (drawn < 0.84) world.return();
  else if (drawn < 0.88 && !world.core.isFull && world.turns.size < 12) world.say(`message ${world.turns.size}`);
  else if (drawn < 0.93) world.drop([1006, 1012, 1013, 1011, 1001][Math.floor(random() * 5)], Math.floor(random() * 3));
  else if (faults.has("reload") && drawn < 0.94) world.reload();
  else if (faults.has("forget") && drawn < 0.95) for (const session of sessions) session.forget();
  else if (faults.has("attempts") && drawn < 0.96) for (const session of sessions) session.attemptAgain();
  else if (faults.has("others") && drawn < 0.97) {
    for (const session of sessions) {
      if (session.running !== undefined) continue;
      session.add({ id: `other_${session.items.length}`, type: "message", role: "user", status: "completed", content: [] });
      session.begin(undefined);
    }
  } else if (faults.has("lose") && drawn < 0.975) server.lose();
  else if (faults.has("stop") && drawn < 0.99) {
    const turns = world.core.turns;
    const turn = turns[Math.floor(random() * turns.length)];
    if (turn !== undefined) world.act((core) => (random() < 0.5 ? core.stop(world.now) : core.stopTurn(turn, world.now)));
  }
}

function lived(seed, ...faults) {
  const world = new World(seed);
  world.server.refusing = faults.includes("refusals") ? 0.2 : 0;
  // What was refused is asked for under another name: by a dead line, the first may come long after it was answered.
  world.isLate = world.server.refusing === 0;
  for (let count = 0; count < STEPS; count += 1) step(world, { faults: new Set(faults) });
  world.settle();
  return world;
}

/** What holds whatever happens. */
function check(world, { sessions = [...world.server.sessions.values()] } = {}) {
  for (const session of sessions) {
    const own = session.items.filter(({ id }) => id.startsWith("msg_"));
    // Each message is there once, in the order in which it was said.
    const said = own.map(({ content }) => content[0].text);
    assert.deepEqual(said, [...new Set(said)]);
    assert.deepEqual(said, [...said].sort((one, other) => Number(one.slice(8)) - Number(other.slice(8))));
    // Each is answered once; behind a call, once more for what it returned.
    for (const turn of world.turns.keys()) {
      // What was sent before a refusal may come behind it, by a line that was thought dead: that is stopped.
      const all = responsesTo(world, session, turn);
      const answers = all.filter(({ response }) => !world.stopped.has(response.id));
      const called = all.filter(({ response }) => response.calls.length > 0).length;
      assert.ok(answers.filter(({ kind }) => kind === "message").length <= 1, `${turn} was answered twice`);
      assert.ok(answers.filter(({ kind }) => kind === "outputs").length <= called, `${turn} was gone on with twice`);
    }
    const returned = session.items.filter(({ type }) => type === "function_call_output").map(({ call_id }) => call_id);
    assert.deepEqual(returned, [...new Set(returned)]);
  }
  for (const turn of world.turns.values()) {
    assert.notEqual(turn.ended, null, `${turn.id} never ended`);
    assert.equal(turn.text, turn.ended.text, `${turn.id} was told another text than its result has`);
  }
}

/** The responses that a turn had, with what they were asked for by. */
function responsesTo(world, session, turn) {
  return session.responses
    .filter(({ status }) => status !== "void")
    .map((response) => ({ response, ...world.requests.get(response.metadata?.request) }))
    .filter((each) => each.turn === turn);
}

/** The answer that a turn had, as the server has it. */
function answerOf(world, session, turn) {
  const all = responsesTo(world, session, turn).map(({ response }) => response);
  const responses = all.filter(({ id }) => !world.stopped.has(id));
  if (responses.length === 0) return null;
  return { status: responses.at(-1).status, text: responses.map(({ text }) => text).join("") };
}

/** Each turn was told exactly what the server has said. */
function checkTexts(world) {
  for (const session of world.server.sessions.values()) {
    for (const turn of world.turns.values()) {
      const answer = answerOf(world, session, turn.id);
      if (answer === null) continue;
      assert.equal(turn.ended.text, answer.text);
      assert.equal(turn.ended.status, answer.status);
    }
  }
}

function everySeed(name, ...faults) {
  test(name, () => {
    for (let seed = FIRST; seed < FIRST + SEEDS; seed += 1) {
      try {
        const world = lived(seed, ...faults);
        check(world);
        if (!faults.includes("forget") && !faults.includes("lose") && !faults.includes("stop")) checkTexts(world);
        // What was told is void only where an answer is begun anew: else the rest of it is told.
        if (!faults.includes("attempts") && !faults.includes("lose")) assert.equal(world.restarts, 0);
        const isKept = !faults.some((fault) => ["attempts", "forget", "lose", "reload"].includes(fault));
        if (isKept) {
          assert.deepEqual(world.resets, []);
          const session = world.server.sessions.get(world.core.token);
          // Every frame of the log, each once, in order.
          const seen = world.events.map(({ event_id }) => event_id).filter((id) => !id.includes("-"));
          assert.deepEqual(seen, session.log.map(({ event_id }) => event_id));
        }
        for (const [call, count] of world.handed) {
          assert.ok(count === 1 || faults.includes("reload"), `${call} was run ${count} times`);
        }
      } catch (error) {
        throw new Error(`seed ${seed}: ${error.message}`, { cause: error });
      }
    }
  });
}

everySeed("connections break");
everySeed("connections break, and others speak", "others");
everySeed("connections break, and the server refuses for the moment", "refusals", "others");
everySeed("connections break, and nodes are lost in mid-answer", "attempts");
everySeed("connections break, and the log is forgotten", "forget", "others");
everySeed("connections break, and the log is forgotten by a server that refuses", "forget", "refusals");
everySeed("connections break, and the page is reloaded", "reload");
everySeed("connections break, and the page is reloaded before a server that refuses", "reload", "refusals");
everySeed("connections break, and answers are stopped", "stop", "refusals", "others");
everySeed("connections break, and the server is lost", "lose", "refusals");
everySeed("all at once", "reload", "forget", "attempts", "others", "refusals", "stop", "lose");
