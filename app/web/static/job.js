// The page of one job: draws what has happened, follows what happens next, and sends what its buttons say.

import {newCourse, rate, take} from "./course.js";
import {caption, drawCurves} from "./curve.js";
import {drawScores} from "./heatmap.js";
import {Log} from "./log.js";
import {count, digits, duration} from "./numbers.js";
import {Problem, ask, post, say} from "./request.js";

const FINAL = ["succeeded", "failed", "cancelled"];
const KINDS = ["state", "stage_started", "stage_finished", "progress", "metric", "scores", "selected", "log", "failed", "finished"];
const LOOK_AGAIN_MS = 2000;

const job = JSON.parse(document.getElementById("live").textContent);
const part = id => document.getElementById(id);
const course = newCourse(job.stages), log = new Log(job.id, part("log"), part("older"));
let drawing = false, looking = false, drawnScores = null, drawnWindows = null, announced = "";

function receive(event) {
  if (!take(course, event)) return;
  // Of what is older the page has only some: the log begins where none is missing.
  if (event.id > job.last - job.tail) log.add(event);
}

function paint() {
  drawing = false;
  paintStages();
  paintFigure("loss-figure", drawCurves(course), () => caption(course));
  if (course.scores !== drawnScores || course.windows !== drawnWindows) {
    [drawnScores, drawnWindows] = [course.scores, course.windows];
    paintFigure("scores-figure", course.scores && drawScores(course.scores, course.windows), () => scoresCaption());
  }
  log.flush();
}

function paintSoon() {
  if (!drawing) requestAnimationFrame(paint);
  drawing = true;
}

function paintFigure(id, drawing, captionOf) {
  const figure = part(id);
  figure.hidden = !drawing;
  if (!drawing) return;
  figure.querySelector(".picture").replaceChildren(drawing);
  figure.querySelector("figcaption").textContent = captionOf();
}

function scoresCaption() {
  const better = course.scores.better === "higher" ? "higher" : "lower";
  const gone = course.windows.length ? " Outlined: what goes." : "";
  const later = /^round (?!1 )/.test(course.scored) ? ` Of ${course.scored}: layers are numbered in what the rounds before left.` : "";
  return `${course.scores.metric} of all windows of layers: brighter is more redundant, the ${better} score.${gone}${later}`;
}

function paintStages() {
  for (const [name, stage] of course.stages) {
    const item = document.querySelector(`[data-stage="${name}"]`);
    item.className = stage.state;
    if (stage.state === "now") item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
    item.querySelector(".detail").textContent = detailOf(name, stage);
  }
  const now = course.stages.get(course.stage)?.state === "now" ? course.stage : "";
  say(part("pace"), now && course.pace ? paceInWords() : "");
  if (now !== announced) {
    announced = now;
    part("announced").textContent = now ? `${now} begins` : course.state;
  }
}

function detailOf(name, stage) {
  if (stage.state === "done") return stage.seconds ? duration(stage.seconds) : "done";
  if (stage.state === "ended") return "stopped";
  if (stage.state !== "now") return "";
  const pace = course.pace;
  return pace ? `${Math.floor(100 * pace.done / Math.max(pace.total, 1))} %` : "…";
}

function paceInWords() {
  const {done, total, unit} = course.pace, each = rate(course.pace), parts = [];
  const number = unit ? value => value.toLocaleString("en") : count;
  parts.push(`${course.stage}${course.part ? ` (${course.part})` : ""}: ${number(done)} of ${number(total)} ${unit ?? "bytes"}`);
  if (each !== null && done < total) {
    parts.push(each >= 1 ? `${digits(each)}/s` : `${digits(60 * each)}/min`, `${duration((total - done) / each)} left`);
  }
  return parts.join(" · ");
}

// The share of the whole is the job's own: asked for after events, every other second at most.
function lookSoon() {
  if (looking) return;
  looking = true;
  setTimeout(async () => {
    looking = false;
    const found = await ask(`/v1/jobs/${job.id}`).catch(() => null);
    if (found) showJob(found);
  }, LOOK_AGAIN_MS);
}

function showJob(found) {
  const percent = 100 * found.progress;
  part("bar").value = percent;
  const state = part("state");
  state.textContent = found.cancel_requested && !FINAL.includes(found.state) ? "being cancelled" : found.state;
  state.className = `badge ${found.state}`;
  part("attempt").textContent = found.attempt;
  document.title = FINAL.includes(found.state) ? document.title : `${percent.toFixed(0)} % · ${part("model").textContent}`;
}

function follow() {
  const source = new EventSource(`/v1/jobs/${job.id}/events?after=${job.last}`);
  for (const kind of KINDS)
    source.addEventListener(kind, message => {
      const data = JSON.parse(message.data);
      receive({id: Number(message.lastEventId), event: kind, data});
      paintSoon();
      lookSoon();
      if (kind === "state" && data.state !== "queued") document.getElementById("waiting")?.remove();
      if (kind === "state" && FINAL.includes(data.state)) {
        source.close();
        setTimeout(() => location.reload(), 500); // the outcome is rendered by the service
      }
    });
  source.onopen = () => say(part("lost"), "");
  source.onerror = () => say(part("lost"), "The connection was lost; it is being made again.");
}

for (const button of document.querySelectorAll("[data-post]"))
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      showJob(await post(`/v1/jobs/${job.id}/${button.dataset.post}`, ""));
      say(part("refused"), "");
      if (button.dataset.post === "retry" || FINAL.includes(job.state)) location.reload();
    } catch (error) {
      say(part("refused"), error instanceof Problem ? error.message : "The service does not answer.");
      button.disabled = false;
    }
  });

for (const event of job.events) receive(event);
if (job.state === "succeeded") for (const stage of course.stages.values()) stage.state = "done";
paint();
if (!FINAL.includes(job.state)) follow();
