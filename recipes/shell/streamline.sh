#!/usr/bin/env bash
# Compress a model from any pipeline that has curl and jq.
#
#   STREAMLINE_URL=https://streamline.example.org STREAMLINE_API_KEY=hf_... ./streamline.sh REQUEST.json [SECONDS]
#
# Exit codes: 0 passed, 1 the job failed or a gate was missed, 2 cancelled, 3 not finished after SECONDS (it goes on),
# 4 not allowed, 64 the request was refused or no service answers, 130 interrupted (it goes on). Leaves
# streamline-job.json and streamline-report.html in the current directory, in the place of those of an earlier run.
# STREAMLINE_RUN names the pipeline's run: the same run and request attach to the same job.
set -euo pipefail

case ${1:-} in -h | --help) sed '1d; /^[^#]/,$d; s/^# \{0,1\}//' "$0" && exit 0 ;; esac
fail() { echo "$2" >&2; exit "$1"; }
for program in curl jq sha256sum; do command -v $program >/dev/null || fail 64 "$program is needed."; done
request=${1:-}
seconds=${2:-21600}
[ -r "$request" ] || fail 64 "usage: $0 REQUEST.json [SECONDS] (there is no file '$request')"
[ ! -d "$request" ] || fail 64 "'$request' is a directory; name the request in it."
[[ $seconds =~ ^[0-9]+$ ]] || fail 64 "SECONDS is a whole number, not '$seconds'."
url=${STREAMLINE_URL:-http://127.0.0.1:8000}
while [[ $url = */ ]]; do url=${url%/}; done
url=${url%/v1}
run=${STREAMLINE_RUN:-$(cat /proc/sys/kernel/random/uuid)}
key=$(printf '%s' "$run" | cat - "$request" | sha256sum | cut -c1-40)
end=$((SECONDS + seconds))
id=
rm -f streamline-job.json streamline-report.html

# A header file keeps the key out of the process list.
headers=$(mktemp)
answer=$(mktemp)
trap 'rm -f "$headers" "$answer"' EXIT
[ -z "${STREAMLINE_API_KEY:-}" ] || printf 'Authorization: Bearer %s\n' "$STREAMLINE_API_KEY" > "$headers"

# One request; a service that restarts is asked again for two minutes, a connection that hangs is given up.
ask() {
    local left give_up=$((SECONDS + 120)) errors=--show-error
    [ $give_up -lt $end ] || give_up=$end
    while true; do
        : > "$answer"
        status=$(curl --silent $errors --connect-timeout 5 --max-time 90 \
            --header "@$headers" --output "$answer" --write-out '%{http_code}' "$@") ||
            [[ $status != 2* ]] || status=000 # an answer that breaks off is none
        left=$((give_up - SECONDS))
        if [ $left -le 0 ] || ! passing; then return; fi
        [ $errors = --no-show-error ] || echo "$url does not answer or is busy; asking again for $left s." >&2
        errors=--no-show-error
        sleep $((left < 5 ? left : 5))
    done
}
# Whether another try may end otherwise. A database that is behind takes a person: only a job that is there waits for it.
passing() {
    case $status in
        000 | "" | 408 | 429 | 500 | 502 | 503 | 504) [ -n "$id" ] || [ "$(jq -r '.code?' "$answer" 2>/dev/null)" != database_behind ] ;;
        *) false ;;
    esac
}
detail() {
    local said
    said=$(jq -er '[.detail // error, .pointer // empty] | join(" ")' "$answer" 2>/dev/null) || said=$(head -c 300 "$answer")
    echo "${said:-$url answered $status and said nothing more.}"
}
# Ends the script where the answer is no job.
need_job() {
    case $status in
        2*) jq -e .id "$answer" >/dev/null 2>&1 || fail 64 "$url is no Streamline service." ;;
        401) fail 4 "$(detail) $([ -s "$headers" ] && echo Look at || echo Set) STREAMLINE_API_KEY." ;;
        403) fail 4 "$(detail)" ;;
        000 | "") fail 64 "No service answers at $url. Look at STREAMLINE_URL." ;;
        *) fail 64 "$(detail)" ;;
    esac
}

submit() {
    ask --header "Content-Type: application/json" --header "Idempotency-Key: $key" --data-binary "@$request" "$url/v1/jobs"
}
submit
until [ "$status" != 409 ] || [ "$(jq -r .code "$answer")" != idempotency_key_in_flight ] || [ $SECONDS -ge $end ]; do
    sleep 1 # a first try, whose answer was lost, is still at work
    submit
done
need_job
id=$(jq -r .id "$answer")
page=$url/jobs/$id
late() { fail 3 "Not finished after $seconds s; the job goes on: $page"; }
trap 'fail 130 "Stopped waiting; the job goes on: $page"' INT TERM
case $(jq -r .state "$answer") in
    failed | cancelled) # goes on from its last finished stage; 409: a first try whose answer was lost has done it
        ask --request POST "$url/v1/jobs/$id/retry"
        [ "$status" = 409 ] || [[ $status = 2* ]] || detail >&2
        ask "$url/v1/jobs/$id"
        need_job
        ;;
esac
echo "job $id: $page"

said=
while true; do
    state=$(jq -r .state "$answer")
    now=$(jq -r '"\(.progress * 100 | floor) %  \(if .state == "running" then .stage // .state else .state end)"' "$answer")
    [ "$now" = "$said" ] || echo "$now"
    said=$now
    case $state in succeeded | failed | cancelled) break ;; esac
    left=$((end - SECONDS))
    [ $left -gt 0 ] || late
    ask "$url/v1/jobs/$id?wait=$((left < 20 ? left : 20))"
    if [ $SECONDS -ge $end ] && passing; then late; fi
    need_job
done

cp "$answer" streamline-job.json
ask --header "Accept: text/html" "$url/v1/jobs/$id/report"
if [[ $status = 2* ]]; then cp "$answer" streamline-report.html; else echo "The job left no report." >&2; fi
jq -r '.gates[] | "gate \(.name): \(if .passed then "passed" else "MISSED" end) (value \(.value), limit \(.limit))"' streamline-job.json
case $state in
    cancelled) exit 2 ;;
    failed) fail 1 "$(jq -r '.error | "\(.code) in \(.stage): \(.detail)"' streamline-job.json)" ;;
esac
jq -r '"checkpoint: \(.result.repo) at \(.result.revision)"' streamline-job.json
[ "$(jq -r .verdict streamline-job.json)" != fail ]
