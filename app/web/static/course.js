// What a job's events come to: the one place that reads them, those of the past and those that follow alike.

const PACE_SAMPLES = 24;

export function newCourse(names) {
  return {
    state: "", attempt: 0, last: 0, stage: null, part: "", pace: null, scores: null, scored: "", windows: [], curves: new Map(),
    stages: new Map(names.map(name => [name, {state: "ahead", seconds: 0, skipped: false}])),
  };
}

export function take(course, {id, event, data}) {
  if (id <= course.last) return false; // a stream that connects again may repeat itself
  course.last = id;
  const handle = HANDLERS[event];
  if (handle) handle(course, data);
  return true;
}

const HANDLERS = {
  state(course, data) {
    course.state = data.state ?? course.state;
    course.attempt = data.attempt ?? course.attempt;
    course.pace = null;
    for (const stage of course.stages.values()) {
      // An attempt tells of all stages anew, also of those that were done before and are skipped.
      if (data.state === "running") Object.assign(stage, {state: "ahead", seconds: 0, skipped: false});
      else if (data.state === "succeeded") stage.state = "done";
      else if (stage.state === "now") stage.state = data.state === "queued" ? "ahead" : "ended";
    }
  },
  stage_started(course, data) {
    course.stage = data.stage;
    course.pace = null;
    course.part = data.round ? `round ${data.round} of ${data.rounds}` : data.window ? `window ${data.window} of ${data.windows}` : "";
    const stage = course.stages.get(data.stage);
    if (!stage) return;
    stage.state = "now";
  },
  stage_finished(course, data) {
    const stage = course.stages.get(data.stage);
    if (stage) Object.assign(stage, {state: "done", seconds: stage.seconds + (data.seconds ?? 0), skipped: Boolean(data.skipped)});
    if (course.stage === data.stage) course.pace = null;
  },
  progress(course, data) {
    const sample = {time: data.time ?? Date.now() / 1000, done: data.done};
    const pace = course.pace;
    if (!pace || pace.unit !== data.unit || data.done < pace.done) course.pace = {...data, samples: [sample]};
    else Object.assign(pace, {done: data.done, total: data.total, samples: [...pace.samples, sample].slice(-PACE_SAMPLES)});
  },
  metric(course, data) {
    if (data.step === undefined || data.stage !== "train") return;
    const phase = data.phase ?? "training", key = `${course.part}|${phase}`;
    if (!course.curves.has(key)) course.curves.set(key, {name: course.part ? `${phase}, ${course.part}` : phase, loss: [], held: [], steps: 0});
    const curve = course.curves.get(key);
    curve.steps = data.steps ?? curve.steps;
    if (data.loss !== undefined) add(curve.loss, data.step, data.loss);
    if (data.held_out_loss !== undefined) add(curve.held, data.step, data.held_out_loss);
  },
  scores(course, data) {
    course.scores = data;
    course.scored = course.part;
    course.windows = [];
  },
  selected(course, data) {
    course.windows = data.windows;
  },
};

// A training that goes on from what was saved tells some steps again: what it tells now counts.
function add(points, step, value) {
  while (points.length && points[points.length - 1][0] >= step) points.pop();
  if (value !== null) points.push([step, value]);
}

export function rate(pace) {
  const first = pace.samples[0], last = pace.samples[pace.samples.length - 1];
  const seconds = last.time - first.time;
  return seconds > 0.2 && last.done > first.done ? (last.done - first.done) / seconds : null;
}
