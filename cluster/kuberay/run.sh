#!/usr/bin/env bash
# Checks a sweep file on a CPU in the cluster and starts the sweep only if it is good.
#   bash cluster/kuberay/run.sh OVERLAY SWEEP-FILE     # OVERLAY: volume or s3
# Needs the Secrets posetune-ray and posetune-secrets, see README.md. Ends with 2 where the file, its
# store or a server is not as it should be; then no GPU was asked for.
set -euo pipefail

overlay=$(cd "$(dirname "$0")" && pwd)/$1
file=$2
on() { kubectl --namespace posetune "$@"; }
over() { [ -n "$(on get job posetune-check --output "jsonpath={.status.conditions[?(@.type==\"$1\")].type}")" ]; }

kubectl apply --kustomize "$overlay" --selector 'posetune/step notin (check,sweep)'
on create configmap posetune-sweep --from-file=sweep.yaml="$file" --dry-run=client --output=yaml | on apply --filename -
on delete job posetune-check --ignore-not-found
kubectl apply --kustomize "$overlay" --selector posetune/step=check
until over Complete || over Failed; do sleep 2; done
on logs job/posetune-check
over Complete || exit 2
kubectl apply --kustomize "$overlay" --selector posetune/step=sweep
echo "Next: kubectl --namespace posetune logs --follow --selector job-name=posetune-sweep"
