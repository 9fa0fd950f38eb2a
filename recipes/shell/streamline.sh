#!/usr/bin/env bash
# Compress a model from any pipeline that has curl and jq.
#
#   STREAMLINE_URL=https://streamline.example.org STREAMLINE_API_KEY=hf_... ./streamline.sh REQUEST.json [SECONDS]
#
# Exit codes: 0 passed, 1 the job failed or a gate was missed, 2 cancelled, 3 not finished after SECONDS (it goes on),
# 4 not allowed, 64 the request was refused. Leaves streamline-job.json and streamline-report.html in the current
# directory. STREAMLINE_RUN names the pipeline's run: the same run and request attach to the same job.
set -euo pipefail

request=${1:?"usage: $0 REQUEST.json [SECONDS]"}
seconds=${2:-21600}
url=${STREAMLINE_URL:-http://127.0.0.1:8000}
run=${STREAMLINE_RUN:-$(cat /proc/sys/kernel/random/uuid)}
key=$(printf '%s' "$run" | cat - "$request" | sha256sum | cut -c1-40)

# A header file keeps the key out of the process list. A service that restarts is asked again for two minutes.
headers=$(mktemp)
answer=$(mktemp)
trap 'rm -f "$headers" "$answer"' EXIT
[ -z "${STREAMLINE_API_KEY:-}" ] || printf 'Authorization: Bearer %s\n' "$STREAMLINE_API_KEY" > "$headers"
ask() {
    status=$(curl --silent --show-error --retry 24 --retry-delay 5 --retry-all-errors --retry-max-time 120 \
        --header "@$headers" --output "$answer" --write-out '%{http_code}' "$@") || true
}
call() {
    ask "$@"
    case $status in
        2*) ;;
        401 | 403) jq -r '.detail' "$answer" >&2; exit 4 ;;
        000 | "") echo "No service answers at $url." >&2; exit 64 ;;
        *) jq -r '"\(.detail) \(.pointer // "")"' "$answer" >&2 || cat "$answer" >&2; exit 64 ;;
    esac
}

call --header "Content-Type: application/json" --header "Idempotency-Key: $key" --data-binary "@$request" "$url/v1/jobs"
id=$(jq -r .id "$answer")
case $(jq -r .state "$answer") in
    failed | cancelled) # goes on from its last finished stage; 409: a first try whose answer was lost has done it
        ask --request POST "$url/v1/jobs/$id/retry"
        [ "$status" = 409 ] || [[ $status = 2* ]] || jq -r '.detail' "$answer" >&2
        call "$url/v1/jobs/$id"
        ;;
esac
echo "job $id: $url/v1/jobs/$id"

end=$((SECONDS + seconds))
said=
while state=$(jq -r .state "$answer"); do
    now=$(jq -r '"\(.progress * 100 | floor) %  \(if .state == "running" then .stage // .state else .state end)"' "$answer")
    [ "$now" = "$said" ] || echo "$now"
    said=$now
    case $state in succeeded | failed | cancelled) break ;; esac
    if [ "$SECONDS" -ge "$end" ]; then
        echo "Not finished after $seconds s; the job goes on." >&2
        exit 3
    fi
    call "$url/v1/jobs/$id?wait=$((end - SECONDS < 20 ? end - SECONDS : 20))"
done

cp "$answer" streamline-job.json
jq -r '.gates[] | "gate \(.name): \(if .passed then "passed" else "MISSED" end) (value \(.value), limit \(.limit))"' streamline-job.json
case $state in
    cancelled) exit 2 ;;
    failed) jq -r '"\(.error.code) in \(.error.stage): \(.error.detail)"' streamline-job.json >&2; exit 1 ;;
esac
call --header "Accept: text/html" "$url/v1/jobs/$id/report"
cp "$answer" streamline-report.html
jq -r '"checkpoint: \(.result.repo) at \(.result.revision)"' streamline-job.json
[ "$(jq -r .verdict streamline-job.json)" != fail ]
