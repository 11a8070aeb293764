#!/usr/bin/env bash
# Checks a sweep file on a CPU in the cluster and starts the sweep only if it is good.
#   bash cluster/kuberay/run.sh OVERLAY SWEEP-FILE NAME     # OVERLAY: volume or s3
# NAME is the sweep's name, as of posetune sweep --name; its RayJob is sweep-NAME. The same command
# continues a sweep whose RayJob has ended. Needs the Secrets posetune-ray and posetune-secrets, see
# README.md. Ends with 2 where the sweep is at work already, or where the file, its store or a server
# is not as it should be; then no GPU was asked for.
set -euo pipefail

if [ $# -ne 3 ]; then
  echo "error: give OVERLAY SWEEP-FILE NAME: bash cluster/kuberay/run.sh volume full.yaml full" >&2
  exit 2
fi
file=$2
job=sweep-$3
check=check-$3
on() { kubectl --namespace posetune "$@"; }
over() { [ -n "$(on get job "$check" --output "jsonpath={.status.conditions[?(@.type==\"$1\")].type}")" ]; }
start() { on apply --filename - --selector "$1" <<< "$manifests"; }

manifests=$(bash "$(dirname "$0")/render.sh" "$1" "$3")
state=$(on get rayjob "$job" --ignore-not-found --output 'jsonpath={.metadata.name} {.status.jobDeploymentStatus}')
case $state in
  "") ;;
  *" Complete" | *" Failed" | *" ValidationFailed") on delete rayjob "$job" ;;   # it starts no second time
  *)
    echo "error: RayJob $job is there and has not ended (${state#* }); choose another NAME, or stop it: kubectl --namespace posetune delete rayjob $job" >&2
    exit 2
    ;;
esac

start 'posetune/step notin (check,sweep)'
on create configmap "$job" --from-file=sweep.yaml="$file" --dry-run=client --output=yaml | on apply --filename -
on delete job "$check" --ignore-not-found
start posetune/step=check
until over Complete || over Failed; do sleep 2; done
on logs "job/$check"
over Complete || exit 2
start posetune/step=sweep
echo "Next: kubectl --namespace posetune logs --follow --selector job-name=$job"
