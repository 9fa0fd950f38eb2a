// A plan's answer in sentences, the same that `streamline plan` prints.

import {bytes} from "./numbers.js";

const PUT_IN_BY_DEFAULT = "layer", SCORED_BY_DEFAULT = "cosine";

export function sentences(plan, request) {
  const {parameters, replacements: cost} = plan, whole = value => value.toLocaleString("en");
  const kind = request.replacement?.kind ?? PUT_IN_BY_DEFAULT;
  const rounds = plan.rounds.length > 1 ? ` in ${plan.rounds.length} rounds (${plan.rounds.join(", ")})` : "";
  const put = plan.added_parameters ? `${kind}, ${whole(plan.added_parameters)} parameters` : `nothing (${kind})`;
  const said = [
    `Removes ${plan.removed_count} decoder layers${rounds}: ${chosen(plan, request)}.`,
    `Puts in their place: ${put}.`,
    `${whole(parameters.dense)} → ${whole(parameters.pruned)} parameters: ${(100 * plan.sparsity).toFixed(1)} % smaller.`,
    `Needs about ${bytes(plan.estimated.memory_bytes)} of memory and ${bytes(plan.estimated.disk_bytes)} of disk beside the dense model's own files.`,
  ];
  if (cost.count > 1 && cost.parameters_each > 0) said.splice(2, 0, `${cost.count} replacements give ${(100 * cost.share_given_back).toFixed(1)} % of what goes back.`);
  return said;
}

function chosen(plan, request) {
  const which = plan.removed_layers;
  if (which) return which.length === 1 ? `layer ${which[0]}` : `layers ${which[0]} to ${which.at(-1)}, as the request says`;
  const metric = request.scoring?.metric ?? SCORED_BY_DEFAULT;
  const what = ["perplexity", "task"].includes(metric) ? "whose loss costs the text least" : "that change the hidden state least";
  return `those ${what}; the job scores every window by ${metric} to find them`;
}
