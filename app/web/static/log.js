// The end of a job's log: what is new goes on below, what is older is fetched when it is asked for.

import {ask} from "./request.js";
import {digits, duration} from "./numbers.js";

const MOST_LINES = 2000, A_PAGE = 200, NEAR = 40;

export class Log {
  constructor(jobId, box, older) {
    Object.assign(this, {jobId, box, older, first: Infinity, waiting: []});
    older.addEventListener("click", () => this.fetchOlder());
  }

  // Of events in order; they are shown with the next `flush`, so that a burst costs one change of the page.
  add(event) {
    this.first = Math.min(this.first, event.id);
    const line = lineOf(event);
    if (line) this.waiting.push(line);
  }

  flush() {
    if (this.waiting.length) {
      const follows = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < NEAR;
      this.box.append(...this.waiting.splice(0));
      while (this.box.childElementCount > MOST_LINES) this.box.firstElementChild.remove();
      if (follows) this.box.scrollTop = this.box.scrollHeight;
    }
    this.older.hidden = !(this.first > 1 && Number.isFinite(this.first));
  }

  async fetchOlder() {
    this.older.disabled = true;
    try {
      const after = Math.max(0, this.first - 1 - A_PAGE);
      const {items} = await ask(`/v1/jobs/${this.jobId}/events?after=${after}&limit=${this.first - 1 - after}`);
      const height = this.box.scrollHeight;
      this.box.prepend(...items.map(item => lineOf({...item, time: Date.parse(item.time) / 1000})).filter(Boolean));
      this.box.scrollTop += this.box.scrollHeight - height;
      this.first = after + 1;
    } finally {
      this.older.disabled = false;
      this.flush();
    }
  }
}

const SAYINGS = {
  state: data => [data.state, data.attempt ? `attempt ${data.attempt}` : "", data.reason, data.error?.detail, data.verdict ? `verdict ${data.verdict}` : ""],
  stage_started: data => ["begins", data.round ? `round ${data.round} of ${data.rounds}` : "", data.window ? `window ${data.window} of ${data.windows}` : ""],
  stage_finished: data => [data.skipped ? "was done before" : `done in ${duration(data.seconds ?? 0)}`],
  log: data => [data.message],
  failed: data => [data.code, data.detail],
  metric: data => data.step === undefined ? Object.entries(data).filter(([name]) => !["stage", "time"].includes(name)).map(([name, value]) => `${name} ${digits(value)}`)
    : data.held_out_loss === undefined ? [] : [`step ${data.step}`, `held-out loss ${digits(data.held_out_loss)}`],
};

function lineOf({event, time, data}) {
  const said = SAYINGS[event]?.(data).filter(Boolean) ?? [];
  if (!said.length) return null;
  const line = document.createElement("div"), at = document.createElement("time"), where = document.createElement("b");
  const moment = new Date((data.time ?? time ?? Date.now() / 1000) * 1000);
  at.dateTime = moment.toISOString();
  at.textContent = moment.toLocaleTimeString("en-GB");
  where.textContent = data.stage ?? "job";
  line.className = data.state === "failed" ? "of-failed" : `of-${event}`;
  line.append(at, " ", where, " ", said.join(", "));
  return line;
}
